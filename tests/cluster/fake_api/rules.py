"""What the server does to objects of a kind, and what it refuses: one table for all kinds."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster.fake_api import definition_rules, job_rules, pod_rules
from cluster.fake_api.deletion import CLAIM_IN_USE
from cluster.fake_api.problems import Cause, forbidden_field, required, too_long, unsupported, wrong
from cluster.fake_api.resources import Resource

Json = dict[str, Any]


def _nothing(value: Json) -> None:
    pass


def _no_causes(value: Json) -> list[Cause]:
    return []


def _no_update_causes(new: Json, old: Json) -> list[Cause]:
    return []


@dataclass(frozen=True)
class Rules:
    """How one kind is treated beyond what holds for all."""

    # Fills in defaults, on create and on update.
    default: Callable[[Json], None] = _nothing
    # What only happens once, when the uid is known.
    create: Callable[[Json], None] = _nothing
    check: Callable[[Json], list[Cause]] = _no_causes
    check_update: Callable[[Json, Json], list[Cause]] = _no_update_causes


def _default_namespace(value: Json) -> None:
    value.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    value["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = value["metadata"][
        "name"
    ]


def _start_namespace(value: Json) -> None:
    value["status"] = {"phase": "Active"}


_MAP_BYTES = 1024 * 1024


_MAP_KEY = re.compile(r"^[-._a-zA-Z0-9]{1,253}$")


def _check_map(value: Json) -> list[Cause]:
    keys = [key for name in ("data", "binaryData") for key in value.get(name, {})]
    causes = [
        wrong(
            f"data[{key}]",
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
            "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
            "'[-._a-zA-Z0-9]+')",
        )
        for key in keys
        if not _MAP_KEY.match(key)
    ]
    causes += [
        wrong(f"data[{key}]", key, "duplicate of key present in binaryData")
        for key in value.get("data", {})
        if key in value.get("binaryData", {})
    ]
    size = sum(len(one.encode()) for one in value.get("data", {}).values())
    size += sum(len(base64.b64decode(one)) for one in value.get("binaryData", {}).values())
    if size > _MAP_BYTES:
        causes.append(too_long("[]", _MAP_BYTES))
    return causes


def _check_map_update(new: Json, old: Json) -> list[Cause]:
    if not old.get("immutable"):
        return []
    causes = []
    if not new.get("immutable"):
        causes.append(forbidden_field("immutable", "field is immutable when `immutable` is set"))
    for name in ("data", "binaryData"):
        if new.get(name) != old.get(name):
            causes.append(forbidden_field(name, "field is immutable when `immutable` is set"))
    return causes


def _default_secret(value: Json) -> None:
    value.setdefault("type", "Opaque")
    for name, text in value.pop("stringData", {}).items():
        value.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()


def _check_lease(value: Json) -> list[Cause]:
    spec = value.get("spec", {})
    causes = []
    if spec.get("leaseDurationSeconds") is not None and spec["leaseDurationSeconds"] <= 0:
        causes.append(
            wrong(
                "spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"
            )
        )
    if spec.get("leaseTransitions", 0) < 0:
        causes.append(
            wrong(
                "spec.leaseTransitions",
                spec["leaseTransitions"],
                "must be greater than or equal to 0",
            )
        )
    return causes


def _default_event(value: Json) -> None:
    """What the server always writes, also when it is empty."""
    value.setdefault("source", {})
    for name in ("firstTimestamp", "lastTimestamp", "eventTime"):
        value.setdefault(name, None)
    for name in ("reportingComponent", "reportingInstance"):
        value.setdefault(name, "")


def _check_event(value: Json) -> list[Cause]:
    causes = []
    about = value.get("involvedObject", {}).get("namespace", "")
    namespace = value["metadata"].get("namespace", "")
    if namespace != (about or "default"):
        causes.append(wrong("involvedObject.namespace", about, "does not match event.namespace"))
    if value.get("eventTime"):
        # Made by the newer API, which asks for more.
        for name in ("reportingComponent", "reportingInstance", "action", "reason"):
            if not value.get(name):
                shown = "reportingController" if name == "reportingComponent" else name
                causes.append(required(shown))
        if value.get("type") not in ("Normal", "Warning"):
            causes.append(wrong("type", value.get("type", ""), "has invalid value"))
        if len(value.get("message", "")) > 1024:
            causes.append(wrong("message", "", "can have at most 1024 characters"))
    return causes


def _default_claim(value: Json) -> None:
    value.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _start_claim(value: Json) -> None:
    value["status"] = {"phase": "Pending"}
    finalizers = value["metadata"].setdefault("finalizers", [])
    if CLAIM_IN_USE not in finalizers:
        finalizers.append(CLAIM_IN_USE)


_ACCESS_MODES = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]


def _check_claim(value: Json) -> list[Cause]:
    spec = value["spec"]
    modes = spec.get("accessModes") or []
    causes = [] if modes else [required("spec.accessModes", "at least 1 access mode is required")]
    causes += [
        unsupported("spec.accessModes", mode, _ACCESS_MODES)
        for mode in modes
        if mode not in _ACCESS_MODES
    ]
    if "storage" not in spec.get("resources", {}).get("requests", {}):
        causes.append(required("spec.resources[storage]"))
    return causes


def _check_claim_update(new: Json, old: Json) -> list[Cause]:
    was, now = dict(old["spec"]), dict(new["spec"])
    # These may be written once; after that the claim is fixed but for its size when it is bound.
    for name in ("volumeName", "storageClassName"):
        if name not in was and name in now:
            was[name] = now[name]
    if old.get("status", {}).get("phase") == "Bound":
        for name in ("resources", "volumeAttributesClassName"):
            was.pop(name, None)
            now.pop(name, None)
    causes = []
    if now != was:
        why = (
            "spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims\n"
        )
        causes.append(forbidden_field("spec", why))
    if now.get("volumeMode") != was.get("volumeMode"):
        causes.append(wrong("volumeMode", now.get("volumeMode"), "field is immutable"))
    return causes


def _default_service(value: Json) -> None:
    spec = value.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports", []):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])


_TABLE = {
    "namespaces": Rules(default=_default_namespace, create=_start_namespace),
    "pods": Rules(
        default=pod_rules.default,
        create=pod_rules.start,
        check=pod_rules.check,
        check_update=pod_rules.check_update,
    ),
    "jobs.batch": Rules(
        default=job_rules.default,
        create=job_rules.start,
        check=job_rules.check,
        check_update=job_rules.check_update,
    ),
    "configmaps": Rules(check=_check_map, check_update=_check_map_update),
    "secrets": Rules(default=_default_secret, check=_check_map, check_update=_check_map_update),
    "leases.coordination.k8s.io": Rules(check=_check_lease),
    "events": Rules(default=_default_event, check=_check_event),
    "services": Rules(default=_default_service),
    "persistentvolumeclaims": Rules(
        default=_default_claim,
        create=_start_claim,
        check=_check_claim,
        check_update=_check_claim_update,
    ),
    "customresourcedefinitions.apiextensions.k8s.io": Rules(
        default=definition_rules.default,
        create=definition_rules.start,
        check=definition_rules.check,
        check_update=definition_rules.check_update,
    ),
}


def of(resource: Resource) -> Rules:
    return _TABLE.get(resource.type_key, Rules())
