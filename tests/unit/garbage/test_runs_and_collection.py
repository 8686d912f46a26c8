"""Runs of the local runner, by fake services in real processes, and what gc leaves of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from hdgan.core.garbage.collecting import Policy, Report, collect
from hdgan.core.garbage.roots import Keeping
from support import fake_services
from support.local_bench import Bench
from support.runs import changed
from unit.garbage.test_collecting import Aging

DAY = 24.0
POLICY = Policy(Keeping(timedelta(days=30), timedelta(days=365)), timedelta(days=1))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name, value in fake_services.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    return Bench(tmp_path)


def collected_after(aging: Aging, days: float) -> Report:
    aging.sleep(days * DAY)
    for _ in range(4):
        report = collect(aging.store, POLICY, delete=True)
        aging.sleep(25)
    return report


def stages(aging: Aging) -> list[str]:
    """Stages of the artifacts that are there."""
    return sorted(
        name.split("/")[1] for name in aging.store.list("") if name.endswith("/manifest.json")
    )


def test_what_a_run_has_made_is_kept_while_it_may_go_on(bench: Bench) -> None:
    assert bench.run().exit_code == 3
    aging = Aging(bench.folder / "store")
    report = collected_after(aging, 20)
    assert (report.garbage, report.unknown) == ([], [])
    # It waits for a person, who may take long: candidates, how they are ranked, and their
    # generator are for him. Its tiles have gone, but for those whose folds the dataset keeps.
    report = collected_after(aging, 100)
    assert stages(aging) == ["candidates", "gan-trainer", "ranking", "tiler"]
    bench.annotate("train", "val", "test")
    bench.starts()
    done = bench.run()
    assert done.outcome == "Released"
    assert bench.starts() == ["extractor:ok", "classifier:ok", "reranking:ok", "dataset:ok"]


def test_of_a_released_run_all_is_kept_and_of_others_nothing(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    assert bench.run().outcome == "Released"
    aging = Aging(bench.folder / "store")
    released = stages(aging)
    other = changed("metadata.name", "other", changed("spec.classifier.epochs", 3))
    assert bench.run(changed("spec.gates.minMacroDice", 0.95, other)).outcome == "GateFailed"
    assert stages(aging) == sorted([*released, "classifier", "reranking"])
    report = collected_after(aging, 400)
    assert (report.garbage, report.unknown) == ([], [])
    # What to label, and what to label next, is in no release: whoever runs the run again is told.
    assert stages(aging) == [one for one in released if one not in ("ranking", "reranking")]
    bench.starts()
    assert bench.run().outcome == "Released"
    assert bench.starts() == ["reranking:ok"]


def test_folds_are_noted_though_the_runner_ended_right_after_the_tiler(bench: Bench) -> None:
    bench.run()
    (note,) = (bench.folder / "store" / "datasets").glob("*/folds/*")
    content = note.read_bytes()
    note.unlink()
    bench.run()
    assert note.read_bytes() == content
