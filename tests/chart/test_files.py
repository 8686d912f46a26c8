"""Files of the chart: those that are made of others are up to date, and none goes untested."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
import yaml

from chart.files import CHART, CRD, ROOT, contents
from chart.helms import PACKAGES, Helm
from chart.test_controller import one
from chart.values_table import uncommented


@pytest.mark.parametrize("file", contents(), ids=lambda file: file.name)
def test_generated_files_are_up_to_date(file: Path) -> None:
    stale = f"{file.name} is stale: make chart-files"
    assert file.read_text(encoding="utf-8") == contents()[file], stale


def test_every_value_is_explained() -> None:
    assert uncommented((CHART / "values.yaml").read_text(encoding="utf-8")) == []


def test_the_definition_of_runs_is_the_generated_one(helm: Helm) -> None:
    generated = (ROOT / "k8s" / "crd" / CRD).read_text(encoding="utf-8")
    expected = yaml.load(generated, yaml.CSafeLoader)
    document = one(helm.template("minimal"), "crd.yaml")
    metadata = document.pop("metadata")
    assert metadata["name"] == expected.pop("metadata")["name"]
    assert metadata["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert document == expected


def test_the_definition_can_be_left_out(newest: Helm) -> None:
    made = newest.template("minimal", "crds.enabled=false")
    assert "crd.yaml" not in {each.template for each in made}


def test_extra_objects_know_the_release(newest: Helm) -> None:
    extra = [
        each
        for each in newest.template("everything", release="one", namespace="ops")
        if each.template == "extra-objects.yaml"
    ]
    assert [(each.namespace, each.name) for each in extra] == [
        ("ops", "pathology-extra"),
        ("ops", "one-as-text"),
    ]
    assert extra[0].document["data"] == {"store": "s3://bucket/hdgan"}
    assert extra[1].document["data"] == {"on": "yes"}


def test_the_version_of_the_programs_is_that_of_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    for file in [*ROOT.glob("services/*/pyproject.toml"), *ROOT.glob("k8s/*/pyproject.toml")]:
        assert (
            tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"]
            == (chart["appVersion"])
        )


def test_helm_comes_from_packages_that_are_listed() -> None:
    listed = (ROOT / "requirements" / "chart.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in listed if not line.startswith("#")]
    assert names == [package.replace("_", "-") for package in PACKAGES.values()]


def test_each_template_has_a_test() -> None:
    """One that names it, beside those that hold for all of them."""
    named: set[str] = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value)
    templates = {
        file.relative_to(CHART / "templates").as_posix()
        for file in (CHART / "templates").rglob("*")
        if file.is_file() and file.suffix != ".tpl"
    }
    assert templates - named == set()
