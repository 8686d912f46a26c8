"""A run goes on with the release it was begun with, and begins anew once it has ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hdgan.core import cli, local
from hdgan.core.run import load_run, resolve
from hdgan.core.status_file import begun_with
from hdgan.core.store import open_store
from support import fake_services
from support.local_bench import Bench
from support.runs import changed, write_run


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name, value in fake_services.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(local, "run_stage_process", fake_services.run_here)
    return Bench(tmp_path)


def weekly(count: int = 5) -> dict[str, Any]:
    document = changed("spec.generator", "pinned", changed("spec.synthesizer.count", count))
    return changed("spec.dataset", "small", changed("metadata.name", "weekly", document))


def trained_anew(bench: Bench) -> str:
    """Somebody releases another generator; the release's name."""
    document = changed("spec.ganTrainer.kimg", 2, changed("spec.synthesizer.count", 3))
    bench.annotate("train", "val", "test", document=document)
    done = bench.run(document)
    assert done.outcome == "Released"
    return done.message


def told(bench: Bench, document: dict[str, Any]) -> dict[str, str]:
    """What `hdgan status` says of a run: outcome, and state by node."""
    path = str(write_run(bench.folder, document))
    found = json.loads(CliRunner().invoke(cli.app, ["status", path, "--json"]).stdout)
    states = {one["name"]: one["state"] for one in found["nodes"]}
    return {"outcome": found["outcome"], **states}


def test_an_unfinished_run_goes_on_with_the_release_it_was_begun_with(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    first = bench.run()
    bench.plan("dataset", "bad", "ok")
    failed = bench.run(weekly())
    assert failed.outcome == "Failed"
    latest = trained_anew(bench)

    done = bench.run(weekly())
    assert (done.outcome, bench.starts()) == ("Released", ["dataset:ok"])
    assert done.artifact("gan-trainer") == first.artifact("gan-trainer")
    said = bench.output.getvalue()
    assert f"going on with release {first.message}, with which this run was begun" in said
    assert latest != done.message


def test_a_run_that_has_ended_begins_anew_with_the_latest_release(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    first = bench.run()
    assert bench.run(weekly()).outcome == "Released"
    trained_anew(bench)
    # Whoever looks at it sees it as it was done.
    assert told(bench, weekly())["outcome"] == "Released"

    again = bench.run(weekly())
    assert again.artifact("gan-trainer") != first.artifact("gan-trainer")
    assert (again.outcome, bench.starts()) == ("Released", ["dataset:ok"])
    assert "going on with release" not in bench.output.getvalue()
    assert told(bench, weekly())["outcome"] == "Released"


def test_a_gate_that_is_corrected_after_another_release_releases_what_there_is(
    bench: Bench,
) -> None:
    bench.annotate("train", "val", "test")
    bench.run()
    shut = bench.run(changed("spec.gates.minMacroDice", 0.95, weekly()))
    assert shut.outcome == "GateFailed"
    trained_anew(bench)
    opened = bench.run(changed("spec.gates.minMacroDice", 0.5, weekly()))
    assert (opened.outcome, bench.starts()) == ("Released", ["dataset:ok"])
    assert opened.artifact("classifier") == shut.artifact("classifier")


def test_a_run_of_another_name_begins_with_the_latest(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    first = bench.run()
    bench.plan("dataset", "bad", "ok")
    bench.run(weekly())
    trained_anew(bench)
    other = bench.run(changed("metadata.name", "weekly-2", weekly()))
    assert other.artifact("gan-trainer") != first.artifact("gan-trainer")


@pytest.mark.parametrize(
    ("status", "frozen"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"outcome": "Failed", "digest": "../../releases/x"}', None),
        (b'{"outcome": "Failed", "digest": "%s"}' % (b"a" * 64), None),
        (b'{"outcome": "Failed", "digest": "%s"}' % (b"a" * 64), b"{"),
        (b'{"outcome": "Failed", "digest": "%s"}' % (b"a" * 64), b'{"run": 1}'),
        (
            b'{"outcome": "Failed", "digest": "%s"}' % (b"a" * 64),
            b'{"release": "../x"}',
        ),
        (b'{"outcome": "Failed", "digest": "%s"}' % (b"a" * 64), b'{"release": "gone-1"}'),
    ],
)
def test_notes_that_say_nothing_are_as_good_as_none(
    tmp_path: Path, status: bytes, frozen: bytes | None
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    store.put("runs/weekly/status.json", status)
    if frozen is not None:
        store.put(f"runs/weekly/{'a' * 64}.json", frozen)
    run = resolve(load_run(write_run(tmp_path, weekly())))
    assert begun_with(store, run) is None
