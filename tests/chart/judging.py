"""What tests of the chart judge its objects by: schemas, Pod Security, selectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import kubernetes_validate
from jsonschema import Draft7Validator

from chart.helms import Document, Made
from chart.values_schema import Schema, array, closed, mapping

OLDEST: Final = "1.31"
"""Oldest version of Kubernetes the chart is for, and the newest that is known here."""
NEWEST: Final = "1.37"
TEXT: Final[Schema] = {"type": "string"}
LABELS: Final[Schema] = mapping(TEXT)
METADATA: Final = closed(
    {"name": TEXT, "namespace": TEXT, "labels": LABELS, "annotations": LABELS},
    ("name", "namespace"),
)
ENDPOINT: Final[Schema] = {
    "port": TEXT,
    "path": {"const": "/metrics"},
    "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
    "relabelings": array(
        closed(
            {
                "sourceLabels": array({"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}),
                "regex": TEXT,
                "action": {"enum": ["drop", "keep"]},
            },
            ("sourceLabels", "action"),
        )
    ),
}
SELECTOR: Final = closed({"matchLabels": LABELS}, ("matchLabels",))


def _monitor(kind: str, spec: Schema) -> Schema:
    return closed(
        {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": kind},
            "metadata": METADATA,
            "spec": spec,
        },
        ("apiVersion", "kind", "metadata", "spec"),
    )


# The part of the Prometheus operator's API that the chart uses: its definitions are in no package.
OPERATOR: Final[Mapping[str, Schema]] = {
    "ServiceMonitor": _monitor(
        "ServiceMonitor",
        closed(
            {"selector": SELECTOR, "endpoints": array(closed(ENDPOINT, ("port",)))},
            ("selector", "endpoints"),
        ),
    ),
    "PodMonitor": _monitor(
        "PodMonitor",
        closed(
            {
                "selector": SELECTOR,
                "namespaceSelector": closed({"matchNames": array(TEXT)}),
                "podTargetLabels": array(TEXT),
                "podMetricsEndpoints": array(closed(ENDPOINT, ("port",))),
            },
            ("selector", "podMetricsEndpoints"),
        ),
    ),
    "PrometheusRule": _monitor(
        "PrometheusRule",
        closed(
            {
                "groups": array(
                    closed(
                        {
                            "name": TEXT,
                            "rules": array(
                                closed(
                                    {
                                        "alert": {"type": "string", "pattern": "^[A-Za-z]+$"},
                                        "expr": TEXT,
                                        "for": {"type": "string", "pattern": "^[0-9]+[smh]$"},
                                        "labels": LABELS,
                                        "annotations": LABELS,
                                    },
                                    ("alert", "expr"),
                                )
                            ),
                        },
                        ("name", "rules"),
                    )
                )
            },
            ("groups",),
        ),
    ),
}


def problems(made: Made) -> list[str]:
    """What a server in strict mode would not have of an object."""
    schema = OPERATOR.get(made.kind)
    if schema is not None:
        found = Draft7Validator(schema).iter_errors(made.document)
        return [f"{one.json_path}: {one.message}" for one in found]
    wrong = []
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(made.document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{version}: {error.message}")
    return wrong


def pods(made: list[Made]) -> Iterator[tuple[Made, Document]]:
    """Everything with a pod's spec, and its template (or itself)."""
    for one in made:
        match one.kind:
            case "Deployment":
                yield one, one.document["spec"]["template"]
            case "CronJob":
                yield one, one.document["spec"]["jobTemplate"]["spec"]["template"]
            case "Pod":
                yield one, one.document


def not_restricted(spec: Document) -> list[str]:
    """What Pod Security's level "restricted" would not have of a pod's spec, and a root file
    system that can be written."""
    wrong = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    pod = spec.get("securityContext") or {}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = {**pod, **(container.get("securityContext") or {})}
        expected: dict[str, Any] = {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        wrong += [
            f"{name} is {own.get(name)}" for name in expected if own.get(name) != expected[name]
        ]
        wrong += ["runAsUser is 0"] if own.get("runAsUser") == 0 else []
        wrong += [
            f"hostPort {p['hostPort']}" for p in container.get("ports", []) if "hostPort" in p
        ]
    kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
    allowed = {"configMap", "emptyDir", "projected", "secret", "ephemeral", "persistentVolumeClaim"}
    return [*wrong, *sorted(kinds - allowed)]


def selects(selector: Document | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector has labels in it; None selects nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    for one in selector.get("matchExpressions") or []:
        assert one["operator"] == "In", one
        if labels.get(one["key"]) not in one["values"]:
            return False
    return True
