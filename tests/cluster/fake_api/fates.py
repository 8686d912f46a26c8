"""What can become of a pod of a simulated Job: a test's script says which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class PodStart:
    """The pod a script is asked about.

    `index` is the completion index (None for Jobs without), and `attempt` how many pods this index
    (or this Job) has had before.
    """

    namespace: str
    job: str
    index: int | None
    attempt: int
    pod: Json


@dataclass(frozen=True)
class Fate:
    """All times are in seconds from the pod's creation, or as said."""

    node: str = "node-1"


@dataclass(frozen=True)
class Runs(Fate):
    """Starts after a while, runs, and ends by itself; or before, when it is told to stop."""

    starts_after: float = 0.0
    seconds: float = 0.0
    exit_code: int = 0
    # The container's reason (OOMKilled) and its termination message.
    reason: str = ""
    message: str = ""
    # Once told to stop: how long that takes, and how it ends then. It is killed (137) when the
    # grace period is shorter.
    stop_seconds: float = 0.0
    stop_code: int = 143
    stop_message: str = ""


@dataclass(frozen=True)
class CannotStart(Fate):
    """On its node, but its container waits for ever."""

    reason: str = "ImagePullBackOff"
    message: str = ""


@dataclass(frozen=True)
class Unschedulable(Fate):
    """No node takes it."""

    message: str = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


@dataclass(frozen=True)
class Evicted(Fate):
    """Runs for a while, then has to go: DisruptionTarget with this reason.

    By the node under pressure it fails where it is (phase reason Evicted). With `deleted` it is
    deleted, as by the scheduler (PreemptionByScheduler) or the eviction API
    (EvictionByEvictionAPI), and its container ends with 143.
    """

    seconds: float = 0.0
    reason: str = "TerminationByKubelet"
    message: str = "The node was low on resource: memory."
    deleted: bool = False


@dataclass(frozen=True)
class NodeLost(Fate):
    """Runs for a while, then its node is silent: nothing ends this pod but force.

    `evicted_after` (seconds after the loss): the pod is marked DeletionByTaintManager and deleted,
    and stays, as nobody confirms. `node_gone_after`: the node is taken out of the cluster, and the
    pod is Failed and goes.
    """

    seconds: float = 0.0
    ready: str = "Unknown"
    evicted_after: float | None = None
    node_gone_after: float | None = None


Script = Callable[[PodStart], Fate]


def oom_killed(seconds: float = 0.0) -> Runs:
    """Runs for a while, then the kernel kills it for its memory."""
    return Runs(seconds=seconds, exit_code=137, reason="OOMKilled")


def always_succeeds(start: PodStart) -> Fate:
    """The script of a world without trouble."""
    return Runs()
