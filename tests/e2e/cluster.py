"""The cluster: its objects as plain documents, and the programs that talk to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from e2e.telling import NotSeen
from hdgan.controller.api import Api, ApiError
from hdgan.controller.connecting import connect

Document = dict[str, Any]

HDGAN = Path(sys.executable).with_name("hdgan")
ROOT = Path(__file__).parents[2]

NAMESPACES = "api/v1/namespaces"
SECRETS = "api/v1/namespaces/{namespace}/secrets"
DEPLOYMENTS = "apis/apps/v1/namespaces/{namespace}/deployments"
CRON_JOBS = "apis/batch/v1/namespaces/{namespace}/cronjobs"
LEASES = "apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
BUDGETS = "apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
DEFINITIONS = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ALL_RUNS = "apis/hdgan.io/v1alpha1/datasetruns"
PLACES = {
    "ConfigMap": "api/v1/namespaces/{namespace}/configmaps",
    "Deployment": DEPLOYMENTS,
    "Secret": SECRETS,
    "Service": "api/v1/namespaces/{namespace}/services",
}


@dataclass
class Cluster:
    """One cluster, with Helm and the `hdgan` command pointed at it."""

    kubeconfig: str
    helm: Path
    home: Path
    """Folder for the programs' own files."""
    session: client.ApiClient = field(init=False)
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.session = self.connect()
        self.api = Api(self.session)

    def connect(self) -> client.ApiClient:
        """A connection of its own."""
        return connect(self.kubeconfig)

    def version(self) -> tuple[int, int]:
        """Major and minor. NotSeen where no API server answers."""
        try:
            told = client.VersionApi(self.session).get_code()
        except (ApiException, HTTPError) as error:
            raise NotSeen(f"no API server answers as {self.kubeconfig} says: {error}") from None
        return int(told.major), int("".join(c for c in told.minor if c.isdigit()))

    def make(self, document: Document, namespace: str) -> None:
        """NotSeen if there is one already."""
        collection = PLACES[document["kind"]]
        if self.api.create(collection, namespace, document) is None:
            name = document["metadata"]["name"]
            raise NotSeen(f"there is a {document['kind']} {name} in {namespace} already")

    def get(self, collection: str, namespace: str, name: str) -> Document:
        """NotSeen if there is none."""
        found = self.api.get(collection, namespace, name)
        if found is None:
            raise NotSeen(f"{collection.rpartition('/')[2]}/{name} is not in namespace {namespace}")
        return found

    def list(self, collection: str, namespace: str = "", **query: str) -> list[Document]:
        return self.api.list(collection, namespace, **query).items

    def run_helm(self, *arguments: str, seconds: float = 600) -> str:
        """What Helm prints. NotSeen when it fails."""
        environment = {
            **os.environ,
            "KUBECONFIG": self.kubeconfig,
            "HELM_CACHE_HOME": str(self.home / "cache"),
            "HELM_CONFIG_HOME": str(self.home / "config"),
            "HELM_DATA_HOME": str(self.home / "data"),
        }
        return _run([str(self.helm), *arguments], environment, seconds)

    def run_hdgan(self, *arguments: str | Path, seconds: float = 600, **variables: str) -> str:
        """What the `hdgan` command prints. NotSeen when it fails."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("HDGAN_", "AWS_"))}
        environment = {**kept, "KUBECONFIG": self.kubeconfig, **variables}
        return _run([str(HDGAN), *map(str, arguments)], environment, seconds)

    def kinds(self) -> Iterator[tuple[str, str]]:
        """All kinds of objects that namespaces hold and that can be listed: name, collection."""
        groups = client.ApisApi(self.session).get_api_versions().groups
        versions = ["api/v1", *(f"apis/{one.versions[0].group_version}" for one in groups)]
        for version in versions:
            for one in self._read(version).get("resources") or []:
                if one["namespaced"] and "list" in one["verbs"] and "/" not in one["name"]:
                    yield one["kind"], f"{version}/namespaces/{{namespace}}/{one['name']}"

    def _read(self, path: str) -> Document:
        parent, _, name = path.rpartition("/")
        try:
            return self.api.get(parent, "", name) or {}
        except ApiError as error:
            if error.status == 503:  # a group whose own server is down
                return {}
            raise


def run_python(*arguments: str | Path) -> str:
    """What a program of this repository prints. NotSeen when it fails."""
    return _run([sys.executable, *map(str, arguments)], dict(os.environ), 600)


def _run(command: list[str], environment: dict[str, str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotSeen(f"not within {seconds:.0f} s: {' '.join(command)}") from None
    if done.returncode != 0:
        said = f"{done.stdout}{done.stderr}".strip()[-4000:]
        raise NotSeen(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout
