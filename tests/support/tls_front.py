"""TLS before a plain server on 127.0.0.1, with a certificate of an authority of its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import trustme


@dataclass(frozen=True)
class TlsFront:
    """Where it is, and what its clients have sent."""

    endpoint: str
    authority: Path
    """Certificate of the authority, for AWS_CA_BUNDLE."""
    sent: list[bytes] = field(default_factory=list)
    """All that clients sent, where it was to be kept."""


@contextlib.contextmanager
def tls_front(server: str, folder: Path, *, keep: bool = False) -> Iterator[TlsFront]:
    """A front of `server` (URL), for as long as the block runs. keep: what clients send"""
    authority = trustme.CA()
    certificate = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    parts = urlsplit(server)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    front = TlsFront(f"https://127.0.0.1:{port}", certificate)
    closing = threading.Event()

    def accept() -> None:
        while not closing.is_set():
            plain, _ = listening.accept()
            threading.Thread(target=talk, args=(plain,), daemon=True).start()

    def talk(plain: socket.socket) -> None:
        with plain, contextlib.suppress(OSError):
            client = context.wrap_socket(plain, server_side=True)
            with client, socket.create_connection((parts.hostname, parts.port)) as behind:
                answers = threading.Thread(target=pump, args=(behind, client, None), daemon=True)
                answers.start()
                pump(client, behind, front.sent if keep else None)
                answers.join()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield front
    finally:
        closing.set()
        # An accept that waits is woken by somebody who comes.
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()
        listening.close()


def pump(source: socket.socket, target: socket.socket, kept: list[bytes] | None) -> None:
    """Everything from one to the other, until the first has no more."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if kept is not None:
                kept.append(data)
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
