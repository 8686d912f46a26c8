"""The verbs, as functions of the store: what HTTP asks for, tests and the collector may, too."""

from __future__ import annotations

import base64
import binascii
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.fake_api import expressions, metadata, patches, rules, selectors, structural, views
from cluster.fake_api.decoding import DecodeError, decode
from cluster.fake_api.deletion import DeleteOptions, Ending, ending
from cluster.fake_api.problems import (
    Problem,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
    stale,
    too_new,
    undecodable,
    wrong,
)
from cluster.fake_api.resources import (
    BUILT_IN,
    DEFINITIONS,
    NAMESPACES,
    PODS,
    Resource,
    of_definition,
)
from cluster.fake_api.store import Store

Json = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


@dataclass(frozen=True)
class Answer:
    """A code, a body, and warnings for the person who asked."""

    code: int
    body: Json
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Writing:
    """How to write: what to do with unknown fields (Strict, Warn, Ignore), and whether at all."""

    validation: str = "Warn"
    dry_run: bool = False


@dataclass(frozen=True)
class Choice:
    """Which objects: selectors, and where in the pages of a list."""

    labels: str = ""
    fields: str = ""
    limit: int = 0
    token: str = ""
    version: str = ""
    match: str = ""


@dataclass
class _Read:
    """A body that was understood, in stored form."""

    value: Json
    unknown: list[str] = field(default_factory=list)
    missing: list[Any] = field(default_factory=list)


