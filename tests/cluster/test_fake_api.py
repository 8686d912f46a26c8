"""The fake API server behaves as a real one where a controller can go wrong."""

from __future__ import annotations

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException


@pytest.fixture
def core(api_client: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api_client)


def test_a_name_is_taken_once(core: client.CoreV1Api, namespace: str) -> None:
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a"), data={"x": "1"})
    core.create_namespaced_config_map(namespace, body)
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(namespace, body)
    assert caught.value.status == 409
