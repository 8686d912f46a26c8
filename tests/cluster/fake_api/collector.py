"""The garbage collector, and the emptying of namespaces and definitions that are being deleted."""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import Any

from cluster.fake_api.api import Api
from cluster.fake_api.deletion import (
    CLAIM_IN_USE,
    DEFINITION_CLEANUP,
    FOREGROUND,
    ORPHAN,
    DeleteOptions,
)
from cluster.fake_api.problems import Problem
from cluster.fake_api.resources import CLAIMS, DEFINITIONS, NAMESPACES, PODS, Resource
from cluster.fake_api.store import Change

Json = dict[str, Any]


class Collector:
    """A thread that follows the store and cleans up after each change that can matter."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._store = api.store
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        # Tests may let the garbage lie for a while.
        self.paused = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._store.changed:
            self._stopping = True
            self._store.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        seen = 0
        with self._store.changed:
            while not self._stopping:
                changes = self._store.changes_after(seen)
                if self.paused or seen == self._store.version:
                    self._store.changed.wait(timeout=1.0)
                    continue
                lost = self._store.forgotten > seen
                seen = self._store.version
                if lost or any(_ends(change) for change in changes):
                    self._clean()
                else:
                    for change in changes:
                        found = self._store.of_uid(change.now["metadata"]["uid"])
                        if found is not None and _has_new_owners(change):
                            self._look(*found)

    def _clean(self) -> None:
        for type_key in self._store.type_keys():
            places = list(self._store.all(type_key))
            if not places:
                continue
            for place in places:
                stored = self._store.get(type_key, *place)
                if stored is not None:
                    self._look(type_key, stored)

    def _look(self, type_key: str, stored: Json) -> None:
        # What is refused here is refused to a real collector, too: it tries again later.
        with contextlib.suppress(Problem):
            self._visit(self._api.resource_of_type(type_key), stored)

    def _visit(self, resource: Resource, stored: Json) -> None:
        meta = stored["metadata"]
        if "deletionTimestamp" in meta:
            if resource == NAMESPACES:
                self._empty_namespace(stored)
            elif DEFINITION_CLEANUP in meta.get("finalizers", []):
                self._empty_definition(stored)
            elif ORPHAN in meta.get("finalizers", []):
                for other, dependent in self._dependents(meta["uid"]):
                    self._drop_owners(other, dependent, {meta["uid"]})
                self._drop_finalizer(resource, stored, ORPHAN)
            elif FOREGROUND in meta.get("finalizers", []):
                self._foreground(resource, stored)
            elif CLAIM_IN_USE in meta.get("finalizers", []):
                self._release_claim(stored)
        elif meta.get("ownerReferences"):
            self._judge(resource, stored)

    def _judge(self, resource: Resource, stored: Json) -> None:
        """An object with owners: it goes when none of them is left."""
        meta = stored["metadata"]
        alive, waiting, gone = [], [], []
        for reference in meta["ownerReferences"]:
            owner = self._owner(reference, meta.get("namespace", ""))
            if owner is None:
                gone.append(reference["uid"])
            elif _in_foreground(owner):
                waiting.append(reference["uid"])
            else:
                alive.append(reference["uid"])
        if alive:
            if gone or waiting:
                self._drop_owners(resource, stored, {*gone, *waiting})
            return
        policy = "Background"
        if waiting and self._dependents(meta["uid"]):
            policy = "Foreground"
        elif ORPHAN in meta.get("finalizers", []):
            policy = "Orphan"
        self._api.delete(
            resource,
            meta.get("namespace", ""),
            meta["name"],
            DeleteOptions(policy=policy, uid=meta["uid"]),
        )

    def _foreground(self, resource: Resource, stored: Json) -> None:
        """The owner waits for those dependents that say they block it."""
        uid = stored["metadata"]["uid"]
        blocking = any(
            reference["uid"] == uid and reference.get("blockOwnerDeletion")
            for _, dependent in self._dependents(uid)
            for reference in dependent["metadata"]["ownerReferences"]
        )
        if not blocking:
            self._drop_finalizer(resource, stored, FOREGROUND)

    def _release_claim(self, stored: Json) -> None:
        """A claim stays as long as a pod that has not ended uses it."""
        meta = stored["metadata"]
        for (namespace, _), pod in self._store.all(PODS.type_key).items():
            ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
            if namespace == meta["namespace"] and not ended and meta["name"] in _claims_of(pod):
                return
        self._drop_finalizer(CLAIMS, stored, CLAIM_IN_USE)

    def _dependents(self, uid: str) -> list[tuple[Resource, Json]]:
        return [
            (self._api.resource_of_type(type_key), stored)
            for type_key in self._store.type_keys()
            for stored in self._store.all(type_key).values()
            if any(
                reference["uid"] == uid
                for reference in stored["metadata"].get("ownerReferences", [])
            )
        ]

    def _owner(self, reference: Json, namespace: str) -> Json | None:
        """The owner, when uid, kind, name and namespace all fit."""
        found = self._store.of_uid(reference["uid"])
        if found is None:
            return None
        type_key, owner = found
        resource = self._api.resource_of_type(type_key)
        group = reference["apiVersion"].rpartition("/")[0]
        fits = (
            resource.kind == reference["kind"]
            and resource.group == group
            and owner["metadata"]["name"] == reference["name"]
            and owner["metadata"].get("namespace", namespace) == namespace
        )
        return owner if fits else None

    def _drop_owners(self, resource: Resource, stored: Json, uids: set[str]) -> None:
        new = copy.deepcopy(stored)
        left = [one for one in new["metadata"]["ownerReferences"] if one["uid"] not in uids]
        if left:
            new["metadata"]["ownerReferences"] = left
        else:
            del new["metadata"]["ownerReferences"]
        self._store.put(resource.type_key, new)

    def _drop_finalizer(self, resource: Resource, stored: Json, finalizer: str) -> None:
        new = copy.deepcopy(stored)
        meta = new["metadata"]
        meta["finalizers"] = [one for one in meta["finalizers"] if one != finalizer]
        if meta["finalizers"]:
            self._store.put(resource.type_key, new)
        else:
            self._store.remove(resource.type_key, meta.get("namespace", ""), meta["name"])

    def _empty_namespace(self, stored: Json) -> None:
        name = stored["metadata"]["name"]
        left = False
        for type_key in self._store.type_keys():
            resource = self._api.resource_of_type(type_key)
            for place in self._store.all(type_key):
                if place[0] != name:
                    continue
                # No kubelet is waited for: pods go at once, unless a finalizer keeps them.
                if self._store.get(type_key, *place) is not None:
                    self._api.delete(resource, *place, DeleteOptions(policy="Background", grace=0))
                left = left or self._store.get(type_key, *place) is not None
        if not left:
            self._store.remove(NAMESPACES.type_key, "", name)

    def _empty_definition(self, stored: Json) -> None:
        names, group = stored["spec"]["names"], stored["spec"]["group"]
        type_key = f"{names['plural']}.{group}"
        for place in self._store.all(type_key):
            self._api.delete(
                self._api.resource_of_type(type_key), *place, DeleteOptions(policy="Background")
            )
        if not self._store.all(type_key):
            self._drop_finalizer(DEFINITIONS, stored, DEFINITION_CLEANUP)


def _claims_of(pod: Json) -> list[str]:
    """The claims a pod uses."""
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes", [])
        if "persistentVolumeClaim" in volume
    ]


def _in_foreground(owner: Json) -> bool:
    meta = owner["metadata"]
    return "deletionTimestamp" in meta and FOREGROUND in meta.get("finalizers", [])


def _ends(change: Change) -> bool:
    """Whether something has gone, is about to, or has set free what it used."""
    if change.type == "DELETED" or "deletionTimestamp" in change.now["metadata"]:
        return True
    ended = change.now.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return ended and bool(_claims_of(change.now))


def _has_new_owners(change: Change) -> bool:
    owners = change.now["metadata"].get("ownerReferences")
    if not owners:
        return False
    return change.before is None or change.before["metadata"].get("ownerReferences") != owners
