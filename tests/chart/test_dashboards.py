"""Dashboards: whole, of series that exist, and taken by Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.dashboards.boards import BOARDS
from chart.helms import Helm
from chart.promql import problems, selectors
from chart.synthetic_series import synthetic
from chart.test_alerts import tool
from hdgan.core.telemetry.catalogue import ALL, BY_SERIES
from support.dashboard_queries import BUILT_IN, VARIABLE, dashboards, panels, queries

NAMES = sorted(board.name for board in BOARDS)
boards = pytest.mark.parametrize("name", NAMES)


def targets(name: str) -> list[Any]:
    return [one for panel in panels(dashboards()[name]) for one in panel["targets"]]


@boards
def test_every_panel_says_what_it_shows(name: str) -> None:
    titles = []
    for panel in panels(dashboards()[name]):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"] not in titles, "two panels of a title in a row are one to readers"
        titles.append((panel["title"], panel["type"]))
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len(titles) == len(set(titles))


@boards
def test_panels_are_apart_and_on_the_page(name: str) -> None:
    ids: list[int] = []
    cells: set[tuple[int, int]] = set()
    for panel in dashboards()[name]["panels"]:
        ids.append(panel["id"])
        place = panel["gridPos"]
        x, y = place.get("x", 0), place.get("y", 0)
        assert x + place["w"] <= 24, panel["title"]
        own = {
            (column, row) for column in range(x, x + place["w"]) for row in range(y, y + place["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own
    assert len(ids) == len(set(ids))


@boards
def test_series_and_labels_are_in_the_catalogue(name: str) -> None:
    for target in targets(name):
        found = problems(target["expr"], target.get("legendFormat", ""))
        assert found == [], target["expr"]


@boards
def test_variables_that_are_used_are_there_and_the_other_way_round(name: str) -> None:
    dashboard = dashboards()[name]
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    text = json.dumps({**dashboard, "templating": {}}) + json.dumps(
        [one.get("query") for one in variables.values()]
    )
    used = set(VARIABLE.findall(text)) - set(BUILT_IN)
    assert used == set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            assert variable["allValue"] == ".*"  # also what has no such label
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
            assert asked is not None
            assert problems(f"max by ({asked[2]}) ({asked[1]})") == []


def test_columns_of_tables_are_labels_of_their_queries() -> None:
    for name in NAMES:
        for panel in panels(dashboards()[name]):
            if panel["type"] == "table":
                (filtered,) = [
                    one["options"]["include"]["names"]
                    for one in panel["transformations"]
                    if one["id"] == "filterFieldsByName"
                ]
                labels = [one for one in filtered if not one.startswith("Value")]
                grouped = " ".join(
                    found
                    for target in panel["targets"]
                    for found in re.findall(r"by \(([^)]*)\)", target["expr"])
                )
                missing = [one for one in labels if one not in re.findall(r"\w+", grouped)]
                assert missing == [], panel["title"]


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {
        BY_SERIES[series].name
        for query in queries()
        for series, _ in selectors(query.expr)
        if series in BY_SERIES
    }
    assert {metric.name for metric in ALL} - shown == set()


def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    made = [
        {"record": f"query_{number}", "expr": query.expr} for number, query in enumerate(queries())
    ]
    assert len(made) > 60
    assert not [one for one in made if "$" in one["expr"]]
    file = tmp_path / "queries.yaml"
    file.write_text(
        yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}), encoding="utf-8"
    )
    tool("check", "rules", file)


def test_every_query_finds_something_among_all_series(tmp_path: Path) -> None:
    """Of two targets, because a label that is forgotten shows as two series for one."""
    found = [
        {
            "expr": f"clamp_max(count({query.expr}), 1)",
            "eval_time": "70m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for query in queries()
    ]
    test = {"interval": "1m", "input_series": list(synthetic(80)), "promql_expr_test": found}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}), encoding="utf-8")
    tool("test", "rules", file)


def test_the_chart_ships_them_as_they_are(helm: Helm) -> None:
    made = [
        one.document
        for one in helm.template("monitoring")
        if one.template == "monitoring/dashboards.yaml"
    ]
    shipped = {}
    for document in made:
        assert document["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert document["metadata"]["annotations"] == {"grafana_folder": "Pathology"}
        assert len(json.dumps(document)) < 1024 * 1024
        ((file, text),) = document["data"].items()
        shipped[file] = json.loads(text)
    assert shipped == {f"hdgan-{name}.json": one for name, one in dashboards().items()}


def test_labels_and_annotations_are_as_asked_for(newest: Helm) -> None:
    made = newest.template("everything")
    found = [one.document for one in made if one.template == "monitoring/dashboards.yaml"]
    assert len(found) == len(NAMES)
    for document in found:
        assert document["metadata"]["labels"]["dashboards"] == "here"
        assert document["metadata"]["annotations"] == {"grafana_folder": "Pathology"}
