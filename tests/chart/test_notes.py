"""What Helm prints after an installation: commands that can be typed as they are."""

from __future__ import annotations

import pytest

from chart.helms import CHART, Helm

TEMPLATE = "NOTES.txt"


def notes(helm: Helm, file: str, release: str = "hdgan", namespace: str = "hdgan") -> str:
    """The notes. Only Helm 4 gives them without a cluster."""
    if not helm.run("version", "--short").startswith("v4"):
        pytest.skip("Helm 3 prints notes only with a cluster")
    text = helm.run(
        *("install", release, str(CHART), "--namespace", namespace, "--dry-run=client"),
        *helm.given(file),
    )
    return text.partition("\nNOTES:\n")[2]


def test_the_next_commands_name_what_is_there(newest: Helm) -> None:
    text = notes(newest, "minimal", release="other", namespace="team")
    assert "sees to DatasetRuns in: team\n" in text
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert commands == [
        "kubectl get secret/hdgan-s3 --namespace team",
        "kubectl rollout status deployment/other-hdgan-controller --namespace team",
        "helm test other --namespace team --logs",
        "hdgan submit run.yaml --namespace team",
        "kubectl get datasetruns --namespace team",
    ]


def test_secrets_are_asked_for_where_they_are_needed(newest: Helm) -> None:
    text = notes(newest, "namespaces", namespace="ops")
    assert "sees to DatasetRuns in: nephrology dermatology pathology-2\n" in text
    asked = sorted(
        line.strip() for line in text.splitlines() if line.startswith("    kubectl get s")
    )
    assert asked == sorted(
        f"kubectl get secret/{name} --namespace {space}"
        for name, space in [
            ("hdgan-s3", "ops"),
            ("hdgan-archive-read", "ops"),
            ("hdgan-s3-derm", "ops"),
            ("registry", "ops"),
            ("hdgan-s3", "nephrology"),
            ("hdgan-archive", "nephrology"),
            ("registry", "nephrology"),
            ("hdgan-s3", "dermatology"),
            ("registry", "dermatology"),
            ("registry", "pathology-2"),
        ]
    )


def test_where_to_look_for_what_was_removed_is_said_where_it_is(newest: Helm) -> None:
    text = notes(newest, "namespaces", release="other", namespace="ops")
    assert "is removed from the stores: 17 3 * * * Etc/UTC. The last passes:\n" in text
    selector = "app.kubernetes.io/component=gc,app.kubernetes.io/instance=other"
    assert f"    kubectl logs --selector {selector} --namespace ops --tail=-1\n" in text
    assert "@daily Europe/Berlin, suspended. The last" in notes(newest, "everything")
    assert "component=gc" not in notes(newest, "minimal")


def test_schedules_are_listed(newest: Helm) -> None:
    text = notes(newest, "schedules")
    assert "hdgan-weekly in team-a: 0 3 * * 0 Etc/UTC\n" in text
    assert (
        "hdgan-monthly-retrain in team-b: @monthly America/Argentina/Buenos_Aires, suspended"
        in text
    )
    assert (
        "kubectl create job hdgan-monthly-retrain-now --from=cronjob/hdgan-monthly-retrain" in text
    )
