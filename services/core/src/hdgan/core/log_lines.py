"""Log lines: JSON objects for machines that collect them, plain text for people at a terminal.

A line of JSON has `time` (UTC), `level` (debug, info, warning, error), `message`, and what it is
about where that is known: `run`, `namespace`, `stage`, `part`, `key`. Levels: error, somebody has
to do something; warning, somebody should know; info, something has begun or ended; debug, the rest.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

from hdgan.core.errors import RequestError
from hdgan.core.events import MAX_LINE, written
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.core.printable import printable
from hdgan.core.progress_view import describe_progress
from hdgan.core.redaction import redact

FORMAT_VARIABLE: Final = "HDGAN_LOG_FORMAT"
"""`json` or `text`; unset: text on a terminal, else JSON."""
ABOUT: Final = ("namespace", "run", "stage", "part", "key", "store")
"""What a line may be about, in this order. Loggers get it as `extra`."""


class JsonLines(logging.Formatter):
    """Records of `logging` as JSON, the traceback of an exception inside."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": written(datetime.fromtimestamp(record.created, UTC)),
            "level": level_of(record),
            "message": redact(record.getMessage()),
        }
        fields |= {name: vars(record)[name] for name in ABOUT if name in vars(record)}
        fields["logger"] = record.name
        if record.exc_info:
            fields["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(fields, default=str)


class TextLines(logging.Formatter):
    """Records of `logging` for people: one line for a message, whatever is in it: some of it was
    said by pods and by whoever makes runs. Only the traceback of an exception has more."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        about = "/".join(str(vars(record)[name]) for name in ABOUT if name in vars(record))
        text = super().formatMessage(record)
        return printable(f"{text} [{about}]" if about else text).replace("\n", "\\n")


def formatter(stream: IO[str], environ: Mapping[str, str] = os.environ) -> logging.Formatter:
    """For what is logged to this stream. RequestError if HDGAN_LOG_FORMAT says something else."""
    asked = environ.get(FORMAT_VARIABLE) or ("text" if stream.isatty() else "json")
    if asked not in ("json", "text"):
        raise RequestError(f"{FORMAT_VARIABLE}={asked!r}: must be json or text")
    return JsonLines() if asked == "json" else TextLines()


def log_to(stream: IO[str], level: int) -> None:
    """Write what is logged in this process to a stream, from this level on. RequestError as
    `formatter`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(stream))
    logging.basicConfig(level=level, handlers=[handler])


def readable(line: str) -> str:
    """A line a stage or the controller has written, for people; what is none of those as it is."""
    try:
        fields = parse_object(line, max_bytes=MAX_LINE, nan=True)
    except JsonError:
        return printable(line)
    said = _said(fields)
    if said is None:
        return printable(line)
    level = str(fields.get("level") or "info")
    mark = "" if level in ("info", "debug") else f"{level}: "
    time = str(fields.get("time") or "")[11:19]
    text = printable(f"{time} {mark}{said}".strip())
    trace = fields.get("traceback")
    return f"{text}\n{printable(trace)}" if isinstance(trace, str) else text


def _said(fields: dict[str, Any]) -> str | None:
    match fields.get("event"):
        case "progress":
            return describe_progress(fields)
        case "metric" if isinstance(fields.get("values"), dict):
            values = fields["values"].items()
            return ", ".join(f"{name} {_number(value)}" for name, value in values)
        case "result":
            return f"done: {fields.get('contentDigest')}"
    message = fields.get("message")
    return message if isinstance(message, str) else None


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def level_of(record: logging.LogRecord) -> str:
    """One of the four words."""
    if record.levelno >= logging.ERROR:
        return "error"
    if record.levelno >= logging.WARNING:
        return "warning"
    return "info" if record.levelno >= logging.INFO else "debug"
