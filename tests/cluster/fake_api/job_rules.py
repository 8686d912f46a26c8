"""Defaults, generated labels, limits and immutable fields of Jobs."""

from __future__ import annotations

import copy
from typing import Any

from cluster.fake_api import pod_rules
from cluster.fake_api.metadata import check_annotations, check_labels, is_label
from cluster.fake_api.problems import Cause, required, too_long, unsupported, wrong

Json = dict[str, Any]

_INT32_MAX = 2**31 - 1
_IMMUTABLE = "field is immutable"
# Of the template of a suspended Job without pods, these may change.
_OPEN_WHILE_SUSPENDED = ("nodeSelector", "affinity", "tolerations", "schedulingGates")


def default(job: Json) -> None:
    spec = job.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("backoffLimit", _INT32_MAX if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault(
        "podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    )
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        for pattern in rule.get("onPodConditions", []):
            pattern.setdefault("status", "True")
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod_rules.default_spec(template.setdefault("spec", {}))
    if not job["metadata"].get("labels") and template["metadata"].get("labels"):
        # The very same: they get what is generated, too.
        job["metadata"]["labels"] = template["metadata"]["labels"]


def start(job: Json) -> None:
    """The selector and the labels that tie pods to this Job."""
    job["status"] = {}
    spec, uid, name = job["spec"], job["metadata"]["uid"], job["metadata"]["name"]
    if spec.get("manualSelector"):
        return
    labels = spec["template"]["metadata"].setdefault("labels", {})
    labels |= {
        "controller-uid": uid,
        "job-name": name,
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
    }
    if job["metadata"].get("labels", labels) is labels:
        job["metadata"]["labels"] = dict(labels)
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def check(job: Json) -> list[Cause]:
    spec = job["spec"]
    template = spec["template"]
    causes: list[Cause] = []
    for name in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        if spec.get(name, 0) < 0:
            causes.append(wrong(f"spec.{name}", spec[name], "must be greater than or equal to 0"))
    causes += _check_mode(job)
    causes += check_labels(template["metadata"].get("labels", {}), "spec.template.labels")
    causes += check_annotations(
        template["metadata"].get("annotations", {}), "spec.template.annotations"
    )
    causes += pod_rules.check_spec(template["spec"], "spec.template.spec")
    restart = template["spec"]["restartPolicy"]
    if restart not in ("OnFailure", "Never"):
        causes.append(
            required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
        )
    if "podFailurePolicy" in spec:
        causes += _check_policy(spec, restart)
    return causes


def _check_mode(job: Json) -> list[Cause]:
    spec, name = job["spec"], job["metadata"].get("name", "")
    causes = []
    mode = spec["completionMode"]
    if mode not in ("NonIndexed", "Indexed"):
        causes.append(unsupported("spec.completionMode", mode, ["NonIndexed", "Indexed"]))
    if mode == "Indexed":
        completions = spec.get("completions")
        if completions is None:
            causes.append(required("spec.completions", "when completion mode is Indexed"))
        elif completions > 0 and not is_label(f"{name}-{completions - 1}"):
            causes.append(
                wrong(
                    "metadata.name",
                    name,
                    f"will not able to create pod with invalid DNS label: {name}-{completions - 1}",
                )
            )
    else:
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if field in spec:
                causes.append(
                    wrong(f"spec.{field}", spec[field], "requires indexed completion mode")
                )
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        causes.append(required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    allowed = ["Failed"] if "podFailurePolicy" in spec else ["Failed", "TerminatingOrFailed"]
    if spec["podReplacementPolicy"] not in allowed:
        causes.append(
            unsupported("spec.podReplacementPolicy", spec["podReplacementPolicy"], allowed)
        )
    managed = spec.get("managedBy")
    if managed is not None and "/" not in managed:
        why = 'must be a domain-prefixed path (such as "acme.io/foo")'
        causes.append(wrong("spec.managedBy", managed, why))
    elif managed is not None and len(managed) > 63:
        causes.append(too_long("spec.managedBy", 63))
    return causes


def _check_policy(spec: Json, restart: str) -> list[Cause]:
    path = "spec.podFailurePolicy.rules"
    causes = []
    if restart != "Never":
        causes.append(
            wrong(
                "spec.template.spec.restartPolicy",
                restart,
                'only "Never" is supported when podFailurePolicy is specified',
            )
        )
    names = [one.get("name") for one in spec["template"]["spec"].get("containers", [])]
    names += [one.get("name") for one in spec["template"]["spec"].get("initContainers", [])]
    rules = spec["podFailurePolicy"].get("rules", [])
    if len(rules) > 20:
        causes.append(Cause(path, "Too many: must have at most 20 items", "FieldValueTooMany"))
    for at, rule in enumerate(rules):
        here = f"{path}[{at}]"
        actions = ["Count", "FailIndex", "FailJob", "Ignore"]
        if rule.get("action") not in actions:
            causes.append(unsupported(f"{here}.action", rule.get("action"), actions))
        if rule.get("action") == "FailIndex" and "backoffLimitPerIndex" not in spec:
            causes.append(
                wrong(f"{here}.action", "FailIndex", "requires the backoffLimitPerIndex to be set")
            )
        if ("onExitCodes" in rule) == bool(rule.get("onPodConditions")):
            causes.append(
                wrong(here, rule, "specifying one of OnExitCodes and OnPodConditions is required")
            )
        codes = rule.get("onExitCodes")
        if codes is not None:
            causes += _check_codes(codes, f"{here}.onExitCodes", names)
        for place, pattern in enumerate(rule.get("onPodConditions", [])):
            if pattern["status"] not in ("True", "False", "Unknown"):
                causes.append(
                    unsupported(
                        f"{here}.onPodConditions[{place}].status",
                        pattern["status"],
                        ["False", "True", "Unknown"],
                    )
                )
    return causes


def _check_codes(codes: Json, here: str, names: list[str | None]) -> list[Cause]:
    causes = []
    if codes.get("operator") not in ("In", "NotIn"):
        causes.append(unsupported(f"{here}.operator", codes.get("operator"), ["In", "NotIn"]))
    values = codes.get("values", [])
    if not values:
        causes.append(wrong(f"{here}.values", values, "at least one value is required"))
    if values != sorted(values):
        causes.append(wrong(f"{here}.values", values, "must be ordered"))
    if len(set(values)) != len(values):
        causes.append(Cause(f"{here}.values", "Duplicate value", "FieldValueDuplicate"))
    if codes.get("operator") == "In" and 0 in values:
        causes.append(wrong(f"{here}.values", 0, "must not be 0 for the In operator"))
    if codes.get("containerName") is not None and codes["containerName"] not in names:
        causes.append(
            wrong(
                f"{here}.containerName",
                codes["containerName"],
                "must be one of the container names",
            )
        )
    return causes


def check_update(new: Json, old: Json) -> list[Cause]:
    causes = []
    was, now = old["spec"], new["spec"]
    for name in (
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ):
        if now.get(name) != was.get(name):
            causes.append(wrong(f"spec.{name}", now.get(name), _IMMUTABLE))
    if now.get("completions") != was.get("completions"):
        elastic = was["completionMode"] == "Indexed" and now.get("completions") == now.get(
            "parallelism"
        )
        if not elastic:
            causes.append(wrong("spec.completions", now.get("completions"), _IMMUTABLE))
    if _fixed_template(now["template"], old) != _fixed_template(was["template"], old):
        causes.append(wrong("spec.template.spec", now["template"]["spec"], _IMMUTABLE))
    return causes


def _fixed_template(template: Json, old: Json) -> Json:
    status = old.get("status", {})
    rests = "startTime" not in status or any(
        one["type"] == "Suspended" and one["status"] == "True"
        for one in status.get("conditions", [])
    )
    if not (old["spec"].get("suspend") and rests and not status.get("active")):
        return template
    template = copy.deepcopy(template)
    for name in _OPEN_WHILE_SUSPENDED:
        template["spec"].pop(name, None)
    for name in ("labels", "annotations"):
        template["metadata"].pop(name, None)
    for container in template["spec"].get("containers", []):
        container.pop("resources", None)
    return template
