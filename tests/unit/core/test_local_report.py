"""The report that `hdgan run` leaves in the store: of every outcome, once for what it shows, and
never at the run's expense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hdgan.core import cli, local_report
from hdgan.core.local import RunResult
from hdgan.core.local_report import ReportResult, write_report
from hdgan.core.report_place import release_report_place, report_of, report_place, with_mark
from hdgan.core.run import load_run, resolve
from support import fake_desk, fake_services
from support.local_bench import Bench
from support.runs import DOCUMENT, changed, write_run
from support.small_disk import MB, small_disk

PLACE = report_place("small")


class Desk(Bench):
    """With the stand-in for the desk, whose process is a real one; those of stages are not."""

    def report(self, document: dict[str, Any] = DOCUMENT) -> tuple[RunResult, ReportResult | None]:
        result = self.run(document)
        run = resolve(load_run(self.folder / "run.yaml"))
        scratch = self.folder / "scratch"
        return result, write_report(run, result, store_uri=self.store_uri, scratch=scratch)

    def text(self, place: str = PLACE) -> str:
        return (self.folder / "store" / place).read_text()

    @property
    def rendered(self) -> int:
        return fake_desk.rendered(self.folder)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name, value in fake_services.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hdgan.core.local.run_stage_process", fake_services.run_here)
    fake_desk.install(tmp_path)
    return Desk(tmp_path)


def test_each_outcome_is_in_the_report_and_a_release_keeps_its_own(desk: Desk) -> None:
    waiting, written = desk.report()
    assert waiting.outcome == "AwaitingAnnotation"
    assert written == ReportResult(f"{desk.store_uri}/{PLACE}")
    assert "<p>AwaitingAnnotation</p>" in desk.text()
    assert "<p>candidates gan-trainer ranking tiler</p>" in desk.text()

    desk.annotate("train", "val", "test")
    desk.plan("classifier", "bad")
    failed, _ = desk.report()
    assert failed.outcome == "Failed"
    assert "<p>Failed</p><p>classifier failed (exit code 65" in desk.text()

    desk.plan("classifier", "ok")
    shut, _ = desk.report(changed("spec.gates.minMacroDice", 0.95))
    assert shut.outcome == "GateFailed"
    assert "0.9000" in desk.text()

    done, _ = desk.report()
    assert done.outcome == "Released"
    kept = release_report_place("small", done.message)
    assert desk.text(kept) == desk.text()
    assert report_of(kept) == ("small", done.message)
    before = desk.text(kept)

    pinned = changed("spec.dataset", "small", changed("spec.generator", "pinned"))
    same, written = desk.report(changed("metadata.name", "week-1", pinned))
    assert (same.outcome, written) == (
        "Unchanged",
        ReportResult(f"{desk.store_uri}/{report_place('week-1')}"),
    )
    assert os.listdir(desk.folder / "store" / "reports" / "week-1") == ["report.html"]

    # Another run of the name that made the release.
    shut, _ = desk.report(changed("spec.gates.minMacroDice", 0.95))
    assert "<p>GateFailed</p>" in desk.text()
    assert desk.text(kept) == before
    # The same release, asked for in other words.
    again, _ = desk.report(changed("spec.gates.minMacroDice", 0.5))
    assert (again.outcome, again.message) == ("Released", done.message)
    assert (desk.text(kept), desk.text() == before) == (before, False)


def test_nothing_new_is_not_rendered_again(desk: Desk) -> None:
    desk.report()
    assert desk.rendered == 1
    first = desk.text()
    desk.report()
    assert (desk.rendered, desk.text()) == (1, first)
    # Though all it shows exists, and only a digest tells that it is another run's.
    desk.report(changed("spec.classifier.epochs", 3))
    assert desk.rendered == 2
    (desk.folder / "store" / PLACE).unlink()
    desk.report(changed("spec.classifier.epochs", 3))
    assert desk.rendered == 3
    assert desk.text()


def test_a_newer_desk_renders_it_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.report()
    (desk.folder / "store" / PLACE).write_bytes(
        (desk.folder / "store" / PLACE).read_bytes().replace(b" by 0", b" by 9")
    )
    desk.report()
    assert desk.rendered == 2


@pytest.mark.parametrize(
    ("word", "problem"), [("bug", "ValueError: a bug (log: "), ("kill", "killed by signal 9 (log")]
)
def test_what_becomes_of_the_desk_is_its_own(desk: Desk, word: str, problem: str) -> None:
    desk.report()
    before = desk.text()
    desk.plan("report", word)
    desk.annotate("train")
    result, written = desk.report()
    assert (result.outcome, result.exit_code) == ("AwaitingAnnotation", 3)
    assert written is not None
    assert written.uri is None
    assert written.problem.startswith(problem)
    assert desk.text() == before
    # It is not given up for ever.
    desk.plan("report", "ok")
    assert desk.report()[1] == ReportResult(f"{desk.store_uri}/{PLACE}")
    assert "labelled so far" in desk.text()


def test_a_desk_that_hangs_is_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_report, "LIMIT_SECONDS", 0.2)
    desk.plan("report", "slow")
    assert desk.report()[1] == ReportResult(None, "stopped")
    assert not (desk.folder / "store" / PLACE).exists()


def test_a_store_that_refuses_the_report_is_a_warning(desk: Desk) -> None:
    # A file where the folder would be: not even root can write there.
    (desk.folder / "store").mkdir()
    (desk.folder / "store" / "reports").write_text("")
    result, written = desk.report()
    assert result.exit_code == 3
    assert written is not None
    assert "reports" in written.problem


def test_scratch_that_cannot_be_written_is_a_warning(desk: Desk) -> None:
    result = desk.run()
    full = desk.folder / "full"
    full.write_text("")
    run = resolve(load_run(desk.folder / "run.yaml"))
    written = write_report(run, result, store_uri=desk.store_uri, scratch=full)
    assert written is not None
    assert "full" in written.problem


def test_a_full_disk_is_a_warning(desk: Desk) -> None:
    with small_disk(desk.folder / "store", 20 * MB) as disk:
        result = desk.run()
        run = resolve(load_run(desk.folder / "run.yaml"))
        scratch = desk.folder / "scratch"
        disk.fill()
        written = write_report(run, result, store_uri=desk.store_uri, scratch=scratch)
        assert written is not None
        assert "space" in written.problem
        assert not (desk.folder / "store" / PLACE).exists()
        disk.clear()
        written = write_report(run, result, store_uri=desk.store_uri, scratch=scratch)
        assert written == ReportResult(f"{desk.store_uri}/{PLACE}")


def test_status_says_where_it_is(desk: Desk) -> None:
    desk.run()
    status = ["status", str(desk.folder / "run.yaml")]
    assert "report:" not in CliRunner().invoke(cli.app, status).stdout
    desk.report()
    uri = f"{desk.store_uri}/{PLACE}"
    assert f"report: {uri}\n" in CliRunner().invoke(cli.app, status).stdout
    told = json.loads(CliRunner().invoke(cli.app, [*status, "--json"]).stdout)
    assert told["report"] == uri


def test_a_bug_of_ours_is_a_warning(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(local_report, "report_request", broken)
    assert desk.report()[1] == ReportResult(None, "ZeroDivisionError")


def test_an_interrupted_run_does_not_make_one_wait(desk: Desk) -> None:
    result = desk.run()
    stopped = RunResult("Interrupted", 130, "", result.observed, result.statuses, result.external)
    run = resolve(load_run(desk.folder / "run.yaml"))
    assert write_report(run, stopped, store_uri=desk.store_uri, scratch=desk.folder) is None
    assert desk.rendered == 0


def test_without_the_desk_nothing_happens(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_report, "SERVICE", "nobody")
    assert desk.report()[1] is None
    assert desk.rendered == 0


def test_the_command_says_where_it_is_and_ends_as_the_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_run(desk.folder)
    ended = CliRunner().invoke(cli.app, ["run", str(file), "--no-report"])
    assert (ended.exit_code, desk.rendered) == (3, 0)
    desk.plan("report", "bug")
    ended = CliRunner().invoke(cli.app, ["run", str(file)])
    assert ended.exit_code == 3
    (warning,) = ended.stderr.splitlines()
    assert warning.startswith("hdgan: the report could not be written: ValueError: a bug")
    desk.plan("report", "ok")
    ended = CliRunner().invoke(cli.app, ["run", str(file)])
    assert (ended.exit_code, ended.stderr) == (3, "")
    assert ended.stdout.splitlines()[-1] == f"report: {desk.store_uri}/{PLACE}"


def test_stopped_while_it_is_written_the_run_has_ended_as_it_has(desk: Desk) -> None:
    file = write_run(desk.folder)
    CliRunner().invoke(cli.app, ["run", str(file), "--no-report"])
    desk.plan("report", "slow")
    with subprocess.Popen(
        [sys.executable, "-m", "hdgan.core.cli", "run", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        end = time.monotonic() + 60
        while not desk.rendered and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (3, "hdgan: the report could not be written: stopped\n")
    assert not (desk.folder / "store" / PLACE).exists()


def test_a_mark_cannot_end_its_comment() -> None:
    (mark,) = with_mark("", "a" * 64, "1 --> <script>").decode().split("\n")[1:2]
    assert mark.count(">") == 1
