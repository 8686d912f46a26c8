"""The events of a watch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.fake_api import views
from cluster.fake_api.api import Api, Choice
from cluster.fake_api.problems import Problem, bad_request
from cluster.fake_api.resources import Resource
from cluster.fake_api.store import Change

Json = dict[str, Any]


@dataclass(frozen=True)
class WatchRequest:
    """What a client wants to be told."""

    resource: Resource
    namespace: str
    choice: Choice
    seconds: float
    bookmarks: bool = False
    # The newer way to list: first all objects, then a bookmark that says so.
    initial: bool = False


def follow(
    api: Api, request: WatchRequest, *, bookmark_seconds: float, stopped: Callable[[], bool]
) -> Iterator[Json]:
    """Events as they happen, until the time is over or `stopped` says so.

    Raises `Problem` before the first event for a request that makes no sense.
    """
    store, resource = api.store, request.resource
    chosen = api.tests(resource, request.choice)
    asked = request.choice.version
    if asked and not asked.isdigit():
        raise bad_request(f"invalid resource version {asked!r}")
    return _Follower(api, request, chosen, store.version).run(
        int(asked or 0), bookmark_seconds, stopped
    )


class _Follower:
    def __init__(
        self, api: Api, request: WatchRequest, chosen: Callable[[Json], bool], version: int
    ) -> None:
        self._store = api.store
        self._request = request
        self._resource = request.resource
        self._chosen = chosen
        self._at = version

    def run(
        self, version: int, bookmark_seconds: float, stopped: Callable[[], bool]
    ) -> Iterator[Json]:
        deadline = time.monotonic() + self._request.seconds
        if version == 0 or self._request.initial:
            yield from self._present()
        else:
            self._at = version
        next_bookmark = time.monotonic() + bookmark_seconds
        while not stopped():
            with self._store.changed:
                try:
                    changes = self._store.since(self._at, self._resource.type_key)
                except Problem as problem:
                    gone = problem
                    break
                if not changes:
                    # What other kinds have done moves the bookmark, too.
                    self._at = max(self._at, self._store.version)
                    left = min(deadline, next_bookmark) - time.monotonic()
                    if left > 0:
                        self._store.changed.wait(timeout=min(left, 0.1))
            for change in changes:
                event = self._event(change)
                self._at = change.version
                if event is not None:
                    yield event
            now = time.monotonic()
            if now >= next_bookmark or now >= deadline:
                next_bookmark = now + bookmark_seconds
                if self._request.bookmarks:
                    yield self._bookmark({})
            if now >= deadline:
                return
        else:
            return
        yield {"type": "ERROR", "object": gone.status()}

    def _present(self) -> Iterator[Json]:
        with self._store.lock:
            self._at = self._store.version
            objects = self._store.all(self._resource.type_key).values()
        for value in objects:
            if self._in_scope(value):
                yield {"type": "ADDED", "object": views.shown(value, self._resource)}
        if self._request.initial:
            yield self._bookmark({"k8s.io/initial-events-end": "true"})

    def _bookmark(self, annotations: dict[str, str]) -> Json:
        meta: Json = {"resourceVersion": str(self._at), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        return {
            "type": "BOOKMARK",
            "object": {
                "kind": self._resource.kind,
                "apiVersion": self._resource.api_version,
                "metadata": meta,
            },
        }

    def _in_scope(self, value: Json) -> bool:
        namespace = self._request.namespace
        if namespace and value["metadata"].get("namespace") != namespace:
            return False
        return self._chosen(value)

    def _event(self, change: Change) -> Json | None:
        """The change as this watch sees it: coming into a selection is ADDED, leaving DELETED."""
        was = change.before is not None and self._in_scope(change.before)
        is_ = change.type != "DELETED" and self._in_scope(change.now)
        if is_:
            what, value = ("MODIFIED" if was else "ADDED"), change.now
        elif was:
            assert change.before is not None
            meta = {**change.before["metadata"], "resourceVersion": str(change.version)}
            what, value = "DELETED", {**change.before, "metadata": meta}
        else:
            return None
        return {"type": what, "object": views.shown(value, self._resource)}
