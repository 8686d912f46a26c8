"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cluster.fake_api.problems import bad_request
from cluster.fake_api.resources import Resource

Json = dict[str, Any]
Test = Callable[[Json], bool]

_KEY = r"[A-Za-z0-9][-A-Za-z0-9_.]*(?:/[A-Za-z0-9][-A-Za-z0-9_.]*)?"
_SET = re.compile(rf"^({_KEY})\s+(in|notin)\s*\(([^()]*)\)$")
_EQUAL = re.compile(rf"^({_KEY})\s*(=|==|!=)\s*([-A-Za-z0-9_.]*)$")
_EXISTS = re.compile(rf"^(!?)\s*({_KEY})$")

_EVERYWHERE = ("metadata.name", "metadata.namespace")
_FIELDS = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "jobs": ("status.successful",),
    "nodes": ("spec.unschedulable",),
}


def labels(text: str) -> Test:
    """A test of an object by `labelSelector`. Raises `Problem` 400 when it cannot be read."""
    tests = [_requirement(part) for part in _split(text)]

    def matches(value: Json) -> bool:
        own: dict[str, str] = value["metadata"].get("labels") or {}
        return all(test(own) for test in tests)

    return matches


def _split(text: str) -> list[str]:
    parts = re.split(r",(?![^()]*\))", text) if text.strip() else []
    return [part.strip() for part in parts]


def _requirement(part: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET.match(part):
        key, word, listed = found.groups()
        values = {one.strip() for one in listed.split(",")}
        if word == "in":
            return lambda own: own.get(key) in values
        return lambda own: own.get(key) not in values
    if found := _EQUAL.match(part):
        key, sign, wanted = found.groups()
        if sign == "!=":
            return lambda own: own.get(key) != wanted
        return lambda own: own.get(key) == wanted
    if found := _EXISTS.match(part):
        absent, key = found.groups()
        return lambda own: (key in own) != bool(absent)
    raise bad_request(f"unable to parse requirement: {part!r}")


def fields(text: str, resource: Resource) -> Test:
    """A test of an object by `fieldSelector`, for the fields this kind can be selected by."""
    allowed = (*_EVERYWHERE, *_FIELDS.get(resource.plural, ()), *resource.selectable)
    tests: list[Test] = []
    for part in (one.strip() for one in text.split(",") if one.strip()):
        found = re.match(r"^([^=!]+)(==|!=|=)(.*)$", part)
        if found is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        path, sign, wanted = found.groups()
        if path not in allowed:
            raise bad_request(f"field label not supported: {path}")
        tests.append(_field_test(path, wanted, equal=sign != "!="))
    return lambda value: all(test(value) for test in tests)


def _field_test(path: str, wanted: str, *, equal: bool) -> Test:
    return lambda value: (_field(value, path) == wanted) == equal


def _field(value: Json, path: str) -> str:
    if path == "status.successful":
        path = "status.succeeded"
    if path == "source":
        path = "source.component"
    here: object = value
    for name in path.split("."):
        here = here.get(name) if isinstance(here, dict) else None
    if isinstance(here, bool):
        return str(here).lower()
    if here is None:
        return "0" if path == "status.succeeded" else ""
    return str(here)
