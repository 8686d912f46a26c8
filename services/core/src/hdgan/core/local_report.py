"""Has the report of a run written when `hdgan run` ends: by the process that would do it on a
cluster, so that whatever becomes of it (a bug, the memory, a full disk) stays its own.

A run that was interrupted gets none: whoever has stopped it does not want to wait, and the same
command goes on and writes it then.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Final

from hdgan.core.local import RunResult
from hdgan.core.process import Ended, StopFlag, run_stage_process
from hdgan.core.report_place import desk_version, is_current, report_place
from hdgan.core.report_request import SERVICE, report_request
from hdgan.core.run import DatasetRun
from hdgan.core.stage import PORT_VARIABLE, TERMINATION_VARIABLE
from hdgan.core.store import open_store

LIMIT_SECONDS: Final = 300.0
"""A report that is not written by then is given up: the run it is of is over."""


@dataclass(frozen=True)
class ReportResult:
    """What has become of a report: where it is, or why it is not."""

    uri: str | None
    problem: str = ""


def write_report(
    run: DatasetRun, result: RunResult, *, store_uri: str, scratch: Path
) -> ReportResult | None:
    """Have the report of a run that has ended written, unless it is there and shows just this.

    run  resolved. None where nothing is to be written: the desk is not installed, or the run was
    interrupted. Raises nothing: the run has ended as it has, and a report changes nothing of that.
    """
    if result.outcome == "Interrupted" or not _has_desk():
        return None
    try:
        return _write(run, result, store_uri, scratch)
    except Exception as error:  # a bug of ours at worst, and no reason to have failed
        return ReportResult(None, str(error) or type(error).__name__)


def _write(run: DatasetRun, result: RunResult, store_uri: str, scratch: Path) -> ReportResult:
    request = report_request(
        run,
        result.external,
        result.observed,
        result.outcome,
        result.message,
        release=result.message if result.outcome == "Released" else None,
        store=store_uri,
        scratch=str(scratch),
    )
    store = open_store(store_uri)
    place = report_place(request.run)
    if is_current(store, request.run, request.key, desk_version()):
        return ReportResult(store.url(place))
    stop = StopFlag()
    timer = Timer(LIMIT_SECONDS, stop.request)
    timer.daemon = True
    timer.start()
    try:
        with stop.listen():
            ended = run_stage_process(
                request,
                grace=0.0,  # there is no state to save
                stop=stop,
                on_event=lambda event: None,
                on_stopping=lambda: None,
                # Last words and metrics are those of the stages.
                without=(TERMINATION_VARIABLE, PORT_VARIABLE),
            )
    finally:
        timer.cancel()
    if ended.code == 0:
        return ReportResult(store.url(place))
    return ReportResult(None, _why(ended))


def _has_desk() -> bool:
    # Found as it is started. The packages above it are ours, and importing them costs nothing.
    try:
        return importlib.util.find_spec(f"hdgan.{SERVICE}.__main__") is not None
    except ModuleNotFoundError:
        return False


def _why(ended: Ended) -> str:
    """One line."""
    if ended.stopped:
        return "stopped"
    if ended.error is not None:
        lines = str(ended.error.get("message", "")).splitlines() or [""]
        return f"{lines[0]} (log: {ended.log})"
    what = f"exit code {ended.code}" if ended.code >= 0 else f"killed by signal {-ended.code}"
    return f"{what} (log: {ended.log})"
