"""The metrics of a stage are served to whoever asks, and to nobody for ever."""

from __future__ import annotations

import socket

import pytest

from hdgan.core import metrics
from hdgan.core.metrics import MetricsServer


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SECONDS", 0.2)
    with (
        MetricsServer(run="a", stage="b", key="c", host="127.0.0.1", port=0) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent,
    ):
        silent.sendall(b"GET /metr")
        assert silent.recv(1) == b"", "closed by the server, without an answer"
