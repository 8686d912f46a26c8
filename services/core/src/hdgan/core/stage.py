"""The harness every service's `__main__` calls: request in, exit code out.

    from hdgan.core.stage import main
    from hdgan.tiler.stage import TILER

    main(TILER)

A stage is one function of a `StageContext`. The harness reads the request, opens store and
scratch, serves metrics, listens to signals, commits the artifact the function filled (unless the
function has committed it itself) and turns every error into the exit code of the contract.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Timer
from types import FrameType
from typing import IO, Any, NoReturn

from pydantic import BaseModel, JsonValue, ValidationError

from hdgan.core import machines
from hdgan.core.artifact import Artifact, Attempt, open_artifact
from hdgan.core.atomic_file import FULL, explain_os_error, is_full
from hdgan.core.errors import (
    HdganError,
    InputMissing,
    InternalError,
    NoSpace,
    RequestError,
    Stopped,
    StoreError,
)
from hdgan.core.events import Emitter
from hdgan.core.pins import Pins
from hdgan.core.process_end import end_process
from hdgan.core.progress import RateMeter, Throttle
from hdgan.core.redaction import guard_streams, redact
from hdgan.core.request import PART_VARIABLE, StageRequest, read_part, read_request
from hdgan.core.spent_time import SpentTime
from hdgan.core.store import Store, open_store
from hdgan.core.telemetry import store_requests
from hdgan.core.telemetry.stage_tally import StageTally
from hdgan.core.work import WorkState

GRACE_VARIABLE = "HDGAN_GRACE_SECONDS"
PORT_VARIABLE = "HDGAN_METRICS_PORT"
HOST_VARIABLE = "HDGAN_METRICS_HOST"
TERMINATION_VARIABLE = "HDGAN_TERMINATION_LOG"
"""A file for the last words, which Kubernetes keeps with the pod: digest or error."""
MAX_LAST_WORDS = 4000
DEFAULT_GRACE_SECONDS = 60.0
PROGRESS_INTERVAL = 0.25
EXIT_STOPPED = Stopped.exit_code


@dataclass(frozen=True)
class Stage:
    """What a service can do. `run` is the stage itself, readable from top to bottom."""

    name: str
    version: int
    config: type[BaseModel]
    run: Callable[[StageContext], None]
    parts: bool = False
    """Whether the work can be shared by several processes and merged by a `commit` request."""
    artifact: bool = True
    """False for a stage that only fills a cache on scratch."""
    ranks: bool = False
    """Whether several processes do the work together, told apart by the variables of `machines`.
    All get the same request; only the first reports and commits."""


class StageContext:
    """All that a stage may touch. Made by the harness; one per process."""

    def __init__(
        self,
        stage: Stage,
        request: StageRequest,
        config: BaseModel,
        *,
        part: int,
        store: Store,
        device: str,
        emitter: Emitter,
        stop: Event,
        tally: StageTally | None = None,
        leads: bool = True,
        pins: Pins | None = None,
    ) -> None:
        self.stage = stage
        self.request = request
        self.config: Any = config
        """The validated section model, of the class the stage declared."""
        self.part = part
        """Index of this part, 0..parts-1."""
        self.parts = request.parts
        self.leads = leads
        """False in the processes of a stage with ranks that only help: they report nothing."""
        self.committing: bool = leads and (request.parts == 1 or request.commit)
        """Whether this process is the one that commits the artifact."""
        self.store = store
        self.pins = pins or Pins(store, request.run)
        """Pins what else the stage is going to look for in the store, beside inputs and output."""
        self.scratch = Path(request.scratch)
        """Exists and may be used freely; on this node it stays between attempts. It is shared by
        all stages and runs: use a sub-folder with the key in its name."""
        self.device = device
        """`cpu` or `cuda`; `auto` has been decided if the service imports torch."""
        self.threads = request.threads or _cores()
        self.attempt = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        self._emitter = emitter
        self._stop = stop
        self.tally = tally or StageTally()
        """Takes what the stage counts besides its progress, for `/metrics`."""
        self._meter = RateMeter()
        self._throttle = Throttle(PROGRESS_INTERVAL)
        self._last_progress: tuple[float, float | None, str] | None = None
        self._started = time.monotonic()
        self._inputs: dict[str, Artifact] = {}
        self._output: Attempt | None = None
        self._work: WorkState | None = None
        self._spent = SpentTime(store, request.stage, request.key, self.attempt)
        self._run_info: dict[str, Any] = {
            "attempt": self.attempt,
            "run": request.run,
            "stageVersion": stage.version,
            "startedAt": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "device": device,
            "threads": self.threads,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": _versions(),
        }

    # What the stage is given

    def value(self, name: str) -> JsonValue:
        """A value of another section, from the request's context. RequestError if it is absent."""
        try:
            return self.request.context[name]
        except KeyError:
            raise RequestError(
                f"request.context.{name} is missing: stage {self.stage.name} needs it. "
                "Whoever wrote the request is of another version than this service"
            ) from None

    def input(self, name: str) -> Artifact:
        """The input artifact called `name`, its manifest checked against the request's digest."""
        if name in self._inputs:
            return self._inputs[name]
        reference = self.request.inputs.get(name)
        if reference is None:
            raise RequestError(
                f"request.inputs.{name} is missing: stage {self.stage.name} needs it"
            )
        artifact = open_artifact(self.store, reference.stage, reference.key)
        where = f"input {name}: artifacts/{reference.stage}/{reference.key} in {self.store.uri}"
        if artifact is None:
            raise InputMissing(f"{where} has no manifest: run the stage {reference.stage} again")
        if artifact.content_digest != reference.content_digest:
            raise InputMissing(
                f"{where} has content {artifact.content_digest}, the request was made for "
                f"{reference.content_digest}: start the run again"
            )
        self._inputs[name] = artifact
        return artifact

    @property
    def output(self) -> Attempt:
        """The attempt at this request's artifact. The harness commits it when the stage returns,
        if the stage has not."""
        self.pins.renew()  # before what earlier attempts have uploaded is adopted
        if self._output is None:
            self._output = Attempt(
                self.store,
                self.request.stage,
                self.request.key,
                stage_version=self.stage.version,
                attempt=self.attempt,
                config=dict(self.request.config),
                inputs={n: ref.content_digest for n, ref in self.request.inputs.items()},
            )
        return self._output

    @property
    def work(self) -> WorkState:
        """Saved state of unfinished work; each part of shared work has its own."""
        if self._work is None:
            key = self.request.key
            if not self.committing:
                key = _part_key(self.request, self.part)
            self._work = WorkState(self.store, self.request.stage, key, self.attempt)
        return self._work

    @property
    def run_info(self) -> dict[str, Any]:
        """What goes into run-info.json, outside the content digest. Stages add to it."""
        self._run_info["seconds"] = round(time.monotonic() - self._started, 3)
        return self._run_info

    def commit(self) -> Artifact:
        """Commit the output, with what this attempt has to say of itself and what the others at
        the same artifact have spent."""
        others = self._spent.others().document()
        return self.output.commit({**self.run_info, "others": others})

    def note_time(self) -> None:
        """Write down how long this attempt has worked, for whoever finishes the artifact."""
        if self.leads and self.stage.artifact:
            processes = int(self._run_info.get("processes", 1))
            self._spent.note(time.monotonic() - self._started, processes)

    def require_scratch(self, size: int, what: str) -> None:
        """Raise NoSpace unless `size` bytes are free on scratch for `what`."""
        free = shutil.disk_usage(self.scratch).free
        if free < size:
            raise NoSpace(
                f"{what} needs {format_bytes(size)} on scratch, {format_bytes(free)} are free in "
                f"{self.scratch}: free some space there, or name another folder with --scratch"
            )

    # What the stage tells

    def progress(self, done: float, total: float | None, unit: str) -> None:
        """Say how far the work is. Call it as often as you like: at most four a second go out,
        and always the first and the last of a unit."""
        if not self.leads:
            return
        self.pins.renew()
        if self._spent.is_due():
            self.note_time()
        now = time.monotonic()
        progress = self._meter.update(now, done, total, unit)
        self.tally.progress(progress)
        before = self._last_progress
        self._last_progress = (done, total, unit)
        new_phase = before is None or before[1:] != (total, unit)
        complete = total is not None and done >= total and self._last_progress != before
        if not (self._throttle.passes(now) or new_phase or complete):
            return
        self._emitter.emit(
            "progress",
            {
                "done": done,
                "total": total,
                "unit": unit,
                "rate": None if progress.rate is None else round(progress.rate, 4),
                "eta": None if progress.eta is None else round(progress.eta, 1),
            },
        )

    def metric(self, **values: float) -> None:
        """Report measures, e.g. `metric(r1=0.2, kid=0.01)`."""
        if not self.leads:
            return
        numbers = {name: float(value) for name, value in values.items()}
        self.tally.measured(numbers)
        # JSON has no NaN or infinity; a reader still learns that there was a value.
        self._emitter.emit(
            "metric", {"values": {n: v if _finite(v) else str(v) for n, v in numbers.items()}}
        )

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        if self.leads:
            self._emitter.emit("log", {"level": level, "message": message, **fields})

    # Stopping

    @property
    def stop_requested(self) -> bool:
        """True once the process was told to stop: save the state and raise Stopped soon."""
        return self._stop.is_set()

    def check_stop(self) -> None:
        """Raise Stopped if the process was told to stop. Save first what is worth saving."""
        if self.stop_requested:
            raise Stopped("stopped when asked to; the work so far is saved, run it again to go on")

    def _finish(self) -> Artifact | None:
        """The artifact this process was to make, committed now if the stage left that to us."""
        if not (self.committing and self.stage.artifact):
            return None
        artifact = open_artifact(self.store, self.request.stage, self.request.key)
        if artifact is None and self._output is not None:
            artifact = self.commit()
        if artifact is None:
            raise InternalError(f"stage {self.stage.name} ended without filling its artifact")
        if self._work is not None or self._spent.noted:
            self.work.discard()
        return artifact