class Api:
    """Every verb of every resource. Raises `Problem` for what the real server would refuse."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._built_in = {(one.group, one.version, one.plural): one for one in BUILT_IN}
        self._custom: dict[tuple[str, str, str], Resource] = {}
        self._custom_seen: list[str] = []
        for name in _FIRST_NAMESPACES:
            self.create(NAMESPACES, "", {"metadata": {"name": name}})

    # Which kinds there are.

    def resources(self) -> list[Resource]:
        """All kinds served now."""
        with self.store.lock:
            definitions = self.store.all(DEFINITIONS.type_key).values()
            seen = [one["metadata"]["resourceVersion"] for one in definitions]
            if seen != self._custom_seen:
                self._custom = {
                    (one.group, one.version, one.plural): one
                    for definition in definitions
                    for one in of_definition(definition)
                }
                self._custom_seen = seen
            return [*self._built_in.values(), *self._custom.values()]

    def resource(self, group: str, version: str, plural: str) -> Resource | None:
        with self.store.lock:
            self.resources()
            key = (group, version, plural)
            return self._built_in.get(key) or self._custom.get(key)

    def resource_of_type(self, type_key: str) -> Resource:
        """A resource, at any version, whose objects are stored under this key."""
        return next(one for one in self.resources() if one.type_key == type_key)

    def ignored_rules(self) -> list[str]:
        """CEL rules of the definitions that are not looked at."""
        found = []
        for resource in self.resources():
            if resource.schema is not None:
                found += expressions.unsupported(structural.rules_in(resource.schema))
        return found

    # Reading.

    def get(self, resource: Resource, namespace: str, name: str) -> Json:
        found = self.store.get(resource.type_key, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return views.shown(found, resource)

    def tests(self, resource: Resource, choice: Choice) -> Callable[[Json], bool]:
        """The selectors as one test of a stored object."""
        by_label = selectors.labels(choice.labels)
        by_field = selectors.fields(choice.fields, resource)
        return lambda value: by_label(value) and by_field(value)

    def list(self, resource: Resource, namespace: str, choice: Choice) -> Json:
        """A page of a list. All pages of a list show the store at one version."""
        chosen = self.tests(resource, choice)
        after: tuple[str, str] | None = None
        with self.store.lock:
            version = self.store.version
            if choice.token:
                version, after = _read_token(choice.token)
                try:
                    objects = self.store.as_of(version, resource.type_key)
                except Problem as problem:
                    raise Problem(
                        410,
                        "The provided continue parameter is too old to display a consistent list "
                        "result. You can start a new list without the continue parameter.",
                    ) from problem
            elif choice.match == "Exact":
                version = _number(choice.version)
                objects = self.store.as_of(version, resource.type_key)
            else:
                if choice.version and _number(choice.version) > version:
                    raise too_new(_number(choice.version), version)
                objects = self.store.all(resource.type_key)
        found = [
            (place, value)
            for place, value in objects.items()
            if (not namespace or place[0] == namespace)
            and (after is None or place > after)
            and chosen(value)
        ]
        meta: Json = {"resourceVersion": str(version)}
        if choice.limit and len(found) > choice.limit:
            meta["continue"] = _write_token(version, found[choice.limit - 1][0])
            if not choice.labels and not choice.fields:
                meta["remainingItemCount"] = len(found) - choice.limit
            found = found[: choice.limit]
        items = [views.shown(value, resource) for _, value in found]
        if not resource.custom:
            for item in items:
                del item["apiVersion"], item["kind"]
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": meta,
            "items": items,
        }

    # Writing.

    def create(
        self, resource: Resource, namespace: str, body: Json, how: Writing | None = None
    ) -> Answer:
        how = how or Writing()
        with self.store.lock:
            read = self._read(resource, body, how)
            value = read.value
            meta = value["metadata"]
            if resource.namespaced:
                _place_in(meta, namespace)
            if meta.get("resourceVersion"):
                raise bad_request("resourceVersion should not be set on objects to be created")
            if not meta.get("name") and meta.get("generateName"):
                meta["name"] = metadata.generated_name(meta["generateName"])
            name = meta.get("name", "")
            if resource.namespaced:
                self._need_namespace(resource, namespace, name)
            for system in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
                meta.pop(system, None)
            meta["uid"] = metadata.new_uid()
            meta["creationTimestamp"] = metadata.now()
            if resource.generation:
                meta["generation"] = 1
            if resource.status:
                value.pop("status", None)
            if read.missing:
                raise invalid(resource, name, read.missing)
            self._finish(resource, value, None)
            if self.store.get(resource.type_key, namespace, name) is not None:
                raise already_exists(resource, name)
            kept = value if how.dry_run else self.store.put(resource.type_key, value)
            return Answer(201, views.shown(kept, resource), _warnings(read.unknown))

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Json,
        how: Writing | None = None,
        *,
        status: bool = False,
    ) -> Answer:
        """PUT of an object, or of its status."""
        how = how or Writing()
        with self.store.lock:
            old = self.store.get(resource.type_key, namespace, name)
            if old is None:
                if resource.create_on_update and not status:
                    return self.create(resource, namespace, body, how)
                raise not_found(resource, name)
            read = self._read(resource, body, how)
            return self._replace(resource, old, read, how, status=status)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        content_type: str,
        how: Writing | None = None,
        *,
        status: bool = False,
    ) -> Answer:
        how = how or Writing()
        with self.store.lock:
            old = self.store.get(resource.type_key, namespace, name)
            if old is None:
                raise not_found(resource, name)
            body = _patched(resource, views.shown(old, resource), patch, content_type)
            read = self._read(resource, body, how)
            return self._replace(resource, old, read, how, status=status, patched=True)

    def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions | None = None
    ) -> Answer:
        options = options or DeleteOptions()
        with self.store.lock:
            old = self.store.get(resource.type_key, namespace, name)
            if old is None:
                raise not_found(resource, name)
            meta = old["metadata"]
            for word, wanted, has in (
                ("UID", options.uid, meta["uid"]),
                ("ResourceVersion", options.version, meta["resourceVersion"]),
            ):
                if wanted is not None and wanted != has:
                    raise conflict(
                        resource,
                        name,
                        f"Precondition failed: {word} in precondition: {wanted}, {word} in object "
                        f"meta: {has}",
                    )
            new, how = ending(resource, old, options)
            if options.dry_run:
                return Answer(200, views.shown(new, resource))
            if how is Ending.WAITS:
                kept = self._put_if_changed(resource, old, new)
                return Answer(200, views.shown(kept, resource))
            last = self.store.remove(resource.type_key, namespace, name)
            if resource.returns_deleted:
                return Answer(200, views.shown(last, resource))
            return Answer(200, _deleted(resource, last))

    def delete_collection(
        self, resource: Resource, namespace: str, choice: Choice, options: DeleteOptions
    ) -> Answer:
        with self.store.lock:
            page = self.list(resource, namespace, choice)
            for item in page["items"]:
                meta = item["metadata"]
                self.delete(resource, meta.get("namespace", ""), meta["name"], options)
            return Answer(200, page)

    def bind(self, namespace: str, name: str, node: str) -> None:
        """The scheduler's part: this pod goes to this node."""
        with self.store.lock:
            old = self.store.get(PODS.type_key, namespace, name)
            if old is None:
                raise not_found(PODS, name)
            if old["spec"].get("nodeName"):
                raise conflict(
                    PODS,
                    name,
                    f'pod {name} is already assigned to node "{old["spec"]["nodeName"]}"',
                )
            new = copy.deepcopy(old)
            new["spec"]["nodeName"] = node
            scheduled = {"type": "PodScheduled", "status": "True"}
            scheduled["lastTransitionTime"] = metadata.now()
            others = [
                one for one in new["status"].get("conditions", []) if one["type"] != "PodScheduled"
            ]
            new["status"]["conditions"] = [*others, scheduled]
            self.store.put(PODS.type_key, new)

    # Parts of the above.

    def _read(self, resource: Resource, body: Any, how: Writing) -> _Read:
        if not isinstance(body, dict):
            raise undecodable(resource, "the body is not an object")
        for name, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
            found = body.get(name)
            if found is None and resource.custom:
                raise bad_request(f"Object '{name}' is missing in '{json.dumps(body)[:200]}'")
            if found is not None and found != wanted:
                raise bad_request(
                    f"the {name} in the data ({found}) does not match the expected one ({wanted})"
                )
        try:
            read = (
                _read_custom(resource, body) if resource.custom else _read_built_in(resource, body)
            )
        except DecodeError as error:
            raise undecodable(resource, str(error)) from error
        if read.unknown and how.validation == "Strict":
            told = ", ".join(f'unknown field "{path}"' for path in read.unknown)
            raise undecodable(resource, f"strict decoding error: {told}")
        if how.validation == "Ignore":
            read.unknown = []
        metadata.tidy(read.value["metadata"])
        return read

    def _need_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        found = self.store.get(NAMESPACES.type_key, "", namespace)
        if found is None:
            raise not_found(NAMESPACES, namespace)
        if "deletionTimestamp" in found["metadata"]:
            why = f"namespace {namespace} is being terminated"
            raise forbidden(
                resource,
                name,
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated",
                [{"reason": "NamespaceTerminating", "message": why, "field": "metadata.namespace"}],
            )

    def _finish(self, resource: Resource, value: Json, old: Json | None) -> None:
        """Defaults and checks of what is about to be stored."""
        name = value["metadata"].get("name", "")
        rule = rules.of(resource)
        if resource.schema is not None:
            structural.fill_defaults(value, resource.schema)
        else:
            rule.default(value)
        causes = metadata.check(value["metadata"], resource.plural)
        if old is not None:
            causes += metadata.check_finalizers(value["metadata"], old["metadata"])
        if resource.schema is not None:
            causes += structural.check(value, resource.schema, old)
        else:
            if old is None and not causes:
                rule.create(value)
            causes += rule.check(value)
            if old is not None:
                causes += rule.check_update(value, old)
        if causes:
            raise invalid(resource, name, causes)

    def _replace(
        self,
        resource: Resource,
        old: Json,
        read: _Read,
        how: Writing,
        *,
        status: bool,
        patched: bool = False,
    ) -> Answer:
        new = read.value
        meta, had = new["metadata"], old["metadata"]
        name = had["name"]
        if meta.get("name") != name:
            raise bad_request(
                f"the name of the object ({meta.get('name')}) does not match the name on the URL "
                f"({name})"
            )
        if resource.namespaced:
            _place_in(meta, had["namespace"])
        if meta.get("uid") not in (None, "", had["uid"]):
            raise conflict(
                resource,
                name,
                f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
                f"{had['uid']}",
            )
        if not meta.get("resourceVersion"):
            if not resource.unconditional and not patched:
                raise invalid(
                    resource,
                    name,
                    [wrong("metadata.resourceVersion", 0, "must be specified for an update")],
                )
        elif meta["resourceVersion"] != had["resourceVersion"]:
            raise stale(resource, name)
        if read.missing:
            raise invalid(resource, name, read.missing)
        new = _status_of(resource, new, old) if status else _all_but_status(resource, new, old)
        self._finish(resource, new, old)
        if resource.generation and _intent(resource, new) != _intent(resource, old):
            new["metadata"]["generation"] = had["generation"] + 1
        if how.dry_run:
            return Answer(200, views.shown(new, resource), _warnings(read.unknown))
        kept = self._put_if_changed(resource, old, new)
        if _may_go(kept):
            kept = self.store.remove(resource.type_key, had.get("namespace", ""), name)
        return Answer(200, views.shown(kept, resource), _warnings(read.unknown))

    def _put_if_changed(self, resource: Resource, old: Json, new: Json) -> Json:
        """A write that changes nothing makes no new version and tells nobody."""
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        return old if new == old else self.store.put(resource.type_key, new)


