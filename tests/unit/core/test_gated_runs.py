"""Gates in whole runs: when each is decided, what a run that failed has left, and that correcting a
limit releases what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hdgan.core import cli, local
from hdgan.core.releases import Release, latest, releases, roll_back
from hdgan.core.store import Store, open_store
from support import fake_services
from support.local_bench import Bench
from support.runs import DOCUMENT, changed, write_run

EVERY = {
    "minMacroDice": 0.9,
    "minIou": 0.6,
    "minClassIou": {"dermis": 0.7},
    "maxKid": 0.02,
    "maxMemorisation": 0.01,
    "minPairs": 4,
    "maxDropVsLatest": 0.005,
}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name, value in fake_services.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(local, "run_stage_process", fake_services.run_here)
    return Bench(tmp_path)


def gated(**gates: Any) -> dict[str, Any]:
    return changed("spec.gates", gates)


def store_of(bench: Bench) -> Store:
    return open_store(bench.store_uri)


def released(bench: Bench) -> Release:
    found = latest(store_of(bench), "small")
    assert found is not None
    return found


def passed(gates: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["name"]: one["passed"] for one in gates}


def test_a_run_that_passes_every_gate_is_released_with_what_was_measured(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    done = bench.run(gated(**EVERY))
    assert done.outcome == "Released"
    names = [
        "minMacroDice", "minIou.glass", "minClassIou.dermis", "minIou.epidermis", "maxKid",
        "maxMemorisation", "minPairs", "maxDropVsLatest",
    ]  # fmt: skip
    assert passed(bench.status()["gates"]) == dict.fromkeys(names, True)
    measured = {one.name: (one.measured, one.limit) for one in released(bench).gates}
    assert measured == {
        "minMacroDice": (0.9, 0.9),
        "minIou.glass": (0.8, 0.6),
        "minClassIou.dermis": (0.7, 0.7),
        "minIou.epidermis": (0.6, 0.6),
        "maxKid": (0.02, 0.02),
        "maxMemorisation": (0.01, 0.01),
        "minPairs": (4, 4),
        "maxDropVsLatest": (None, 0.005),
    }
    listed = CliRunner().invoke(
        cli.app, ["releases", "list", "small", "--store", bench.store_uri, "--json"]
    )
    (one,) = json.loads(listed.stdout)["releases"]
    assert [gate["name"] for gate in one["gates"]] == names


def test_a_generator_that_fails_is_known_before_anybody_labels_anything(bench: Bench) -> None:
    failed = bench.run(gated(maxKid=0.01, maxMemorisation=0.001, minMacroDice=0.5))
    assert (failed.outcome, failed.exit_code) == ("GateFailed", 4)
    assert bench.starts() == ["tiler:ok", "gan-trainer:ok"]
    for words in ("0.0200 (standard error 0.001) against held-out", "gates.maxMemorisation 0.001"):
        assert words in failed.message
    assert passed(bench.status()["gates"]) == {
        "minMacroDice": None,
        "maxKid": False,
        "maxMemorisation": False,
    }

    # With another limit it goes on where it is.
    again = bench.run(gated(maxKid=0.05))
    assert again.outcome == "AwaitingAnnotation"
    assert bench.starts() == ["candidates:ok", "ranking:ok"]


def test_no_dataset_is_made_for_a_classifier_that_fails_and_all_reasons_are_named(
    bench: Bench,
) -> None:
    bench.annotate("train", "val", "test")
    failed = bench.run(gated(minMacroDice=0.95, minIou=0.65, maxKid=0.01))
    # The generator's gate alone keeps what comes later from being begun.
    assert bench.starts() == []
    assert "maxKid" in failed.message
    failed = bench.run(gated(minMacroDice=0.95, minIou=0.65, minPairs=4))
    assert (failed.outcome, bench.starts()) == (
        "GateFailed", ["extractor:ok", "classifier:ok", "reranking:ok"],
    )  # fmt: skip
    for words in ("below gates.minMacroDice 0.95", "IoU 0.6000 of epidermis"):
        assert words in failed.message
    assert "glass" not in failed.message
    assert passed(bench.status()["gates"]) == {
        "minMacroDice": False,
        "minIou.glass": True,
        "minIou.dermis": True,
        "minIou.epidermis": False,
        "minPairs": None,
    }
    result = CliRunner().invoke(
        cli.app, ["status", str(write_run(bench.folder, gated(minIou=0.65)))]
    )
    assert "small: GateFailed" in result.stdout
    assert "gate minIou.epidermis failed: IoU 0.6000 of epidermis" in result.stdout
    assert "gate minIou.glass passed" in result.stdout
    file = str(write_run(bench.folder, gated(minIou=0.65)))
    typed = CliRunner().invoke(cli.app, ["run", file, "--store", bench.store_uri])
    assert typed.exit_code == 4
    assert "correct spec.gates, then run the same command again" in typed.stderr


def test_a_limit_that_is_corrected_releases_the_dataset_that_is_there(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    # The fake dataset has as many pairs as asked for; a real one may be cut short.
    short = changed("spec.synthesizer.count", 3)
    made = bench.run(short)
    assert made.outcome == "Released"
    again = bench.run(changed("spec.gates.minMacroDice", 0.95, short))
    assert (again.outcome, bench.starts()) == ("GateFailed", [])
    assert again.artifact("dataset") == made.artifact("dataset")
    corrected = bench.run(changed("spec.gates.minMacroDice", 0.85, short))
    assert (corrected.outcome, corrected.message, bench.starts()) == (
        "Released", made.message, [],
    )  # fmt: skip


def test_too_few_pairs_keep_the_dataset_from_being_released_and_keep_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.annotate("train", "val", "test")
    monkeypatch.setenv(fake_services.PAIRS_VARIABLE, "3")
    failed = bench.run(gated(minPairs=4))
    assert (failed.outcome, failed.exit_code) == ("GateFailed", 4)
    assert bench.starts()[-1] == "dataset:ok"
    assert "3 pairs, fewer than gates.minPairs 4" in failed.message
    assert latest(store_of(bench), "small") is None
    assert failed.artifact("dataset") is not None

    done = bench.run(gated(minPairs=3))
    assert (done.outcome, bench.starts()) == ("Released", [])
    assert done.artifact("dataset") == failed.artifact("dataset")
    assert [(one.name, one.measured) for one in released(bench).gates] == [("minPairs", 3)]


def test_a_drop_below_the_latest_release_is_not_released_and_a_rollback_changes_what_that_is(
    bench: Bench,
) -> None:
    def run_of(epochs: int, **gates: Any) -> dict[str, Any]:
        document = changed("spec.classifier.epochs", epochs, gated(**gates))
        document = changed("spec.dataset", "small", document)
        # Fake datasets differ by their size alone.
        document = changed("spec.synthesizer.count", epochs, document)
        return changed("metadata.name", f"epochs-{epochs}", document)

    bench.annotate("train", "val", "test")
    first = bench.run(run_of(5, maxDropVsLatest=0.004))  # 0.895; the first of all
    assert first.outcome == "Released"
    second = bench.run(run_of(10, maxDropVsLatest=0.004))  # 0.900
    assert second.outcome == "Released"

    worse = bench.run(run_of(5, maxDropVsLatest=0.004))
    # It was compared when it became the latest; what came later does not make it worse.
    assert (worse.outcome, worse.message) == ("Released", first.message)

    dropped = bench.run(run_of(4, maxDropVsLatest=0.004))  # 0.894
    assert dropped.outcome == "GateFailed"
    assert "dataset:ok" not in bench.starts()
    for words in ("0.8940 is 0.0060 below", f"release {second.message} (0.9000, on the same"):
        assert words in dropped.message
    assert released(bench).name == second.message

    roll_back(store_of(bench), "small")
    now = bench.run(run_of(4, maxDropVsLatest=0.004))
    assert (now.outcome, bench.starts()) == ("Released", ["dataset:ok"])


def test_a_latest_release_that_cannot_be_read_is_nothing_to_compare_with(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    first = bench.run()
    store_of(bench).put(f"datasets/small/releases/{first.message}.json", b"{}")
    failed = bench.run(changed("spec.synthesizer.count", 3, gated(maxDropVsLatest=1)))
    assert failed.outcome == "GateFailed"
    assert f"release {first.message} has no macro Dice to compare" in failed.message


def test_gates_of_other_runs_do_not_keep_a_release_from_being_promoted(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    first = bench.run()
    bench.run(changed("spec.synthesizer.count", 3))
    bench.run(gated(minMacroDice=0.99))
    store = store_of(bench)
    arguments = ["small", first.message, "--store", bench.store_uri]
    assert CliRunner().invoke(cli.app, ["releases", "promote", *arguments]).exit_code == 0
    assert latest(store, "small") == next(
        one for one in releases(store, "small") if one.name == first.message
    )


def test_a_pinned_generator_is_judged_by_what_its_release_measured(bench: Bench) -> None:
    unmeasured = changed("spec.ganTrainer.featureExtractor", "none")
    bench.run(unmeasured)
    bench.annotate("train", "val", "test")
    bench.run(unmeasured)

    def pinned(**gates: Any) -> dict[str, Any]:
        document = changed("spec.generator", "pinned", gated(**gates))
        return changed("spec.dataset", "small", changed("metadata.name", "weekly", document))

    # It was trained without measuring, whatever the weekly run would measure by.
    failed = bench.run(pinned(maxKid=1000))
    assert failed.outcome == "GateFailed"
    assert "has no KID (nothing was measured when it was trained" in failed.message
    (bench.folder / "slides/two.svs").write_bytes(b"another one")
    failed = bench.run(pinned(maxKid=1000))
    # What came in is tiled and compared all the same.
    assert (failed.outcome, bench.starts()) == ("GateFailed", ["tiler:ok", "drift:ok"])
    assert bench.run(pinned()).outcome == "Unchanged"


def test_drift_is_no_gate(bench: Bench) -> None:
    """KID gates are about held-out tiles of the training, not about new ones."""
    bench.annotate("train", "val", "test")
    bench.run(DOCUMENT)
    (bench.folder / "slides/two.svs").write_bytes(b"another one")
    document = changed("spec.generator", "pinned", gated(maxKid=0.02))
    done = bench.run(changed("spec.dataset", "small", changed("metadata.name", "weekly", document)))
    assert done.observed.drift_kid == 0.1
    assert done.outcome == "Unchanged"
