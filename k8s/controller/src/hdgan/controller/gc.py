"""`python -m hdgan.controller.gc SETTINGS`: removes from all declared stores what nobody needs.

One pass of `hdgan gc --delete` over each store, with the credentials the controller has for it;
prints a line of JSON for each. Asks nothing of the cluster. Run once a day, by the chart's CronJob.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from hdgan.controller.looking import connection
from hdgan.controller.settings import GarbageConfig, Settings, StoreConfig, load_settings
from hdgan.core.errors import HdganError, InternalError, RequestError, Stopped, StoreUnavailable
from hdgan.core.garbage.collecting import Found, Policy, Report, collect
from hdgan.core.garbage.roots import Keeping
from hdgan.core.log_lines import log_to
from hdgan.core.redaction import guard_streams, redact
from hdgan.core.store import connected, open_store

logger = logging.getLogger(__name__)

NAMES: Final = 5
"""Of objects, in a line; further ones are only counted."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A store, once however often it is declared."""

    config: StoreConfig
    """The first declaration: its credentials are used."""
    names: tuple[str, ...]
    """`namespace/name` of all declarations."""


def main(arguments: list[str] | None = None) -> int:
    """Collect in every store; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hdgan.controller.gc", description=__doc__)
    parser.add_argument("settings", type=Path, help="the installation's settings, a YAML file")
    options = parser.parse_args(arguments)
    guard_streams()
    codes = []
    try:
        log_to(sys.stderr, logging.WARNING)
        settings = load_settings(options.settings)
        with _ended_by_sigterm() as told:
            for line, code in collect_all(settings):
                print(json.dumps(line), flush=True)
                codes.append(code)
                if told.is_set():
                    return Stopped.exit_code
    except HdganError as error:
        print(f"hdgan: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return whole_code(codes)


def collect_all(settings: Settings) -> Iterator[tuple[Line, int]]:
    """Go through the stores; a line and an exit code for each, whatever became of those before."""
    for place in places(settings):
        began = time.monotonic()
        told, code = _collect(place.config, policy(settings.gc))
        line = {
            "store": place.config.uri,
            "endpoint": place.config.endpoint,
            "declaredAs": list(place.names),
            "seconds": round(time.monotonic() - began, 1),
        }
        yield {**line, **told}, code


def _collect(config: StoreConfig, policy: Policy) -> tuple[Line, int]:
    try:
        with connected(connection(config)):
            report = collect(open_store(config.uri), policy, delete=True)
            return summary(report), RequestError.exit_code if report.held else 0
    except HdganError as error:
        said, code = str(error), error.exit_code
    except Exception as error:
        # A bug that shows in one store is no reason to let the others fill up.
        logger.exception("a bug", extra={"store": config.uri})
        said, code = f"{type(error).__name__}: {error}", InternalError.exit_code
    return {"error": redact(said), "exitCode": code}, code


def places(settings: Settings) -> list[Place]:
    """All declared stores in the order of their declarations, each once."""
    found: dict[tuple[str, str], Place] = {}
    for namespace in settings.namespaces:
        for name, config in namespace.stores.items():
            where = ((config.endpoint or "").rstrip("/"), config.uri.rstrip("/"))
            known = found.get(where, Place(config, ()))
            found[where] = Place(known.config, (*known.names, f"{namespace.name}/{name}"))
    return list(found.values())


def policy(config: GarbageConfig) -> Policy:
    """How long things stay, and how much may go."""
    return Policy(
        Keeping(timedelta(days=config.keep_days), timedelta(days=config.keep_awaiting_days)),
        timedelta(hours=config.grace_hours),
        config.most_percent / 100,
    )


def whole_code(codes: list[int]) -> int:
    """The exit code for those of the stores. Where one did not answer, all is tried again."""
    failed = [code for code in codes if code]
    if StoreUnavailable.exit_code in failed:
        return StoreUnavailable.exit_code
    return failed[0] if failed else 0


def summary(report: Report) -> Line:
    """The report as numbers, and a few names of what is unusual.

    `removed` is space that has been given back. `withdrawn`: artifacts whose manifest has gone;
    their files follow a grace later, and are `removed` then.
    """
    pieces = [one for one in report.garbage if one.garbage.kind != "pin"]  # counted by themselves
    withdrawn = [one for one in pieces if one.state == "removed" and one.garbage.kind == "manifest"]
    removed = [one for one in pieces if one.state == "removed" and one.garbage.kind != "manifest"]
    unfinished = [state for _, state in report.unfinished]
    return {
        "kept": report.kept,
        "marked": _sum([one for one in pieces if one.state == "marked"]),
        "waiting": _sum([one for one in pieces if one.state == "waiting"]),
        "due": _sum([one for one in pieces if one.state == "due"]),
        "withdrawn": _sum(withdrawn),
        "removed": _sum(removed),
        "neededAgain": _sum([one for one in pieces if one.state == "needed again"]),
        "unfinishedWrites": {
            "waiting": unfinished.count("waiting"),
            "removed": unfinished.count("removed"),
        },
        "expiredPins": report.expired,
        "held": report.held or None,
        "restored": _some(report.restored),
        "missing": _some(report.missing),
        "problems": _some(report.problems),
        "unknown": _some(report.unknown),
    }


def _sum(found: list[Found]) -> Line:
    return {
        "count": len(found),
        "objects": sum(one.objects for one in found),
        "bytes": sum(one.size for one in found),
    }


def _some(names: list[str]) -> Line:
    return {"count": len(names), "names": names[:NAMES]}


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[threading.Event]:
    """Within, SIGTERM ends the program: process 1 of a container would not hear it. A pass may be
    cut off anywhere; the next one goes on.

    The event says so, too: what is tidied up on the way may fail, and be all that is seen.
    """
    told = threading.Event()

    def end(*_: object) -> None:
        told.set()
        sys.exit(Stopped.exit_code)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