def _read_built_in(resource: Resource, body: Json) -> _Read:
    assert resource.model is not None
    decoded = decode(resource.model, body)
    value = views.stored(decoded.value, resource)
    value.setdefault("metadata", {})
    return _Read(value, decoded.unknown, decoded.missing)


def _read_custom(resource: Resource, body: Json) -> _Read:
    assert resource.schema is not None
    value, unknown = structural.prune(body, resource.schema)
    value = views.stored(value, resource)
    decoded = decode("V1ObjectMeta", body.get("metadata") or {})
    value["metadata"] = decoded.value
    unknown += [f"metadata.{path}" for path in decoded.unknown]
    return _Read(value, unknown, [])


def _place_in(meta: Json, namespace: str) -> None:
    if meta.get("namespace") not in (None, "", namespace):
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    meta["namespace"] = namespace


# What only the server writes.
_SYSTEM = (
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
)


def _keep_system(new: Json, old: Json) -> None:
    for name in _SYSTEM:
        new["metadata"].pop(name, None)
        if name in old["metadata"]:
            new["metadata"][name] = old["metadata"][name]


def _all_but_status(resource: Resource, new: Json, old: Json) -> Json:
    """A write to the main resource: the status stays."""
    result = {**new, "metadata": dict(new["metadata"])}
    _keep_system(result, old)
    if resource.status or resource == NAMESPACES:
        result.pop("status", None)
        if "status" in old:
            result["status"] = copy.deepcopy(old["status"])
    return result


