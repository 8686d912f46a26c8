"""Finds the cluster: from inside a pod, or by a kubeconfig."""

from __future__ import annotations

import os
from pathlib import Path

from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from hdgan.core.errors import RequestError

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(kubeconfig: str | None = None, context: str | None = None) -> client.ApiClient:
    """A connection of its own. RequestError where no cluster is named."""
    configuration = client.Configuration()
    configuration.retries = False
    try:
        if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(
                config_file=kubeconfig, context=context, client_configuration=configuration
            )
    except (ConfigException, OSError) as error:
        raise RequestError(
            f"no cluster to talk to: {error}. Set KUBECONFIG, or give --kubeconfig or --context"
        ) from error
    return client.ApiClient(configuration)


def own_namespace(kubeconfig: str | None = None, context: str | None = None) -> str:
    """The namespace of this pod, or of the kubeconfig's context; else `default`."""
    if kubeconfig is None and context is None and NAMESPACE_FILE.is_file():
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    try:
        contexts, active = config.list_kube_config_contexts(config_file=kubeconfig)
    except (ConfigException, OSError):
        return "default"
    chosen = next((one for one in contexts if one.get("name") == context), active)
    return str(chosen.get("context", {}).get("namespace") or "default")