def main(*stages: Stage) -> NoReturn:
    """Run the stage the request names and end the process with the exit code of the contract.
    With `--version` on the command line, say which versions these are instead."""
    guard_streams()
    if sys.argv[1:] == ["--version"]:
        print(_version_line(stages))
        end_process(0)
    end_process(run_stage(stages, os.environ, sys.stdout))


def run_stage(stages: tuple[Stage, ...], environ: Mapping[str, str], stdout: IO[str]) -> int:
    """`main` as a function: returns the exit code. Handles signals, so only for main threads."""
    stop = Event()
    emitter = Emitter(stdout, "unknown" if len(stages) != 1 else stages[0].name, stop.set)
    try:
        request = read_request(environ)
        emitter = Emitter(stdout, request.stage, stop.set, _about(request, environ))
        with _Signals(stop, emitter, _grace(environ)):
            digest = _run(stages, request, environ, emitter, stop)
    except Exception as error:
        code, message = _report(error, emitter)
        _last_words(environ, message)
        return code
    if digest is not None or not _follows(stages, environ):
        emitter.emit("result", {"contentDigest": digest})
        _last_words(environ, json.dumps({"contentDigest": digest}))
    return 0


def _about(request: StageRequest, environ: Mapping[str, str]) -> dict[str, str | int]:
    """What every line of this process's log is about."""
    about: dict[str, str | int] = {"run": request.run, "key": request.key}
    part = environ.get(PART_VARIABLE, "")
    if request.parts > 1 and not request.commit and part.isdecimal():
        about["part"] = int(part)
    return about


def _version_line(stages: tuple[Stage, ...]) -> str:
    """E.g. `hdgan-tiler 0.1.0 (tiler: stage version 6)`: distribution and stages of a service."""
    service = stages[0].run.__module__.removeprefix("hdgan.").partition(".")[0]
    distribution = f"hdgan-{service.replace('_', '-')}"
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "not installed as a distribution"
    makes = ", ".join(f"{stage.name}: stage version {stage.version}" for stage in stages)
    return f"{distribution} {version} ({makes})"


def _last_words(environ: Mapping[str, str], text: str) -> None:
    """Leave them where they are looked for. Whatever is wrong there changes nothing here."""
    place = environ.get(TERMINATION_VARIABLE)
    if place:
        with contextlib.suppress(OSError):
            data = redact(text).encode()
            Path(place).write_bytes(data[:MAX_LAST_WORDS])


def _run(
    stages: tuple[Stage, ...],
    request: StageRequest,
    environ: Mapping[str, str],
    emitter: Emitter,
    stop: Event,
) -> str | None:
    stage = _choose(stages, request)
    config = _config(stage, request)
    # With ranks, the index of the Job's pod numbers machines, not parts.
    part = 0 if stage.ranks else read_part(request, environ)
    leads = not _follows(stages, environ)
    device = _device(request.device)
    if request.threads is not None:
        _limit_threads(request.threads)
    store = open_store(request.store)
    pins = Pins(store, request.run)
    if leads:
        own = (request.stage, request.key)
        pins.add([own, *((one.stage, one.key) for one in request.inputs.values())])
    if stage.artifact:
        existing = open_artifact(store, request.stage, request.key)
        if existing is not None:
            emitter.emit("log", {"level": "info", "message": "the artifact is there already"})
            if leads:
                _clear_away(store, request, part)
            return existing.content_digest
    with _telling(request, device, environ, emitter, leads) as tally:
        # Better now than after the hours of work that could then not be written down.
        store.probe()
        _make_scratch(Path(request.scratch))
        context = StageContext(
            stage,
            request,
            config,
            part=part,
            store=store,
            device=device,
            emitter=emitter,
            stop=stop,
            tally=tally,
            leads=leads,
            pins=pins,
        )
        try:
            stage.run(context)
            artifact = context._finish()
        except StoreError:
            raise  # which would take no note
        except Exception:
            context.note_time()
            raise
        if not context.committing:
            context.note_time()
        if artifact is None and stage.artifact and leads and _exists(store, request):
            _clear_away(store, request, part)
    return None if artifact is None else artifact.content_digest


