"""A dashboard out of rows of panels: variables, links to the others, numbers of panels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from chart.dashboards.panels import SOURCE, Panel

TAG: Final = "hdgan"


@dataclass(frozen=True)
class Variable:
    """Something to choose from: the values of a label. All of them, to begin with, those of series
    without the label too."""

    name: str
    title: str
    values_of: str
    """As Grafana asks for them: `label_values(series, label)`."""


@dataclass(frozen=True)
class Row:
    """Panels under a title."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    """A dashboard."""

    name: str
    """Of its file, and in its address: hdgan-<name>."""
    title: str
    words: str
    since: str
    """How far back it looks when it is opened."""
    variables: Sequence[Variable]
    rows: Sequence[Row]

    def text(self) -> str:
        """As Grafana reads it."""
        made = (
            dashboard.Dashboard(self.title)
            .uid(f"hdgan-{self.name}")
            .description(self.words)
            .tags([TAG])
            .editable()
            .refresh("1m")
            .time(f"now-{self.since}", "now")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .link(
                dashboard.DashboardLink("hdgan")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .as_dropdown(False)
                .include_vars(True)
                .keep_time(True)
            )
            .with_variable(
                dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
            )
        )
        for variable in self.variables:
            made.with_variable(_chosen(variable))
        for row in self.rows:
            made.with_row(dashboard.Row(row.title))
            for panel in row.panels:
                made.with_panel(panel)
        built = made.build()
        for number, panel_or_row in enumerate(built.panels or [], start=1):
            panel_or_row.id_val = number
        return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _chosen(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.title)
        .datasource(SOURCE)
        .query(variable.values_of)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )
