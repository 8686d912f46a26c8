"""Runs a pipeline on this machine: one stage after another, each as the subprocess a container
would run, started through the same request."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hdgan.core.atomic_file import explain_os_error, is_full
from hdgan.core.errors import HdganError, InternalError, RequestError
from hdgan.core.fold_history import note_folds
from hdgan.core.gates import GateVerdict
from hdgan.core.observe import observe, pin_external
from hdgan.core.pins import Pins
from hdgan.core.pipeline import (
    BY_NAME,
    External,
    Node,
    NodeStatus,
    Observed,
    gate_verdicts,
    plan,
    stage_request,
)
from hdgan.core.process import Ended, StopFlag, run_stage_process
from hdgan.core.progress_view import View
from hdgan.core.releases import latest_name, publish, release_of
from hdgan.core.request import InputRef, StageRequest
from hdgan.core.run import DatasetRun, resolve
from hdgan.core.status_file import Outcome, awaited_since, begun_with, freeze, write_status
from hdgan.core.store import open_store
from hdgan.core.telemetry.run_watch import RunWatch, Standing
from hdgan.core.work import saved_amount

EXIT_AWAITING = 3
EXIT_GATE = 4
EXIT_INTERRUPTED = 130
MAX_STALLED = 3
"""Stops in a row without progress after which a stage counts as broken."""

EXIT_NAMES = {
    64: "the request, the configuration or an input is invalid",
    65: "too much of the data is bad",
    66: "an input is not there or was changed",
    69: "the store does not answer, or a disk is full",
    70: "a bug",
    75: "it stopped early",
}
ADVICE = {
    64: "correct what the message names, then run the same command again",
    65: "look at the data the message names, then run the same command again",
    66: "restore what is missing, or delete the manifest the message names, then run the same "
    "command again",
    69: "when that is mended, run the same command again",
    70: "run the same command again; if it fails again, report it with the log below",
}


@dataclass(frozen=True)
class RunResult:
    """How a run ended, what for (where it ended well: in which release), and what exists now."""

    outcome: Outcome
    exit_code: int
    message: str
    observed: Observed
    statuses: Sequence[NodeStatus]
    external: External
    """What the run was pinned to when it began."""

    def artifact(self, node: str) -> InputRef | None:
        return self.observed.artifacts.get(node)


class _Failure(Exception):
    """A stage that failed, with the message for the person and the exit code."""

    def __init__(self, stage: str, code: int, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = code


class _Interrupted(Exception):
    """The run was told to stop."""


class LocalRun:
    """One run of one pipeline. `execute` goes as far as it can."""

    def __init__(
        self, run: DatasetRun, *, store_uri: str, scratch: Path, view: View, watch: RunWatch
    ) -> None:
        self._run = resolve(run)
        self._store_uri = store_uri
        self._store = open_store(store_uri)
        self._scratch = scratch.absolute()
        self._view = view
        self._watch = watch
        self._started = time.time()
        self._attempts: Counter[str] = Counter()
        self._awaiting_since: float | None = None
        self._stop = StopFlag()
        self._grace = float(run.spec.resources.grace_seconds)
        self._digest = ""
        self._pins = Pins(self._store, self._run.metadata.name)
        self._reported: set[str] = set()
        self._gates: list[GateVerdict] = []

    def execute(self) -> RunResult:
        """Run what is not there yet. HdganError for what is wrong before a stage starts."""
        with self._stop.listen():
            # Before anything is read: an unwritable store is the first thing to know.
            self._store.probe()
            begun = begun_with(self._store, self._run)
            external = pin_external(self._store, self._run, release_name=begun)
            if begun is not None and latest_name(self._store, self._run.dataset_name) != begun:
                self._view.say(
                    f"going on with release {begun}, with which this run was begun, although it is "
                    "not the latest: another metadata.name begins with that"
                )
            self._digest = freeze(self._store, self._run, external)
            return self._advance(external, self._observe(external))

    def _observe(self, external: External, before: Observed | None = None) -> Observed:
        """What exists. The folds of a tiling are noted whoever has made it: the runner that had it
        made may have ended before it could."""
        observed = observe(self._store, self._run, external, before, pins=self._pins)
        tiling = observed.artifacts.get("tiler")
        if tiling is not None and (before is None or "tiler" not in before.artifacts):
            note_folds(self._store, self._run, external, tiling)
        return observed

    def _advance(self, external: External, observed: Observed) -> RunResult:
        while True:
            statuses = plan(self._run, external, observed)
            self._gates = gate_verdicts(self._run, observed)
            self._report_reused(statuses)
            node = next_node(statuses)
            if node is None:
                return self._end(statuses, external, observed)
            try:
                if self._stop:
                    raise _Interrupted
                self._write("Running", statuses, active=node.name)
                self._run_node(node, external, observed)
            except _Interrupted:
                message = "stopped; the same command resumes"
                self._write("Interrupted", statuses, active=node.name, message=message)
                return RunResult(
                    "Interrupted", EXIT_INTERRUPTED, message, observed, statuses, external
                )
            except _Failure as failure:
                self._write(
                    "Failed",
                    statuses,
                    active=failure.stage,
                    message=str(failure),
                    exit_code=failure.code,
                )
                return RunResult("Failed", failure.code, str(failure), observed, statuses, external)
            except HdganError as error:
                # Of the runner itself, e.g. no space for its log: the note must not say Running.
                self._write(
                    "Failed",
                    statuses,
                    active=node.name,
                    message=str(error),
                    exit_code=error.exit_code,
                )
                raise
            observed = self._observe(external, observed)
            made = "classifier" if node.cache else node.name
            if made not in observed.artifacts:
                raise InternalError(
                    f"{made} ended well but its artifact is not in {self._store.uri}"
                )

    def _end(self, statuses: list[NodeStatus], external: External, observed: Observed) -> RunResult:
        """Nothing is left to run: there is a dataset to release, or gates are shut."""
        for status in statuses:
            if status.state == "awaiting":
                self._awaiting_since = awaited_since(self._store, self._run) or time.time()
                self._write("AwaitingAnnotation", statuses, message=status.reason)
                return RunResult(
                    "AwaitingAnnotation",
                    EXIT_AWAITING,
                    status.reason,
                    observed,
                    statuses,
                    external,
                )
            if status.state == "failed":
                self._write("GateFailed", statuses, message=status.reason)
                return RunResult(
                    "GateFailed", EXIT_GATE, status.reason, observed, statuses, external
                )
        release = release_of(self._run, external, observed, datetime.now(UTC))
        published = publish(self._store, release)
        self._write(published.verdict, statuses, message=f"release {published.release}")
        return RunResult(published.verdict, 0, published.release, observed, statuses, external)

    def _run_node(self, node: Node, external: External, observed: Observed) -> None:
        if not node.cache:
            self._run_stage(self._request(node, external, observed))
            return
        # The cache and the one stage that reads it go together: features that are missing (66) are
        # made once more, on scratch nothing is promised to stay.
        classifier = BY_NAME["classifier"]
        for last in (False, True):
            self._run_stage(self._request(node, external, observed))
            try:
                self._run_stage(self._request(classifier, external, observed))
                return
            except _Failure as failure:
                if failure.code != 66 or last:
                    raise
                self._view.say("the features on scratch are incomplete: extracting them again")

    def _request(self, node: Node, external: External, observed: Observed) -> StageRequest:
        return stage_request(
            node,
            self._run,
            external,
            observed,
            store=self._store_uri,
            scratch=str(self._scratch),
        )

    def _run_stage(self, request: StageRequest) -> None:
        """Until it is done. A stage that stops early starts again while it gets further."""
        stage = request.stage
        self._reported.add(stage)
        stalled, step = 0, self._saved_step(request)
        started = time.monotonic()
        self._view.started(stage)
        while True:
            if self._stop:
                raise _Interrupted
            self._attempts[stage] += 1
            ended = run_stage_process(
                request,
                grace=self._grace,
                stop=self._stop,
                on_event=lambda event: self._hear(stage, event),
                on_stopping=lambda: self._view.say(
                    f"stopping: {stage} saves its state, at most {self._grace:g} s (Ctrl-C again "
                    "ends it at once)"
                ),
                variables=self._watch.variables,
            )
            self._watch.stage_ended()
            if ended.code == 0:
                self._view.finished(stage, time.monotonic() - started)
                return
            if ended.stopped and (ended.code == 75 or ended.code < 0):
                raise _Interrupted
            # SIGTERM kills a process that has not come to hear it yet: nothing was begun.
            if ended.code not in (75, -signal.SIGTERM):
                raise _Failure(stage, exit_code(ended.code), failure_message(stage, ended))
            before, step = step, self._saved_step(request)
            stalled = 0 if step > before else stalled + 1
            if stalled >= MAX_STALLED:
                raise _Failure(
                    stage,
                    70,
                    failure_message(stage, ended)
                    + f"\nIt stopped {MAX_STALLED} times in a row without getting further.",
                )
            self._view.say(f"{stage}: stopped early, started again from its saved state")

    def _hear(self, stage: str, event: dict[str, Any]) -> None:
        if not self._watch.event(event):
            self._view.event(stage, event)

    def _saved_step(self, request: StageRequest) -> int:
        """How far the saved work of a stage is; -1 if nothing is saved."""
        return saved_amount(self._store, request.stage, request.key)

    def _report_reused(self, statuses: list[NodeStatus]) -> None:
        for status in statuses:
            if status.name in BY_NAME and status.state == "done":
                if status.name not in self._reported:
                    self._view.reused(status.name)
                self._reported.add(status.name)

    def _write(
        self,
        outcome: Outcome,
        statuses: Sequence[NodeStatus],
        *,
        active: str | None = None,
        message: str = "",
        exit_code: int | None = None,
    ) -> None:
        self._watch.stands(
            Standing(
                run=self._run,
                outcome=outcome,
                statuses=statuses,
                gates=self._gates,
                active=active,
                exit_code=exit_code,
                attempts=self._attempts,
                started=self._started,
                awaiting_since=self._awaiting_since,
            ),
            self._store,
        )
        try:
            write_status(
                self._store,
                self._run,
                self._digest,
                outcome,
                statuses,
                active=active,
                message=message,
                gates=self._gates,
                since=self._awaiting_since,
            )
        except HdganError as error:
            # A full disk must not hide why the run ended.
            self._view.say(f"the status could not be written: {error}")


def next_node(statuses: Sequence[NodeStatus]) -> Node | None:
    """The first node that can run now."""
    return next((BY_NAME[s.name] for s in statuses if s.state == "ready"), None)


def exit_code(code: int) -> int:
    """What `hdgan run` returns for a stage's exit code: unknown codes and signals count as 70."""
    return code if code in EXIT_NAMES else 70