def _part_key(request: StageRequest, part: int) -> str:
    """The key under which a part of shared work saves its own."""
    return f"{request.key}-part-{part:05d}-of-{request.parts:05d}"


def _exists(store: Store, request: StageRequest) -> bool:
    return open_artifact(store, request.stage, request.key) is not None


def _clear_away(store: Store, request: StageRequest, part: int) -> None:
    """Delete saved work of an artifact that exists: a commit that was killed has left it, or a part
    that ended after the commit."""
    keys = [request.key] if request.parts == 1 else [request.key, _part_key(request, part)]
    for key in keys:
        WorkState(store, request.stage, key, "none").discard()


def _follows(stages: tuple[Stage, ...], environ: Mapping[str, str]) -> bool:
    """Whether this is a process that only helps another (see `Stage.ranks`)."""
    return any(stage.ranks for stage in stages) and not machines.leads(environ)


def _choose(stages: tuple[Stage, ...], request: StageRequest) -> Stage:
    for stage in stages:
        if stage.name == request.stage:
            break
    else:
        known = ", ".join(stage.name for stage in stages)
        raise RequestError(f"request.stage: this service has no stage {request.stage!r}: {known}")
    if stage.version != request.stage_version:
        raise RequestError(
            f"request.stageVersion: {request.stage_version}, but this service makes version "
            f"{stage.version} of {stage.name}. Use images of one release"
        )
    if request.parts > 1 and not stage.parts:
        raise RequestError(
            f"request.parts: {request.parts}, but {stage.name} cannot be shared out: use 1"
        )
    return stage


