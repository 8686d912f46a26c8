"""The verbs, as functions of the store: what HTTP asks for, tests and the collector may, too."""

from __future__ import annotations

import base64
import binascii
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cluster.fake_api import expressions, metadata, patches, rules, selectors, structural, views
from cluster.fake_api.decoding import DecodeError, WrongType, decode
from cluster.fake_api.deletion import DeleteOptions, Ending, ending
from cluster.fake_api.problems import (
    Cause,
    Problem,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    forbidden_field,
    go_text,
    invalid,
    invalid_as,
    invalid_patch,
    mistaken,
    not_found,
    stale,
    too_new,
    undecodable,
    unrecognized,
    unsupported,
    wrong,
)
from cluster.fake_api.resources import (
    BUILT_IN,
    DEFINITIONS,
    JOBS,
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
APPLY_PATCH = "application/apply-patch+yaml"

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
    # What a custom object says it is.
    kind: str = ""
    api_version: str = ""


@dataclass(frozen=True)
class _Patched:
    """Where a body comes from that is read: the patch, and its type."""

    patch: Any
    content_type: str


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
        _check_match(choice)
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
            version = meta.pop("resourceVersion", None)
            if resource.namespaced:
                _place_in(meta, namespace)
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
            with _warned(read):
                if read.missing:
                    raise invalid(resource, name, read.missing)
                warnings = self._finish(resource, read, value, None)
            if version:
                said = "resourceVersion should not be set on objects to be created"
                raise Problem(500, said, reason="")
            if self.store.get(resource.type_key, namespace, name) is not None:
                raise already_exists(resource, name)
            kept = value if how.dry_run else self.store.put(resource.type_key, value)
            return Answer(201, views.shown(kept, resource), (*_warnings(read.unknown), *warnings))

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
            read = self._read(resource, body, how)
            _check_name(read.value, name)
            old = self.store.get(resource.type_key, namespace, name)
            if old is None:
                if resource.create_on_update and not status:
                    return self.create(resource, namespace, body, how)
                raise not_found(resource, name)
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
        _check_patch_type(resource, content_type)
        with self.store.lock:
            old = self.store.get(resource.type_key, namespace, name)
            if old is None:
                raise not_found(resource, name)
            body = _patched(views.shown(old, resource), patch, content_type)
            read = self._read(resource, body, how, _Patched(patch, content_type))
            _check_name(read.value, name)
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
                    raise mistaken(resource, name, word, wanted, has)
            warnings = (_PODS_STAY,) if resource == JOBS and options.policy is None else ()
            new, how = ending(resource, old, options)
            if options.dry_run:
                return Answer(200, views.shown(new, resource), warnings)
            if how is Ending.WAITS:
                kept = self._put_if_changed(resource, old, new)
                return Answer(200, views.shown(kept, resource), warnings)
            last = self.store.remove(resource.type_key, namespace, name)
            if resource.returns_deleted:
                return Answer(200, views.shown(last, resource), warnings)
            return Answer(200, _deleted(resource, last), warnings)

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

    def _read(
        self, resource: Resource, body: Any, how: Writing, patched: _Patched | None = None
    ) -> _Read:
        if not isinstance(body, dict):
            why = "couldn't get version/kind; json parse error: the body is not an object"
            raise unrecognized(resource, why, json.dumps(body))
        if resource.custom:
            _check_custom_kind(resource, body, patched)
        elif patched is None or patched.content_type != STRATEGIC_PATCH:
            _check_kind(resource, body, patched)
        try:
            read = (
                _read_custom(resource, body) if resource.custom else _read_built_in(resource, body)
            )
        except DecodeError as error:
            if patched is not None and patched.content_type == STRATEGIC_PATCH:
                why = error.converting() if isinstance(error, WrongType) else str(error)
                raise _unreadable(resource, body, patched, why) from error
            raise _unreadable(resource, body, patched, str(error)) from error
        if patched is not None:
            read.unknown.sort()
        if read.unknown and how.validation == "Strict":
            told = ", ".join(f'unknown field "{path}"' for path in read.unknown)
            raise _unreadable(resource, body, patched, f"strict decoding error: {told}")
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

    def _finish(
        self,
        resource: Resource,
        read: _Read,
        value: Json,
        old: Json | None,
        causes: Sequence[Cause] = (),
        *,
        status: bool = False,
    ) -> tuple[str, ...]:
        """Defaults and checks of what is about to be stored; warnings. `causes`: known ones."""
        meta = value["metadata"]
        name = meta.get("name", "")
        rule = rules.of(resource)
        warnings: list[str] = []
        found = [*causes]
        if resource.schema is not None:
            _check_custom_type(resource, read, name)
            structural.fill_defaults(value, resource.schema)
        else:
            rule.default(value)
        found += metadata.check(meta, resource.plural)
        if not resource.custom and resource != DEFINITIONS:
            found += metadata.check_finalizer_names(meta)
        if old is not None:
            found += metadata.check_finalizers(meta, old["metadata"])
        if resource.schema is not None:
            more, warnings = structural.check(value, resource.schema, old, found, status=status)
            found += more
            had = [] if old is None else old["metadata"].get("finalizers", [])
            warnings += metadata.finalizer_warnings(meta, had)
        else:
            if old is None and not found:
                rule.create(value)
            found += rule.check(value)
            if old is not None:
                found += rule.check_update(value, old)
        if found:
            raise invalid(resource, name, found)
        return tuple(warnings)

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
        if resource.namespaced:
            _place_in(meta, had["namespace"])
        causes: tuple[Cause, ...] = ()
        if meta.get("uid") not in (None, "", had["uid"]):
            if not patched:
                raise _other_uid(resource, old, meta["uid"])
            if not (resource.custom and status):
                # Two places of the server look at it.
                causes = 2 * (wrong("metadata.uid", meta["uid"], "field is immutable"),)
        if not meta.get("resourceVersion"):
            if not resource.unconditional:
                why = wrong("metadata.resourceVersion", 0, "must be specified for an update")
                raise invalid_as(resource.plural, resource.group, name, [why])
        elif meta["resourceVersion"] != had["resourceVersion"]:
            raise stale(resource, name)
        new = _status_of(resource, new, old) if status else _all_but_status(resource, new, old)
        with _warned(read):
            if read.missing:
                raise invalid(resource, name, read.missing)
            warnings = (
                *_warnings(read.unknown),
                *self._finish(resource, read, new, old, causes, status=status),
            )
        if resource.generation and _intent(resource, new) != _intent(resource, old):
            new["metadata"]["generation"] = had["generation"] + 1
        if how.dry_run:
            return Answer(200, views.shown(new, resource), warnings)
        kept = self._put_if_changed(resource, old, new)
        if _may_go(kept):
            kept = self.store.remove(resource.type_key, had.get("namespace", ""), name)
        return Answer(200, views.shown(kept, resource), warnings)

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
    meta = body.get("metadata")
    decoded = decode("V1ObjectMeta", {} if meta is None else meta)
    value["metadata"] = decoded.value
    unknown = [*(f"metadata.{path}" for path in decoded.unknown), *unknown]
    return _Read(value, unknown, [], body["kind"], body["apiVersion"])


def _unreadable(resource: Resource, body: Json, patched: _Patched | None, why: str) -> Problem:
    """The body is not an object of the kind. Of a patch, what came of it is shown."""
    if patched is None:
        return undecodable(resource, why)
    if patched.content_type == STRATEGIC_PATCH:
        return invalid_patch(go_text(patched.patch), why)
    return invalid_patch(json.dumps(body, separators=(",", ":")), why)


_SCHEME = "pkg/api/legacyscheme/scheme.go:30"


def _check_kind(resource: Resource, body: Json, patched: _Patched | None) -> None:
    """What an object of a built-in kind says it is; it need not say so."""
    kind = body.get("kind") or resource.kind
    api_version = body.get("apiVersion") or resource.api_version
    if (kind, api_version) == (resource.kind, resource.api_version):
        return
    version = api_version.rpartition("/")[2]
    other = next((x for x in BUILT_IN if (x.kind, x.api_version) == (kind, api_version)), None)
    if other is None:
        why = f'no kind "{kind}" is registered for version "{api_version}" in scheme "{_SCHEME}"'
    else:
        package = resource.group.partition(".")[0] or "core"
        why = f"converting ({version}.{kind}) to ({package}.{resource.kind}): unknown conversion"
    if patched is not None:
        raise _unreadable(resource, body, patched, why)
    raise undecodable(resource, why, kind, version)


def _check_custom_kind(resource: Resource, body: Json, patched: _Patched | None) -> None:
    """What a custom object must say for being read at all; more is `_check_custom_type`."""
    if not body.get("kind"):
        data = json.dumps(body)
        why = f"Object 'Kind' is missing in '{data}'"
        if patched is None:
            raise unrecognized(resource, why, data)
        raise _unreadable(resource, body, patched, why)
    found = body.get("apiVersion") or ""
    if patched is None and found != resource.api_version:
        raise bad_request(
            f"the API version in the data ({found}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if not found:
        why = "Object 'apiVersion' is missing in 'object has no apiVersion field'"
        details = {"causes": [{"message": why}]}
        raise Problem(500, f"Internal error occurred: {why}", details=details)


def _check_custom_type(resource: Resource, read: _Read, name: str) -> None:
    causes = []
    if read.kind != resource.kind:
        causes.append(wrong("kind", read.kind, f"must be {resource.kind}"))
    if read.api_version != resource.api_version:
        causes.append(wrong("apiVersion", read.api_version, f"must be {resource.api_version}"))
    if causes:
        raise invalid_as(read.kind, read.api_version.rpartition("/")[0], name, causes)


def _check_name(value: Json, name: str) -> None:
    found = value["metadata"].get("name")
    if not found:
        raise bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: name must be "
            "provided"
        )
    if found != name:
        raise bad_request(
            f"the name of the object ({found}) does not match the name on the URL ({name})"
        )


def _other_uid(resource: Resource, old: Json, wanted: str) -> Problem:
    meta = old["metadata"]
    where = [resource.group] if resource.custom or resource == DEFINITIONS else []
    where += [resource.plural, *([meta["namespace"]] if resource.namespaced else []), meta["name"]]
    return conflict(
        resource,
        meta["name"],
        f"StorageError: invalid object, Code: 4, Key: /registry/{'/'.join(where)}, "
        f"ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: "
        f"{wanted}, UID in object meta: {meta['uid']}",
    )


@contextmanager
def _warned(read: _Read) -> Iterator[None]:
    """What is refused in here comes with the warnings."""
    try:
        yield
    except Problem as problem:
        problem.warnings = _warnings(read.unknown)
        raise


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


def _check_patch_type(resource: Resource, content_type: str) -> None:
    if resource.custom:
        supported = [JSON_PATCH, MERGE_PATCH]
        if content_type not in supported:
            raise unknown_format([*supported, APPLY_PATCH])
    elif content_type not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH):
        raise Problem(415, "415: Unsupported Media Type", details={})


