"""Defaults, limits and immutable fields of pods."""

from __future__ import annotations

import copy
import re
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from cluster.fake_api.metadata import check_labels, is_label
from cluster.fake_api.problems import Cause, forbidden_field, required, unsupported, wrong

Json = dict[str, Any]


def default(pod: Json) -> None:
    default_spec(pod.setdefault("spec", {}))


def default_spec(spec: Json) -> None:
    """What the server fills into a pod's spec."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
        image = container.get("image", "")
        tag = image.rpartition("/")[2].partition(":")[2]
        latest = "@" not in image and tag in ("", "latest")
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        resources = container.setdefault("resources", {})
        for name, limit in resources.get("limits", {}).items():
            resources.setdefault("requests", {}).setdefault(name, limit)
        for port in container.get("ports", []):
            port.setdefault("protocol", "TCP")
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("fieldRef"):
                reference.setdefault("apiVersion", "v1")
    for volume in spec.get("volumes", []):
        for source in ("configMap", "secret", "projected"):
            if source in volume:
                volume[source].setdefault("defaultMode", 0o644)


def start(pod: Json) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": _quality(pod["spec"])}
    if "serviceAccountName" not in pod["spec"]:
        pod["spec"]["serviceAccountName"] = pod["spec"]["serviceAccount"] = "default"


def _quality(spec: Json) -> str:
    """How safe the pod is from being evicted."""
    asked = [
        one["resources"] for one in (*spec.get("containers", []), *spec.get("initContainers", []))
    ]
    names = ("cpu", "memory")
    if not any(
        name in one.get(part, {})
        for one in asked
        for part in ("requests", "limits")
        for name in names
    ):
        return "BestEffort"
    fixed = all(
        name in one.get("limits", {})
        and parse_quantity(one["limits"][name]) == parse_quantity(one["requests"][name])
        for one in asked
        for name in names
    )
    return "Guaranteed" if fixed else "Burstable"


def check(pod: Json) -> list[Cause]:
    return check_spec(pod.get("spec", {}), "spec")


def check_spec(spec: Json, path: str) -> list[Cause]:
    """What is wrong with a pod's spec, as far as a controller can get it wrong."""
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        causes.append(
            unsupported(
                f"{path}.restartPolicy", spec.get("restartPolicy"), ["Always", "OnFailure", "Never"]
            )
        )
    volumes = [volume.get("name") for volume in spec.get("volumes", [])]
    causes.extend(
        Cause(f"{path}.volumes[{at}].name", f'Duplicate value: "{name}"', "FieldValueDuplicate")
        for at, name in enumerate(volumes)
        if name in volumes[:at]
    )
    causes += check_labels(spec.get("nodeSelector", {}), f"{path}.nodeSelector")
    for at, volume in enumerate(spec.get("volumes", [])):
        if len(volume) > 2:
            causes.append(
                forbidden_field(f"{path}.volumes[{at}]", "may not specify more than 1 volume type")
            )
    seen: set[str] = set()
    for group in ("containers", "initContainers"):
        for at, container in enumerate(spec.get(group, [])):
            here = f"{path}.{group}[{at}]"
            name = container.get("name", "")
            if not is_label(name):
                causes.append(wrong(f"{here}.name", name, "a lowercase RFC 1123 label must ..."))
            elif name in seen:
                causes.append(
                    Cause(f"{here}.name", f'Duplicate value: "{name}"', "FieldValueDuplicate")
                )
            seen.add(name)
            if not container.get("image"):
                causes.append(required(f"{here}.image"))
            causes += _check_resources(container.get("resources", {}), f"{here}.resources")
            causes += [
                wrong(f"{here}.env[{place}].name", variable.get("name"), "a valid name is needed")
                for place, variable in enumerate(container.get("env", []))
                if not re.fullmatch(r"[ -<>-~]+", variable.get("name", ""))
            ]
            paths = [mount.get("mountPath") for mount in container.get("volumeMounts", [])]
            causes += [
                wrong(f"{here}.volumeMounts[{place}].mountPath", one, "must be unique")
                for place, one in enumerate(paths)
                if one in paths[:place]
            ]
            causes.extend(
                Cause(
                    f"{here}.volumeMounts[{place}].name",
                    f'Not found: "{mount.get("name")}"',
                    "FieldValueNotFound",
                )
                for place, mount in enumerate(container.get("volumeMounts", []))
                if mount.get("name") not in volumes
            )
    return causes


def _check_resources(resources: Json, path: str) -> list[Cause]:
    """Requests are at most limits; what is not shared (a GPU) is asked for exactly."""
    causes = []
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for name, wanted in requests.items():
        limit = limits.get(name)
        exact = "/" in name
        if limit is None:
            if exact:
                causes.append(
                    required(f"{path}.limits", "Limit must be set for non overcommitable resources")
                )
        elif exact and parse_quantity(wanted) != parse_quantity(limit):
            causes.append(
                wrong(f"{path}.requests", wanted, f"must be equal to {name} limit of {limit}")
            )
        elif parse_quantity(wanted) > parse_quantity(limit):
            causes.append(
                wrong(
                    f"{path}.requests",
                    wanted,
                    f"must be less than or equal to {name} limit of {limit}",
                )
            )
    return causes


def check_update(new: Json, old: Json) -> list[Cause]:
    if _frozen(new["spec"]) == _frozen(old["spec"]):
        return []
    return [
        forbidden_field(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`, "
            "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` "
            "(only additions to existing tolerations), `spec.terminationGracePeriodSeconds` "
            "(allow it to be set to 1 if it was previously negative)",
        )
    ]


def _frozen(spec: Json) -> Json:
    """The part of a pod's spec that never changes."""
    spec = copy.deepcopy(spec)
    for name in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        spec.pop(name, None)
    for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
        container.pop("image", None)
    return spec