def _config(stage: Stage, request: StageRequest) -> BaseModel:
    try:
        # Through JSON, because strict models take lists and whole numbers for what they are only
        # when they come as JSON.
        return stage.config.model_validate_json(json.dumps(request.config))
    except ValidationError as error:
        problems = "; ".join(
            f"config.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise RequestError(f"request for {stage.name}: {problems}") from error


def _device(asked: str) -> str:
    """`cpu` or `cuda`. Core imports no torch; a service that uses it has imported it by now."""
    torch = sys.modules.get("torch")
    available = torch is not None and bool(torch.cuda.is_available())
    if asked == "auto":
        return "cuda" if available else "cpu"
    if asked == "cuda" and torch is not None and not available:
        raise RequestError(
            "device: cuda is asked for but torch finds no CUDA GPU. Use `device: auto` or `cpu`, "
            "or see `hdgan doctor`"
        )
    return asked


def _limit_threads(threads: int) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _make_scratch(scratch: Path) -> None:
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with scratch.joinpath(f".writable-{uuid.uuid4().hex}").open("wb") as probe:
            Path(probe.name).unlink()
    except OSError as error:
        if error.errno in FULL:
            raise explain_os_error(error, "write to", scratch) from error
        raise RequestError(
            f"scratch {scratch}: cannot write there: {error.strerror}. "
            "Name a folder on a local disk that may be written to (--scratch)"
        ) from error


@contextlib.contextmanager
def _telling(
    request: StageRequest,
    device: str,
    environ: Mapping[str, str],
    emitter: Emitter,
    leads: bool,
) -> Iterator[StageTally]:
    """Serves what the stage tells, where it is to; within, that takes it."""
    text = environ.get(PORT_VARIABLE)
    if not text or not leads:
        yield StageTally()
        return
    if not text.isdecimal() or int(text) > 65535:
        raise RequestError(f"{PORT_VARIABLE}={text!r}: must be a port, 0 to 65535")
    # Only those who ask for it pay for the import.
    from hdgan.core.telemetry.http_pages import PageServer
    from hdgan.core.telemetry.stage_series import StageSeries

    series = StageSeries(
        run=request.run,
        stage=request.stage,
        key=request.key,
        device=device,
        scratch=Path(request.scratch),
    )
    host = environ.get(HOST_VARIABLE) or "127.0.0.1"
    try:
        server = PageServer(host, int(text), series.page)
    except (OSError, UnicodeError) as error:  # UnicodeError: the host is no name at all
        # The work does not need it: hours of it are not given up because nobody can look on.
        what = (isinstance(error, OSError) and error.strerror) or error
        message = (
            f"no metrics: cannot serve them on {host} port {text}: {what}. The work goes on. "
            f"Set {PORT_VARIABLE} to a free port and {HOST_VARIABLE} to an address of its own, "
            "or unset both to serve none"
        )
        emitter.emit("log", {"level": "warning", "message": message})
        yield StageTally()
        return
    message = f"metrics on port {server.port}"
    emitter.emit("log", {"level": "info", "message": message, "port": server.port})
    store_requests.listen(series.store)
    try:
        with server:
            yield series
    finally:
        store_requests.listen(None)


def _grace(environ: Mapping[str, str]) -> float:
    text = environ.get(GRACE_VARIABLE)
    if not text:
        return DEFAULT_GRACE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (_finite(seconds) and seconds >= 0):
        raise RequestError(f"{GRACE_VARIABLE}={text!r}: must be a number of seconds, 0 or more")
    return seconds


class _Signals:
    """While entered, SIGTERM and SIGINT ask the stage to stop; after `grace` seconds it ends."""

    def __init__(self, stop: Event, emitter: Emitter, grace: float) -> None:
        self._stop = stop
        self._emitter = emitter
        self._grace = grace
        self._timer: Timer | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_signal)
        # See `held_signals`: what has come since the process began is heard now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(self._before))

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._timer is not None:
            self._timer.cancel()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()
        if self._timer is None:
            self._timer = Timer(self._grace, self._give_up)
            self._timer.daemon = True
            self._timer.start()

    def _give_up(self) -> None:
        message = (
            f"told to stop and not done with it {self._grace:g} s later: ended. What was saved "
            f"before is kept; {GRACE_VARIABLE} gives more time"
        )
        self._emitter.emit("error", _error_fields("Stopped", message, EXIT_STOPPED))
        os._exit(EXIT_STOPPED)


def _report(error: Exception, emitter: Emitter) -> tuple[int, str]:
    """Say what went wrong, as an event; the traceback of a bug goes to stderr. Returns the exit
    code and the message."""
    if not isinstance(error, HdganError) and is_full(error):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        error = NoSpace(
            f"no space left on the disk{where}: free some, or use another one, then run the same "
            "command again: finished work is kept"
        )
    if isinstance(error, HdganError):
        code, message = error.exit_code, str(error)
    elif isinstance(error, MemoryError):
        code, message = InternalError.exit_code, "out of memory: use smaller batches or fewer parts"
    elif type(error).__name__ == "OutOfMemoryError":  # torch's, which is not known here
        what = next(iter(str(error).splitlines()), "")[:300]
        code = InternalError.exit_code
        message = f"out of the GPU's memory: use smaller batches, or a larger GPU ({what})"
    else:
        code, message = InternalError.exit_code, f"{type(error).__name__}: {error}"
    if code == InternalError.exit_code:
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
    emitter.emit("error", _error_fields(type(error).__name__, message, code))
    return code, message


def _error_fields(name: str, message: str, code: int) -> dict[str, Any]:
    return {"error": name, "message": message, "exitCode": code}


def _versions() -> dict[str, str]:
    """Versions of our own distributions and of the numerical libraries in use."""
    found = {}
    for module, distribution in (
        ("hdgan.core", "hdgan-core"),
        ("hdgan.nets", "hdgan-nets"),
        ("torch", "torch"),
        ("numpy", "numpy"),
        ("openslide", "openslide-python"),
    ):
        if module in sys.modules:
            try:
                found[distribution] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                found[distribution] = "not installed as a distribution"
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finite(value: float) -> bool:
    return value - value == 0.0


def format_bytes(size: float) -> str:
    """`size` as people write it: 3.2 GB (decimal units)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
