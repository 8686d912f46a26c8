"""What is in a namespace besides what every one has and what the test itself has put there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from e2e.values import SERVER

NOT_OURS = {
    ("ServiceAccount", "default"),
    ("ConfigMap", "kube-root-ca.crt"),
    ("ConfigMap", "openshift-service-ca.crt"),
}
"""Made by the cluster itself."""
NOT_LASTING = {"Event", "EndpointSlice", "Endpoints", "PodMetrics", "ControllerRevision"}
"""Kinds that come and go with others, or by themselves."""


@dataclass(frozen=True)
class Found:
    """An object that is there."""

    kind: str
    name: str
    owners: tuple[str, ...]
    """Kinds of its owners."""


def interesting(kind: str, documents: Iterable[dict[str, Any]]) -> list[Found]:
    """Those of a kind that are neither the cluster's own nor the S3 server's."""
    if kind in NOT_LASTING:
        return []
    found = []
    for one in documents:
        meta = one["metadata"]
        name = str(meta["name"])
        owners = tuple(str(owner["kind"]) for owner in meta.get("ownerReferences") or [])
        if (kind, name) in NOT_OURS or name == SERVER or name.startswith(f"{SERVER}-"):
            continue
        found.append(Found(kind, name, owners))
    return found


def unexpected(found: Iterable[Found]) -> list[Found]:
    """What an uninstalled release should not have left.

    Meant to stay: runs and what belongs to them, since their Jobs go on; the Lease, so that a
    release of the same name waits until the controller of the last one has certainly ended; the
    pod of `helm test`, for its log.
    """
    return [one for one in found if not _meant(one)]


def _meant(one: Found) -> bool:
    if one.kind in ("DatasetRun", "Lease"):
        return True
    if one.kind == "Pod" and one.name.endswith("-check"):
        return True
    return one.kind in ("Job", "Pod", "ConfigMap") and bool({"DatasetRun", "Job"} & {*one.owners})
