"""Every request the server has had, so that tests can count calls."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Request:
    """One request. `status` is None as long as, or when, there was no answer."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    verb: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    status: int | None = None
    user_agent: str = ""


class Requests:
    """The requests in order of arrival."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Request] = []

    def add(self, request: Request) -> None:
        with self._lock:
            self._all.append(request)

    def clear(self) -> None:
        with self._lock:
            self._all.clear()

    def mark(self) -> int:
        """A place in the record, for `since`."""
        with self._lock:
            return len(self._all)

    def since(self, mark: int = 0, **fields: object) -> list[Request]:
        """Requests after a mark whose fields have these values, e.g. verb="patch"."""
        with self._lock:
            return [
                request
                for request in self._all[mark:]
                if all(getattr(request, name) == value for name, value in fields.items())
            ]

    def counts(self, mark: int = 0, **fields: object) -> Counter[tuple[str, str]]:
        """How many requests there were of each verb and resource ("pods", "jobs/status")."""
        return Counter(
            (
                request.verb,
                f"{request.resource}/{request.subresource}"
                if request.subresource
                else request.resource,
            )
            for request in self.since(mark, **fields)
        )
