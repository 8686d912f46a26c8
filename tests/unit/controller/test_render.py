"""Jobs and what belongs to them: valid in strict mode, restricted, and asking for what was said."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from hdgan.controller import allowance, render, wanted
from hdgan.controller.looking import connection
from hdgan.controller.names import job_name
from hdgan.controller.reporting import report_unit, wanted_report
from hdgan.controller.requests import requests_for
from hdgan.controller.settings import Settings
from hdgan.controller.situation import RunFacts
from hdgan.controller.unit import Unit
from hdgan.core.pipeline import BY_NAME, External, Observed
from hdgan.core.request import InputRef, parse_request
from hdgan.core.run import DatasetRun
from hdgan.core.run_errors import explain
from support.runs import small_run

EXTERNAL = External(slides_key="work/slides/x.json", slides_digest="5" * 64)
OWNER = render.Owner("small", "8a8c3ad3-9d25-4a3e-8f5a-1c7b2f3d4e5f", "team")
KEY = "ab" * 32
OBSERVED = Observed(
    {
        name: InputRef(stage=name, key="1" * 64, content_digest="2" * 64)
        for name in ("tiler", "gan-trainer", "candidates", "annotations", "classifier")
    }
)
STORE: dict[str, Any] = {"uri": "s3://bucket/prefix", "sources": ["s3://slides/"]}
LAVISH: dict[str, Any] = {
    "cpu": "7500m",
    "memory": "64Gi",
    "gpus": 8,
    "ephemeralStorage": "500Gi",
    "sharedMemory": "16Gi",
    "nodeSelector": {"gpu": "h100"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                ]
            }
        }
    },
    "priorityClass": "batch-high",
    "runtimeClass": "nvidia",
}


def settings(**more: Any) -> Settings:
    document = {
        "namespaces": [{"name": "team", "stores": {"default": {**STORE, **more.pop("store", {})}}}],
        "images": {
            service: {"image": f"registry.test/{service}@sha256:{'0' * 64}"}
            for service in ("tiler", "ganTrainer", "extractor", "classifier", "synthesizer")
        },
        **more,
    }
    return Settings.model_validate(document, by_alias=True, by_name=False)


def made(
    unit: Unit, run: DatasetRun | None = None, config: Settings | None = None
) -> dict[str, dict[str, Any]]:
    """All objects of an attempt, each valid in strict mode."""
    run = run or small_run()
    config = config or settings()
    requests = requests_for(unit, run, EXTERNAL, OBSERVED, config, "team")
    objects = {
        "job": render.job(unit, 1, requests, run, OWNER, config),
        "map": render.request_map(unit, 1, requests, OWNER, "uid-of-job"),
        "service": render.rendezvous(unit, 1, OWNER, "uid-of-job"),
    }
    scratch = wanted.scratch_of(run, config)
    if scratch.claim is not None:
        objects["claim"] = render.claim(unit, OWNER, scratch)
    for document in objects.values():
        kubernetes_validate.validate(document, "1.37", strict=True)
    return objects


def made_report(facts: RunFacts) -> dict[str, Any]:
    """The Job of a run's report, for a run that asks for all it can."""
    assert facts.run is not None
    resources = {"device": "cpu", "scratch": {"ephemeral": {}}, "queue": "gpus"}
    request, unit = wanted_report(facts), report_unit(facts)
    assert request is not None
    assert unit is not None
    images = {**settings().model_dump(by_alias=True)["images"], "desk": {"image": "desk:1"}}
    run = small_run("spec.resources", resources)
    job = render.job(unit, 1, {"stage": request}, run, OWNER, settings(images=images))
    kubernetes_validate.validate(job, "1.37", strict=True)
    return job


def container(job: dict[str, Any], name: str = "stage") -> dict[str, Any]:
    spec = job["spec"]["template"]["spec"]
    both = [*spec["containers"], *spec.get("initContainers", [])]
    found: dict[str, Any] = next(one for one in both if one["name"] == name)
    return found


def environment(job: dict[str, Any], name: str = "stage") -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container(job, name)["env"]}


