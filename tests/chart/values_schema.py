"""Makes `values.schema.json`: what is the chart's own is said here, what is passed on to the
controller or to Kubernetes comes from their own models. Unknown values are refused everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel

from hdgan.controller.scheduling import HistoryConfig, ScheduleConfig
from hdgan.controller.settings import (
    AllowConfig,
    ElectionConfig,
    GarbageConfig,
    ImageConfig,
    NamespaceConfig,
    Service,
    Settings,
    StageName,
    StagePodConfig,
    StoreConfig,
)
from hdgan.core.run import RunSpec
from hdgan.core.telemetry.catalogue import ALL

Schema = dict[str, Any]

ALERTS: Final = (
    Path(__file__).parents[2] / "charts" / "hdgan" / "templates" / "monitoring" / "alerts"
)
OF_ALERTS: Final = {label for metric in ALL for label in metric.labels} | {
    *("alertname", "severity", "schedule"),
    *("namespace", "pod", "instance", "job", "hdgan_io_run", "hdgan_io_stage"),
}
"""Labels that alerts have of themselves."""
KUBERNETES: Final = "1.37"
"""Version of the API whose definitions are used."""
NAME: Final[Schema] = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
LABEL: Final[Schema] = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
CIDR: Final[Schema] = {"type": "string", "pattern": r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"}
PORT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 65535}
PORTS: Final[Schema] = {"type": "array", "items": PORT, "minItems": 1}
DURATION: Final[Schema] = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}
CRON: Final[Schema] = {
    "type": "string",
    "pattern": r"^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[^\s=]+( +[^\s=]+){4})$",
}
TIME_ZONE: Final[Schema] = {"type": "string", "pattern": r"^[A-Za-z][A-Za-z0-9_+/-]*$"}
PROXY: Final[Schema] = {"type": "string", "pattern": r"^(https?://[^\s]+)?$"}
OWN_LABELS: Final = r"^(app\.kubernetes\.io/(name|instance|component|version|managed-by)|helm\.sh/chart|hdgan\.io/.*)$"  # noqa: E501
IN_SETTINGS_ELSEWHERE: Final = frozenset(
    {"namespaces", "images", "imagePullSecrets", "pods", "podSecurityContext", "gc"}
)
"""Settings that the chart makes of other values."""
ACCOUNTS: Final = ("controller", "submitter", "gc", *get_args(StageName))


def schema() -> Schema:
    """The whole schema (draft 7, the newest that Helm 3.17 knows)."""
    definitions: Schema = {}
    made = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the hdgan chart",
        **closed(
            {
                "global": {
                    "type": "object",
                    "description": "Of charts that have this one as a part; not used.",
                },
                "registry": {"type": "string", "pattern": r"^[^\s@]*$"},
                "tag": tag(),
                "images": closed(
                    {name: image() for name in ("controller", *get_args(Service))},
                    required=("controller", *get_args(Service)),
                ),
                "imagePullSecrets": array(NAME),
                "stores": stores(definitions),
                "allow": allow(definitions),
                "watchNamespaces": array(watched(definitions)),
                "schedules": {
                    **mapping(schedule(definitions)),
                    "propertyNames": {**LABEL, "maxLength": 30},
                },
                "pods": closed({name: stage(definitions) for name in get_args(StageName)}),
                "serviceAccounts": closed({name: account() for name in ACCOUNTS}, ACCOUNTS),
                "controller": closed(
                    {
                        "replicas": {"type": "integer", "minimum": 0, "maximum": 10},
                        "resources": kubernetes("core.v1.ResourceRequirements", definitions),
                        "nodeSelector": mapping(TEXT),
                        "tolerations": array(kubernetes("core.v1.Toleration", definitions)),
                        "affinity": kubernetes("core.v1.Affinity", definitions),
                        "topologySpreadConstraints": array(
                            kubernetes("core.v1.TopologySpreadConstraint", definitions)
                        ),
                        "priorityClassName": optional_name(),
                        "podAnnotations": mapping(TEXT),
                        "podLabels": labels(),
                        "env": {
                            **mapping(TEXT),
                            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                        },
                        "envSecrets": array(NAME),
                    }
                ),
                "submitter": closed(
                    {"resources": kubernetes("core.v1.ResourceRequirements", definitions)}
                ),
                "gc": garbage(definitions),
                "report": closed({"enabled": FLAG}),
                "settings": settings(definitions),
                "podSecurityContext": security(),
                "proxy": closed(
                    {
                        "http": PROXY,
                        "https": PROXY,
                        "noProxy": TEXT,
                        "existingSecret": optional_name(),
                    }
                ),
                "networkPolicies": policies(definitions),
                "monitoring": monitoring(),
                "crds": closed({"enabled": FLAG}),
                "extraObjects": {
                    "type": "array",
                    "description": "Whatever Kubernetes knows.",
                    "items": {"type": ["object", "string"]},
                },
                "commonLabels": labels(),
                "fullnameOverride": {"type": "string", "pattern": rf"{LABEL['pattern']}|^$"},
            }
        ),
    }
    # Rules across fields that schemas can say, too.
    definitions["ScratchConfig"] |= {"minProperties": 1, "maxProperties": 1}
    needed, found = set[str](), list(_referred(made))
    while found:
        name = found.pop()
        if name not in needed:
            needed.add(name)
            found += _referred(definitions[name])
    return {**made, "definitions": {name: definitions[name] for name in sorted(needed)}}


def closed(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    """An object with these fields and no others."""
    made: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**made, "required": list(required)} if required else made


def mapping(values: Schema) -> Schema:
    """An object with any names, whose values are alike."""
    return {"type": "object", "additionalProperties": values}


def array(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def optional_name() -> Schema:
    """An object's name, or nothing."""
    return {"type": "string", "pattern": rf"{NAME['pattern']}|^$"}


