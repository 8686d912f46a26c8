"""Scheduler, kubelet and pod collector for pods whose fate a script has said."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.fake_api import pod_states
from cluster.fake_api.api import Api
from cluster.fake_api.deletion import DeleteOptions
from cluster.fake_api.fates import CannotStart, Evicted, Fate, NodeLost, Runs, Unschedulable
from cluster.fake_api.resources import PODS

Json = dict[str, Any]


@dataclass
class _Life:
    """What the kubelet remembers of a pod."""

    fate: Fate
    born: float = field(default_factory=time.monotonic)
    # When it was told to stop.
    told: float | None = None


class Kubelet:
    """Moves pods along. `step` is called again and again, with the store's lock held."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lives: dict[str, _Life] = {}

    def expect(self, pod: Json, fate: Fate) -> None:
        """From now on this pod is looked after."""
        self._lives[pod["metadata"]["uid"]] = _Life(fate)

    def step(self) -> None:
        for uid, life in list(self._lives.items()):
            found = self._api.store.of_uid(uid)
            if found is None:
                del self._lives[uid]
            else:
                self._move(found[1], life)

    def _move(self, pod: Json, life: _Life) -> None:
        meta = pod["metadata"]
        leaving = "deletionTimestamp" in meta
        if pod_states.is_terminal(pod):
            if leaving:
                self._confirm(pod)
            return
        if leaving and life.told is None:
            life.told = time.monotonic()
        if not pod["spec"].get("nodeName"):
            self._schedule(pod, life, leaving=leaving)
            return
        age = time.monotonic() - life.born
        match life.fate:
            case NodeLost():
                self._lose(pod, life, life.fate, age)
            case Runs() if leaving:
                self._stop(pod, life, life.fate)
            case Runs():
                self._follow(pod, life.fate, age)
            case CannotStart() if leaving:
                self._change(pod, pod_states.end_unstarted)
            case CannotStart():
                self._wait(pod, life.fate.reason, life.fate.message)
            case Evicted():
                self._evict(pod, life, life.fate, age)
            case _:
                raise TypeError(f"no such fate: {life.fate}")

    def _follow(self, pod: Json, fate: Runs, age: float) -> None:
        if age < fate.starts_after:
            self._wait(pod, "ContainerCreating")
        elif pod["status"].get("phase") != "Running":
            self._run(pod)
        elif age >= fate.starts_after + fate.seconds:
            self._change(
                pod, lambda new: pod_states.end(new, fate.exit_code, fate.reason, fate.message)
            )

    def _schedule(self, pod: Json, life: _Life, *, leaving: bool) -> None:
        meta = pod["metadata"]
        if leaving:
            # The pod collector's part: nobody else ends a pod that has no node.
            self._change(pod, lambda new: new["status"].update(phase="Failed"))
            return
        if isinstance(life.fate, Unschedulable):
            message = life.fate.message
            self._change(
                pod,
                lambda new: pod_states.set_condition(
                    new, "PodScheduled", "False", "Unschedulable", message
                ),
            )
            return
        self._api.bind(meta["namespace"], meta["name"], life.fate.node)
        bound = self._api.store.of_uid(meta["uid"])
        assert bound is not None
        self._move(bound[1], life)

    def _run(self, pod: Json) -> None:
        if pod["status"].get("phase") != "Running":
            self._change(pod, pod_states.run)

    def _wait(self, pod: Json, reason: str, message: str = "") -> None:
        self._change(pod, lambda new: pod_states.wait(new, reason, message))

    def _stop(self, pod: Json, life: _Life, fate: Runs) -> None:
        if pod["status"].get("phase") != "Running":
            self._change(pod, pod_states.end_unstarted)
            return
        assert life.told is not None
        grace = pod["metadata"].get("deletionGracePeriodSeconds", 0)
        waited = time.monotonic() - life.told
        if waited >= fate.stop_seconds:
            self._change(
                pod, lambda new: pod_states.end(new, fate.stop_code, "", fate.stop_message)
            )
        elif waited >= grace:
            self._change(pod, lambda new: pod_states.end(new, 137))

    def _evict(self, pod: Json, life: _Life, fate: Evicted, age: float) -> None:
        if life.told is not None:
            self._change(pod, lambda new: pod_states.end(new, 143))
        elif age < fate.seconds or pod["status"].get("phase") != "Running":
            self._run(pod)
        elif fate.deleted:
            self._disrupt(pod, fate.reason, fate.message)
            self._delete(pod)
        else:

            def fail(new: Json) -> None:
                pod_states.end(new, 137)
                pod_states.set_condition(new, "DisruptionTarget", "True", fate.reason, fate.message)
                new["status"] |= {"reason": "Evicted", "message": fate.message}

            self._change(pod, fail)

    def _lose(self, pod: Json, life: _Life, fate: NodeLost, age: float) -> None:
        lost = age - fate.seconds
        if lost < 0 or pod["status"].get("phase") != "Running":
            self._run(pod)
        elif fate.node_gone_after is not None and lost >= fate.node_gone_after:

            def fail(new: Json) -> None:
                new["status"]["phase"] = "Failed"
                pod_states.set_condition(
                    new,
                    "DisruptionTarget",
                    "True",
                    "DeletionByPodGC",
                    "PodGC: node no longer exists",
                )

            self._change(pod, fail)
            self._delete(pod, grace=0)
        elif fate.evicted_after is not None and lost >= fate.evicted_after and life.told is None:
            self._disrupt(
                pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
            )
            self._delete(pod)
        else:
            self._change(
                pod,
                lambda new: pod_states.set_condition(new, "Ready", fate.ready, "NodeStatusUnknown"),
            )

    def _disrupt(self, pod: Json, reason: str, message: str) -> None:
        self._change(
            pod,
            lambda new: pod_states.set_condition(new, "DisruptionTarget", "True", reason, message),
        )

    def _confirm(self, pod: Json) -> None:
        """The containers are gone, and so is the pod, unless a finalizer keeps it."""
        if pod["metadata"].get("deletionGracePeriodSeconds") or not pod["metadata"].get(
            "finalizers"
        ):
            self._delete(pod, grace=0)

    def _delete(self, pod: Json, grace: int | None = None) -> None:
        meta = pod["metadata"]
        if self._api.store.get(PODS.type_key, meta["namespace"], meta["name"]) is not None:
            self._api.delete(PODS, meta["namespace"], meta["name"], DeleteOptions(grace=grace))

    def _change(self, pod: Json, change: Callable[[Json], Any]) -> None:
        meta = pod["metadata"]
        now = self._api.store.get(PODS.type_key, meta["namespace"], meta["name"])
        assert now is not None
        new = copy.deepcopy(now)
        change(new)
        if new["status"] != now["status"]:
            self._api.store.put(PODS.type_key, new)
