"""What is installed: values of the chart and documents of runs, as pure functions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from e2e import images

Document = dict[str, Any]

BUCKET = "e2e"
SECRET = "object-server"
SERVER = "object-server"
SERVER_PORT = 9000
SCHEDULE = "again"
SCHEDULED_SEED = 7
TEMPLATE = Path(__file__).with_name("run.yaml")

# What the two runs, two controllers and the S3 server ask for together stays below one core and
# 6 GB, so that a node with two cores has room for what the cluster itself runs.
PODS: Document = {
    "tiler": {"cpu": "250m", "memory": "1Gi"},
    "ganTrainer": {"cpu": "250m", "memory": "1536Mi", "sharedMemory": "64Mi"},
    "candidates": {"cpu": "250m", "memory": "1Gi"},
    "extractor": {"cpu": "250m", "memory": "1536Mi"},
    "classifier": {"cpu": "250m", "memory": "1536Mi"},
    "dataset": {"cpu": "150m", "memory": "1Gi"},
}
SMALL: Document = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "384Mi"}}


def run(bucket: str = BUCKET) -> Document:
    """The run, with its slides and first networks in a bucket."""
    document: Document = yaml.safe_load(
        TEMPLATE.read_text(encoding="utf-8").replace("BUCKET", bucket)
    )
    return document


def disturbed(bucket: str = BUCKET) -> Document:
    """The same, with the dataset made by two pods: that is not to change a byte."""
    document = run(bucket)
    document["spec"]["resources"]["pods"] = {"dataset": {"parts": 2}}
    return document


def scheduled(bucket: str = BUCKET) -> Document:
    """Spec of the schedule: the same run once more, with other images, always the same ones."""
    spec = copy.deepcopy(run(bucket)["spec"])
    spec["dataset"] = run(bucket)["metadata"]["name"]
    spec["synthesizer"]["seed"] = SCHEDULED_SEED
    return dict(spec)


def endpoint(namespace: str) -> str:
    """The S3 server as pods reach it, whatever the cluster's domain."""
    return f"http://{SERVER}.{namespace}.svc:{SERVER_PORT}"


def chart(pattern: str, namespace: str, calm: str, *, definition: bool) -> Document:
    """Values of the chart.

    pattern: names of the images; namespace: of the release, the S3 server and the disturbed run;
    calm: of the run that nobody disturbs; definition: whether the chart brings that of runs.
    """
    return {
        "images": images.values(pattern),
        "crds": {"enabled": definition},
        "watchNamespaces": [
            {"name": namespace, "stores": {"default": _store(namespace, "disturbed")}},
            {"name": calm, "stores": {"default": _store(namespace, "calm")}},
        ],
        "pods": PODS,
        "controller": {"resources": SMALL},
        "submitter": {"resources": SMALL},
        "schedules": {
            # Not within this test: it is fired by hand.
            SCHEDULE: {"schedule": "0 0 29 2 *", "suspend": True, "spec": scheduled()}
        },
        "settings": {
            "storePollSeconds": 3,
            "progressSeconds": 5,
            "scratch": {"emptyDir": {"sizeLimit": "4Gi"}},
        },
    }


def upgraded(values: Document) -> Document:
    """Other values, with which the controller's pods are other ones, and two."""
    changed = copy.deepcopy(values)
    changed["controller"]["replicas"] = 2
    changed["settings"]["progressSeconds"] = 4
    return changed


def _store(namespace: str, prefix: str) -> Document:
    return {
        "uri": f"s3://{BUCKET}/{prefix}",
        "sources": [f"s3://{BUCKET}/slides/", f"s3://{BUCKET}/skin-64/"],
        "endpoint": endpoint(namespace),
        "existingSecret": SECRET,
    }


def secret() -> Document:
    """Credentials, which the S3 server does not look at."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET},
        "stringData": {"AWS_ACCESS_KEY_ID": "e2e", "AWS_SECRET_ACCESS_KEY": "e2e"},
    }


def server(pattern: str) -> list[Document]:
    """The S3 server: its program, a Deployment of the controller's image, a Service."""
    labels = {"app": SERVER}
    program = Path(__file__).with_name("object_server.py").read_text(encoding="utf-8")
    container = {
        "name": "server",
        "image": images.image(pattern, "controller"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "/program/object_server.py", "/objects"],
        "args": ["--port", str(SERVER_PORT), "--bucket", BUCKET],
        "ports": [{"name": "s3", "containerPort": SERVER_PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "s3"}, "periodSeconds": 2},
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "program", "mountPath": "/program", "readOnly": True},
            {"name": "objects", "mountPath": "/objects"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [
            {"name": "program", "configMap": {"name": SERVER}},
            {"name": "objects", "emptyDir": {}},
        ],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": SERVER, "labels": labels},
            "data": {"object_server.py": program},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": SERVER, "labels": labels},
            "spec": {
                "replicas": 1,
                # The objects are in the pod: there is never another one beside it.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SERVER, "labels": labels},
            "spec": {
                "selector": labels,
                "ports": [{"name": "s3", "port": SERVER_PORT, "targetPort": "s3"}],
            },
        },
    ]


def namespace(name: str) -> Document:
    """A namespace that lets no pod in that Pod Security's strictest level would refuse."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/part-of": "hdgan-e2e",
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/enforce-version": "latest",
            },
        },
    }


def fired(cron_job: Document, name: str) -> Document:
    """The Job that `kubectl create job NAME --from=cronjob/...` makes."""
    template = cron_job["spec"]["jobTemplate"]
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": meta.get("labels") or {},
            "annotations": {
                **(meta.get("annotations") or {}),
                "cronjob.kubernetes.io/instantiate": "manual",
            },
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "CronJob",
                    "name": cron_job["metadata"]["name"],
                    "uid": cron_job["metadata"]["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": template["spec"],
    }
