"""Values: unknown ones are refused wherever they are, and so is what models would not have."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from chart.files import CHART
from chart.helms import VALUES, Document, Helm, Refused

SCHEMA: Document = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA)
DEFAULTS: Document = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
MINIMAL: Document = {"stores": {"default": {"uri": "s3://bucket/hdgan"}}}
SPEC: Document = {
    "slides": {"uri": "s3://a/"},
    "annotations": {
        "classes": [{"name": "a", "color": "#e377c2"}, {"name": "b", "color": "#5e3c99"}]
    },
    "ganTrainer": {"kimg": 100},
    "resources": {"pods": {"tiler": {"parts": 2}}, "scratch": {"emptyDir": {"sizeLimit": "1Gi"}}},
}
OPEN = {
    "labels",
    "podLabels",
    "commonLabels",
    "annotations",
    "podAnnotations",
    "serviceAccountAnnotations",
    "alertLabels",
    "env",
    "nodeSelector",
    "matchLabels",
    "requests",
    "limits",
}
"""Names of values in which any name may be."""


def merged(base: Any, over: Any) -> Any:
    """As Helm does it."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{name: merged(base.get(name), value) for name, value in over.items()}}


def full() -> Document:
    """Values with something at every place."""
    given = yaml.safe_load((VALUES / "everything.yaml").read_text(encoding="utf-8"))
    values: Document = merged(DEFAULTS, given)
    values["watchNamespaces"][0]["stores"] = {"own": {"uri": "s3://a"}}
    values["watchNamespaces"][0]["allow"] = {"queues": []}
    values["schedules"]["nightly"]["spec"] = SPEC
    values["global"] = {}
    return values


def mappings(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all mappings."""
    if isinstance(node, dict):
        yield path
        for name, value in node.items():
            yield from mappings(value, (*path, name))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from mappings(value, (*path, number))


def test_values_of_every_file_are_valid() -> None:
    for file in VALUES.glob("*.yaml"):
        values = merged(DEFAULTS, yaml.safe_load(file.read_text(encoding="utf-8")))
        assert [error.message for error in VALIDATOR.iter_errors(values)] == [], file.name
    assert VALIDATOR.is_valid(full())


def test_unknown_values_are_refused_at_every_place() -> None:
    accepted = set()
    paths = list(mappings(full()))
    for path in paths:
        values = copy.deepcopy(full())
        place = values
        for name in path:
            place = place[name]
        place["unknownValue"] = "1"
        if VALIDATOR.is_valid(values):
            accepted.add(path)
    expected = {
        path
        for path in paths
        if path
        and (path[-1] in OPEN or path[0] in ("extraObjects", "global"))
        and path[-2:] != ("spec", "annotations")  # those of images, not of objects
    }
    assert accepted == expected
    assert len(paths) - len(expected) > 80


def test_every_object_of_the_schema_says_what_may_be_in_it() -> None:
    loose = [
        path
        for path in mappings(SCHEMA)
        for node in [_at(SCHEMA, path)]
        if node.get("type") == "object" or "object" in node.get("type", [])
        if "additionalProperties" not in node and path[-1] not in ("global", "items")
    ]
    assert loose == []


def _at(node: Any, path: tuple[Any, ...]) -> Document:
    for name in path:
        node = node[name]
    found: Document = node
    return found


OPEN_PROXY = "http://user:word@proxy"
REFUSED: list[tuple[Document, str]] = [
    ({"proxy": {"https": OPEN_PROXY}}, "proxy.https holds a user.*proxy.existingSecret"),
    ({"controller": {"env": {"A": OPEN_PROXY}}}, "controller.env.A holds a user.*envSecrets"),
    ({"pods": {"tiler": {"env": {"A": OPEN_PROXY}}}}, "pods.tiler.env.A holds a user.*envSecrets"),
    ({"storess": {}}, "storess"),
    ({"stores": {"default": {"uri": "s3://bucket", "bucket": "x"}}}, "bucket"),
    ({"stores": {"other": {}}}, "uri"),
    ({"stores": {"default": {"uri": "/local"}}}, "uri"),
    ({"stores": {"default": {"uri": "s3://b", "sources": ["s3://a"]}}}, "sources"),
    ({"pods": {"tiler": {"gpu": 1}}}, "gpu"),
    ({"pods": {"trainer": {}}}, "trainer"),
    ({"pods": {"ganTrainer": {"gpus": 65}}}, "gpus"),
    ({"pods": {"ganTrainer": {"memory": "64 GB"}}}, "memory"),
    ({"pods": {"ganTrainer": {"affinity": {"nodeAfinity": {}}}}}, "nodeAfinity"),
    ({"pods": {"ganTrainer": {"serviceAccount": "x"}}}, "serviceAccount"),
    ({"settings": {"maxActiveJob": 1}}, "maxActiveJob"),
    ({"settings": {"namespaces": []}}, "namespaces"),
    ({"settings": {"maxActiveJobs": 0}}, "maxActiveJobs"),
    ({"settings": {"scratch": {"emptyDir": {}, "claim": {}}}}, "scratch"),
    ({"settings": {"election": {"name": "x"}}}, "name"),
    ({"settings": {"gc": {"keepDays": 30}}}, "gc"),
    ({"gc": {"keepDay": 30}}, "keepDay"),
    ({"gc": {"graceHours": 12}}, "graceHours"),
    ({"gc": {"keepDays": 0}}, "keepDays"),
    ({"gc": {"keepAwaitingDays": "365"}}, "keepAwaitingDays"),
    ({"gc": {"mostPercent": 101}}, "mostPercent"),
    ({"gc": {"schedule": "every night"}}, "schedule"),
    ({"serviceAccounts": {"gc": {"token": True}}}, "token"),
    ({"images": {"tiler": {"tag": "a b"}}}, "tag"),
    ({"images": {"tiler": {"digest": "sha256:1"}}}, "digest"),
    ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "app.kubernetes.io/name|commonLabels"),
    ({"pods": {"tiler": {"labels": {"hdgan.io/stage": "x"}}}}, "hdgan.io/stage|labels"),
    ({"controller": {"resources": {"request": {}}}}, "request"),
    ({"networkPolicies": {"store": {"cidrs": ["10.0.0.0"]}}}, "cidrs"),
    ({"podSecurityContext": {"runAsUser": 0}}, "runAsUser"),
    ({"monitoring": {"prometheusRule": {"thresholds": {"stallMinute": 1}}}}, "stallMinute"),
    ({"monitoring": {"prometheusRule": {"thresholds": {"scratchFreeRatio": 10}}}}, "scratchFree"),
    ({"monitoring": {"prometheusRule": {"thresholds": {"adaHours": 1.5}}}}, "adaHours"),
    ({"monitoring": {"prometheusRule": {"disabled": ["HdganRunFail"]}}}, "disabled"),
    ({"monitoring": {"prometheusRule": {"alertLabels": {"severity": "x"}}}}, "severity"),
    ({"monitoring": {"prometheusRule": {"alertLabels": {"a-b": "x"}}}}, "a-b"),
    ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_helm_says_what_it_does_not_take(helm: Helm, values: Document, words: str) -> None:
    with pytest.raises(Refused, match=words):
        helm.template(merged(MINIMAL, values))
