"""The fake API server behaves as a real one where a controller can go wrong.

Tests that do not ask for `api_server` are about what any API server does, a real cluster's too.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient

from cluster.fake_api.faults import Faults
from cluster.fake_api.record import Requests
from cluster.fake_api.server import FakeApiServer

Json = dict[str, Any]

GROUP = "test.hdgan.dev"


# Clients are Any here: bodies are plain JSON, and answers are looked at as they come.


@pytest.fixture(scope="session")
def core(api_client: client.ApiClient) -> Any:
    return client.CoreV1Api(api_client)


@pytest.fixture(scope="session")
def batch(api_client: client.ApiClient) -> Any:
    return client.BatchV1Api(api_client)


@pytest.fixture(scope="session")
def leases(api_client: client.ApiClient) -> Any:
    return client.CoordinationV1Api(api_client)


@pytest.fixture(scope="session")
def dynamic(api_client: client.ApiClient) -> Any:
    return DynamicClient(api_client)


WIDGET: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"widgets.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "x-kubernetes-validations": [
                                    {
                                        "rule": "has(self.colour) == has(oldSelf.colour)",
                                        "message": "colour cannot come or go",
                                    },
                                    {"rule": "self.size >= 0 || self.words.join(',') != ''"},
                                    {
                                        "rule": "!has(self.words) || self.words.all(w, w != '')",
                                        "message": "no empty words",
                                    },
                                    {"rule": "!has(self.maybe) || self.maybe.size() < 4"},
                                    {
                                        "rule": "self.size != 9 || self.code == 'nine'",
                                        "message": "nine has its code",
                                    },
                                ],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1, "maximum": 9},
                                    "colour": {"type": "string", "enum": ["red", "blue"]},
                                    "code": {"type": "string", "pattern": "^[a-z]+$"},
                                    "short": {"type": "string", "maxLength": 3},
                                    "words": {
                                        "type": "array",
                                        "maxItems": 2,
                                        "items": {"type": "string"},
                                    },
                                    "table": {
                                        "type": "object",
                                        "maxProperties": 1,
                                        "additionalProperties": {"type": "string"},
                                    },
                                    "maybe": {"type": "string", "nullable": True},
                                    "speed": {"type": "string", "default": "slow"},
                                    "fixed": {
                                        "type": "string",
                                        "x-kubernetes-validations": [
                                            {"rule": "self == oldSelf", "message": "is fixed"}
                                        ],
                                    },
                                    "free": {
                                        "type": "object",
                                        "x-kubernetes-preserve-unknown-fields": True,
                                    },
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {"phase": {"type": "string"}},
                            },
                        },
                    }
                },
            }
        ],
    },
}


class Widgets:
    """The custom objects of one namespace."""

    def __init__(self, api_client: client.ApiClient, namespace: str) -> None:
        self._api: Any = client.CustomObjectsApi(api_client)
        self._where = (GROUP, "v1", namespace, "widgets")

    def create(self, name: str = "w", strict: bool = False, **spec: Any) -> Json:
        body = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Widget",
            "metadata": {"name": name},
            "spec": {"size": 1, **spec},
        }
        more = {"field_validation": "Strict"} if strict else {}
        made: Json = self._api.create_namespaced_custom_object(*self._where, body, **more)
        return made

    def post(self, body: Json) -> Json:
        made: Json = self._api.create_namespaced_custom_object(*self._where, body)
        return made

    def patch(self, patch: Json, name: str = "w") -> Json:
        changed: Json = self._api.patch_namespaced_custom_object(
            *self._where, name, patch, _content_type="application/merge-patch+json"
        )
        return changed

    def patch_status(self, patch: Json, name: str = "w") -> Json:
        changed: Json = self._api.patch_namespaced_custom_object_status(
            *self._where, name, patch, _content_type="application/merge-patch+json"
        )
        return changed

    def replace(self, body: Json, name: str = "w") -> Json:
        changed: Json = self._api.replace_namespaced_custom_object(*self._where, name, body)
        return changed

    def get(self, name: str = "w") -> Json:
        found: Json = self._api.get_namespaced_custom_object(*self._where, name)
        return found


@contextmanager
def defined(api_client: client.ApiClient, definition: Json) -> Iterator[None]:
    """The kind exists as long as the block lasts."""
    extensions: Any = client.ApiextensionsV1Api(api_client)
    name = definition["metadata"]["name"]

    def made() -> bool:
        # On a real cluster it may still be there from another run of these tests.
        try:
            extensions.create_custom_resource_definition(definition)
        except ApiException as error:
            if error.status != 409:
                raise
            return False
        return True

    def established() -> bool:
        found = extensions.read_custom_resource_definition(name)
        return any(
            one.type == "Established" and one.status == "True"
            for one in (found.status.conditions or [])
        )

    wait_for(made, seconds=60)
    wait_for(established)
    yield
    extensions.delete_custom_resource_definition(name)


@pytest.fixture(scope="session")
def widget_kind(api_client: client.ApiClient) -> Iterator[None]:
    with defined(api_client, WIDGET):
        yield


@pytest.fixture
def widgets(widget_kind: None, api_client: client.ApiClient, namespace: str) -> Widgets:
    return Widgets(api_client, namespace)


def wait_for(test: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def status_of(error: ApiException) -> Json:
    """The Status an error came with."""
    assert error.body is not None
    status: Json = json.loads(error.body)
    return status


def send(
    api_client: client.ApiClient, method: str, path: str, body: Any = None, **query: str
) -> Any:
    """A request whose body the client does not look at: its models refuse much by themselves."""
    request = api_client.param_serialize(
        method,
        path,
        body=body,
        query_params=[*query.items()],
        header_params={"Accept": "application/json", "Content-Type": "application/json"},
        auth_settings=["BearerToken"],
    )
    response = api_client.call_api(*request)
    response.read()
    return api_client.response_deserialize(response, {"2XX": "object"})


@contextmanager
def refused(code: int, reason: str, *parts: str) -> Iterator[None]:
    """The block gets a Status with this code and reason, and these parts in its message."""
    with pytest.raises(ApiException) as caught:
        yield
    assert caught.value.status == code
    status = status_of(caught.value)
    assert status["kind"] == "Status"
    assert status["status"] == "Failure"
    assert status["code"] == code
    assert status["reason"] == reason
    for part in parts:
        assert part in status["message"]


def config_map(name: str = "a", **more: Any) -> Json:
    return {"metadata": {"name": name}, "data": {"x": "1"}, **more}


def pod(name: str = "p", **spec: Any) -> Json:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}], **spec},
    }


def job(name: str = "j", **spec: Any) -> Json:
    return {
        "metadata": {"name": name},
        "spec": {
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "busybox:1"}],
                }
            },
            "suspend": True,
            **spec,
        },
    }


def owner(made: Any, kind: str = "ConfigMap", *, block: bool = False) -> Json:
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "v1",
        "kind": kind,
        "name": made.metadata.name,
        "uid": made.metadata.uid,
        "blockOwnerDeletion": block,
    }


# Kinds, verbs and metadata.


@pytest.mark.parametrize(
    ("api_version", "kind", "body"),
    [
        ("v1", "Pod", pod()),
        ("v1", "ConfigMap", config_map()),
        ("v1", "Secret", {"metadata": {"name": "s"}, "stringData": {"a": "b"}}),
        ("v1", "Service", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}),
        (
            "v1",
            "PersistentVolumeClaim",
            {
                "metadata": {"name": "c"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
        ),
        ("batch/v1", "Job", job()),
        ("coordination.k8s.io/v1", "Lease", {"metadata": {"name": "l"}, "spec": {}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_is_made_found_listed_patched_and_deleted(
    dynamic: Any, namespace: str, api_version: str, kind: str, body: Json
) -> None:
    resource = dynamic.resources.get(api_version=api_version, kind=kind)
    body = {**body, "apiVersion": api_version, "kind": kind}
    made = resource.create(namespace=namespace, body=body)
    name = made.metadata.name
    assert resource.get(namespace=namespace, name=name).metadata.uid == made.metadata.uid
    # Real clusters have a map of their own in each namespace.
    ours = {"namespace": namespace, "field_selector": "metadata.name!=kube-root-ca.crt"}
    listed = resource.get(**ours)
    assert listed.kind == f"{kind}List"
    assert [one.metadata.name for one in listed.items] == [name]
    patched = resource.patch(
        namespace=namespace,
        name=name,
        body={"metadata": {"labels": {"a": "b"}}},
        content_type="application/merge-patch+json",
    )
    assert patched.metadata.labels.a == "b"
    replaced = resource.replace(namespace=namespace, body=patched.to_dict())
    assert replaced.metadata.uid == made.metadata.uid
    resource.delete(namespace=namespace, name=name, propagation_policy="Background")
    wait_for(lambda: not resource.get(**ours).items, seconds=60)


def test_new_objects_have_uid_time_and_version(core: Any, batch: Any, namespace: str) -> None:
    one = core.create_namespaced_config_map(namespace, config_map("a")).metadata
    two = batch.create_namespaced_job(namespace, job()).metadata
    assert one.uid != two.uid
    assert abs(one.creation_timestamp - datetime.now(UTC)) < timedelta(minutes=1)
    assert int(one.resource_version) < int(two.resource_version)
    assert one.generation is None
    assert two.generation == 1


def test_names_are_generated(core: Any, namespace: str) -> None:
    body = {"metadata": {"generateName": "some-"}}
    names = {core.create_namespaced_config_map(namespace, body).metadata.name for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("some-") and len(name) == 10 for name in names)


def test_a_name_is_taken_once(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map())
    with refused(409, "AlreadyExists", 'configmaps "a" already exists'):
        core.create_namespaced_config_map(namespace, config_map())


def test_what_is_not_there_is_not_found(core: Any, batch: Any, namespace: str) -> None:
    with refused(404, "NotFound", 'jobs.batch "x" not found'):
        batch.read_namespaced_job("x", namespace)
    with refused(404, "NotFound"):
        batch.patch_namespaced_job("x", namespace, {"metadata": {"labels": {"a": "b"}}})
    with refused(404, "NotFound"):
        core.delete_namespaced_config_map("x", namespace)
    with refused(404, "NotFound", 'namespaces "no-such-place" not found'):
        core.create_namespaced_config_map("no-such-place", config_map())


def test_names_and_labels_have_their_limits(core: Any, batch: Any, namespace: str) -> None:
    with refused(422, "Invalid", "metadata.name"):
        core.create_namespaced_config_map(namespace, config_map("Not_A_Name"))
    long = {"metadata": {"name": "a", "labels": {"k": "x" * 64}}}
    with refused(422, "Invalid", "must be no more than 63"):
        core.create_namespaced_config_map(namespace, long)
    # The name of a Job becomes a label of its pods.
    with refused(422, "Invalid", "must be no more than 63"):
        batch.create_namespaced_job(namespace, job("x" * 64))
    with refused(422, "Invalid", "metadata.name"):
        batch.create_namespaced_job(
            namespace, job("x" * 62, completionMode="Indexed", completions=10)
        )


def test_an_object_stays_in_the_namespace_of_its_path(core: Any, namespace: str) -> None:
    body = {"metadata": {"name": "a", "namespace": "elsewhere"}}
    with refused(400, "BadRequest", "does not match the namespace"):
        core.create_namespaced_config_map(namespace, body)


def test_generation_counts_changes_of_the_spec(
    api_server: FakeApiServer, batch: Any, namespace: str
) -> None:
    batch.create_namespaced_job(namespace, job())
    labelled = batch.patch_namespaced_job("j", namespace, {"metadata": {"labels": {"a": "b"}}})
    assert labelled.metadata.generation == 1
    changed = batch.patch_namespaced_job("j", namespace, {"spec": {"suspend": False}})
    assert changed.metadata.generation == 2
    status = {"status": {"active": 1}}
    reported = batch.patch_namespaced_job_status("j", namespace, status)
    assert reported.metadata.generation == 2


def test_a_write_that_changes_nothing_makes_no_new_version(core: Any, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, config_map())
    again = core.patch_namespaced_config_map("a", namespace, {"data": {"x": "1"}})
    assert again.metadata.resource_version == made.metadata.resource_version
    put = core.replace_namespaced_config_map("a", namespace, config_map())
    assert put.metadata.resource_version == made.metadata.resource_version


def test_a_stale_version_is_a_conflict(core: Any, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, config_map())
    core.patch_namespaced_config_map("a", namespace, {"data": {"x": "2"}})
    made.data = {"x": "3"}
    with refused(409, "Conflict", "the object has been modified"):
        core.replace_namespaced_config_map("a", namespace, made)
    stale = {"metadata": {"resourceVersion": made.metadata.resource_version}, "data": {"x": "3"}}
    with refused(409, "Conflict", "the object has been modified"):
        core.patch_namespaced_config_map("a", namespace, stale)
    del stale["metadata"]
    assert core.patch_namespaced_config_map("a", namespace, stale).data == {"x": "3"}


def test_another_uid_is_a_conflict(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map())
    body = config_map() | {"metadata": {"name": "a", "uid": "0" * 8}}
    with refused(409, "Conflict", "Precondition failed: UID in precondition: 00000000"):
        core.replace_namespaced_config_map("a", namespace, body)
    with refused(422, "Invalid", "metadata.uid", "field is immutable"):
        core.patch_namespaced_config_map("a", namespace, {"metadata": {"uid": "0" * 8}})


def test_concurrent_writers_lose_nothing(
    api_server: FakeApiServer, core: Any, namespace: str
) -> None:
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "n"}, "data": {"n": "0"}})

    def count_once(own: Any) -> bool:
        found = own.read_namespaced_config_map("n", namespace)
        found.data["n"] = str(int(found.data["n"]) + 1)
        try:
            own.replace_namespaced_config_map("n", namespace, found)
        except ApiException as error:
            if error.status != 409:
                raise
            return False
        return True

    def count() -> None:
        own = client.CoreV1Api(api_server.client())
        for _ in range(10):
            while not count_once(own):
                pass

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert core.read_namespaced_config_map("n", namespace).data == {"n": "40"}


# Patches and the status subresource.


def test_merge_patch_removes_with_null_and_replaces_lists(widgets: Widgets) -> None:
    widgets.create(words=["a", "b"], code="x")
    patched = widgets.patch({"spec": {"words": ["c"], "code": None}})
    assert patched["spec"] == {"size": 1, "words": ["c"], "speed": "slow"}


def test_json_patch_tests_before_it_changes(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map())
    good = [
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "add", "path": "/metadata/labels", "value": {}},
        {"op": "add", "path": "/metadata/labels/a.io~1b", "value": "2"},
        {"op": "replace", "path": "/data/x", "value": "3"},
    ]
    patched = core.patch_namespaced_config_map("a", namespace, good)
    assert (patched.data, patched.metadata.labels) == ({"x": "3"}, {"a.io/b": "2"})
    with refused(422, "Invalid"):
        core.patch_namespaced_config_map("a", namespace, good)
    # Here the server is milder than RFC 6902: what is not there can be replaced, not removed.
    new = [{"op": "replace", "path": "/data/new", "value": "4"}]
    assert core.patch_namespaced_config_map("a", namespace, new).data == {"x": "3", "new": "4"}
    with refused(422, "Invalid"):
        core.patch_namespaced_config_map("a", namespace, [{"op": "remove", "path": "/data/gone"}])


def test_strategic_patch_merges_owners_by_uid(core: Any, namespace: str) -> None:
    owners = [
        owner(core.create_namespaced_config_map(namespace, config_map(name)))
        for name in ("one", "two", "three")
    ]
    body = config_map("child") | {"metadata": {"name": "child", "ownerReferences": owners[:1]}}
    core.create_namespaced_config_map(namespace, body)

    def patch(references: list[Json]) -> list[str]:
        patched = core.patch_namespaced_config_map(
            "child",
            namespace,
            {"metadata": {"ownerReferences": references}},
            _content_type="application/strategic-merge-patch+json",
        )
        return [one.name for one in patched.metadata.owner_references or []]

    # What the patch names and was not there comes first.
    assert patch([owners[1]]) == ["two", "one"]
    assert patch([owners[0] | {"controller": True}]) == ["two", "one"]
    assert patch([owners[0], owners[2]]) == ["two", "one", "three"]
    assert patch([{"$patch": "delete", "uid": owners[0]["uid"]}]) == ["two", "three"]


def test_strategic_patch_is_not_for_custom_kinds(
    widgets: Widgets, api_client: client.ApiClient, namespace: str
) -> None:
    widgets.create()
    custom: Any = client.CustomObjectsApi(api_client)
    with refused(415, "UnsupportedMediaType"):
        custom.patch_namespaced_custom_object(
            GROUP,
            "v1",
            namespace,
            "widgets",
            "w",
            {"spec": {"size": 2}},
            _content_type="application/strategic-merge-patch+json",
        )


def test_spec_and_status_of_a_job_are_written_apart(
    api_server: FakeApiServer, batch: Any, namespace: str
) -> None:
    made = batch.create_namespaced_job(namespace, job() | {"status": {"active": 7}})
    assert made.status.active is None
    batch.patch_namespaced_job("j", namespace, {"status": {"active": 7}})
    assert batch.read_namespaced_job("j", namespace).status.active is None
    both = {
        "metadata": {"labels": {"told": "yes"}},
        "spec": {"suspend": False},
        "status": {"active": 2},
    }
    reported = batch.patch_namespaced_job_status("j", namespace, both)
    assert reported.status.active == 2
    assert reported.spec.suspend is True
    # Of a built-in kind, labels go through.
    assert reported.metadata.labels["told"] == "yes"


def test_spec_and_status_of_a_pod_are_written_apart(
    api_server: FakeApiServer, core: Any, namespace: str
) -> None:
    made = core.create_namespaced_pod(namespace, pod() | {"status": {"phase": "Running"}})
    assert made.status.phase == "Pending"
    patch = {"status": {"message": "hello"}, "spec": {"activeDeadlineSeconds": 5}}
    assert core.patch_namespaced_pod("p", namespace, patch).status.message is None
    reported = core.patch_namespaced_pod_status(
        "p", namespace, {"status": {"message": "hi"}, "spec": {"activeDeadlineSeconds": 6}}
    )
    assert reported.status.message == "hi"
    assert reported.spec.active_deadline_seconds == 5


def test_spec_and_status_of_a_custom_object_are_written_apart(widgets: Widgets) -> None:
    widgets.create()
    assert "status" not in widgets.patch({"status": {"phase": "Done"}})
    reported = widgets.patch_status(
        {
            "status": {"phase": "Done"},
            "spec": {"size": 5},
            "metadata": {"labels": {"a": "b"}},
        }
    )
    assert reported["status"] == {"phase": "Done"}
    assert reported["spec"]["size"] == 1
    assert "labels" not in reported["metadata"]
    assert reported["metadata"]["generation"] == 1
    assert widgets.patch({"spec": {"size": 2}})["metadata"]["generation"] == 2


# Lists.


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=a", "12"),
        ("app==a,tier=x", "1"),
        ("app!=a", "34"),
        ("app in (a, b),tier", "13"),
        ("app notin (a)", "34"),
        ("tier", "13"),
        ("!tier", "24"),
        ("tier,!app", ""),
    ],
)
def test_labels_select(core: Any, namespace: str, selector: str, names: str) -> None:
    for name, labels in {
        "1": {"app": "a", "tier": "x"},
        "2": {"app": "a"},
        "3": {"app": "b", "tier": "y"},
        "4": {},
    }.items():
        body = {"metadata": {"name": name, "labels": labels}}
        core.create_namespaced_config_map(namespace, body)
    # Real clusters have a map of their own in each namespace.
    found = core.list_namespaced_config_map(
        namespace, label_selector=selector, field_selector="metadata.name!=kube-root-ca.crt"
    )
    assert "".join(one.metadata.name for one in found.items) == names


def test_a_selector_that_cannot_be_read_is_refused(core: Any, namespace: str) -> None:
    with refused(400, "BadRequest"):
        core.list_namespaced_config_map(namespace, label_selector="a in b")
    with refused(400, "BadRequest", "field label not supported"):
        core.list_namespaced_pod(namespace, field_selector="spec.hostname=x")


def test_fields_select(api_server: FakeApiServer, core: Any, namespace: str) -> None:
    for name in ("p", "q", "r"):
        core.create_namespaced_pod(namespace, pod(name))
    api_server.bind_pod(namespace, "q", "node-7")
    api_server.run_pod(namespace, "r", "node-8")

    def names(selector: str) -> list[str]:
        found = core.list_pod_for_all_namespaces(
            field_selector=f"metadata.namespace={namespace},{selector}"
        )
        return [one.metadata.name for one in found.items]

    assert names("metadata.name=p") == ["p"]
    assert names("metadata.name!=p") == ["q", "r"]
    assert names("spec.nodeName=node-7") == ["q"]
    assert names("status.phase=Running") == ["r"]
    assert names("status.phase!=Running,spec.nodeName!=") == ["q"]


def test_pages_of_a_list_show_one_moment(core: Any, namespace: str) -> None:
    labels = {"labels": {"paged": "yes"}}
    for name in "abcde":
        core.create_namespaced_config_map(namespace, {"metadata": {"name": name, **labels}})
    first = core.list_namespaced_config_map(namespace, label_selector="paged", limit=2)
    core.delete_namespaced_config_map("d", namespace)
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "bb", **labels}})
    core.patch_namespaced_config_map("c", namespace, {"data": {"late": "yes"}})
    found = [*first.items]
    page = first
    while page.metadata._continue:
        page = core.list_namespaced_config_map(
            namespace, label_selector="paged", limit=2, _continue=page.metadata._continue
        )
        assert page.metadata.resource_version == first.metadata.resource_version
        found += page.items
    assert [one.metadata.name for one in found] == list("abcde")
    assert found[2].data is None
    now = core.list_namespaced_config_map(namespace, label_selector="paged")
    assert [one.metadata.name for one in now.items] == ["a", "b", "bb", "c", "e"]


def test_an_old_page_is_gone(api_server: FakeApiServer, core: Any, namespace: str) -> None:
    for name in "ab":
        core.create_namespaced_config_map(namespace, config_map(name))
    page = core.list_namespaced_config_map(namespace, limit=1)
    assert page.metadata.remaining_item_count == 1
    core.create_namespaced_config_map(namespace, config_map("c"))
    api_server.forget_history()
    with refused(410, "Expired", "continue parameter is too old"):
        core.list_namespaced_config_map(namespace, limit=1, _continue=page.metadata._continue)


def test_lists_take_any_version_that_has_been(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map())
    for version in ("", "0", "1"):
        found = core.list_namespaced_config_map(namespace, resource_version=version)
        assert "a" in [one.metadata.name for one in found.items]
    future = "999999999999"
    for more in ({}, {"resource_version_match": "Exact"}):
        with refused(504, "Timeout", "Too large resource version"):
            core.list_namespaced_config_map(namespace, resource_version=future, **more)


def test_a_list_can_show_an_earlier_version(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map())
    then = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.delete_namespaced_config_map("a", namespace)
    found = core.list_namespaced_config_map(
        namespace, resource_version=then, resource_version_match="Exact"
    )
    assert "a" in [one.metadata.name for one in found.items]
    assert found.metadata.resource_version == then


# Watches.


def events(call: Any, *args: Any, **more: Any) -> list[tuple[str, str]]:
    """What a watch of at most a second tells: types and names."""
    stream = watch.Watch().stream(call, *args, timeout_seconds=1, **more)
    return [(one["type"], one["raw_object"]["metadata"].get("name", "")) for one in stream]


def test_a_watch_tells_what_happened_since_a_version(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map("before"))
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("a"))
    core.patch_namespaced_config_map("a", namespace, {"data": {"x": "2"}})
    core.delete_namespaced_config_map("a", namespace)
    core.create_namespaced_config_map("default", {"metadata": {"generateName": "other-"}})
    told = events(core.list_namespaced_config_map, namespace, resource_version=start)
    assert told == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_watch_tells_what_happens_while_it_is_open(core: Any, namespace: str) -> None:
    seen: list[tuple[float, str]] = []
    start = core.list_namespaced_config_map(namespace).metadata.resource_version

    def listen() -> None:
        stream = watch.Watch().stream(
            core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=5
        )
        for event in stream:
            seen.append((time.monotonic(), event["type"]))
            if event["type"] == "DELETED":
                return

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.2)
    core.create_namespaced_config_map(namespace, config_map())
    core.delete_namespaced_config_map("a", namespace)
    done = time.monotonic()
    thread.join()
    assert [what for _, what in seen] == ["ADDED", "DELETED"]
    assert seen[-1][0] - done < 1.0


@pytest.mark.parametrize("version", [None, "0"])
def test_a_watch_from_nowhere_begins_with_what_is_there(
    core: Any, namespace: str, version: str | None
) -> None:
    core.create_namespaced_config_map(namespace, config_map("a"))
    core.create_namespaced_config_map(namespace, config_map("b"))
    more = {} if version is None else {"resource_version": version}
    told = events(core.list_namespaced_config_map, namespace, **more)
    assert {("ADDED", "a"), ("ADDED", "b")} <= set(told)


def test_coming_into_a_selection_is_added_and_leaving_it_deleted(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map())
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    for state in ("in", "in", "out"):
        patch = {"metadata": {"labels": {"state": state}}, "data": {"now": str(time.time())}}
        last = core.patch_namespaced_config_map("a", namespace, patch)
    stream = watch.Watch().stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=start,
        label_selector="state=in",
        timeout_seconds=1,
    )
    told = [(one["type"], one["raw_object"]) for one in stream]
    assert [what for what, _ in told] == ["ADDED", "MODIFIED", "DELETED"]
    assert told[-1][1]["metadata"]["labels"] == {"state": "in"}
    assert told[-1][1]["metadata"]["resourceVersion"] == last.metadata.resource_version


def test_watches_end_at_their_time_with_a_bookmark(
    api_server: FakeApiServer, core: Any, namespace: str
) -> None:
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    # Another kind's changes move the bookmark on.
    core.create_namespaced_pod(namespace, pod())
    begun = time.monotonic()
    stream = watch.Watch().stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=start,
        allow_watch_bookmarks=True,
        timeout_seconds=1,
    )
    told = list(stream)
    assert 0.9 < time.monotonic() - begun < 2
    assert [one["type"] for one in told] == ["BOOKMARK"]
    assert int(told[0]["raw_object"]["metadata"]["resourceVersion"]) > int(start)


def test_bookmarks_come_again_and_again() -> None:
    with FakeApiServer(bookmark_seconds=0.2) as server:
        core: Any = client.CoreV1Api(server.client())
        with_them = events(core.list_pod_for_all_namespaces, allow_watch_bookmarks=True)
        assert 3 <= with_them.count(("BOOKMARK", "")) <= 6
        assert events(core.list_pod_for_all_namespaces) == []


def test_a_watch_from_a_forgotten_version_is_told_gone() -> None:
    with FakeApiServer(history=5) as server:
        core: Any = client.CoreV1Api(server.client())
        made = [
            core.create_namespaced_config_map("default", {"metadata": {"generateName": "x-"}})
            for _ in range(7)
        ]
        versions = [one.metadata.resource_version for one in made]
        kept = events(core.list_namespaced_config_map, "default", resource_version=versions[1])
        assert len(kept) == 5
        with pytest.raises(ApiException) as caught:
            events(core.list_namespaced_config_map, "default", resource_version=versions[0])
        assert caught.value.status == 410
        response = core.list_namespaced_config_map(
            "default",
            watch=True,
            resource_version=versions[0],
            timeout_seconds=1,
            _preload_content=False,
        )
        assert response.status == 200
        event = json.loads(response.data)
        assert event["type"] == "ERROR"
        assert event["object"]["code"] == 410
        assert event["object"]["reason"] == "Expired"


# Deletion.


def gone(core: Any, namespace: str, name: str) -> bool:
    found = core.list_namespaced_config_map(namespace, field_selector=f"metadata.name={name}")
    return not found.items


def family(core: Any, namespace: str, *, block: bool = False) -> None:
    """A parent, and a child that it owns."""
    parent = core.create_namespaced_config_map(namespace, config_map("parent"))
    child = {"metadata": {"name": "child", "ownerReferences": [owner(parent, block=block)]}}
    core.create_namespaced_config_map(namespace, child)


def test_background_takes_the_owner_first_and_then_the_dependents(
    core: Any, namespace: str
) -> None:
    family(core, namespace)
    core.patch_namespaced_config_map(
        "child", namespace, {"metadata": {"finalizers": ["test.hdgan.dev/keep"]}}
    )
    core.delete_namespaced_config_map("parent", namespace, propagation_policy="Background")
    assert gone(core, namespace, "parent")
    wait_for(
        lambda: (
            core.read_namespaced_config_map("child", namespace).metadata.deletion_timestamp
            is not None
        ),
        seconds=30,
    )
    core.patch_namespaced_config_map("child", namespace, {"metadata": {"finalizers": None}})
    wait_for(lambda: gone(core, namespace, "child"))


def test_foreground_waits_for_dependents_that_block(core: Any, namespace: str) -> None:
    family(core, namespace, block=True)
    core.patch_namespaced_config_map(
        "child", namespace, {"metadata": {"finalizers": ["test.hdgan.dev/keep"]}}
    )
    core.delete_namespaced_config_map("parent", namespace, propagation_policy="Foreground")
    wait_for(
        lambda: (
            core.read_namespaced_config_map("child", namespace).metadata.deletion_timestamp
            is not None
        ),
        seconds=30,
    )
    parent = core.read_namespaced_config_map("parent", namespace)
    assert parent.metadata.finalizers == ["foregroundDeletion"]
    assert parent.metadata.deletion_timestamp is not None
    core.patch_namespaced_config_map("child", namespace, {"metadata": {"finalizers": None}})
    wait_for(lambda: gone(core, namespace, "parent"), seconds=30)
    assert gone(core, namespace, "child")


def test_foreground_does_not_wait_for_those_that_do_not(core: Any, namespace: str) -> None:
    family(core, namespace, block=False)
    core.patch_namespaced_config_map(
        "child", namespace, {"metadata": {"finalizers": ["test.hdgan.dev/keep"]}}
    )
    core.delete_namespaced_config_map("parent", namespace, propagation_policy="Foreground")
    wait_for(lambda: gone(core, namespace, "parent"), seconds=30)
    assert not gone(core, namespace, "child")
    core.patch_namespaced_config_map("child", namespace, {"metadata": {"finalizers": None}})


def test_orphans_stay_without_their_owner(core: Any, namespace: str) -> None:
    family(core, namespace)
    core.delete_namespaced_config_map("parent", namespace, propagation_policy="Orphan")
    wait_for(lambda: gone(core, namespace, "parent"), seconds=30)
    child = core.read_namespaced_config_map("child", namespace)
    assert child.metadata.owner_references is None
    assert child.metadata.deletion_timestamp is None


def test_a_job_deleted_without_a_policy_leaves_its_dependents(
    core: Any, batch: Any, namespace: str
) -> None:
    made = batch.create_namespaced_job(namespace, job())
    child = {"metadata": {"name": "child", "ownerReferences": [owner(made, "Job")]}}
    core.create_namespaced_config_map(namespace, child)
    batch.delete_namespaced_job("j", namespace)
    wait_for(lambda: not batch.list_namespaced_job(namespace).items, seconds=30)
    child = core.read_namespaced_config_map("child", namespace)
    assert child.metadata.owner_references is None


def test_with_two_owners_the_last_one_takes_the_dependent(core: Any, namespace: str) -> None:
    owners = [
        owner(core.create_namespaced_config_map(namespace, config_map(name)))
        for name in ("one", "two")
    ]
    core.create_namespaced_config_map(
        namespace, {"metadata": {"name": "child", "ownerReferences": owners}}
    )
    core.delete_namespaced_config_map("one", namespace)

    def names() -> list[str]:
        child = core.read_namespaced_config_map("child", namespace)
        return [one.name for one in child.metadata.owner_references or []]

    wait_for(lambda: names() == ["two"], seconds=30)
    core.delete_namespaced_config_map("two", namespace)
    wait_for(lambda: gone(core, namespace, "child"), seconds=30)


@pytest.mark.parametrize("wrong", [{"uid": "00000000-0000-0000-0000-000000000000"}, {"name": "x"}])
def test_a_dependent_of_nobody_is_collected(core: Any, namespace: str, wrong: Json) -> None:
    made = core.create_namespaced_config_map(namespace, config_map("owner"))
    child = {"metadata": {"name": "child", "ownerReferences": [owner(made) | wrong]}}
    core.create_namespaced_config_map(namespace, child)
    wait_for(lambda: gone(core, namespace, "child"), seconds=30)


def test_preconditions_hold_a_deletion_back(core: Any, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, config_map()).metadata
    for conditions, said in (
        (
            {"uid": "another"},
            f"the UID in the precondition (another) does not match the UID in record ({made.uid})",
        ),
        (
            {"resourceVersion": "1"},
            "the ResourceVersion in the precondition (1) does not match the ResourceVersion in "
            f"record ({made.resource_version})",
        ),
    ):
        with refused(409, "Conflict", 'ConfigMap "a": ', said):
            core.delete_namespaced_config_map("a", namespace, body={"preconditions": conditions})
    right = {"uid": made.uid, "resourceVersion": made.resource_version}
    core.delete_namespaced_config_map("a", namespace, body={"preconditions": right})
    assert gone(core, namespace, "a")


def test_finalizers_keep_an_object_until_the_last_is_off(core: Any, namespace: str) -> None:
    body = {"metadata": {"name": "a", "finalizers": ["test.hdgan.dev/a", "test.hdgan.dev/b"]}}
    core.create_namespaced_config_map(namespace, body)
    core.delete_namespaced_config_map("a", namespace)

    def patch(finalizers: list[str]) -> Any:
        return core.patch_namespaced_config_map(
            "a",
            namespace,
            {"metadata": {"finalizers": finalizers}},
            _content_type="application/merge-patch+json",
        )

    assert patch(["test.hdgan.dev/b"]).metadata.deletion_timestamp is not None
    with refused(422, "Invalid", "no new finalizers can be added"):
        patch(["test.hdgan.dev/b", "test.hdgan.dev/c"])
    patch([])
    assert gone(core, namespace, "a")


def test_a_collection_is_deleted_by_selector(core: Any, namespace: str) -> None:
    for name, state in (("a", "old"), ("b", "new"), ("c", "old")):
        body = {"metadata": {"name": name, "labels": {"state": state}}}
        core.create_namespaced_config_map(namespace, body)
    core.delete_collection_namespaced_config_map(namespace, label_selector="state=old")
    left = core.list_namespaced_config_map(namespace, label_selector="state")
    assert [one.metadata.name for one in left.items] == ["b"]


def test_a_pod_without_a_node_goes_at_once(
    api_server: FakeApiServer, core: Any, namespace: str
) -> None:
    core.create_namespaced_pod(namespace, pod())
    core.delete_namespaced_pod("p", namespace)
    assert not api_server.exists("pods", namespace, "p")


def test_a_pod_on_a_node_has_its_grace(
    api_server: FakeApiServer, core: Any, namespace: str
) -> None:
    core.create_namespaced_pod(namespace, pod(terminationGracePeriodSeconds=40))
    api_server.run_pod(namespace, "p")
    core.delete_namespaced_pod("p", namespace)
    meta = core.read_namespaced_pod("p", namespace).metadata
    assert meta.deletion_grace_period_seconds == 40
    left = meta.deletion_timestamp - datetime.now(UTC)
    assert timedelta(seconds=35) < left <= timedelta(seconds=40)
    core.delete_namespaced_pod("p", namespace, grace_period_seconds=5)
    assert core.read_namespaced_pod("p", namespace).metadata.deletion_grace_period_seconds == 5
    core.delete_namespaced_pod("p", namespace, grace_period_seconds=50)
    assert core.read_namespaced_pod("p", namespace).metadata.deletion_grace_period_seconds == 5
    api_server.end_pod(namespace, "p", 143)
    assert not api_server.exists("pods", namespace, "p")


def test_force_takes_a_pod_at_once(api_server: FakeApiServer, core: Any, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod())
    api_server.run_pod(namespace, "p")
    core.delete_namespaced_pod("p", namespace)
    assert api_server.exists("pods", namespace, "p")
    core.delete_namespaced_pod("p", namespace, body={"gracePeriodSeconds": 0})
    assert not api_server.exists("pods", namespace, "p")


def test_force_does_not_take_a_pod_with_a_finalizer(
    api_server: FakeApiServer, core: Any, namespace: str
) -> None:
    body = pod()
    body["metadata"]["finalizers"] = ["test.hdgan.dev/keep"]
    core.create_namespaced_pod(namespace, body)
    api_server.run_pod(namespace, "p")
    core.delete_namespaced_pod("p", namespace, grace_period_seconds=0)
    assert core.read_namespaced_pod("p", namespace).metadata.deletion_timestamp is not None
    core.patch_namespaced_pod("p", namespace, {"metadata": {"finalizers": None}})
    assert not api_server.exists("pods", namespace, "p")


def test_an_ended_pod_tells_how(api_server: FakeApiServer, core: Any, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod())
    api_server.run_pod(namespace, "p")
    api_server.end_pod(namespace, "p", 3, message="why", pod_reason="Evicted")
    found = core.read_namespaced_pod("p", namespace).status
    assert (found.phase, found.reason) == ("Failed", "Evicted")
    ended = found.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.message, ended.reason) == (3, "why", "Error")
    core.delete_namespaced_pod("p", namespace)
    assert not api_server.exists("pods", namespace, "p")


def test_a_namespace_takes_its_content_along(core: Any, api_client: client.ApiClient) -> None:
    made = core.create_namespace({"metadata": {"generateName": "hdgan-test-"}})
    name = made.metadata.name
    body = {"metadata": {"name": "a", "finalizers": ["test.hdgan.dev/keep"]}}
    core.create_namespaced_config_map(name, body)
    core.delete_namespace(name)
    assert core.read_namespace(name).status.phase == "Terminating"
    with refused(403, "Forbidden", "being terminated"):
        core.create_namespaced_config_map(name, config_map("late"))
    wait_for(
        lambda: core.read_namespaced_config_map("a", name).metadata.deletion_timestamp is not None,
        seconds=30,
    )
    core.patch_namespaced_config_map("a", name, {"metadata": {"finalizers": None}})
    wait_for(
        lambda: not core.list_namespace(field_selector=f"metadata.name={name}").items, seconds=60
    )


# Validation.


def test_unknown_fields_are_refused_when_strict(
    batch: Any, api_client: client.ApiClient, namespace: str
) -> None:
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    body = job()
    body["spec"]["template"]["spec"]["containers"][0]["comand"] = ["x"]
    body["spec"]["backoff_limit"] = 1
    with refused(
        400,
        "BadRequest",
        "strict decoding error",
        'unknown field "spec.template.spec.containers[0].comand"',
        'unknown field "spec.backoff_limit"',
    ):
        send(api_client, "POST", path, body, fieldValidation="Strict")
    made = send(api_client, "POST", path, body)
    assert "unknown field" in made.headers["Warning"]
    assert made.data["spec"]["backoffLimit"] == 6
    patch = {"spec": {"suspended": True}}
    unknown = 'strict decoding error: unknown field "spec.suspended"'
    shown = 'patch: Invalid value: "map[spec:map[suspended:true]]"'
    for content_type, parts in (
        ("application/strategic-merge-patch+json", (shown, unknown)),
        ("application/merge-patch+json", (unknown,)),
    ):
        with refused(422, "Invalid", *parts):
            batch.patch_namespaced_job(
                "j", namespace, patch, field_validation="Strict", _content_type=content_type
            )


def test_values_of_the_wrong_type_are_refused(api_client: client.ApiClient, namespace: str) -> None:
    for value, shown in (("two", "string"), (2.5, "number 2.5"), (2**31, "number 2147483648")):
        said = f"cannot unmarshal {shown} into Go struct field JobSpec.spec.parallelism of type"
        with refused(400, "BadRequest", said):
            send(
                api_client,
                "POST",
                f"/apis/batch/v1/namespaces/{namespace}/jobs",
                job(parallelism=value),
            )
    core = f"/api/v1/namespaces/{namespace}"
    with refused(400, "BadRequest", "cannot unmarshal"):
        send(api_client, "POST", f"{core}/configmaps", config_map(data={"x": 1}))
    env = [{"name": "a", "image": "b", "env": [{"name": "N", "value": 1}]}]
    with refused(400, "BadRequest", "cannot unmarshal"):
        send(api_client, "POST", f"{core}/pods", pod(containers=env))


def test_required_fields_are_required(api_client: client.ApiClient, namespace: str) -> None:
    core = f"/api/v1/namespaces/{namespace}"
    with refused(422, "Invalid", "spec.containers[0].name", "Required value"):
        send(api_client, "POST", f"{core}/pods", pod(containers=[{"image": "x"}]))
    nobody = {"metadata": {"name": "a", "ownerReferences": [{"kind": "Job", "name": "j"}]}}
    with refused(422, "Invalid", "ownerReferences"):
        send(api_client, "POST", f"{core}/configmaps", nobody)


def test_unknown_fields_of_custom_objects_are_refused_or_dropped(widgets: Widgets) -> None:
    with refused(400, "BadRequest", 'unknown field "spec.sise"'):
        widgets.create(strict=True, sise=2)
    body = {"apiVersion": f"{GROUP}/v1", "kind": "Gadget", "metadata": {"name": "w"}}
    with refused(422, "Invalid", 'kind: Invalid value: "Gadget": must be Widget'):
        widgets.post(body)
    with refused(400, "BadRequest", "does not match the expected API version"):
        widgets.post(body | {"apiVersion": f"{GROUP}/v2"})
    made = widgets.create(sise=2, free={"any": {"thing": 1}}, table={"k": "v"})
    assert made["spec"] == {
        "size": 1,
        "speed": "slow",
        "free": {"any": {"thing": 1}},
        "table": {"k": "v"},
    }


# Whether rules are looked at, too: not where a value is wrong in a way they could trip over.
RULES, NO_RULES = True, False


@pytest.mark.parametrize(
    ("spec", "field", "said", "rules"),
    [
        ({"size": "one"}, "spec.size", 'must be of type integer: "string"', NO_RULES),
        ({"size": 0}, "spec.size", "greater than or equal to 1", RULES),
        ({"size": 10}, "spec.size", "less than or equal to 9", RULES),
        # A null that is not allowed is dropped before anything else.
        ({"size": None}, "spec.size", "Required value", NO_RULES),
        ({"colour": "green"}, "spec.colour", "supported values", NO_RULES),
        ({"code": "A1"}, "spec.code", "should match", RULES),
        ({"short": "long"}, "spec.short", "Too long", NO_RULES),
        ({"words": ["a", "b", "c"]}, "spec.words", "Too many: 3: must have", NO_RULES),
        ({"words": ["a", 1]}, "spec.words[1]", "must be of type string", NO_RULES),
        ({"table": {"a": "1", "b": "2"}}, "spec.table", "Too many: 2: must have", NO_RULES),
        ({"table": {"a": 1}}, "spec.table.a", "must be of type string", NO_RULES),
    ],
    ids=str,
)
def test_custom_objects_follow_their_schema(
    widgets: Widgets, spec: Json, field: str, said: str, rules: bool
) -> None:
    with pytest.raises(ApiException) as caught:
        widgets.create(**spec)
    assert caught.value.status == 422
    status = status_of(caught.value)
    assert status["reason"] == "Invalid"
    assert status["details"]["kind"] == "Widget"
    causes = status["details"]["causes"]
    assert [cause["field"] for cause in causes] == ([field] if rules else [field, "<nil>"])
    assert said in causes[0]["message"]
    if not rules:
        assert "some validation rules were not checked" in causes[1]["message"]


def test_what_the_schema_asks_for_must_be_there(
    widgets: Widgets, api_client: client.ApiClient, namespace: str
) -> None:
    custom: Any = client.CustomObjectsApi(api_client)
    body = {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {}}
    with refused(422, "Invalid", "spec.size: Required value"):
        custom.create_namespaced_custom_object(GROUP, "v1", namespace, "widgets", body)
    made = widgets.create(maybe=None, colour=None, speed=None)
    assert made["spec"] == {"size": 1, "maybe": None, "speed": "slow"}


def test_rules_about_changes_are_kept(widgets: Widgets) -> None:
    widgets.create(fixed="yes")
    with refused(422, "Invalid", 'spec.fixed: Invalid value: "no": is fixed'):
        widgets.patch({"spec": {"fixed": "no"}})
    with refused(422, "Invalid", "colour cannot come or go"):
        widgets.patch({"spec": {"colour": "red"}})
    with refused(422, "Invalid", "no empty words"):
        widgets.patch({"spec": {"words": ["a", ""]}})
    with refused(422, "Invalid", "failed rule: !has(self.maybe)"):
        widgets.patch({"spec": {"maybe": "long"}})
    assert widgets.patch({"spec": {"size": 3}})["spec"]["fixed"] == "yes"


def test_rules_that_cannot_be_evaluated_are_not_met(widgets: Widgets) -> None:
    with refused(422, "Invalid", "no such key: code evaluating rule: nine has its code"):
        widgets.create(size=9)
    # JSON has one kind of number, rules have two.
    with refused(422, "Invalid", "invalid data, expected int, got float64 evaluating rule: "):
        widgets.create(size=1.0)
    assert widgets.create(size=9, code="nine")["spec"]["size"] == 9


def test_the_status_of_a_custom_object_follows_its_schema(widgets: Widgets) -> None:
    widgets.create()
    with pytest.raises(ApiException) as caught:
        widgets.patch_status({"status": {"phase": 5}})
    assert caught.value.status == 422
    cause, _ = status_of(caught.value)["details"]["causes"]
    assert cause["field"] == "status.phase"
    assert "phase in body must be of type string" in cause["message"]


def test_what_was_wrong_before_may_stay(api_client: client.ApiClient, namespace: str) -> None:
    extensions: Any = client.ApiextensionsV1Api(api_client)
    custom: Any = client.CustomObjectsApi(api_client)
    definition = json.loads(json.dumps(WIDGET).replace("widget", "gear").replace("Widget", "Gear"))
    properties = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    where = (GROUP, "v1", namespace, "gears")

    def gear(name: str) -> Json:
        return {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Gear",
            "metadata": {"name": name},
            "spec": {"size": 1, "colour": "red", "words": ["a", "b"]},
        }

    def refuses() -> bool:
        try:
            custom.create_namespaced_custom_object(*where, gear("new"), dry_run="All")
        except ApiException as error:
            return bool(error.status == 422)
        return False

    def patch(**spec: Any) -> Json:
        changed: Json = custom.patch_namespaced_custom_object(
            *where, "old", {"spec": spec}, _content_type="application/merge-patch+json"
        )
        return changed

    with defined(api_client, definition):
        custom.create_namespaced_custom_object(*where, gear("old"))
        properties["spec"]["properties"]["colour"]["enum"] = ["blue"]
        properties["spec"]["properties"]["words"]["maxItems"] = 1
        versions = {"spec": {"versions": definition["spec"]["versions"]}}
        extensions.patch_custom_resource_definition(
            definition["metadata"]["name"], versions, _content_type="application/merge-patch+json"
        )
        wait_for(refuses, seconds=30)
        assert patch(size=2)["spec"]["colour"] == "red"
        with refused(422, "Invalid", "spec.words: Too many"):
            patch(words=["b", "a"])
        assert patch(words=["b"], colour="blue")["spec"]["words"] == ["b"]
        with refused(422, "Invalid", "spec.colour"):
            patch(colour="red")


def test_rules_that_are_not_looked_at_are_counted(
    api_server: FakeApiServer, widget_kind: None
) -> None:
    assert api_server.ignored_rules == ["self.size >= 0 || self.words.join(',') != ''"]


def test_a_custom_object_is_only_replaced_with_its_version(widgets: Widgets) -> None:
    made = widgets.create()
    version = made["metadata"].pop("resourceVersion")
    with refused(422, "Invalid", "must be specified for an update"):
        widgets.replace(made)
    made["metadata"]["resourceVersion"] = version
    made["spec"]["size"] = 2
    assert widgets.replace(made)["metadata"]["generation"] == 2


def test_a_definition_brings_its_kind_and_takes_its_objects_along() -> None:
    with FakeApiServer() as server:
        api_client = server.client()
        extensions: Any = client.ApiextensionsV1Api(api_client)
        widgets = Widgets(api_client, "default")
        with pytest.raises(ApiException) as caught:
            widgets.get()
        assert caught.value.status == 404
        extensions.create_custom_resource_definition(WIDGET)
        widgets.create()
        extensions.delete_custom_resource_definition(WIDGET["metadata"]["name"])
        wait_for(
            lambda: not server.exists("customresourcedefinitions", "", WIDGET["metadata"]["name"])
        )
        with pytest.raises(ApiException) as caught:
            widgets.get()
        assert caught.value.status == 404
        extensions.create_custom_resource_definition(WIDGET)
        with refused(404, "NotFound"):
            widgets.get()


def test_a_schema_that_is_not_structural_is_refused(api_client: client.ApiClient) -> None:
    extensions: Any = client.ApiextensionsV1Api(api_client)
    body = json.loads(json.dumps(WIDGET).replace("widgets", "gadgets"))
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["size"]["type"]
    with refused(422, "Invalid", "properties[size].type", "Required value"):
        extensions.create_custom_resource_definition(body)


# Jobs and other kinds with rules of their own.


def test_a_job_gets_defaults_and_ties_to_its_pods(batch: Any, namespace: str) -> None:
    body = job()
    del body["spec"]["suspend"]
    body["spec"]["managedBy"] = "test.hdgan.dev/nobody"
    made = batch.create_namespaced_job(namespace, body)
    spec, uid = made.spec, made.metadata.uid
    assert (spec.parallelism, spec.completions, spec.backoff_limit) == (1, 1, 6)
    assert (spec.suspend, spec.completion_mode) == (False, "NonIndexed")
    assert made.metadata.labels == spec.template.metadata.labels
    assert spec.selector.match_labels == {"batch.kubernetes.io/controller-uid": uid}
    assert spec.template.metadata.labels == {
        "controller-uid": uid,
        "job-name": "j",
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "j",
    }
    container = spec.template.spec.containers[0]
    assert container.termination_message_path == "/dev/termination-log"
    assert spec.template.spec.termination_grace_period_seconds == 30


POLICY = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}]}


@pytest.mark.parametrize(
    "change",
    [
        {"selector": {"matchLabels": {"a": "b"}}},
        {"template": {"spec": {"containers": [{"name": "main", "image": "other"}]}}},
        {"completions": 2},
        {"podFailurePolicy": POLICY},
        {"completionMode": "Indexed"},
        {"managedBy": "test.hdgan.dev/me"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_job_is_about_does_not_change(batch: Any, namespace: str, change: Json) -> None:
    batch.create_namespaced_job(namespace, job(completions=1))
    with refused(422, "Invalid", f"spec.{next(iter(change))}", "field is immutable"):
        batch.patch_namespaced_job(
            "j", namespace, {"spec": change}, _content_type="application/merge-patch+json"
        )


def test_how_a_job_is_run_does_change(batch: Any, namespace: str) -> None:
    batch.create_namespaced_job(namespace, job(completions=3, completionMode="Indexed"))
    changes: list[Json] = [
        {"ttlSecondsAfterFinished": 60},
        {"completions": 4, "parallelism": 4},
        {"template": {"spec": {"nodeSelector": {"pool": "gpu"}}}},
        {"suspend": False},
        {"backoffLimit": 2, "activeDeadlineSeconds": 100},
    ]
    for change in changes:
        batch.patch_namespaced_job("j", namespace, {"spec": change})
    with refused(422, "Invalid", "spec.completions"):
        batch.patch_namespaced_job("j", namespace, {"spec": {"completions": 5}})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"completionMode": "Indexed"}, "spec.completions"),
        ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex"),
        (
            {"podFailurePolicy": POLICY, "podReplacementPolicy": "TerminatingOrFailed"},
            "spec.podReplacementPolicy",
        ),
        ({"parallelism": -1}, "spec.parallelism"),
        (
            {
                "podFailurePolicy": {
                    "rules": [{"action": "Count", "onExitCodes": {"operator": "In", "values": [0]}}]
                }
            },
            "spec.podFailurePolicy.rules[0].onExitCodes.values",
        ),
        (
            {
                "podFailurePolicy": {
                    "rules": [
                        {"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget"}]}
                    ]
                }
            },
            "spec.podFailurePolicy.rules[0].action",
        ),
        ({"managedBy": "me"}, "spec.managedBy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_job_that_makes_no_sense_is_refused(
    batch: Any, namespace: str, spec: Json, field: str
) -> None:
    if spec.get("completionMode") == "Indexed":
        spec = {**spec, "parallelism": 1}
    with refused(422, "Invalid", field):
        batch.create_namespaced_job(namespace, job(**spec))


def test_pods_of_a_job_do_not_restart_always(batch: Any, namespace: str) -> None:
    body = job()
    del body["spec"]["template"]["spec"]["restartPolicy"]
    with refused(422, "Invalid", "restartPolicy", "OnFailure"):
        batch.create_namespaced_job(namespace, body)


def test_the_spec_of_a_pod_is_fixed(api_server: FakeApiServer, core: Any, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod())
    change = {"spec": {"containers": [{"name": "main", "command": ["x"]}]}}
    with refused(422, "Invalid", "pod updates may not change fields"):
        core.patch_namespaced_pod("p", namespace, change)
    change = {"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}}
    assert core.patch_namespaced_pod("p", namespace, change).spec.containers[0].image.endswith("2")


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        (
            {"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": "1"}}},
            "resources.requests",
            "must be less than or equal to cpu limit",
        ),
        (
            {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}},
            "resources.requests",
            "must be equal to nvidia.com/gpu limit",
        ),
        ({"env": [{"name": "A=B", "value": "1"}]}, "env[0].name", "a valid"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, "volumeMounts[0].name", "Not found"),
        ({"image": ""}, "image", "Required value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_containers_that_make_no_sense_are_refused(
    api_client: client.ApiClient, namespace: str, spec: Json, field: str, said: str
) -> None:
    body = pod(containers=[{"name": "main", "image": "busybox:1", **spec}])
    path = f"/api/v1/namespaces/{namespace}/pods"
    with refused(422, "Invalid", f"spec.containers[0].{field}: ", said):
        send(api_client, "POST", path, body)


def test_a_claim_is_fixed(core: Any, namespace: str) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    core.create_namespaced_persistent_volume_claim(
        namespace, {"metadata": {"name": "c"}, "spec": spec}
    )

    def patch(**spec: Any) -> Any:
        return core.patch_namespaced_persistent_volume_claim("c", namespace, {"spec": spec}).spec

    for change in ({"accessModes": ["ReadWriteMany"]}, {"resources": {"requests": {"storage": 2}}}):
        with refused(422, "Invalid", "spec is immutable after creation"):
            patch(**change)
    # A class may come later, once.
    assert patch(storageClassName="other").storage_class_name == "other"
    for name in ("another", None):
        with refused(422, "Invalid", "spec is immutable after creation"):
            patch(storageClassName=name)


def test_a_claim_says_what_it_wants(core: Any, namespace: str) -> None:
    with refused(422, "Invalid", "spec.accessModes: Required", "spec.resources[storage]: Required"):
        core.create_namespaced_persistent_volume_claim(
            namespace, {"metadata": {"name": "c"}, "spec": {}}
        )


def test_a_claim_stays_while_a_pod_uses_it(
    api_server: FakeApiServer, core: Any, namespace: str
) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    core.create_namespaced_persistent_volume_claim(
        namespace, {"metadata": {"name": "c"}, "spec": spec}
    )
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    core.create_namespaced_pod(namespace, pod(volumes=[volume]))
    core.delete_namespaced_persistent_volume_claim("c", namespace)
    found = core.read_namespaced_persistent_volume_claim("c", namespace).metadata
    assert found.deletion_timestamp is not None
    assert found.finalizers == ["kubernetes.io/pvc-protection"]
    time.sleep(0.2)
    assert api_server.exists("persistentvolumeclaims", namespace, "c")
    api_server.run_pod(namespace, "p")
    api_server.end_pod(namespace, "p", 0)
    wait_for(lambda: not api_server.exists("persistentvolumeclaims", namespace, "c"))


def test_keys_of_a_config_map_are_file_names(core: Any, namespace: str) -> None:
    with refused(422, "Invalid", "a valid config key must consist of"):
        core.create_namespaced_config_map(namespace, config_map(data={"a/b": "1"}))


def test_an_immutable_config_map_is_fixed(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map(immutable=True))
    changes: list[Json] = [{"data": {"x": "2"}}, {"immutable": False}, {"data": {"y": "2"}}]
    for change in changes:
        with refused(422, "Invalid", "field is immutable when `immutable` is set"):
            core.patch_namespaced_config_map("a", namespace, change)
    core.patch_namespaced_config_map("a", namespace, {"metadata": {"labels": {"a": "b"}}})


def test_a_lease_is_held_by_one(leases: Any, namespace: str) -> None:
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    body = {
        "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": when},
    }
    made = leases.create_namespaced_lease(namespace, body)
    assert made.spec.renew_time.microsecond == int(when[-7:-1])
    with refused(422, "Invalid", "must be specified for an update"):
        leases.replace_namespaced_lease("l", namespace, body)
    held = leases.read_namespaced_lease("l", namespace)
    leases.patch_namespaced_lease("l", namespace, {"spec": {"holderIdentity": "you"}})
    with refused(409, "Conflict"):
        leases.replace_namespaced_lease("l", namespace, held)
    with refused(422, "Invalid", "must be greater than 0"):
        leases.patch_namespaced_lease("l", namespace, {"spec": {"leaseDurationSeconds": 0}})
    # What isoformat() says at a full second.
    when = "2026-01-01T00:00:00+00:00"
    said = f'parsing time "{when}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "+00:00" as'
    with refused(422, "Invalid", "patch: Invalid value: ", said):
        leases.patch_namespaced_lease("l", namespace, {"spec": {"renewTime": when}})
    body = {"metadata": {"name": "m"}, "spec": {"renewTime": when}}
    with refused(400, "BadRequest", said):
        leases.create_namespaced_lease(namespace, body)
    with refused(422, "Invalid", "month out of range"):
        leases.patch_namespaced_lease(
            "l", namespace, {"spec": {"renewTime": "2026-13-01T00:00:00.000000Z"}}
        )


def test_events_are_one_thing_with_two_faces(
    core: Any, api_client: client.ApiClient, namespace: str
) -> None:
    body = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Job", "name": "j", "namespace": namespace},
        "reason": "Tested",
        "message": "it was",
        "type": "Normal",
        "firstTimestamp": "2026-01-01T00:00:00.25Z",
    }
    made = core.create_namespaced_event(namespace, body)
    assert made.first_timestamp == datetime(2026, 1, 1, tzinfo=UTC)
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events/e"
    shown = send(api_client, "GET", path).data
    assert (shown["note"], shown["regarding"]["name"]) == ("it was", "j")
    for selector, count in (
        ("involvedObject.name=j,reason=Tested", 1),
        ("involvedObject.kind=Pod", 0),
    ):
        found = core.list_namespaced_event(namespace, field_selector=selector)
        assert len(found.items) == count
    body = body | {"metadata": {"name": "f"}, "involvedObject": {"namespace": "elsewhere"}}
    with refused(422, "Invalid", "does not match event.namespace"):
        core.create_namespaced_event(namespace, body)


# Faults, the record of requests, and clients.


def jobs_only(method: str, path: str) -> bool:
    return "/jobs" in path


def no_retries(server: FakeApiServer) -> client.ApiClient:
    """The official client, without what urllib3 does on its own."""
    api_client = server.client()
    api_client.configuration.retries = False
    return client.ApiClient(api_client.configuration)


@pytest.fixture
def impatient(api_server: FakeApiServer) -> Iterator[client.ApiClient]:
    api_client = no_retries(api_server)
    yield api_client
    api_client.close()


def test_hanging_requests_are_never_answered(
    impatient: client.ApiClient, core: Any, namespace: str, faults: Faults
) -> None:
    batch: Any = client.BatchV1Api(impatient)
    with faults.hang(jobs_only) as fault:
        with pytest.raises(urllib3.exceptions.HTTPError):
            batch.list_namespaced_job(namespace, _request_timeout=0.2)
        assert fault.hits == 1
        # Others are answered meanwhile.
        core.list_namespaced_config_map(namespace)
    assert batch.list_namespaced_job(namespace, _request_timeout=5).items == []


def test_a_hanging_request_ends_with_its_fault(
    impatient: client.ApiClient, namespace: str, faults: Faults
) -> None:
    batch: Any = client.BatchV1Api(impatient)
    fault = faults.hang()
    threading.Timer(0.2, fault.stop).start()
    begun = time.monotonic()
    with pytest.raises(urllib3.exceptions.HTTPError):
        batch.list_namespaced_job(namespace)
    assert 0.1 < time.monotonic() - begun < 2


def test_connections_are_reset_before_or_after_the_work(
    impatient: client.ApiClient, api_server: FakeApiServer, namespace: str, faults: Faults
) -> None:
    core: Any = client.CoreV1Api(impatient)
    with faults.reset(), pytest.raises(urllib3.exceptions.HTTPError):
        core.create_namespaced_config_map(namespace, config_map("before"))
    assert not api_server.exists("configmaps", namespace, "before")
    faults.reset(times=1, after=True)
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.create_namespaced_config_map(namespace, config_map("after"))
    assert api_server.exists("configmaps", namespace, "after")
    core.create_namespaced_config_map(namespace, config_map("later"))


def test_the_next_requests_get_another_answer(
    impatient: client.ApiClient, namespace: str, faults: Faults
) -> None:
    core: Any = client.CoreV1Api(impatient)
    faults.answer(429, times=2, retry_after=3)
    for _ in range(2):
        with pytest.raises(ApiException) as caught:
            core.list_namespaced_pod(namespace)
        assert caught.value.status == 429
        assert caught.value.headers is not None
        assert caught.value.headers["Retry-After"] == "3"
        assert status_of(caught.value)["reason"] == "TooManyRequests"
    core.list_namespaced_pod(namespace)
    with faults.answer(500, times=None), refused(500, "InternalError"):
        core.create_namespaced_config_map(namespace, config_map())
    core.create_namespaced_config_map(namespace, config_map())


def test_slow_requests_are_answered_late(core: Any, namespace: str, faults: Faults) -> None:
    with faults.slow(0.3):
        begun = time.monotonic()
        core.list_namespaced_pod(namespace)
        assert time.monotonic() - begun >= 0.3
    begun = time.monotonic()
    core.list_namespaced_pod(namespace)
    assert time.monotonic() - begun < 0.3


class Listener:
    """A watch in a thread."""

    def __init__(self, server: FakeApiServer, namespace: str, patience: float = 5.0) -> None:
        self.seen: list[str] = []
        self.error: Exception | None = None
        self._core: Any = client.CoreV1Api(server.client())
        self._namespace = namespace
        self._patience = patience
        self._open = server.faults.open_watches()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        wait_for(lambda: server.faults.open_watches() > self._open)

    def _listen(self) -> None:
        try:
            stream = watch.Watch().stream(
                self._core.list_namespaced_config_map,
                self._namespace,
                timeout_seconds=5,
                _request_timeout=(1, self._patience),
            )
            for event in stream:
                self.seen.append(event["raw_object"]["metadata"]["name"])
        except Exception as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()


def test_silenced_watches_stay_open_and_say_nothing(
    api_server: FakeApiServer, core: Any, namespace: str, faults: Faults
) -> None:
    core.create_namespaced_config_map(namespace, config_map("before"))
    listener = Listener(api_server, namespace, patience=1.0)
    wait_for(lambda: "before" in listener.seen)
    faults.silence_watches()
    core.create_namespaced_config_map(namespace, config_map("during"))
    listener.join()
    assert "during" not in listener.seen
    assert isinstance(listener.error, urllib3.exceptions.ReadTimeoutError)
    faults.restore_watches()
    assert ("ADDED", "during") in events(core.list_namespaced_config_map, namespace)


@pytest.mark.parametrize("clean", [True, False])
def test_watches_are_closed(
    api_server: FakeApiServer, core: Any, namespace: str, faults: Faults, clean: bool
) -> None:
    listener = Listener(api_server, namespace)
    begun = time.monotonic()
    assert faults.close_watches(clean=clean) >= 1
    listener.join()
    assert time.monotonic() - begun < 3
    wait_for(lambda: api_server.faults.open_watches() == 0)
    if clean:
        assert listener.error is None
    else:
        assert isinstance(listener.error, urllib3.exceptions.ProtocolError)


def test_requests_are_counted(
    api_server: FakeApiServer, core: Any, batch: Any, namespace: str, requests: Requests
) -> None:
    core.create_namespaced_config_map(namespace, config_map())
    mark = requests.mark()
    with pytest.raises(ApiException):
        core.create_namespaced_config_map(namespace, config_map())
    batch.create_namespaced_job(namespace, job())
    batch.patch_namespaced_job_status("j", namespace, {"status": {"active": 1}})
    batch.list_namespaced_job(namespace, label_selector="a=b")
    events(core.list_namespaced_config_map, namespace)
    assert requests.counts(mark) == {
        ("create", "configmaps"): 1,
        ("create", "jobs"): 1,
        ("patch", "jobs/status"): 1,
        ("list", "jobs"): 1,
        ("watch", "configmaps"): 1,
    }
    assert [one.status for one in requests.since(verb="create")] == [201, 409, 201]
    listed = requests.since(mark, verb="list")[0]
    assert listed.path == f"/apis/batch/v1/namespaces/{namespace}/jobs"
    assert listed.query == {"labelSelector": "a=b"}
    # What a test does from within is not counted.
    api_server.all("jobs", namespace)
    assert requests.counts(mark, namespace=namespace).total() == 5


def test_a_kubeconfig_leads_here(api_server: FakeApiServer, tmp_path: Path) -> None:
    path = api_server.kubeconfig(tmp_path / "config")
    api_client = config.new_client_from_config(str(path))
    version: Any = client.VersionApi(api_client).get_code()
    assert version.major == "1"
    api_client.close()


def test_the_server_tells_which_kinds_it_has(
    widgets: Widgets, api_client: client.ApiClient, namespace: str
) -> None:
    dynamic: Any = DynamicClient(api_client)
    found = dynamic.resources.get(api_version=f"{GROUP}/v1", kind="Widget")
    assert found.name == "widgets"
    assert found.namespaced
    with pytest.raises(ApiException) as caught:
        client.CustomObjectsApi(api_client).list_namespaced_custom_object(
            GROUP, "v2", namespace, "widgets"
        )
    assert caught.value.status == 404


def test_a_stopped_server_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    server = FakeApiServer()
    server.start()
    core: Any = client.CoreV1Api(server.client())
    core.list_namespace()
    listener = Listener(server, "default")
    server.stop()
    listener.join()
    # A handler says that it is done just before it is.
    wait_for(lambda: set(threading.enumerate()) <= before)


def test_objects_can_be_made_and_changed_from_within(
    api_server: FakeApiServer, core: Any, namespace: str
) -> None:
    start = core.list_namespaced_pod(namespace).metadata.resource_version
    api_server.create({"apiVersion": "v1", "kind": "Pod", **pod()}, namespace)

    def rename(value: Json) -> None:
        value["spec"]["nodeName"] = "elsewhere"

    api_server.edit("pods", namespace, "p", rename)
    assert core.read_namespaced_pod("p", namespace).spec.node_name == "elsewhere"
    api_server.remove("pods", namespace, "p")
    told = events(core.list_namespaced_pod, namespace, resource_version=start)
    assert [what for what, _ in told] == ["ADDED", "MODIFIED", "DELETED"]
