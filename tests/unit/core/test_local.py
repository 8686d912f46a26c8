"""The runner with real processes of fake services: order, reuse, resuming, failing, stopping."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hdgan.core.artifact import open_artifact
from hdgan.core.errors import NoSpace, RequestError
from hdgan.core.local import failure_message
from hdgan.core.process import Ended
from hdgan.core.progress_view import BarView, describe_progress, format_seconds
from hdgan.core.store import open_store
from support import fake_services
from support.local_bench import Bench
from support.runs import DOCUMENT, changed, write_run

BEFORE_ANNOTATIONS = ["tiler:ok", "gan-trainer:ok", "candidates:ok", "ranking:ok"]
AFTER_ANNOTATIONS = ["extractor:ok", "classifier:ok", "reranking:ok", "dataset:ok"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name, value in fake_services.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    return Bench(tmp_path)


def test_a_run_waits_for_annotations_goes_on_and_is_reused(bench: Bench) -> None:
    waiting = bench.run()
    assert (waiting.outcome, waiting.exit_code) == ("AwaitingAnnotation", 3)
    assert bench.starts() == BEFORE_ANNOTATIONS
    assert bench.status()["outcome"] == "AwaitingAnnotation"

    bench.annotate("train", "val")
    incomplete = bench.run()
    assert incomplete.exit_code == 3
    assert "0 of 1 for test" in incomplete.message

    bench.annotate("train", "val", "test")
    done = bench.run()
    assert (done.outcome, done.exit_code) == ("Released", 0)
    assert bench.starts() == AFTER_ANNOTATIONS

    again = bench.run()
    assert (again.exit_code, bench.starts()) == (0, [])
    assert [node["state"] for node in bench.status()["nodes"]].count("done") == 9

    # Only what a change touches is made again; without scratch nothing else is either.
    shutil.rmtree(bench.folder / "scratch")
    bench.run(changed("spec.synthesizer.count", 6))
    assert bench.starts() == ["dataset:ok"]

    # The classifier needs features, and they have gone with scratch.
    bench.run(changed("spec.classifier.epochs", 3))
    assert bench.starts()[:2] == ["extractor:ok", "classifier:ok"]

    gated = bench.run(changed("spec.gates.minMacroDice", 0.95))
    assert (gated.outcome, gated.exit_code, bench.starts()) == ("GateFailed", 4, [])
    assert "0.9000" in gated.message


def test_a_pinned_generator_makes_new_datasets_without_training(bench: Bench) -> None:
    def pinned(document: dict[str, Any], name: str) -> dict[str, Any]:
        document = changed("spec.dataset", "small", changed("spec.generator", "pinned", document))
        return changed("metadata.name", name, document)

    bench.annotate("train", "val", "test")
    first = bench.run()
    assert (first.outcome, bench.starts()) == ("Released", AFTER_ANNOTATIONS)

    # Nothing is new, and the seed is fixed.
    same = bench.run(pinned(DOCUMENT, "week-1"))
    assert (same.outcome, same.message, bench.starts()) == ("Unchanged", first.message, [])

    # New slides are tiled and train nothing; so does another configuration of the trainer.
    (bench.folder / "slides/two.svs").write_bytes(b"another one")
    again = bench.run(pinned(changed("spec.ganTrainer.kimg", 2), "week-2"))
    assert (again.outcome, bench.starts()) == ("Unchanged", ["tiler:ok", "drift:ok"])
    assert again.observed.drift_kid == 0.1

    seeded = bench.run(pinned(changed("spec.synthesizer.count", 6), "week-3"))
    assert (seeded.outcome, bench.starts()) == ("Released", ["dataset:ok"])
    assert seeded.message.startswith("week-3-")
    assert seeded.artifact("gan-trainer") == first.artifact("gan-trainer")

    # Another epoch count is another classifier, of the same generator and annotations.
    bench.run(pinned(changed("spec.classifier.epochs", 3), "week-4"))
    assert bench.starts() == AFTER_ANNOTATIONS

    alone = changed("metadata.name", "alone", changed("spec.generator", "pinned"))
    with pytest.raises(RequestError, match="dataset alone has no release"):
        bench.run(alone)


def test_missing_features_are_extracted_again_once(bench: Bench) -> None:
    bench.annotate("train", "val", "test")
    bench.plan("classifier", "missing", "ok")
    assert bench.run().exit_code == 0
    assert bench.starts() == [
        "extractor:ok", "classifier:missing", "extractor:ok", "classifier:ok", "reranking:ok",
        "dataset:ok",
    ]  # fmt: skip

    bench.plan("classifier", "missing")
    failed = bench.run(changed("spec.classifier.epochs", 3))
    assert failed.exit_code == 66
    assert bench.starts() == ["extractor:ok", "classifier:missing"] * 2


def test_a_failure_says_what_happened_and_what_to_do_and_work_is_kept(bench: Bench) -> None:
    bench.plan("gan-trainer", "bad")

    failed = bench.run()

    assert (failed.outcome, failed.exit_code) == ("Failed", 65)
    for words in ("gan-trainer failed (exit code 65", "slide 7 is broken", "| looking at slide 7",
                  "What to do", "Finished work is kept"):  # fmt: skip
        assert words in failed.message
    status = bench.status()
    assert (status["outcome"], status["active"]) == ("Failed", "gan-trainer")
    bench.plan("gan-trainer", "ok")
    assert bench.run().exit_code == 3
    assert bench.starts() == ["gan-trainer:ok", "candidates:ok", "ranking:ok"]


def test_a_bug_shows_its_traceback_and_a_kill_its_signal(bench: Bench) -> None:
    bench.plan("tiler", "bug", "kill")
    bug = bench.run()
    assert (bug.exit_code, "ValueError: a bug" in bug.message) == (70, True)
    assert "Traceback" in (bench.folder / "scratch/logs/small/tiler.log").read_text()

    killed = bench.run()
    assert (killed.exit_code, "SIGKILL (usually: out of memory)" in killed.message) == (70, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_for_the_log_is_said_and_noted(bench: Bench) -> None:
    log = bench.folder / "scratch/logs/small/tiler.log"
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")

    with pytest.raises(NoSpace, match=r"cannot write .*tiler\.log: No space.*work is kept"):
        bench.run()

    status = bench.status()
    assert (status["outcome"], status["active"]) == ("Failed", "tiler")
    assert "No space" in status["message"]


def test_a_full_memory_map_is_told_from_a_bug(tmp_path: Path) -> None:
    ended = Ended(-signal.SIGBUS, None, [], tmp_path / "log", False)
    assert "SIGBUS (usually: no space left on scratch" in failure_message("extractor", ended)


def test_stopping_early_starts_again_while_there_is_progress(bench: Bench) -> None:
    # More than three times, but never three in a row without progress.
    bench.plan("gan-trainer", "stop", "stall", "stop", "stall", "stall", "stop", "ok")
    assert bench.run().exit_code == 3
    assert len(bench.starts()) == 10

    bench.plan("candidates", "stop", "stall")
    stuck = bench.run(changed("spec.candidates.seed", 5))
    assert stuck.exit_code == 70
    assert "3 times in a row" in stuck.message
    assert bench.starts() == ["candidates:stop", *["candidates:stall"] * 3]


def _start_hdgan(bench: Bench) -> subprocess.Popen[str]:
    path = write_run(bench.folder)
    return subprocess.Popen(
        [sys.executable, "-m", "hdgan.core.cli", "run", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("HDGAN_")},
    )


def test_ctrl_c_stops_cleanly_and_the_same_command_resumes(bench: Bench) -> None:
    bench.plan("gan-trainer", "slow", "ok")
    process = _start_hdgan(bench)
    deadline = time.monotonic() + 20
    while "gan-trainer:slow" not in bench.starts() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)

    assert process.returncode == 130, stderr
    assert "stopping: gan-trainer saves its state" in stdout
    assert "stopped; the same command resumes" in stderr
    assert bench.status()["outcome"] == "Interrupted"

    process = _start_hdgan(bench)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 3, stderr
    assert "tiler: reused" in stdout
    assert "hdgan annotations import" in stdout
    assert bench.starts()[-3:] == ["gan-trainer:ok", "candidates:ok", "ranking:ok"]


def test_a_run_is_frozen_when_it_starts(bench: Bench) -> None:
    bench.plan("tiler", "bad")
    bench.run()
    bench.run()
    frozen = [key for key in open_store(bench.store_uri).list("runs/small/") if "status" not in key]
    assert len(frozen) == 1
    document = json.loads(open_store(bench.store_uri).get(frozen[0]))
    assert document["run"]["spec"]["tiler"]["stride"] == 64  # resolved
    assert document["stageVersions"]["tiler"] >= 1


def test_requests_carry_the_slides_only_by_name(bench: Bench) -> None:
    bench.plan("tiler", "bad")
    bench.run()
    request = json.loads((bench.folder / "scratch/requests/small/tiler.json").read_text())
    listed = json.loads(open_store(bench.store_uri).get(request["context"]["slides"]))
    assert [slide["name"] for slide in listed["slides"]] == ["one.svs"]

    (bench.folder / "slides/two.svs").write_bytes(b"another")
    bench.run()
    changed_request = json.loads((bench.folder / "scratch/requests/small/tiler.json").read_text())
    assert changed_request["key"] != request["key"]


def test_an_artifact_is_found_whoever_made_it(bench: Bench) -> None:
    result = bench.run()
    reference = result.artifact("tiler")
    assert reference is not None
    artifact = open_artifact(open_store(bench.store_uri), "tiler", reference.key)
    assert artifact is not None
    assert artifact.manifest.inputs == {}


def test_progress_reads_like_a_sentence() -> None:
    event = {"done": 12.5, "total": 40, "unit": "kimg", "rate": 0.02, "eta": 1375}
    assert describe_progress(event) == "12.50 of 40 kimg, 31%, 1.2 kimg/min, 22 min 55 s left"
    assert describe_progress({"done": 3, "total": None, "unit": "slides"}) == "3 slides"
    assert [format_seconds(s) for s in (1.25, 59, 3725, 90_000)] == [
        "1.2 s", "59 s", "1 h 2 min", "1 d 1 h",
    ]  # fmt: skip


def test_bars_show_stage_rate_and_time_left() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    view = BarView(stream)
    view.started("tiler")
    view.event(
        "tiler",
        {"event": "progress", "done": 1, "total": 4, "unit": "tiles", "rate": 2.0, "eta": 1.5},
    )
    view.event("tiler", {"event": "log", "level": "warning", "message": "[odd] slide"})
    view.finished("tiler", 3)
    view.close()
    text = stream.getvalue()
    assert "warning: [odd] slide" in text
    assert "done in 3.0 s" in text
