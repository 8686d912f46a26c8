"""The kinds of panels the dashboards are made of, each with what it must have: a title, words that
say what it shows, a unit, and a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_looks
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
Panel = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel | heatmap.Panel
Colour = Literal["green", "yellow", "orange", "red", "blue"]


@dataclass(frozen=True)
class Query:
    """A query, and what its series are called: `{{label}}` stands for a label's value."""

    expr: str
    legend: str = ""


def steps(first: Colour, *others: tuple[float, Colour]) -> dashboard.ThresholdsConfig:
    """Colours: the first, and from each value on another."""
    made = [models.Threshold(color=first)]
    made += [models.Threshold(value=value, color=colour) for value, colour in others]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def lines(
    title: str,
    words: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    stacked: bool = False,
    least: float | None = None,
    most: float | None = None,
    limits: dashboard.ThresholdsConfig | None = None,
) -> Panel:
    """Series over time. limits: drawn as lines."""
    panel = timeseries.Panel().title(title).description(words).unit(unit).span(width).height(8)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(looks.LegendDisplayMode.LIST)
        .placement(looks.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI))
    panel.fill_opacity(30 if stacked else 5)
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if limits is not None:
        panel.thresholds(limits)
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED)
        )
    for number, query in enumerate(queries):
        panel.with_target(_target(query, number).range())
    return panel.datasource(SOURCE)


def number(
    title: str,
    words: str,
    unit: str,
    query: Query,
    *,
    width: int = 4,
    limits: dashboard.ThresholdsConfig | None = None,
    decimals: int | None = None,
    names: bool = False,
) -> Panel:
    """What it is now. names: of series, instead of values."""
    panel = stat.Panel().title(title).description(words).unit(unit).span(width).height(4)
    panel.color_mode(looks.BigValueColorMode.VALUE).graph_mode(looks.BigValueGraphMode.NONE)
    panel.text_mode(looks.BigValueTextMode.NAME if names else looks.BigValueTextMode.VALUE)
    panel.thresholds(limits or steps("blue")).no_value("-").reduce_options(_last())
    if decimals is not None:
        panel.decimals(decimals)
    return panel.with_target(_target(query, 0).instant()).datasource(SOURCE)


def bars(
    title: str,
    words: str,
    unit: str,
    query: Query,
    *,
    width: int = 12,
    most: float | None = None,
    limits: dashboard.ThresholdsConfig | None = None,
) -> Panel:
    """A bar for each series, as it is now."""
    panel = bargauge.Panel().title(title).description(words).unit(unit).span(width).height(8)
    panel.orientation(looks.VizOrientation.HORIZONTAL).min(0).reduce_options(_last())
    panel.display_mode(looks.BarGaugeDisplayMode.BASIC).thresholds(limits or steps("blue"))
    if most is not None:
        panel.max(most)
    return panel.with_target(_target(query, 0).instant()).datasource(SOURCE)


@dataclass(frozen=True)
class Column:
    """A column of values in a table."""

    name: str
    expr: str
    unit: str
    limits: dashboard.ThresholdsConfig | None = None


def rows(
    title: str,
    words: str,
    columns: Sequence[Column],
    labels: dict[str, str],
    *,
    width: int = 24,
    hidden: bool = False,
) -> Panel:
    """A row for each combination of labels. labels: what their columns are called; others are left
    out. hidden: the values only say that there is a row."""
    panel = table.Panel().title(title).description(words).unit("short").span(width).height(8)
    for position, column in enumerate(columns):
        query = _target(Query(column.expr), position).instant()
        panel.with_target(query.format(PromQueryFormat.TABLE))
    values = {
        (f"Value #{_letter(position)}" if len(columns) > 1 else "Value"): column
        for position, column in enumerate(columns)
    }
    shown = [*labels, *([] if hidden else values)]
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="filterFieldsByName", options={"include": {"names": shown}}
        )
    )
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "indexByName": {name: index for index, name in enumerate(shown)},
                "renameByName": labels | {name: column.name for name, column in values.items()},
            },
        )
    )
    for column in columns:
        properties = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.limits is not None:
            properties += [
                models.DynamicConfigValue(id_val="thresholds", value=column.limits.build()),
                models.DynamicConfigValue(
                    id_val="custom.cellOptions", value={"type": "color-text"}
                ),
            ]
        panel.override_by_name(column.name, properties)
    return panel.datasource(SOURCE)


def heat(title: str, words: str, unit: str, expr: str, *, width: int = 12) -> Panel:
    """A histogram over time. expr: increases of its buckets, by `le`."""
    panel = heatmap.Panel().title(title).description(words).unit("short").span(width).height(8)
    panel.calculate(False).y_axis(heatmap.YAxisConfig().unit(unit))
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_looks.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .steps(32)
    )
    query = _target(Query(expr, "{{le}}"), 0).range().format(PromQueryFormat.HEATMAP)
    return panel.with_target(query).datasource(SOURCE)


def _target(query: Query, number: int) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).ref_id(_letter(number)).datasource(SOURCE)
    return made.legend_format(query.legend) if query.legend else made


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def _letter(number: int) -> str:
    return chr(ord("A") + number)
