"""The quick start: its run, its values and its page fit together and are what the program takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chart.helms import Helm, Made, NoHelm, helms
from e2e.steps import OUR_DEFINITION
from hdgan.controller.settings import load_settings
from hdgan.controller.submitter import load_schedule
from hdgan.core.run import load_run
from support.structural import Resource

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "k8s" / "quickstart"
PAGE = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made() -> list[Made]:
    try:
        newest = Helm(list(helms().values())[-1])
    except NoHelm as error:
        pytest.skip(str(error))
    values: dict[str, Any] = yaml.safe_load((QUICKSTART / "values.yaml").read_text("utf-8"))
    return newest.template(values, "registry=quickstart.local", "tag=try")


def file_of(made: list[Made], name: str, key: str, folder: Path) -> Path:
    document = next(m.document for m in made if (m.kind, m.name) == ("ConfigMap", name))
    path = folder / key
    path.write_text(document["data"][key])
    return path


def test_the_run_is_one_for_the_program_and_for_the_cluster() -> None:
    load_run(QUICKSTART / "run.yaml")
    definition = yaml.safe_load(OUR_DEFINITION.read_text(encoding="utf-8"))
    resource = Resource(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    document = yaml.safe_load((QUICKSTART / "run.yaml").read_text(encoding="utf-8"))
    assert resource.problems(document) == []


def test_the_store_is_valid_objects() -> None:
    text = (QUICKSTART / "object-store.yaml").read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    assert [one["kind"] for one in documents] == ["Secret", "Service", "Deployment"]
    for one in documents:
        kubernetes_validate.validate(one, "1.31", strict=True)


def test_the_installation_reads_what_the_run_names(made: list[Made], tmp_path: Path) -> None:
    settings = load_settings(file_of(made, "hdgan-controller", "settings.yaml", tmp_path))
    store = settings.store("hdgan", None)
    run = load_run(QUICKSTART / "run.yaml")
    assert store.may_read(run.spec.slides.uri)
    assert run.spec.gan_trainer.init_from is not None
    assert store.may_read(run.spec.gan_trainer.init_from)
    text = (QUICKSTART / "object-store.yaml").read_text(encoding="utf-8")
    secret, service, _ = yaml.safe_load_all(text)
    assert store.secret == secret["metadata"]["name"]
    port = service["spec"]["ports"][0]["port"]
    assert store.endpoint == f"http://{service['metadata']['name']}:{port}"


def test_the_schedule_goes_on_with_the_runs_dataset(made: list[Made], tmp_path: Path) -> None:
    config = load_schedule(file_of(made, "hdgan-weekly-schedule", "schedule.yaml", tmp_path))
    run = yaml.safe_load((QUICKSTART / "run.yaml").read_text(encoding="utf-8"))
    assert config.spec["dataset"] == run["metadata"]["name"]
    for section in ("slides", "tiler", "annotations"):
        ours: dict[str, Any] = config.spec[section]  # type: ignore[assignment]
        assert {name: run["spec"][section][name] for name in ours} == ours


def test_every_file_the_page_names_is_there() -> None:
    named = set(re.findall(r"\b(?:k8s|examples|charts|docs)/[\w./-]*\w", PAGE))
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []
