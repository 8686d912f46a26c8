"""Events are lost where they cannot be written, secrets in them always, and the work goes on."""

from __future__ import annotations

import errno
import io
import json
import os

import pytest

from hdgan.core.events import Emitter


class FullAtFirst(io.StringIO):
    """A stream to a disk that is full for the first line."""

    tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        if self.tries == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


def test_a_full_disk_under_the_log_loses_lines_and_stops_nothing() -> None:
    gone: list[str] = []
    stream = FullAtFirst()
    emitter = Emitter(stream, "tiler", lambda: gone.append("gone"))
    emitter.emit("log", {"message": "lost"})
    emitter.emit("log", {"message": "written"})
    assert json.loads(stream.getvalue())["message"] == "written"
    assert gone == []


def test_no_field_of_an_event_keeps_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'quoted"secret1')
    stream = io.StringIO()
    problem = ConnectionError('signed with quoted"secret1')
    emitter = Emitter(stream, "tiler", lambda: None)
    emitter.emit("log", {"message": str(problem), "cause": problem, "at": [1.5, None]})
    event = json.loads(stream.getvalue())
    assert event["message"] == event["cause"] == "signed with [redacted]"
    assert event["at"] == [1.5, None]
