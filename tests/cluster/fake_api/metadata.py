"""What every object's metadata must be, and what the server writes into it."""

from __future__ import annotations

import random
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from cluster.fake_api.problems import Cause, forbidden_field, required, wrong

Json = dict[str, Any]

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_NAME_PART = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
_ANNOTATIONS_BYTES = 256 * 1024
_RANDOM_LETTERS = "bcdfghjklmnpqrstvwxz2456789"

# Kinds whose names are labels (63 characters, no dots) instead of subdomains.
_LABEL_NAMES = ("namespaces", "services")


def now() -> str:
    """This second, as Kubernetes writes it."""
    return stamp(datetime.now(UTC))


def stamp(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_uid() -> str:
    return str(uuid.uuid4())


def generated_name(prefix: str) -> str:
    return prefix[:58] + "".join(random.choices(_RANDOM_LETTERS, k=5))


def is_label(text: str) -> bool:
    """Whether it is a DNS label."""
    return len(text) <= 63 and _LABEL.match(text) is not None


def check(meta: Json, plural: str) -> list[Cause]:
    """All that is wrong with an object's metadata."""
    return [
        *_check_name(meta.get("name", ""), plural),
        *check_labels(meta.get("labels", {}), "metadata.labels"),
        *check_annotations(meta.get("annotations", {}), "metadata.annotations"),
        *_check_owners(meta.get("ownerReferences", [])),
    ]


def _check_name(name: str, plural: str) -> list[Cause]:
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if plural in _LABEL_NAMES:
        if is_label(name):
            return []
        return [
            wrong(
                "metadata.name",
                name,
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or "
                "'-', and must start and end with an alphanumeric character, and must be no more "
                "than 63 characters",
            )
        ]
    if len(name) > 253:
        return [wrong("metadata.name", name, "must be no more than 253 characters")]
    if not _SUBDOMAIN.match(name):
        return [
            wrong(
                "metadata.name",
                name,
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
                "characters, '-' or '.', and must start and end with an alphanumeric character",
            )
        ]
    return []


def check_labels(labels: dict[str, str], path: str) -> list[Cause]:
    """What is wrong with the keys and values of labels."""
    causes = _check_keys(labels, path)
    for value in labels.values():
        if len(value) > 63:
            causes.append(wrong(path, value, "must be no more than 63 bytes"))
        elif value and not _NAME_PART.match(value):
            causes.append(
                wrong(
                    path,
                    value,
                    "a valid label must be an empty string or consist of alphanumeric characters, "
                    "'-', '_' or '.', and must start and end with an alphanumeric character",
                )
            )
    return causes


def check_annotations(annotations: dict[str, str], path: str) -> list[Cause]:
    """What is wrong with the keys and the size of annotations."""
    causes = _check_keys(annotations, path)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > _ANNOTATIONS_BYTES:
        causes.append(
            Cause(
                path,
                f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes",
                "FieldValueTooLong",
            )
        )
    return causes


def _check_keys(keys: dict[str, str], path: str) -> list[Cause]:
    causes = []
    for key in keys:
        prefix, slash, name = key.rpartition("/")
        if (
            not _NAME_PART.match(name)
            or len(name) > 63
            or (slash and (len(prefix) > 253 or not _SUBDOMAIN.match(prefix)))
        ):
            causes.append(wrong(path, key, "must be a qualified name"))
    return causes


def _check_owners(owners: list[Json]) -> list[Cause]:
    causes = []
    for at, owner in enumerate(owners):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                causes.append(
                    wrong(f"metadata.ownerReferences[{at}].{name}", "", f"{name} must not be empty")
                )
    if sum(1 for owner in owners if owner.get("controller")) > 1:
        causes.append(
            wrong(
                "metadata.ownerReferences",
                [owner.get("name") for owner in owners],
                "Only one reference can have Controller set to true",
            )
        )
    return causes


def check_finalizers(new: Json, old: Json) -> list[Cause]:
    """An object that is being deleted takes no more finalizers."""
    if "deletionTimestamp" not in old:
        return []
    added = [one for one in new.get("finalizers", []) if one not in old.get("finalizers", [])]
    if not added:
        return []
    return [
        forbidden_field(
            "metadata.finalizers",
            "no new finalizers can be added if the object is being deleted, found new finalizers "
            f"{added}",
        )
    ]


def tidy(meta: Json) -> None:
    """Leaves out what is empty, as the server does."""
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if name in meta and not meta[name]:
            del meta[name]
    meta.pop("managedFields", None)
    meta.pop("selfLink", None)
