"""Log lines: JSON for machines, text for people, and nothing in either that should not be seen."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from hdgan.core.errors import RequestError
from hdgan.core.events import Emitter
from hdgan.core.log_lines import JsonLines, TextLines, formatter, readable


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> Iterator[logging.Logger]:
    logger = logging.getLogger("hdgan.test")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.removeHandler(handler)


def test_a_record_is_one_line_of_json_that_says_what_it_is_about(
    logger: logging.Logger, stream: io.StringIO
) -> None:
    logger.warning("pod said %s", "a\nb", extra={"run": "skin", "namespace": "lab"})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "message": "pod said a\nb",
        "namespace": "lab",
        "run": "skin",
        "logger": "hdgan.test",
    }


def test_a_traceback_stays_in_its_line_without_secrets(
    logger: logging.Logger, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quiet-secret1")
    try:
        raise ValueError("with quiet-secret1")
    except ValueError:
        logger.exception("it failed with quiet-secret1")
    (line,) = stream.getvalue().splitlines()
    assert "quiet-secret1" not in line
    assert "ValueError" in json.loads(line)["traceback"]


def test_text_is_one_line_that_moves_no_cursor() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "a\x1b[2Jb\nc", None, None)
    record.run = "skin"
    text = TextLines().format(record)
    assert text.endswith("ERROR a\\x1b[2Jb\\nc [skin]")


def test_text_on_a_terminal_json_elsewhere_or_as_asked(stream: io.StringIO) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(formatter(stream, {}), JsonLines)
    assert isinstance(formatter(Terminal(), {}), TextLines)
    assert isinstance(formatter(Terminal(), {"HDGAN_LOG_FORMAT": "json"}), JsonLines)
    with pytest.raises(RequestError, match="HDGAN_LOG_FORMAT='xml': must be json or text"):
        formatter(stream, {"HDGAN_LOG_FORMAT": "xml"})


def test_what_stages_say_can_be_read(stream: io.StringIO) -> None:
    emitter = Emitter(stream, "tiler", lambda: None, {"run": "skin", "part": 1})
    emitter.emit("progress", {"done": 5, "total": 10, "unit": "tiles", "rate": 2.0, "eta": 2.5})
    emitter.emit("metric", {"values": {"kid": 0.12345678, "loss": "nan"}})
    emitter.emit("log", {"level": "warning", "message": "slide \x1b[2J is odd"})
    emitter.emit("error", {"message": "no space", "exitCode": 69})
    lines = stream.getvalue().splitlines()
    assert [json.loads(line)["level"] for line in lines] == ["debug", "debug", "warning", "error"]
    assert {(json.loads(line)["run"], json.loads(line)["part"]) for line in lines} == {("skin", 1)}
    shown = [readable(line)[9:] for line in lines]
    assert shown == [
        "5 of 10 tiles, 50%, 2.0 tiles/s, 2.5 s left",
        "kid 0.1235, loss nan",
        "warning: slide \\x1b[2J is odd",
        "error: no space",
    ]


@pytest.mark.parametrize("line", ["plain", "[1]", "{", '{"a": 1}', "x\x1b[0m", ""])
def test_what_is_no_such_line_is_shown_as_it_is(line: str) -> None:
    assert readable(line) == line.replace("\x1b", "\\x1b")


def test_a_record_of_the_controller_can_be_read(
    logger: logging.Logger, stream: io.StringIO
) -> None:
    try:
        sys.exit("bug")
    except SystemExit:
        logger.exception("looking")
    first, *rest = readable(stream.getvalue().strip()).splitlines()
    assert first.endswith("error: looking")
    assert rest[0].startswith("Traceback")
