"""The JSON lines a stage prints on stdout, and reading them back.

One object per line with an `event`: `progress`, `metric`, `log`, and last `result` or `error`; and
with what every log line has (see `log_lines`): `time`, `level`, and what it is about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from threading import Lock
from typing import IO, Any

from hdgan.core.json_documents import JsonError, parse_object
from hdgan.core.redaction import redact_values

MAX_LINE = 1 << 20
"""Characters of a line that is read: a longer one is no event."""

_LEVELS = {
    "progress": "debug",
    "metric": "debug",
    "log": "info",
    "result": "info",
    "error": "error",
}
"""Of an event that does not say its own."""
EVENTS = frozenset(_LEVELS)


class Emitter:
    """Writes events as lines, from any thread, without secrets. Nobody left to read them is not an
    error here: `on_gone` is called once and later events are dropped. Where the disk they are
    written to is full, they are lost and the work goes on."""

    def __init__(
        self,
        stream: IO[str],
        stage: str,
        on_gone: Callable[[], None],
        about: Mapping[str, str | int] | None = None,
    ) -> None:
        """about: what else every line says of where it comes from: run, key, part."""
        self._stream = stream
        self._about: dict[str, str | int] = {"stage": stage, **(about or {})}
        self._on_gone = on_gone
        self._gone = False
        self._lock = Lock()

    def emit(self, event: str, fields: dict[str, Any]) -> None:
        fields = redact_values(json.loads(json.dumps(fields, default=str)))
        head = {
            "time": written(datetime.now(UTC)),
            "level": _LEVELS[event],
            "event": event,
            **self._about,
        }
        line = json.dumps(head | fields) + "\n"
        # A signal or the hard-exit timer must not wait for ever for a blocked writer.
        if not self._lock.acquire(timeout=2.0):
            return
        try:
            if self._gone:
                return
            self._stream.write(line)
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # ValueError: the stream was closed
            self._gone = True
        except OSError:
            pass
        finally:
            self._lock.release()
        if self._gone:
            self._on_gone()


def written(moment: datetime) -> str:
    """A time as log lines have it: in UTC, with milliseconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def parse_event(line: str) -> dict[str, Any] | None:
    """The event in `line`, or None when the line is something else that was printed."""
    if not line.startswith("{"):
        return None
    try:
        document = parse_object(line, max_bytes=MAX_LINE, nan=True)  # of a training that diverged
    except JsonError:
        return None
    event = document.get("event")
    return document if isinstance(event, str) and event in EVENTS else None