def _status_of(resource: Resource, new: Json, old: Json) -> Json:
    """A write to /status: of pods and Jobs labels and annotations go through, too."""
    result = copy.deepcopy(old)
    result.pop("status", None)
    if "status" in new:
        result["status"] = new["status"]
    elif not resource.custom:
        result["status"] = {}
    if not resource.custom:
        result["metadata"] = dict(new["metadata"])
        _keep_system(result, old)
        if resource == PODS:
            result["metadata"].pop("ownerReferences", None)
            if "ownerReferences" in old["metadata"]:
                result["metadata"]["ownerReferences"] = old["metadata"]["ownerReferences"]
    return result


def _intent(resource: Resource, value: Json) -> Json:
    """What counts for the generation."""
    if not resource.custom:
        return {"spec": value.get("spec")}
    left = ("metadata", "status") if resource.status else ("metadata",)
    return {name: one for name, one in value.items() if name not in left}


def _may_go(value: Json) -> bool:
    meta = value["metadata"]
    return (
        "deletionTimestamp" in meta
        and not meta.get("finalizers")
        and not meta.get("deletionGracePeriodSeconds")
        and not value.get("spec", {}).get("finalizers")
    )


def _deleted(resource: Resource, last: Json) -> Json:
    details: Json = {"name": last["metadata"]["name"], "kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    details["uid"] = last["metadata"]["uid"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }


def _patched(resource: Resource, current: Json, patch: Any, content_type: str) -> Any:
    if content_type == JSON_PATCH:
        if not isinstance(patch, list):
            raise bad_request("error decoding patch: json: cannot unmarshal object into a list")
        return patches.json_patch(current, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: not an object")
    if content_type == MERGE_PATCH:
        return patches.merge(current, patch)
    if content_type == STRATEGIC_PATCH and not resource.custom:
        return patches.strategic(current, patch)
    supported = [JSON_PATCH, MERGE_PATCH] + ([] if resource.custom else [STRATEGIC_PATCH])
    raise Problem(
        415,
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(supported),
    )


def _warnings(unknown: list[str]) -> tuple[str, ...]:
    return tuple(f'unknown field "{path}"' for path in unknown)


def _number(version: str) -> int:
    if not version.isdigit():
        raise bad_request(f"invalid resource version {version!r}")
    return int(version)


def _write_token(version: int, after: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, *after]).encode()).decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, binascii.Error) as error:
        raise bad_request("continue key is not valid") from error
    return version, (namespace, name)
