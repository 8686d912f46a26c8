"""Pages are served to whoever asks, and nobody is waited for for ever."""

from __future__ import annotations

import socket

import pytest

from hdgan.core.telemetry import http_pages
from hdgan.core.telemetry.http_pages import Page, PageServer


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pages, "SECONDS", 0.2)
    with (
        PageServer("127.0.0.1", 0, lambda path: Page("ok\n")) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent,
    ):
        silent.sendall(b"GET /metr")
        assert silent.recv(1) == b"", "closed by the server, without an answer"
