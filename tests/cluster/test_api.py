"""What the client makes of the API server's answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes import client

from cluster.fake_api.faults import Faults
from hdgan.controller.api import CONFIG_MAPS, Api, ApiError, Conflict, Document
from hdgan.controller.connecting import connect


def test_how_long_the_server_wants_to_be_left_alone_is_told(
    kubeconfig: Path, namespace: str, faults: Faults
) -> None:
    api = Api(connect(str(kubeconfig)))
    faults.answer(429, retry_after=3)
    with pytest.raises(ApiError) as refused:
        api.list(CONFIG_MAPS, namespace)
    assert (refused.value.status, refused.value.retry_after) == (429, 3.0)
    faults.answer(500)
    with pytest.raises(ApiError) as failed:
        api.list(CONFIG_MAPS, namespace)
    assert (failed.value.status, failed.value.retry_after) == (500, None)


def test_a_whole_object_is_replaced_if_it_is_still_what_was_read(
    api_client: client.ApiClient, namespace: str
) -> None:
    api = Api(api_client)
    first: Document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    read = api.create(CONFIG_MAPS, namespace, {**first, "data": {"a": "1", "b": "2"}})
    assert read is not None
    new = api.replace(CONFIG_MAPS, namespace, {**read, "data": {"a": "3"}})
    assert new["data"] == {"a": "3"}
    with pytest.raises(Conflict):
        api.replace(CONFIG_MAPS, namespace, {**read, "data": {}})
    with pytest.raises(ApiError, match="unknown field"):
        api.replace(CONFIG_MAPS, namespace, {**new, "dta": {}})
