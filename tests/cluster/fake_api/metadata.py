"""What every object's metadata must be, and what the server writes into it."""

from __future__ import annotations

import random
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from cluster.fake_api.problems import Cause, forbidden_field, required, too_long, wrong

Json = dict[str, Any]

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_NAME_PART = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
_ANNOTATIONS_BYTES = 256 * 1024
_RANDOM_LETTERS = "bcdfghjklmnpqrstvwxz2456789"

# Kinds whose names are labels (63 characters, no dots) instead of subdomains.
_LABEL_NAMES = ("namespaces", "services")

_IS_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_IS_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_IS_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_IS_NAME_PART = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
# Finalizers that need no domain.
_STANDARD_FINALIZERS = ("foregroundDeletion", "kubernetes", "orphan")


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
        if len(name) > 63:
            return [wrong("metadata.name", name, "must be no more than 63 characters")]
        if plural == "namespaces" and "." in name:
            return [wrong("metadata.name", name, "must not contain dots")]
        return [] if is_label(name) else [wrong("metadata.name", name, _IS_LABEL)]
    if len(name) > 253:
        return [wrong("metadata.name", name, "must be no more than 253 characters")]
    return [] if _SUBDOMAIN.match(name) else [wrong("metadata.name", name, _IS_SUBDOMAIN)]


def check_labels(labels: dict[str, str], path: str) -> list[Cause]:
    """What is wrong with the keys and values of labels."""
    causes = _check_keys(labels, path)
    for value in labels.values():
        if len(value) > 63:
            causes.append(wrong(path, value, "must be no more than 63 bytes"))
        elif value and not _NAME_PART.match(value):
            causes.append(wrong(path, value, _IS_VALUE))
    return causes


def check_annotations(annotations: dict[str, str], path: str) -> list[Cause]:
    """What is wrong with the keys and the size of annotations."""
    causes = _check_keys(annotations, path)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > _ANNOTATIONS_BYTES:
        causes.append(too_long(path, _ANNOTATIONS_BYTES))
    return causes


def _check_keys(keys: dict[str, str], path: str) -> list[Cause]:
    return [wrong(path, key, why) for key in keys for why in _unqualified(key)]


def _unqualified(key: str) -> list[str]:
    """Why this is no name with an optional domain before it."""
    if key.count("/") > 1:
        return [
            f"a valid label key {_IS_NAME_PART} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    prefix, slash, name = key.rpartition("/")
    found = []
    if slash and not prefix:
        found.append("prefix part must be non-empty")
    elif slash and len(prefix) > 253:
        found.append("prefix part must be no more than 253 bytes")
    elif slash and not _SUBDOMAIN.match(prefix):
        found.append(f"prefix part {_IS_SUBDOMAIN}")
    if not name:
        found.append("name part must be non-empty")
    elif len(name) > 63:
        found.append("name part must be no more than 63 bytes")
    if not _NAME_PART.match(name):
        found.append(f"name part {_IS_NAME_PART}")
    return found


def _check_owners(owners: list[Json]) -> list[Cause]:
    causes = []
    for owner in owners:
        for name, word in (("apiVersion", "version "), ("kind", ""), ("name", ""), ("uid", "")):
            if not owner.get(name):
                causes.append(
                    wrong(f"metadata.ownerReferences.{name}", "", f"{word}must not be empty")
                )
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        one, other = (f"{owner.get('kind')}/{owner.get('name')}" for owner in controllers[:2])
        causes.append(
            wrong(
                "metadata.ownerReferences",
                owners,
                'Only one reference can have Controller set to true. Found "true" in references '
                f"for {one} and {other}",
            )
        )
    return causes


def check_finalizer_names(meta: Json) -> list[Cause]:
    """Of a built-in kind: each is a domain and a name, but for those of Kubernetes."""
    causes = []
    for at, name in enumerate(meta.get("finalizers", [])):
        causes += [wrong("metadata.finalizers", name, why) for why in _unqualified(name)]
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            causes.append(
                wrong(
                    f"metadata.finalizers[{at}]",
                    name,
                    "name is neither a standard finalizer name nor is it fully qualified",
                )
            )
    return causes


def finalizer_warnings(meta: Json, had: list[str]) -> list[str]:
    """Of a custom object's new finalizers, what is only warned of."""
    found = []
    for name in sorted(set(meta.get("finalizers", [])) - set(had)):
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            path = " including a path (/)" if "." in name else ""
            found.append(
                f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name{path} '
                "to avoid accidental conflicts with other finalizer writers"
            )
    return found


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
