"""Answers that a store's S3 client gets instead of the server's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from botocore.awsrequest import AWSResponse

from hdgan.core.store_s3 import S3Store


def answers(store: S3Store, operation: str, *prepared: tuple[int, bytes]) -> Callable[[], int]:
    """Answer the next requests of an operation so, status and body, without the server; how many
    are left."""
    left = list(prepared)

    class Body:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def stream(self) -> Iterator[bytes]:
            yield self._data

        def read(self, size: int = -1) -> bytes:
            data, self._data = self._data, b""
            return data

        def close(self) -> None:
            pass

    def answer(request: Any, **_: object) -> AWSResponse | None:
        if not left:
            return None
        status, body = left.pop(0)
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/xml"}
        return AWSResponse(request.url, status, headers, Body(body))

    store.server.client.meta.events.register(f"before-send.s3.{operation}", answer)
    return lambda: len(left)
