"""Who may only make runs reaches no further through them than the installation says."""

from __future__ import annotations

from typing import Any

import pytest

from hdgan.controller.allowance import refused
from hdgan.controller.settings import Settings
from hdgan.core.errors import RequestError
from hdgan.core.run import DatasetRun, parse_run
from support.runs import changed, small_run

SERVICES = ("tiler", "ganTrainer", "extractor", "classifier", "synthesizer")
TOLERATION = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
AFFINITY: dict[str, Any] = {"nodeAffinity": {}}


def settings(allow: dict[str, Any] | None = None, **pods: Any) -> Settings:
    namespace: dict[str, Any] = {
        "name": "team",
        "stores": {"default": {"uri": "s3://bucket/prefix"}},
    }
    if allow is not None:
        namespace["allow"] = allow
    document = {
        "namespaces": [namespace],
        "images": {service: {"image": "registry.test/x:1"} for service in SERVICES},
        "pods": pods,
    }
    return Settings.model_validate(document, by_alias=True, by_name=False)


def run_with(stage: str, pods: dict[str, Any], **resources: Any) -> DatasetRun:
    document = changed("spec.slides.uri", "s3://bucket/prefix/slides")
    document["spec"]["resources"] = {"device": "cpu", "pods": {stage: pods}, **resources}
    return parse_run(document)


ASKED: list[tuple[str, Any, str, Any]] = [
    ("priorityClass", "system-node-critical", "priorityClasses", ["system-node-critical"]),
    ("runtimeClass", "unconfined", "runtimeClasses", ["unconfined"]),
    ("gpuResource", "example.org/secret-device", "gpuResources", ["example.org/secret-device"]),
    ("resourceClaimTemplate", "all-of-it", "resourceClaimTemplates", ["all-of-it"]),
    ("tolerations", [{"operator": "Exists"}], "tolerations", True),
    ("nodeSelector", {"node-role.kubernetes.io/control-plane": ""}, "nodeSelection", True),
    ("affinity", AFFINITY, "nodeSelection", True),
]


@pytest.mark.parametrize(("field", "value", "setting", "allowed"), ASKED)
@pytest.mark.parametrize("stage", ["tiler", "ganTrainer", "extractor", "dataset"])
def test_only_what_is_allowed_or_the_installations_own_can_be_asked_for(
    stage: str, field: str, value: Any, setting: str, allowed: Any
) -> None:
    run = run_with(stage, {field: value})
    problem = refused(run, settings(), "team")
    assert problem is not None
    assert problem.startswith(f"spec.resources.pods.{stage}.{field}: ")
    assert "in namespace team; allowed: " in problem
    assert f"allow.{setting} " in problem
    assert refused(run, settings({setting: allowed}), "team") is None
    # What the installation says of this stage may be said again, but not of another.
    assert refused(run, settings(**{stage: {field: value}}), "team") is None
    assert refused(run, settings(candidates={field: value}), "team") == problem


def test_plain_amounts_and_gpus_are_for_everybody() -> None:
    pods = {"cpu": "8", "memory": "64Gi", "gpus": 8, "gpuResource": "nvidia.com/gpu"}
    assert refused(run_with("ganTrainer", pods), settings(), "team") is None
    assert refused(run_with("ganTrainer", {"gpus": 8}), settings(), "team") is None


def test_gpus_are_of_a_resource_that_is_allowed() -> None:
    run = run_with("ganTrainer", {"gpus": 8})
    problem = refused(run, settings({"gpuResources": []}), "team")
    assert problem is not None
    assert problem.startswith("spec.resources.pods.ganTrainer.gpus: 8 of nvidia.com/gpu is not")
    assert "allowed: none" in problem
    # The installation's own resource of this stage.
    other = settings({"gpuResources": []}, ganTrainer={"gpuResource": "amd.com/gpu"})
    assert refused(run, other, "team") is None
    assert refused(run_with("ganTrainer", {"gpus": 0}), other, "team") is None


def test_what_the_installation_says_of_nodes_cannot_be_taken_away() -> None:
    own = settings(
        tiler={
            "nodeSelector": {"pool": "hdgan"},
            "affinity": AFFINITY,
            "tolerations": [TOLERATION],
        }
    )
    for field in ("nodeSelector", "affinity"):
        assert refused(run_with("tiler", {field: {}}), own, "team") is not None
    assert refused(run_with("tiler", {"nodeSelector": {}}), settings(), "team") is None
    assert refused(run_with("tiler", {"tolerations": []}), own, "team") is None
    more = run_with("tiler", {"tolerations": [TOLERATION, {"operator": "Exists"}]})
    problem = refused(more, own, "team")
    assert problem is not None
    assert '{"operator": "Exists"} is not allowed' in problem


def test_queues_are_free_unless_they_are_named() -> None:
    run = run_with("tiler", {}, queue="gpus")
    assert refused(run, settings(), "team") is None
    assert refused(run, settings({"queues": ["gpus", "cpus"]}), "team") is None
    problem = refused(run, settings({"queues": ["cpus"]}), "team")
    assert problem is not None
    assert problem.startswith("spec.resources.queue: gpus is not allowed")
    assert "allowed: cpus." in problem


BAD: list[tuple[str, Any]] = [
    ("queue", "Not_A_Name"),
    ("queue", "a" * 64),
    ("pods.tiler.nodeSelector", {"no key": "x"}),
    ("pods.tiler.nodeSelector", {"Upper.org/name": "x"}),
    ("pods.tiler.nodeSelector", {"a/b/c": "x"}),
    ("pods.tiler.nodeSelector", {"x" * 64: "x"}),
    ("pods.tiler.nodeSelector", {"zone": "no value"}),
    ("pods.tiler.nodeSelector", {"zone": "x" * 64}),
    ("pods.tiler.nodeSelector", {"zone": "-x"}),
    ("pods.tiler.tolerations", [{"key": "no key", "operator": "Exists"}]),
    ("pods.tiler.tolerations", [{"key": "gpu", "value": "no value"}]),
    ("pods.tiler.tolerations", [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 5}]),
    ("pods.tiler.gpuResource", "gpu"),
    ("pods.tiler.gpuResource", "-/gpu"),
    ("pods.tiler.priorityClass", "a..b"),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_what_the_api_server_would_refuse_is_refused_at_once(path: str, value: Any) -> None:
    with pytest.raises(RequestError, match=r"spec\.resources\."):
        small_run(f"spec.resources.{path}", value)


GOOD: list[tuple[str, Any]] = [
    ("queue", "gpus.team-a"),
    ("pods.tiler.nodeSelector", {"topology.kubernetes.io/zone": "eu-1a", "gpu": "", "A_b.c": "x"}),
    ("pods.tiler.tolerations", [{"operator": "Exists"}]),
    (
        "pods.tiler.tolerations",
        [{"key": "node.kubernetes.io/x", "operator": "Exists", "effect": "NoExecute"}],
    ),
    (
        "pods.tiler.tolerations",
        [{"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}],
    ),
    ("pods.tiler.gpuResource", "nvidia.com/mig-1g.5gb"),
]


@pytest.mark.parametrize(("path", "value"), GOOD)
def test_what_the_api_server_takes_is_taken(path: str, value: Any) -> None:
    small_run(f"spec.resources.{path}", value)
