"""The queries of the chart's dashboards, with every variable at its widest, as a Prometheus takes
them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parents[2] / "charts" / "hdgan" / "files" / "dashboards"
BUILT_IN: Final = {"__rate_interval": "5m", "__range": "6h", "__interval": "1m"}
"""What Grafana has of itself, as for some hours on a screen."""
VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")


class DashboardQuery(NamedTuple):
    """A query of a panel."""

    dashboard: str
    panel: str
    expr: str


def dashboards() -> dict[str, Any]:
    """The documents by the names of their files, as they are committed."""
    return {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(FOLDER.glob("*.json"))
    }


def panels(dashboard: Any) -> Iterator[Any]:
    """Panels with something in them: no rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries() -> list[DashboardQuery]:
    """All queries of all panels."""
    return [
        DashboardQuery(name, panel["title"], substituted(target["expr"]))
        for name, dashboard in dashboards().items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def substituted(expr: str) -> str:
    """The query with `.*` for each variable, and usual values for what Grafana fills in."""
    return VARIABLE.sub(lambda found: BUILT_IN.get(found[1], ".*"), expr)
