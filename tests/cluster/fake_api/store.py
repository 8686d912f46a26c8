"""All objects, one counter of versions for all of them, and the last changes."""

from __future__ import annotations

import copy
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from cluster.fake_api.problems import too_new, too_old

Json = dict[str, Any]
Place = tuple[str, str]
"""Namespace ("" where there is none) and name."""


@dataclass(frozen=True)
class Change:
    """What happened to an object. `before` is None for a new one; `now` is the last state."""

    version: int
    type: str
    type_key: str
    now: Json
    before: Json | None


class Store:
    """Objects by kind and place. What is stored is never changed in place, only replaced.

    `lock` may be held over several calls; `changed` is told of every change.
    """

    def __init__(self, history: int) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.history_size = history
        self.version = 1
        self.forgotten = 0
        self._objects: dict[str, dict[Place, Json]] = {}
        self._by_uid: dict[str, tuple[str, Place]] = {}
        self._history: deque[Change] = deque()

    def get(self, type_key: str, namespace: str, name: str) -> Json | None:
        """The stored object itself: not to be changed."""
        with self.lock:
            return self._objects.get(type_key, {}).get((namespace, name))

    def all(self, type_key: str) -> dict[Place, Json]:
        """The objects of a kind, in order of namespace and name."""
        with self.lock:
            return dict(sorted(self._objects.get(type_key, {}).items()))

    def type_keys(self) -> list[str]:
        with self.lock:
            return [key for key, objects in self._objects.items() if objects]

    def of_uid(self, uid: str) -> tuple[str, Json] | None:
        """Kind and object that has this uid."""
        with self.lock:
            found = self._by_uid.get(uid)
            if found is None:
                return None
            type_key, place = found
            return type_key, self._objects[type_key][place]

    def put(self, type_key: str, value: Json) -> Json:
        """Store a new state under the next version, and return it as stored."""
        with self.lock:
            meta = value["metadata"]
            place = (meta.get("namespace", ""), meta["name"])
            before = self._objects.get(type_key, {}).get(place)
            stored = self._stamped(value)
            self._objects.setdefault(type_key, {})[place] = stored
            self._by_uid[meta["uid"]] = (type_key, place)
            self._note("ADDED" if before is None else "MODIFIED", type_key, stored, before)
            return stored

    def remove(self, type_key: str, namespace: str, name: str) -> Json:
        """Take an object away, and return its last state under the version of its end."""
        with self.lock:
            before = self._objects[type_key].pop((namespace, name))
            self._by_uid.pop(before["metadata"]["uid"], None)
            last = self._stamped(before)
            self._note("DELETED", type_key, last, before)
            return last

    def since(self, version: int, type_key: str) -> list[Change]:
        """Changes of a kind after a version. Raises `Problem` 410 when some are forgotten."""
        with self.lock:
            if version < self.forgotten:
                raise too_old(version, self.forgotten)
            found = []
            for change in reversed(self._history):
                if change.version <= version:
                    break
                if change.type_key == type_key:
                    found.append(change)
            return found[::-1]

    def changes_after(self, version: int) -> list[Change]:
        """Changes of all kinds after a version, as far as they are remembered."""
        with self.lock:
            found = []
            for change in reversed(self._history):
                if change.version <= version:
                    break
                found.append(change)
            return found[::-1]

    def as_of(self, version: int, type_key: str) -> dict[Place, Json]:
        """The objects of a kind as they were at a version."""
        with self.lock:
            if version > self.version:
                raise too_new(version, self.version)
            then = dict(self._objects.get(type_key, {}))
            for change in reversed(self.since(version, type_key)):
                meta = change.now["metadata"]
                place = (meta.get("namespace", ""), meta["name"])
                if change.before is None:
                    del then[place]
                else:
                    then[place] = change.before
            return dict(sorted(then.items()))

    def forget_history(self) -> None:
        """As if etcd was compacted now: every older version is too old."""
        with self.lock:
            self._history.clear()
            self.forgotten = self.version

    def _stamped(self, value: Json) -> Json:
        self.version += 1
        stored = copy.deepcopy(value)
        stored["metadata"]["resourceVersion"] = str(self.version)
        return stored

    def _note(self, what: str, type_key: str, now: Json, before: Json | None) -> None:
        self._history.append(Change(self.version, what, type_key, now, before))
        while len(self._history) > self.history_size:
            self.forgotten = self._history.popleft().version
        self.changed.notify_all()
