"""What counts as left over by a release."""

from __future__ import annotations

from typing import Any

from e2e.leftovers import interesting, unexpected


def named(name: str, *owners: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "ownerReferences": [{"kind": kind} for kind in owners]}}


def test_what_is_the_clusters_or_the_tests_own_is_not_looked_at() -> None:
    assert interesting("ServiceAccount", [named("default")]) == []
    assert interesting("Event", [named("x")]) == []
    assert interesting("Pod", [named("object-server-1-2", "ReplicaSet")]) == []
    assert len(interesting("ServiceAccount", [named("hdgan-controller")])) == 1


def test_runs_and_theirs_may_stay_and_nothing_else() -> None:
    stays = [
        *interesting("DatasetRun", [named("skin")]),
        *interesting("Job", [named("tiler-1", "DatasetRun")]),
        *interesting("Pod", [named("tiler-1-x", "Job"), named("hdgan-check")]),
        *interesting("ConfigMap", [named("tiler-1", "Job")]),
        *interesting("Lease", [named("hdgan-controller")]),
    ]
    assert len(stays) == 6
    assert unexpected(stays) == []
    goes = [
        *interesting("ConfigMap", [named("hdgan-controller")]),
        *interesting("Job", [named("hdgan-again-1", "CronJob")]),
        *interesting("Role", [named("hdgan-controller")]),
        *interesting("Pod", [named("hdgan-controller-1", "ReplicaSet")]),
    ]
    assert unexpected(goes) == goes