def failure_message(stage: str, ended: Ended) -> str:
    """What happened, the last log lines, and what to do next."""
    if ended.code < 0:
        try:
            name = signal.Signals(-ended.code).name
        except ValueError:
            name = f"signal {-ended.code}"
        reason = f"it was killed by {name}"
        if name == "SIGKILL":
            reason += " (usually: out of memory)"
        elif name == "SIGBUS":
            reason += " (usually: no space left on scratch for a memory-mapped file)"
        advice = "run the same command again" + (
            "; use a smaller batch if memory was short" if name == "SIGKILL" else ""
        )
    else:
        reason = f"exit code {ended.code}: {EXIT_NAMES.get(ended.code, 'unknown')}"
        advice = ADVICE.get(ended.code, ADVICE[70])
    lines = [f"{stage} failed ({reason})"]
    if ended.error is not None:
        lines.append(f"  {ended.error.get('message', '')}")
    shown = [line for line in ended.tail if line.strip()]
    if shown:
        lines += ["its last lines:", *(f"  | {line}" for line in shown)]
    lines += [f"What to do: {advice}.", "Finished work is kept.", f"Log: {ended.log}"]
    return "\n".join(lines)


def run_local(
    run: DatasetRun,
    *,
    store_uri: str,
    scratch: Path,
    view: View,
    watch: RunWatch | None = None,
) -> RunResult:
    """Run a pipeline on this machine, as far as it goes. watch: told of all that becomes of it."""
    if run.spec.suspend:
        raise RequestError(
            "spec.suspend is true: set it to false to run this here, or submit it to a cluster"
        )
    if "://" not in store_uri:
        store_uri = Path(store_uri).absolute().as_uri()
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_full(error):
            raise explain_os_error(error, "make", scratch) from error
        raise RequestError(
            f"scratch {scratch}: cannot be made: {error.strerror}. Name another with --scratch"
        ) from error
    watch = watch or RunWatch()
    return LocalRun(run, store_uri=store_uri, scratch=scratch, view=view, watch=watch).execute()