UNITS = [
    Unit("tiler", KEY, "whole"),
    Unit("tiler", KEY, "parts", 4),
    Unit("tiler", KEY, "commit", 4),
    Unit("gan-trainer", KEY, "whole"),
    Unit("candidates", KEY, "whole"),
    Unit("classifier", KEY, "whole", features_key="cd" * 32),
    Unit("dataset", KEY, "parts", 3),
    Unit("dataset", KEY, "commit", 3),
]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: f"{unit.stage}-{unit.kind}")
@pytest.mark.parametrize("lavish", [False, True])
@pytest.mark.parametrize("scratch", ["emptyDir", "ephemeral", "claim"])
def test_all_that_is_made_is_valid_and_restricted(unit: Unit, lavish: bool, scratch: str) -> None:
    stage = wanted.STAGE_NAMES[unit.stage]
    resources: dict[str, Any] = {"device": "cpu", "scratch": {scratch: {}}}
    if lavish:
        resources |= {"pods": {stage: LAVISH}, "queue": "gpus"}
    more: dict[str, Any] = {}
    if lavish:
        more = {
            "store": {"secret": "s3", "endpoint": "https://s3.test", "caConfigMap": "ca"},
            "imagePullSecrets": ["registry"],
            "podSecurityContext": {"runAsUser": 1000, "fsGroup": 1000},
            "pods": {
                stage: {
                    "serviceAccount": "stage",
                    "labels": {"team": "a", "hdgan.io/stage": "not theirs to say"},
                    "annotations": {"note": "b"},
                    "env": {"HTTPS_PROXY": "http://proxy.test"},
                    "envSecrets": ["proxy-with-password"],
                }
            },
        }
    job = made(unit, small_run("spec.resources", resources), settings(**more))["job"]
    pod = job["spec"]["template"]["spec"]
    assert job["spec"]["template"]["metadata"]["labels"]["hdgan.io/stage"] == unit.stage
    assert pod["automountServiceAccountToken"] is False
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "activeDeadlineSeconds" not in job["spec"]
    assert "ttlSecondsAfterFinished" not in job["spec"]
    for one in [*pod["containers"], *pod.get("initContainers", [])]:
        security = one["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["name"] for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    # Kinds of volumes the restricted level allows.
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "ephemeral", "persistentVolumeClaim"}


def test_what_is_asked_for_arrives() -> None:
    run = small_run("spec.resources", {"graceSeconds": 300, "pods": {"ganTrainer": LAVISH}})
    job = made(Unit("gan-trainer", KEY, "whole"), run)["job"]
    pod = job["spec"]["template"]["spec"]
    assert container(job)["resources"] == {
        "requests": {
            "cpu": "7500m",
            "memory": "64Gi",
            "ephemeral-storage": "500Gi",
            "nvidia.com/gpu": "8",
        },
        "limits": {"memory": "64Gi", "nvidia.com/gpu": "8"},
    }
    assert pod["nodeSelector"] == LAVISH["nodeSelector"]
    assert pod["tolerations"] == LAVISH["tolerations"]
    assert pod["affinity"] == LAVISH["affinity"]
    assert pod["priorityClassName"] == "batch-high"
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["terminationGracePeriodSeconds"] == 315
    assert environment(job)["HDGAN_GRACE_SECONDS"] == "300"
    assert environment(job)["OMP_NUM_THREADS"] == "7"
    (shm,) = [one for one in pod["volumes"] if one["name"] == "shm"]
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}


def test_the_run_wins_over_the_installation_field_by_field() -> None:
    config = settings(pods={"tiler": {"cpu": "4", "memory": "8Gi", "parts": 6}})
    run = small_run("spec.resources", {"pods": {"tiler": {"memory": "16Gi"}}})
    job = made(Unit("tiler", KEY, "whole"), run, config)["job"]
    assert container(job)["resources"]["requests"] == {"cpu": "4", "memory": "16Gi"}
    assert wanted.parts_of(run, "tiler", config) == 6


def test_gpus_from_a_resource_claim() -> None:
    pods = {"ganTrainer": {"resourceClaimTemplate": "h100", "gpus": 8}}
    run = small_run("spec.resources", {"pods": pods})
    job = made(Unit("gan-trainer", KEY, "whole"), run)["job"]
    assert container(job)["resources"] == {"claims": [{"name": "gpus"}]}
    claims = job["spec"]["template"]["spec"]["resourceClaims"]
    assert claims == [{"name": "gpus", "resourceClaimTemplateName": "h100"}]