def unknown_format(supported: list[str]) -> Problem:
    """The body is of a type that is not read."""
    return Problem(
        415,
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(supported),
    )


def _patched(current: Json, patch: Any, content_type: str) -> Any:
    found = "array" if isinstance(patch, list) else "object"
    if content_type == JSON_PATCH:
        if not isinstance(patch, list):
            raise bad_request(
                f"error decoding patch: json: cannot unmarshal {found} into Go value of type "
                "[]handlers.jsonPatchOp"
            )
        return patches.json_patch(current, patch)
    if not isinstance(patch, dict):
        said = "" if content_type == STRATEGIC_PATCH else "error decoding patch: "
        raise bad_request(
            f"{said}json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )
    if content_type == MERGE_PATCH:
        return patches.merge(current, patch)
    return patches.strategic(current, patch)


_PODS_STAY = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background "
    "to remove them or set propagationPolicy=Orphan to suppress this warning"
)


def _check_match(choice: Choice) -> None:
    """Which versions a list may be of."""
    path = "resourceVersionMatch"
    if not choice.match:
        return
    if choice.token:
        why = forbidden_field(path, "resourceVersionMatch is forbidden when continue is provided")
    elif not choice.version:
        why = forbidden_field(path, f"{path} is forbidden unless resourceVersion is provided")
    elif choice.match not in ("Exact", "NotOlderThan"):
        why = unsupported(path, choice.match, ["Exact", "NotOlderThan", ""])
    else:
        return
    raise invalid_as("ListOptions", "meta.k8s.io", "", [why])


def _warnings(unknown: list[str]) -> tuple[str, ...]:
    return tuple(f'unknown field "{path}"' for path in unknown)


def _number(version: str) -> int:
    if not version.isdigit():
        raise bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{version}": '
            f'strconv.ParseUint: parsing "{version}": invalid syntax'
        )
    return int(version)


def _write_token(version: int, after: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, *after]).encode()).decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, binascii.Error) as error:
        raise bad_request(
            "invalid continue token: continue key is not valid: cannot be read"
        ) from error
    return version, (namespace, name)
