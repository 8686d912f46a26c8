"""What the end-to-end test installs is what this repository understands, and small enough."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.helms import Helm, Made, NoHelm, helms
from e2e import images, values
from hdgan.controller.settings import load_settings
from hdgan.controller.submitter import load_schedule
from hdgan.core.run import parse_run
from hdgan.core.store_s3 import S3Connection

PATTERN = images.template("registry.test:dev")
FACTORS = {"m": 1e-3, "": 1.0, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def amount(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * FACTORS[unit]


@pytest.fixture(scope="module")
def made() -> list[Made]:
    try:
        newest = Helm(list(helms().values())[-1])
    except NoHelm as error:
        pytest.skip(str(error))
    document = values.chart(PATTERN, "e2e", "e2e-calm", definition=True)
    newest.template(values.upgraded(document), namespace="e2e")
    return newest.template(document, namespace="e2e")


def one(made: list[Made], kind: str, name: str) -> dict[str, Any]:
    return next(m.document for m in made if (m.kind, m.name) == (kind, name))


def test_the_runs_are_runs() -> None:
    for document in (values.run(), values.disturbed()):
        parse_run(document, "run")
    assert values.disturbed()["spec"]["resources"].pop("pods") == {"dataset": {"parts": 2}}


def test_the_controller_understands_its_settings(made: list[Made], tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(one(made, "ConfigMap", "hdgan-controller")["data"]["settings.yaml"])
    settings = load_settings(file)
    for space in ("e2e", "e2e-calm"):
        store = settings.store(space, None)
        assert store.endpoint == "http://object-server.e2e.svc:9000"
        for place in ("slides/", "skin-64/"):
            assert store.may_read(f"s3://{values.BUCKET}/{place}")
    assert settings.store("e2e", None).uri != settings.store("e2e-calm", None).uri


def test_the_schedule_repeats_the_run_with_one_other_seed(made: list[Made], tmp_path: Path) -> None:
    file = tmp_path / "schedule.yaml"
    file.write_text(one(made, "ConfigMap", "hdgan-again-schedule")["data"]["schedule.yaml"])
    config = load_schedule(file)
    assert config.generator == "pinned"
    assert config.spec["dataset"] == values.run()["metadata"]["name"]
    assert config.spec["synthesizer"]["seed"] == values.SCHEDULED_SEED  # type: ignore[index,call-overload]


def test_everything_at_once_fits_two_cores_and_eight_gigabytes(made: list[Made]) -> None:
    """With a core for what the cluster itself runs."""
    controller = one(made, "Deployment", "hdgan-controller")["spec"]["template"]["spec"]
    server = values.server(PATTERN)[1]["spec"]["template"]["spec"]
    # Three controllers while one is replaced by two; two parts of a dataset beside another stage.
    pods = [controller] * 3 + [server]
    resources = [one["containers"][0]["resources"] for one in pods]
    largest = values.PODS["ganTrainer"]
    cores = sum(amount(one["requests"]["cpu"]) for one in resources)
    memory = sum(amount(one["limits"]["memory"]) for one in resources)
    cores += 2 * max(amount(largest["cpu"]), 2 * amount(values.PODS["dataset"]["cpu"]))
    memory += 2 * max(amount(largest["memory"]), 2 * amount(values.PODS["dataset"]["memory"]))
    assert cores <= 1.0
    assert memory <= 7 * 2**30


def test_the_server_is_what_the_restricted_level_takes() -> None:
    server = values.server(PATTERN)[1]["spec"]["template"]["spec"]
    assert server["securityContext"]["runAsNonRoot"] is True
    assert server["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_fired_job_is_the_one_the_schedule_would_make(made: list[Made]) -> None:
    cron_job = one(made, "CronJob", "hdgan-again")
    cron_job["metadata"]["uid"] = "1"
    job = values.fired(cron_job, "hdgan-again-1")
    assert job["spec"] == cron_job["spec"]["jobTemplate"]["spec"]
    assert job["metadata"]["ownerReferences"][0]["uid"] == "1"


def test_the_secret_is_one_a_store_is_opened_with(tmp_path: Path) -> None:
    for name, value in values.secret()["stringData"].items():
        (tmp_path / name).write_text(value)
    assert set(S3Connection(credentials=tmp_path).secrets().values()) == {"e2e"}


def test_yaml_of_the_run_says_nothing_of_a_bucket_of_its_own() -> None:
    text = yaml.safe_dump(values.run("mine"))
    assert "BUCKET" not in text
    assert text.count("s3://mine/") == 2