def test_parts_count_what_counts_and_nothing_else() -> None:
    spec = made(Unit("dataset", KEY, "parts", 5))["job"]["spec"]
    assert (spec["completions"], spec["parallelism"]) == (5, 5)
    assert spec["completionMode"] == "Indexed"
    assert spec["backoffLimitPerIndex"] == 2
    assert "backoffLimit" not in spec
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # A part that stops early for ever (75) must come to an end, too.
    assert rules[1]["onExitCodes"]["values"] == [64, 65]
    whole = made(Unit("gan-trainer", KEY, "whole"))["job"]["spec"]
    assert whole["backoffLimit"] == 0
    assert whole["podReplacementPolicy"] == "Failed"


def test_training_on_several_machines_finds_its_first_one() -> None:
    pods = {"ganTrainer": {"nodes": 4}}
    run = small_run("spec.resources", {"queue": "gpus", "pods": pods})
    unit = Unit("gan-trainer", KEY, "whole")
    objects = made(unit, run)
    spec = objects["job"]["spec"]
    name = job_name("gan-trainer", KEY, "whole", 1)
    assert (spec["completions"], spec["parallelism"], spec["suspend"]) == (4, 4, True)
    assert spec["completionMode"] == "Indexed"
    assert spec["template"]["spec"]["subdomain"] == name
    values = environment(objects["job"])
    assert values["MASTER_ADDR"] == f"{name}-0.{name}.team.svc.cluster.local"
    assert values["HDGAN_NODES"] == "4"
    service = objects["service"]
    assert service["metadata"]["name"] == name
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert objects["job"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_features_are_made_in_the_classifiers_pod_unless_scratch_is_a_claim() -> None:
    unit = Unit("classifier", KEY, "whole", features_key="cd" * 32)
    objects = made(unit)
    (first,) = objects["job"]["spec"]["template"]["spec"]["initContainers"]
    assert first["command"] == ["python", "-m", "hdgan.extractor"]
    assert environment(objects["job"], "features")["HDGAN_REQUEST"].endswith("features.json")
    requests = {name: parse_request(text) for name, text in objects["map"]["data"].items()}
    assert requests["features.json"].stage == "extractor"
    assert requests["stage.json"].context["featuresKey"] == requests["features.json"].key
    run = small_run("spec.resources", {"scratch": {"claim": {"size": "2Ti"}}})
    objects = made(unit, run)
    pod = objects["job"]["spec"]["template"]["spec"]
    assert "initContainers" not in pod
    (scratch,) = [one for one in pod["volumes"] if one["name"] == "scratch"]
    claim = objects["claim"]["metadata"]["name"]
    assert scratch["persistentVolumeClaim"] == {"claimName": claim}
    extractor = made(Unit("extractor", "cd" * 32, "whole", features_key="cd" * 32), run)
    assert extractor["claim"]["metadata"]["name"] == claim


def test_requests_say_which_part_of_the_work_it_is() -> None:
    for unit, commit in ((UNITS[1], False), (UNITS[2], True)):
        text = made(unit)["map"]["data"]["stage.json"]
        request = parse_request(text)
        assert (request.parts, request.commit) == (4, commit)
        assert request.scratch == "/hdgan/scratch"
        assert request.store == "s3://bucket/prefix"


@pytest.mark.parametrize("mode", ["when_required", "when_supported"])
def test_stages_and_controller_use_checksums_alike(mode: str) -> None:
    config = settings(store={"checksums": mode})
    found = environment(made(Unit("tiler", KEY, "whole"), config=config)["job"])
    assert found["AWS_REQUEST_CHECKSUM_CALCULATION"] == mode
    assert found["AWS_RESPONSE_CHECKSUM_VALIDATION"] == mode
    (namespace,) = config.namespaces
    assert connection(namespace.stores["default"]).checksums == mode


def test_no_secret_and_no_credential_of_the_controller_is_in_any_object() -> None:
    store = {"secret": "s3", "credentials": "/etc/hdgan/stores/a"}
    objects = made(Unit("tiler", KEY, "whole"), config=settings(store=store))
    assert "/etc/hdgan/stores" not in json.dumps(objects)
    references = [one for one in container(objects["job"])["env"] if "valueFrom" in one]
    keys = {one["valueFrom"].get("secretKeyRef", {}).get("key") for one in references}
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} <= keys


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "http://alice:hunter2@proxy.test:3128"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("ANY", "AKIAQ3EXAMPLEQ3EXMPL"),
    ],
)
def test_secrets_are_no_plain_variables_but_come_from_secrets(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} would be readable.*envSecrets") as refused:
        settings(pods={"tiler": {"env": {name: value, "LANG": "C"}}})
    explained = explain(refused.value, Settings, "settings.yaml")
    assert "pods.tiler.env" in explained
    assert value not in explained

    config = settings(pods={"tiler": {"envSecrets": ["proxy"]}})
    stage = container(made(Unit("tiler", KEY, "whole"), config=config)["job"])
    assert stage["envFrom"] == [{"secretRef": {"name": "proxy"}}]


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3://bucket/prefix/slides", True),
        ("s3://bucket/prefix", True),
        ("s3://slides/a/b", True),
        ("s3://slides", True),
        ("s3://slides-of-others/a", False),
        ("s3://bucket/prefix2/slides", False),
        ("s3://bucket", False),
        ("/data/slides", False),
        ("file:///data/slides", False),
    ],
)
def test_runs_read_only_where_their_store_may(uri: str, allowed: bool) -> None:
    run = small_run("spec.slides", {"uri": uri, "assumeMpp": 0.5})
    problem = allowance.refused(run, settings(), "team")
    assert (problem is None) == allowed
    if problem is not None:
        assert problem.startswith(f"spec.slides.uri: {uri} ")