def tag() -> Schema:
    """An image's tag, or nothing."""
    return {"type": "string", "pattern": r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$"}


def labels() -> Schema:
    """Labels, except those that selectors and the controller go by."""
    value = {"type": "string", "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"}
    return {
        **mapping({**value, "maxLength": 63}),
        "propertyNames": {"not": {"pattern": OWN_LABELS}},
    }


def image() -> Schema:
    """An image of the chart."""
    return closed(
        {
            "registry": {"type": "string", "pattern": r"^[^\s@]*$"},
            "repository": {"type": "string", "pattern": r"^[a-z0-9][a-z0-9._/-]*$"},
            "tag": tag(),
            "digest": {"type": "string", "pattern": "^(sha256:[a-f0-9]{64})?$"},
            "pullPolicy": inner(ImageConfig, "pullPolicy"),
        },
        required=("repository",),
    )


def stores(definitions: Schema) -> Schema:
    """Stores by name: what the controller is told of them, and where Secrets come from."""
    fields, required = of_model(StoreConfig, definitions)
    for made_by_the_chart in ("secret", "credentials", "caFile"):
        del fields[made_by_the_chart]
    fields |= {
        "existingSecret": {
            **NAME,
            "description": "Secret in the run's namespace with `AWS_ACCESS_KEY_ID`, "
            "`AWS_SECRET_ACCESS_KEY` and perhaps `AWS_SESSION_TOKEN`. Without it pods have an "
            "identity of their own.",
        },
        "controllerSecret": {
            **NAME,
            "description": "Secret with the same keys in the release's namespace, for the "
            "controller. Without it the one there that is named like `existingSecret`.",
        },
    }
    fields["sources"]["items"] |= {"pattern": r"^s3://[a-z0-9][a-z0-9.-]*/(.*/)?$"}
    fields["caConfigMap"]["description"] = (
        "ConfigMap with the server's certificate authority under `ca.crt`, in the release's "
        "namespace and in the run's."
    )
    definitions["Store"] = closed(fields, required)
    return {
        **mapping({"$ref": "#/definitions/Store"}),
        "propertyNames": {**LABEL, "maxLength": 63},
        "maxProperties": 64,
    }


def allow(definitions: Schema) -> Schema:
    """What runs may ask for."""
    fields, _ = of_model(AllowConfig, definitions)
    definitions["Allow"] = closed(fields)
    return {"$ref": "#/definitions/Allow"}


def watched(definitions: Schema) -> Schema:
    """A namespace."""
    return closed(
        {
            "name": inner(NamespaceConfig, "name"),
            "stores": {**stores(definitions), "minProperties": 1},
            "allow": allow(definitions),
            "serviceAccountAnnotations": mapping(TEXT),
        },
        required=("name",),
    )


def schedule(definitions: Schema) -> Schema:
    """Runs on a schedule."""
    return closed(
        {
            "schedule": CRON,
            "timeZone": TIME_ZONE,
            "namespace": inner(NamespaceConfig, "name"),
            "suspend": FLAG,
            "startingDeadlineSeconds": {"type": "integer", "minimum": 10, "maximum": 31_536_000},
            "generator": inner(ScheduleConfig, "generator"),
            "concurrencyPolicy": inner(ScheduleConfig, "concurrencyPolicy"),
            "history": model(HistoryConfig, definitions),
            "maxAgeHours": {"type": "integer", "minimum": 0, "maximum": 87_600},
            "spec": model(RunSpec, definitions),
        },
        required=("schedule", "spec"),
    )


def garbage(definitions: Schema) -> Schema:
    """Collecting garbage: when, and what the controller's settings say of it."""
    fields, _ = of_model(GarbageConfig, definitions)
    return closed(
        {
            "enabled": FLAG,
            "schedule": CRON,
            "timeZone": TIME_ZONE,
            "suspend": FLAG,
            **fields,
            "resources": kubernetes("core.v1.ResourceRequirements", definitions),
        }
    )


def stage(definitions: Schema) -> Schema:
    """Defaults of a stage's pods."""
    fields, _ = of_model(StagePodConfig, definitions)
    del fields["serviceAccount"]
    fields["labels"] |= {"propertyNames": labels()["propertyNames"]}
    definitions["StagePod"] = closed(fields)
    return {"$ref": "#/definitions/StagePod"}


def account() -> Schema:
    """A ServiceAccount."""
    return closed(
        {"create": FLAG, "name": optional_name(), "annotations": mapping(TEXT)}, ("create",)
    )


def settings(definitions: Schema) -> Schema:
    """The controller's settings that no other value makes."""
    fields, _ = of_model(Settings, definitions)
    for elsewhere in IN_SETTINGS_ELSEWHERE:
        del fields[elsewhere]
    # 0 would be any port: probes and policies have to know it.
    health = fields["healthPort"]
    health |= {"minimum": 1024, "description": health["description"].partition(" 0:")[0]}
    election, _ = of_model(ElectionConfig, definitions)
    del election["name"], definitions["ElectionConfig"]
    fields["election"] = {
        "description": fields["election"]["description"],
        **closed(election),
    }
    return closed(fields)


def security() -> Schema:
    """What a pod's security context may have besides what is fixed."""
    number: Schema = {"type": "integer", "minimum": 1}
    group: Schema = {"type": "integer", "minimum": 0}
    return closed(
        {
            "runAsUser": number,
            "runAsGroup": group,
            # Null takes away what the controller sets for stages on volumes.
            "fsGroup": _nullable(group),
            "fsGroupChangePolicy": {"enum": ["OnRootMismatch", "Always"]},
            "supplementalGroups": array(group),
            # What the level "restricted" allows of it.
            "seLinuxOptions": closed(
                {
                    "level": TEXT,
                    "type": {
                        "enum": ["container_t", "container_init_t", "container_kvm_t"],
                    },
                }
            ),
        }
    )


def policies(definitions: Schema) -> Schema:
    """NetworkPolicies."""
    peers = array(kubernetes("networking.v1.NetworkPolicyPeer", definitions))
    return closed(
        {
            "enabled": FLAG,
            "dns": closed({"to": {**peers, "minItems": 1}, "ports": PORTS}),
            "store": closed({"cidrs": array(CIDR), "to": peers, "ports": PORTS}),
            "apiServer": closed({"cidrs": array(CIDR), "ports": PORTS}),
            "prometheus": closed({"from": peers}),
            "metadata": closed(
                {"enabled": FLAG, "cidrs": {**array(CIDR), "minItems": 1}, "ports": PORTS}
            ),
        }
    )


def monitoring() -> Schema:
    """Objects of the Prometheus operator."""
    monitor = closed({"enabled": FLAG, "labels": labels(), "interval": DURATION})
    return closed(
        {
            "serviceMonitor": monitor,
            "podMonitor": monitor,
            "prometheusRule": closed(
                {
                    "enabled": FLAG,
                    "labels": labels(),
                    "job": TEXT,
                    "stagesJob": TEXT,
                    "alertLabels": {
                        **mapping(TEXT),
                        "propertyNames": {
                            "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$",
                            # Those tell alerts apart; a rule's own labels would hide them.
                            "not": {"enum": sorted(OF_ALERTS)},
                        },
                    },
                    "disabled": array({"enum": alert_names()}),
                    "runbookUrl": {"type": "string", "pattern": r"^[^\s#]*$"},
                    "thresholds": thresholds(),
                }
            ),
            "dashboards": closed(
                {"enabled": FLAG, "labels": labels(), "annotations": mapping(TEXT)}
            ),
        }
    )


def thresholds() -> Schema:
    """Limits of alerts. Hours and minutes that durations are made of are whole."""
    whole: Schema = {"type": "integer", "minimum": 1, "maximum": 8760}
    positive: Schema = {"type": "number", "exclusiveMinimum": 0}
    share: Schema = {**positive, "exclusiveMaximum": 1}
    count: Schema = {"type": "integer", "minimum": 0}
    return closed(
        {
            "releaseGraceHours": whole,
            "annotationDays": positive,
            "stallMinutes": positive,
            "silentMinutes": whole,
            "scratchFreeRatio": share,
            "skippedUpdates": count,
            "adaProbability": {**positive, "maximum": 1},
            "adaHours": whole,
            "kidFactor": {"type": "number", "minimum": 1},
            "kidRise": {"type": "number", "minimum": 0},
            "storeErrorRatio": share,
            "reconcileErrorRatio": share,
            "preemptionsPerHour": count,
        }
    )


def alert_names() -> list[str]:
    """Of all alerts, as they are in the templates."""
    found = [
        name
        for file in sorted(ALERTS.glob("*.tpl"))
        for name in re.findall(r"^- alert: (\w+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    return sorted(found)


# From the models of the controller


def model(of: type[BaseModel], definitions: Schema) -> Schema:
    """The schema of a model; those of the models in it are put into the definitions."""
    document = of.model_json_schema(by_alias=True)
    for name, one in document.pop("$defs", {}).items():
        definitions[name] = _plain(one)
    definitions.pop("JsonValue", None)
    made: Schema = _plain(document)
    return made


def of_model(of: type[BaseModel], definitions: Schema) -> tuple[Schema, tuple[str, ...]]:
    """The fields of a model, and which are required."""
    made = model(of, definitions)
    return made["properties"], tuple(made.get("required", ()))


def inner(of: type[BaseModel], name: str) -> Schema:
    """The schema of a field that refers to no other model."""
    found: Schema = model(of, {})["properties"][name]
    return found


def _plain(node: Any) -> Any:
    """The same in draft 7, with null for absent where it may be absent, as the models have it."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {
        name: value
        for name, value in node.items()
        if name not in ("title", "x-kubernetes-preserve-unknown-fields")
        and not (name == "default" and (isinstance(value, dict | None) or value == []))
    }
    if "$ref" in node:
        node["$ref"] = node["$ref"].replace("#/$defs/", "#/definitions/")
        return {"$ref": node["$ref"], **_some(node, "description")}
    if "properties" in node:
        required = node.get("required", [])
        made = {name: _plain(value) for name, value in node["properties"].items()}
        if "affinity" in made:
            made["affinity"] = {"$ref": _reference("core.v1.Affinity")}
        node["properties"] = {
            name: value if name in required else _nullable(value) for name, value in made.items()
        }
        return node
    enum = node.get("propertyNames", {}).get("enum")
    if enum is not None and isinstance(node.get("additionalProperties"), dict):
        values = _plain(node["additionalProperties"])
        return {**_some(node, "description"), **closed(dict.fromkeys(enum, values))}
    if "const" in node:
        node["enum"] = [node.pop("const")]
    choices = [one for one in node.get("anyOf", []) if one != {"type": "null"}]
    if len(choices) == 1:
        return _nullable({**_plain(choices[0]), **_some(node, "description")})
    return {name: _plain(value) for name, value in node.items()}


def _nullable(node: Schema) -> Schema:
    """The same, or null; sections stay as they are. Of a choice between schemas Helm would only say
    that none fits, instead of what is wrong."""
    if "anyOf" in node or "$ref" in node:
        return node
    kinds = node.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "null" in kinds:
        return node
    made = {**node, "type": [*kinds, "null"]}
    return {**made, "enum": [*node["enum"], None]} if "enum" in node else made


def _some(node: Schema, *names: str) -> Schema:
    return {name: node[name] for name in names if name in node}


# From Kubernetes


def kubernetes(name: str, definitions: Schema) -> Schema:
    """A reference to a definition of the API, such as `core.v1.Affinity`, which is put with all it
    needs into the definitions."""
    wanted = [f"io.k8s.api.{name}"]
    while wanted:
        one = wanted.pop()
        if one not in definitions:
            definitions[one] = _local(_definitions()[one])
            wanted += _referred(definitions[one])
    return {"$ref": _reference(name)}


def _reference(name: str) -> str:
    return f"#/definitions/io.k8s.api.{name}"


@cache
def _definitions() -> Mapping[str, Schema]:
    """Those of kubernetes-validate, in which no object has unknown fields."""
    folder = resources.files("kubernetes_validate").joinpath("kubernetes-json-schema")
    file = folder.joinpath(f"v{KUBERNETES}.0-local-strict", "_definitions.json")
    found: Mapping[str, Schema] = json.loads(file.read_text(encoding="utf-8"))["$defs"]
    return found


def _local(node: Any) -> Any:
    if isinstance(node, list):
        return [_local(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {
        name: _local(value)
        for name, value in node.items()
        if not (name == "description" and isinstance(value, str))
        and not name.startswith("x-kubernetes-")
        and not (name == "format" and isinstance(value, str))
    }
    if "$ref" in made:
        return {"$ref": "#/definitions/" + made["$ref"].rpartition("/")[2]}
    return made


def _referred(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for one in node:
            yield from _referred(one)
    elif isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].removeprefix("#/definitions/")
        for value in node.values():
            yield from _referred(value)
