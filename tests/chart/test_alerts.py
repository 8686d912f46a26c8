"""Alerts: as Helm renders them they fire, and do not, when docs/alerts.md says so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from chart.alert_rules import LOCAL, groups, local_rules, rules
from chart.files import CHART, LOCAL_ALERTS, ROOT
from chart.helms import VALUES, Document, Helm, Refused
from chart.promql import problems
from chart.test_schedules import SPEC
from chart.values_schema import alert_names, thresholds
from chart.values_table import commented
from hdgan.controller import endings
from hdgan.core import cli
from support.promtool import promtool_or_skip

FOLDER = Path(__file__).parent / "alerts"
FILES = sorted(FOLDER.glob("*.yaml"))
RUNBOOK = ROOT / "docs" / "alerts.md"


def tool(*arguments: str | Path) -> str:
    """What promtool says, which has to be content."""
    command = [promtool_or_skip(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_alerts_fire_and_do_not_as_said(newest: Helm, tmp_path: Path, file: Path) -> None:
    made = newest.template("monitoring", namespace="ops")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups(made)), encoding="utf-8")
    shutil.copy(file, tmp_path)
    tool("test", "rules", tmp_path / file.name)


def expected() -> list[tuple[str, bool]]:
    """Alert, and whether it fires, of each test."""
    found = []
    for file in FILES:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            found += [
                (one["alertname"], bool(one.get("exp_alerts")))
                for one in test.get("alert_rule_test", [])
            ]
    return found


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    assert set(expected()) == {(name, fires) for name in alert_names() for fires in (True, False)}


@pytest.mark.parametrize("values", ["monitoring", "everything", LOCAL], ids=["m", "e", "local"])
def test_prometheus_takes_the_rules(newest: Helm, tmp_path: Path, values: str | Document) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(groups(newest.template(values))), encoding="utf-8")
    tool("check", "rules", file)


def test_every_alert_says_how_bad_it_is_and_what_to_do(newest: Helm) -> None:
    made = rules(newest.template("monitoring"))
    assert {rule["alert"] for rule in made} == set(alert_names())
    for rule in made:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["labels"]["team"] == "pathology"
        said = rule["annotations"]
        assert set(said) == {"summary", "description", "runbook_url"}
        assert said["runbook_url"] == (
            f"https://docs.example.org/hdgan/alerts.md#{rule['alert'].lower()}"
        )
        assert len(said["summary"]) < 140
        assert said["description"].count(" ") > 15


def test_every_series_and_label_is_in_the_catalogue(newest: Helm) -> None:
    for rule in rules(newest.template("monitoring")):
        assert problems(rule["expr"]) == [], rule["alert"]


def test_what_is_not_in_the_catalogue_is_found() -> None:
    assert problems("sum by (stage) (rate(hdgan_store_requests_total[5m]))") == [
        "none has a label stage"
    ]
    assert problems('hdgan_run_phase{phase="x", stage=~"y"}') == [
        "hdgan_run_phase has no label stage"
    ]
    assert problems("max(hdgan_run_phases)") == ["there is no series hdgan_run_phases"]
    assert problems("hdgan_training_step_seconds") == [
        "there is no series hdgan_training_step_seconds"
    ]


def test_names_in_descriptions_are_labels_the_alert_has(newest: Helm) -> None:
    for rule in rules(newest.template("monitoring")):
        text = " ".join(rule["annotations"].values())
        for label in set(re.findall(r"\$labels\.(\w+)", text)):
            groupings = re.findall(r"by \(([^)]*)\)", rule["expr"])
            listed = {one.strip() for found in groupings for one in found.split(",")}
            kept = listed | {"pod"} if "by (" not in rule["expr"] else listed
            assert label in kept, f"{rule['alert']}: {label}"


def test_reasons_of_a_preemption_storm_are_real_ones(newest: Helm) -> None:
    (rule,) = [
        one
        for one in rules(newest.template("monitoring"))
        if one["alert"] == "HdganPreemptionStorm"
    ]
    (listed,) = re.findall(r'reason=~"([^"]*)"', rule["expr"])
    fixed = [one for one in vars(endings).values() if isinstance(one, endings.Ending)]
    ends: list[endings.Ending | endings.EndRow] = [*endings.END_ROWS, *fixed]
    free = {one.reason for one in ends if one.budget == "free"}
    # Those the run asked for itself, or that a person did, are none of the nodes'.
    assert set(listed.split("|")) == free - {"Stopped", "Stalled", "JobDeleted"}


@pytest.mark.parametrize("name", thresholds()["properties"])
def test_no_threshold_is_ignored(newest: Helm, name: str) -> None:
    values = yaml.safe_load((VALUES / "monitoring.yaml").read_text(encoding="utf-8"))
    value = 0.77 if name.endswith(("Ratio", "Probability")) else 77
    values["monitoring"]["prometheusRule"]["thresholds"] = {"releaseGraceHours": 12, name: value}
    changed = {
        name
        for name in alert_names()
        if text_of(newest, values, name) != text_of(newest, "monitoring", name)
    }
    (words,) = [words for path, _, words in COMMENTED if path.endswith(f".thresholds.{name}")]
    assert changed == set(re.findall(r"Hdgan\w+(?=[,:])", words))


COMMENTED = list(commented((CHART / "values.yaml").read_text(encoding="utf-8")))


def text_of(helm: Helm, values: str | Document, alert: str) -> str:
    """All rules of an alert."""
    return str([rule for rule in rules(helm.template(values)) if rule["alert"] == alert])


def test_alerts_can_be_left_out(newest: Helm) -> None:
    all_but_one = {rule["alert"] for rule in rules(newest.template("everything"))}
    assert set(alert_names()) - all_but_one == {"HdganTrainingKidRising"}
    with pytest.raises(Refused, match="disabled"):
        newest.template("everything", "monitoring.prometheusRule.disabled={HdganNoSuchAlert}")


GAPS = [
    ("@hourly", 1),
    ("@daily", 24),
    ("@midnight", 24),
    ("@weekly", 7 * 24),
    ("@monthly", 31 * 24),
    ("@yearly", 366 * 24),
    ("*/5 * * * *", 1),
    ("17 * * * ?", 1),
    ("30 2 * * *", 24),
    ("0 */6 * * *", 24),
    ("0 3 * * 0", 7 * 24),
    ("0 3 ? * MON-FRI", 7 * 24),
    ("0 3 1,15 * *", 31 * 24),
    ("0 3 1 */3 *", 366 * 24),
    ("0  3  1  *  *", 31 * 24),
]


@pytest.mark.parametrize(("cron", "hours"), GAPS)
def test_how_old_a_release_may_be_comes_from_the_schedule(
    newest: Helm, cron: str, hours: int
) -> None:
    assert overdue(newest, schedule=cron) == hours + 48


def test_how_old_a_release_may_be_can_be_said(newest: Helm) -> None:
    assert overdue(newest, schedule="0 3 1 */3 *", maxAgeHours=2400) == 2400
    assert overdue(newest, schedule="@daily", maxAgeHours=0) is None
    assert overdue(newest, schedule="@daily", suspend=True) is None


def overdue(helm: Helm, **schedule: Any) -> int | None:
    """After how many hours."""
    values = {**LOCAL, "schedules": {"weekly": {"spec": SPEC, **schedule}}}
    made = [one for one in rules(helm.template(values)) if "weekly" in one["labels"].values()]
    if not made:
        return None
    first, second = made
    assert [first["alert"], second["alert"]] == ["HdganReleaseOverdue", "HdganNeverReleased"]
    (hours,) = re.findall(r"> (\d+) \* 3600", first["expr"])
    assert second["for"] == f"{hours}h"
    return int(hours)


def test_two_releases_look_after_their_own_runs(newest: Helm) -> None:
    made = newest.template({**LOCAL, "watchNamespaces": [{"name": "a"}, {"name": "b-c"}]})
    text = str(groups(made))
    assert 'run_namespace=~"|a|b-c"' in text
    assert 'namespace=~"|hdgan|a|b-c"' in text


def test_the_runbook_is_found_without_an_address(newest: Helm) -> None:
    """By its path in the repository: Chart.yaml names no home."""
    for rule in rules(newest.template(LOCAL)):
        assert rule["annotations"]["runbook_url"].startswith("docs/alerts.md#")


def test_every_alert_has_a_section_in_the_runbook_and_none_is_left_over() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    sections = re.findall(r"^### (Hdgan\w+)$", text, re.MULTILINE)
    assert sorted(sections) == alert_names()
    for section in text.split("\n### ")[1:]:
        name, _, body = section.partition("\n")
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in body, f"{name}: {part}"


def test_the_file_for_local_runs_is_up_to_date(newest: Helm) -> None:
    assert LOCAL_ALERTS.read_text(encoding="utf-8") == local_rules(newest), "make chart-files"


def test_the_file_for_local_runs_looks_for_no_cluster(newest: Helm) -> None:
    names = {rule["alert"] for rule in rules(newest.template(LOCAL))}
    assert {"HdganRunFailed", "HdganGateFailed", "HdganStageStalled", "HdganStoreErrors"} <= names
    assert not [name for name in names if "Controller" in name]


def test_what_the_runbook_says_to_type_exists() -> None:
    app = typer.Typer()
    app.registered_commands += cli.app.registered_commands
    app.registered_groups += cli.app.registered_groups
    cli.load_commands(app)
    command = typer.main.get_command(app)
    text = RUNBOOK.read_text(encoding="utf-8")
    typed = re.findall(r"^    hdgan (.+)$", text, re.MULTILINE)
    typed += re.findall(r"`hdgan ([^`]+)`", text)
    assert len(typed) > 8
    for line in typed:
        name, *words = line.split()
        found = getattr(command, "commands", {})[name]
        found = getattr(found, "commands", {}).get(words[0] if words else "", found)
        options = {option for one in found.params for option in one.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_prometheus_takes_the_configuration_in_the_runbook(tmp_path: Path) -> None:
    (block,) = re.findall(
        r"```yaml\n# prometheus.yml\n(.*?)```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL
    )
    (tmp_path / "prometheus.yml").write_text(block, encoding="utf-8")
    shutil.copy(LOCAL_ALERTS, tmp_path)
    tool("check", "config", tmp_path / "prometheus.yml")
