"""What a DELETE does to one object: gone at once, or marked and waiting for somebody."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from cluster.fake_api.metadata import stamp
from cluster.fake_api.problems import bad_request, invalid_as, unsupported, wrong
from cluster.fake_api.resources import DEFINITIONS, JOBS, NAMESPACES, PODS, Resource

Json = dict[str, Any]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
CLAIM_IN_USE = "kubernetes.io/pvc-protection"
DEFINITION_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


@dataclass(frozen=True)
class DeleteOptions:
    """What the client wishes. None: what is usual for the kind."""

    policy: str | None = None
    grace: int | None = None
    uid: str | None = None
    version: str | None = None
    dry_run: bool = False


class Ending(Enum):
    """What becomes of the object now."""

    GONE = "gone"
    WAITS = "waits"


def read_options(body: Json | None, query: dict[str, str]) -> DeleteOptions:
    """From the body when there is one, else from the query, as the real server does."""
    if body:
        conditions = body.get("preconditions") or {}
        policy = body.get("propagationPolicy")
        orphan = body.get("orphanDependents")
        if policy is not None and orphan is not None:
            why = "orphanDependents and deletionPropagation cannot be both set"
            causes = [wrong("propagationPolicy", policy, why)]
            raise invalid_as("DeleteOptions", "meta.k8s.io", "", causes)
        if policy is None and orphan is not None:
            policy = "Orphan" if orphan else "Background"
        options = DeleteOptions(
            policy,
            body.get("gracePeriodSeconds"),
            conditions.get("uid"),
            conditions.get("resourceVersion"),
            bool(body.get("dryRun")),
        )
    else:
        grace = query.get("gracePeriodSeconds")
        if grace is not None and not grace.removeprefix("-").isdigit():
            raise bad_request(f'strconv.ParseInt: parsing "{grace}": invalid syntax')
        options = DeleteOptions(
            query.get("propagationPolicy"),
            None if grace is None else int(grace),
            dry_run="dryRun" in query,
        )
    if options.policy not in (None, "Background", "Foreground", "Orphan"):
        allowed = ["Foreground", "Background", "Orphan", "nil"]
        causes = [unsupported("propagationPolicy", options.policy, allowed)]
        raise invalid_as("DeleteOptions", "meta.k8s.io", "", causes)
    return options


def ending(resource: Resource, old: Json, options: DeleteOptions) -> tuple[Json, Ending]:
    """The object as it is marked now, and whether it stays for a while."""
    new = copy.deepcopy(old)
    meta = new["metadata"]
    finalizers = _finalizers(resource, meta.get("finalizers", []), options.policy)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    grace = _grace(resource, old, options)
    if resource == NAMESPACES:
        new["status"] = {**new.get("status", {}), "phase": "Terminating"}
    elif grace == 0 and not finalizers:
        return new, Ending.GONE
    _mark(meta, grace)
    return new, Ending.WAITS


def _mark(meta: Json, grace: int) -> None:
    had = meta.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" in meta and (had is None or grace >= had):
        return
    if "deletionTimestamp" not in meta and "generation" in meta:
        meta["generation"] += 1
    meta["deletionTimestamp"] = stamp(datetime.now(UTC) + timedelta(seconds=grace))
    meta["deletionGracePeriodSeconds"] = grace


def _finalizers(resource: Resource, had: list[str], policy: str | None) -> list[str]:
    """Finalizers of the garbage collector, as the policy wants them."""
    if policy is None:
        # Jobs at batch/v1 leave their pods behind unless told otherwise.
        if ORPHAN in had or (resource == JOBS and FOREGROUND not in had):
            policy = "Orphan"
        elif FOREGROUND in had:
            policy = "Foreground"
    kept = [one for one in had if one not in (FOREGROUND, ORPHAN)]
    if policy == "Foreground":
        kept.append(FOREGROUND)
    elif policy == "Orphan":
        kept.append(ORPHAN)
    if resource == DEFINITIONS and DEFINITION_CLEANUP not in kept:
        kept.append(DEFINITION_CLEANUP)
    return kept


def _grace(resource: Resource, old: Json, options: DeleteOptions) -> int:
    """Seconds a pod may still run. Only pods that are on a node and have not ended get any."""
    if resource != PODS or not old["spec"].get("nodeName"):
        return 0
    if old.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    grace = options.grace
    if grace is None:
        grace = old["spec"].get("terminationGracePeriodSeconds", 30)
    return 1 if grace < 0 else grace