@pytest.mark.parametrize(("cpu", "threads"), [("8", 8), ("500m", 1), ("7.9", 7), ("1500m", 1)])
def test_threads_of_an_amount_of_cpu(cpu: str, threads: int) -> None:
    assert wanted.threads(cpu) == threads


def test_names_are_short_enough_and_differ_with_what_they_do() -> None:
    names = {
        job_name(stage, key, kind, attempt)
        for stage in BY_NAME
        for key in (KEY, "cd" * 32)
        for kind in ("whole", "parts", "commit")
        for attempt in (1, 999)
    }
    assert len(names) == len(BY_NAME) * 2 * 3 * 2
    assert max(map(len, names)) <= 48


def test_volumes_of_a_driver_belong_to_a_group_unless_the_installation_says_otherwise() -> None:
    def group(scratch: dict[str, Any], **context: Any) -> object:
        config = settings(scratch=scratch, podSecurityContext=context)
        job = made(Unit("tiler", KEY, "whole"), config=config)["job"]
        return job["spec"]["template"]["spec"]["securityContext"].get("fsGroup")

    volume = {"ephemeral": {"size": "1Gi"}}
    assert group({"emptyDir": {}}) is None
    assert group(volume) == 65_532
    assert group(volume, fsGroup=1000) == 1000
    assert group(volume, fsGroup=None) is None


def test_devices_are_claimed_by_the_stage_the_pod_is_for() -> None:
    unit = Unit("classifier", KEY, "whole", features_key="cd" * 32)
    config = settings(pods={"extractor": {"resourceClaimTemplate": "gpu"}})
    job = made(unit, config=config)["job"]
    assert "resourceClaims" not in job["spec"]["template"]["spec"]
    assert "claims" not in container(job, "features")["resources"]


def test_a_job_of_one_attempt_says_by_its_rules_how_it_ended() -> None:
    policy = made(Unit("classifier", KEY, "whole", features_key="cd" * 32))["job"]["spec"]
    rules = policy["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    names = [rule["onExitCodes"]["containerName"] for rule in rules[1:]]
    assert sorted(names) == ["features", "stage"]
    (rule, *_) = made(Unit("tiler", KEY, "whole"))["job"]["spec"]["podFailurePolicy"]["rules"][1:]
    assert rule["onExitCodes"] == {"containerName": "stage", "operator": "NotIn", "values": [0]}


def test_jobs_of_one_key_share_their_work_only_where_it_goes_into_one_store() -> None:
    names = set()
    for store in (None, "default", "other", "third"):
        unit = Unit("tiler", KEY, "whole", store=store)
        job = made(unit)["job"]
        names.add((job["metadata"]["name"], job["metadata"]["labels"]["hdgan.io/key"]))
        assert job["metadata"]["annotations"]["hdgan.io/key"] == KEY
    assert len(names) == 3
