"""The `hdgan` command as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

import hdgan.core
from hdgan.core import cli
from hdgan.core.annotations import publish
from hdgan.core.artifact import Attempt, open_artifact
from hdgan.core.outcome import outcome_of
from hdgan.core.pipeline import NodeStatus
from hdgan.core.releases import Published
from hdgan.core.sections import ClassConfig
from hdgan.core.store import open_store
from support import fake_services
from support.runs import CLASSES, DOCUMENT, changed, write_run
from support.tiny_dataset import write_dataset


def hdgan_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("HDGAN_")}
    return subprocess.run(
        [sys.executable, "-m", "hdgan.core.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=inherited,
        timeout=120,
        check=False,
    )


def test_a_run_from_slides_to_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in fake_services.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    file = write_run(tmp_path)

    waiting = hdgan_command("run", file)
    assert waiting.returncode == 3, waiting.stderr
    assert f"hdgan annotations import {file} DIR" in waiting.stdout
    assert "hdgan: commands of" not in waiting.stderr

    status = json.loads(hdgan_command("status", file, "--json").stdout)
    assert status["outcome"] == "AwaitingAnnotation"
    key = next(node["key"] for node in status["nodes"] if node["name"] == "candidates")
    store = open_store((tmp_path / "store").as_uri())
    candidates = open_artifact(store, "candidates", key)
    assert candidates is not None
    attempt = Attempt(store, "annotations", "a" * 64)
    images = [{"split": split} for split in ("train", "val", "test")]
    document = {"classes": CLASSES, "images": images}
    attempt.add_bytes("annotations.json", json.dumps(document).encode())
    publish(store, candidates.content_digest, attempt.commit({}))
    # Right although status.json still says that it waits.
    assert "classifier   waiting" in hdgan_command("status", file).stdout

    done = hdgan_command("run", file, "--dataset", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "tiler: reused" in done.stdout
    assert "4 files written" in done.stdout
    again = hdgan_command("run", file, "--dataset", tmp_path / "data")
    assert "0 files written, 4 were there already" in again.stdout
    checked = hdgan_command("dataset", "check", tmp_path / "data", "--min-pairs", "4")
    assert (checked.returncode, "4 pairs in 2 shards" in checked.stdout) == (0, True)
    assert "small: Released" in hdgan_command("status", file).stdout


def test_errors_are_one_message_and_the_exit_code_of_the_contract(tmp_path: Path) -> None:
    file = write_run(tmp_path, changed("spec.tiler.tileSiez", 64))
    failed = hdgan_command("run", file)
    assert failed.returncode == 64
    assert "tileSiez" in failed.stderr
    assert "tileSize" in failed.stderr
    assert "Traceback" not in failed.stderr

    unwritable = hdgan_command("run", write_run(tmp_path), "--store", "/proc/store")
    assert (unwritable.returncode, "/proc/store" in unwritable.stderr) == (64, True)
    (tmp_path / "slides/one.svs").unlink()
    nothing = hdgan_command("run", file.with_name("run.yaml"))
    assert (nothing.returncode, "no slide in" in nothing.stderr) == (64, True)


def test_a_bad_dataset_exits_65(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", [ClassConfig(**item) for item in CLASSES])
    (tmp_path / "data/shard-00001.tar").unlink()
    failed = hdgan_command("dataset", "check", tmp_path / "data")
    assert (failed.returncode, "shard-00001.tar" in failed.stderr) == (65, True)


def test_nothing_heavy_is_imported_for_a_run() -> None:
    code = (
        "import sys, hdgan.core.cli, hdgan.core.local, hdgan.core.progress_view;"
        "heavy = {'torch', 'numpy', 'pyarrow', 'boto3', 'rich', 'PIL', 'prometheus_client'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_schema_is_json() -> None:
    document = json.loads(CliRunner().invoke(cli.app, ["schema"]).stdout)
    assert "spec" in document["properties"]


def test_store_and_scratch_lie_beside_the_run_file_unless_named(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    assert cli.store_for(file, None) == (tmp_path / "store").as_uri()
    assert cli.store_for(file, "s3://bucket/x") == "s3://bucket/x"
    assert cli.store_for(file, str(tmp_path / "my store")) == (tmp_path / "my store").as_uri()
    assert cli.scratch_for(file, None) == tmp_path / "scratch"


@pytest.mark.parametrize(
    ("states", "published", "said", "outcome"),
    [
        ({"dataset": "done"}, Published("Released", "r"), "Failed", "Released"),
        ({"dataset": "done"}, Published("Unchanged", "r"), "Released", "Unchanged"),
        ({"dataset": "done"}, None, "Running", "Running"),  # between dataset and release
        ({"annotations": "awaiting"}, None, "Interrupted", "AwaitingAnnotation"),
        ({"gate": "failed"}, Published("Released", "r"), "Released", "GateFailed"),
        ({}, None, "Failed", "Failed"),
        ({}, None, "Released", "NotStarted"),  # the store was emptied since
        ({}, None, None, "NotStarted"),
    ],
)
def test_the_outcome_comes_from_what_exists(
    states: dict[str, str], published: Published | None, said: str | None, outcome: str
) -> None:
    names = ("annotations", "gate", "dataset")
    statuses = [NodeStatus(name, states.get(name, "waiting")) for name in names]  # type: ignore[arg-type]
    assert outcome_of(statuses, published, {"outcome": said}) == outcome


def test_a_broken_room_does_not_take_the_command_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ImportError("no module named x")

    def register(app: typer.Typer) -> None:
        app.command("extra")(lambda: None)

    points = [
        SimpleNamespace(name="a", value="a.b:register", load=broken),
        SimpleNamespace(name="b", value="b.c:register", load=lambda: register),
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: points)
    target = typer.Typer()
    cli.load_commands(target)
    assert [command.name for command in target.registered_commands] == ["extra"]
    assert "a.b:register are not available" in capsys.readouterr().err


def test_the_public_face_is_complete() -> None:
    for name in hdgan.core.__all__:
        assert getattr(hdgan.core, name).__module__.startswith("hdgan.core."), name
    assert DOCUMENT["kind"] in hdgan.core.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hdgan.core.nothing  # noqa: B018
