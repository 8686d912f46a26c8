"""Objects of one kind as the API server last told of them: listed, then watched, and listed again
whenever the watch cannot be trusted."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from hdgan.controller.api import Api, ApiError, Document, Gone

logger = logging.getLogger(__name__)

WATCH_SECONDS = 60.0
"""Length of one watch. Short, so that a connection that has gone silent is noticed soon."""
LONGEST_PAUSE = 30.0
LONGEST_ASKED = 120.0
"""Longest pause that a server may ask for."""
SHORT = 1.0
"""Seconds; a watch that says nothing and ends sooner has gone wrong, however politely."""

Changed = Callable[[Document], None]
"""Called with an object that is new, changed or gone (as it was last)."""


class Watched:
    """A cache of all objects of a collection in a namespace, kept by a thread of its own."""

    def __init__(
        self,
        api: Api,
        collection: str,
        namespace: str,
        changed: Changed,
        *,
        resync_seconds: float,
        selector: str | None = None,
        group: Callable[[Document], str] = lambda document: "",
        counts: Callable[[Document], bool] = lambda document: True,
        watch_seconds: float = WATCH_SECONDS,
        departed_seconds: float = 0.0,
    ) -> None:
        """group: what `of_group` finds objects by; counts: which objects `count` counts;
        departed_seconds: how long what was deleted is remembered."""
        self._api = api
        self._collection = collection
        self._namespace = namespace
        self._changed = changed
        self._resync = resync_seconds
        self._watch_seconds = watch_seconds
        self._query = {"labelSelector": selector} if selector else {}
        self._objects: dict[str, Document] = {}
        self._group = group
        self._groups: dict[str, dict[str, Document]] = {}
        self._counts = counts
        self._counted: set[str] = set()
        self._departed_seconds = departed_seconds
        self._departed: dict[str, tuple[float, Document]] = {}
        """By UID: when it went, and how it was last. The oldest first."""
        self._departed_groups: dict[str, dict[str, Document]] = {}
        self._lock = threading.Lock()
        self._listed = threading.Event()
        self._stop = threading.Event()
        self._heard = 0.0
        # In a row. A list alone ends no row: the watch after it may fail each time.
        self._failures = 0
        self._thread = threading.Thread(
            target=self._work, name=f"watch-{collection.rpartition('/')[2]}", daemon=True
        )

    def start(self) -> None:
        """Begin to list and watch."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether everything has been listed once, waiting at most so long."""
        return self._listed.wait(seconds)

    def stop(self) -> None:
        """Stop; the thread ends when its current request does."""
        self._stop.set()

    @property
    def silent_seconds(self) -> float:
        """Time since the server was last heard of."""
        return time.monotonic() - self._heard

    def get(self, name: str) -> Document | None:
        """An object by name."""
        with self._lock:
            return self._objects.get(name)

    def all(self) -> list[Document]:
        """All objects."""
        with self._lock:
            return list(self._objects.values())

    def of_group(self, group: str) -> list[Document]:
        """The objects of one group."""
        with self._lock:
            return list(self._groups.get(group, {}).values())

    def departed_of_group(self, group: str) -> list[Document]:
        """Objects of one group that are gone, as they were last."""
        with self._lock:
            self._forget_departed()
            return list(self._departed_groups.get(group, {}).values())

    def count(self) -> int:
        """How many objects count."""
        with self._lock:
            return len(self._counted)

    def remember(self, document: Document) -> None:
        """Take an answer to a write of our own, which the watch may tell of only later."""
        with self._lock:
            self._take(document)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch(self._list())
            except Gone as error:
                # Not a fault, unless it comes again and again: then lists must not follow lists.
                self._rest(error, logging.INFO)
            except ApiError as error:
                self._rest(error, logging.WARNING)
            except Exception:
                # Whatever it is: a cache that nobody keeps would be believed for ever.
                logger.exception("watching %s", self._collection)
                self._stop.wait(LONGEST_PAUSE)

    def _rest(self, error: ApiError, level: int) -> None:
        """Leave the server alone after a failure: longer each time, or as long as it asks."""
        self._failures += 1
        pause = min(LONGEST_PAUSE, 0.5 * 2 ** min(self._failures, 8)) * random.uniform(0.5, 1)
        if error.retry_after is not None:
            # Later than it says rather than all at the same moment.
            asked = min(LONGEST_ASKED, error.retry_after)
            pause = max(pause, asked * random.uniform(1, 1.2))
        logger.log(level, "watching %s: %s; again in %.1f s", self._collection, error, pause)
        self._stop.wait(pause)

    def _list(self) -> str:
        listed = self._api.list(self._collection, self._namespace, **self._query)
        self._heard = time.monotonic()
        names = {one["metadata"]["name"] for one in listed.items}
        with self._lock:
            gone = [one for name, one in self._objects.items() if name not in names]
            for one in gone:
                self._part_with(one)
            for one in listed.items:
                self._take(one)
        self._listed.set()
        self._tell([*gone, *listed.items])
        return listed.version

    def _watch(self, version: str) -> None:
        """Until everything is to be listed again."""
        end = time.monotonic() + self._resync * random.uniform(0.8, 1.2)
        while not self._stop.is_set() and time.monotonic() < end:
            seconds = min(self._watch_seconds, max(1.0, end - time.monotonic()))
            begun, said = time.monotonic(), False
            for kind, document in self._api.watch(
                self._collection, self._namespace, version, seconds=seconds, **self._query
            ):
                self._heard = time.monotonic()
                self._failures, said = 0, True
                version = document["metadata"]["resourceVersion"]
                if kind == "BOOKMARK":
                    continue
                with self._lock:
                    if kind == "DELETED":
                        self._part_with(document)
                    else:
                        self._take(document)
                self._tell([document])
                if self._stop.is_set():
                    return
            self._heard = time.monotonic()
            if said or self._heard - begun >= min(SHORT, seconds / 2):
                self._failures = 0
            else:
                self._rest(ApiError("the watch ended at once"), logging.INFO)

    def _take(self, document: Document) -> None:
        # As long as all the rest, nobody here reads it, and a write without it changes nothing.
        document["metadata"].pop("managedFields", None)
        name = document["metadata"]["name"]
        known = self._objects.get(name)
        if known is not None and _older(document, known):
            return
        self._drop(name)
        self._objects[name] = document
        self._groups.setdefault(self._group(document), {})[name] = document
        if self._counts(document):
            self._counted.add(name)

    def _part_with(self, document: Document) -> None:
        self._drop(document["metadata"]["name"])
        if self._departed_seconds > 0:
            uid = document["metadata"]["uid"]
            self._departed[uid] = (time.monotonic(), document)
            self._departed_groups.setdefault(self._group(document), {})[uid] = document
            self._forget_departed()

    def _forget_departed(self) -> None:
        limit = time.monotonic() - self._departed_seconds
        while self._departed:
            uid, (when, document) = next(iter(self._departed.items()))
            if when >= limit:
                return
            del self._departed[uid]
            group = self._group(document)
            members = self._departed_groups[group]
            del members[uid]
            if not members:
                del self._departed_groups[group]

    def _drop(self, name: str) -> None:
        known = self._objects.pop(name, None)
        if known is None:
            return
        self._counted.discard(name)
        group = self._group(known)
        members = self._groups[group]
        del members[name]
        if not members:
            del self._groups[group]

    def _tell(self, documents: Iterable[Document]) -> None:
        for document in documents:
            try:
                self._changed(document)
            except Exception:
                logger.exception("a change of %s", self._collection)


def _older(one: Document, other: Document) -> bool:
    """Whether `one` is an earlier version of the same object."""
    if one["metadata"].get("uid") != other["metadata"].get("uid"):
        return False
    return _number(one) < _number(other)


def _number(document: Document) -> int:
    """Versions are opaque by contract and numbers in fact; others are taken as they come."""
    version: Any = document["metadata"].get("resourceVersion", "")
    return int(version) if str(version).isdecimal() else 0
