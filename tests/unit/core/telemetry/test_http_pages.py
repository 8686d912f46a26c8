"""Pages are served to whoever asks, and nobody is waited for for ever."""

from __future__ import annotations

import socket
import urllib.request
from threading import Event

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


def test_who_hangs_up_before_the_answer_is_not_spoken_of(
    capfd: pytest.CaptureFixture[str],
) -> None:
    sent: list[str] = []
    heard = Event()

    def answer(path: str) -> Page:
        assert heard.wait(60)
        return Page("x" * 10_000_000)

    with PageServer("127.0.0.1", 0, answer, sent.append) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        heard.set()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/other", timeout=60) as page:
            assert len(page.read()) == 10_000_000
    assert "Traceback" not in capfd.readouterr().err
    assert "/metrics" not in sent
