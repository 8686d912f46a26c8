"""CustomResourceDefinitions: defaults, the conditions a new one gets, and what is refused."""

from __future__ import annotations

from typing import Any

from cluster.fake_api.metadata import now
from cluster.fake_api.problems import Cause, forbidden_field, required, wrong

Json = dict[str, Any]


def default(definition: Json) -> None:
    names = definition["spec"].get("names", {})
    if "kind" in names:
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    definition["spec"].setdefault("conversion", {"strategy": "None"})


def start(definition: Json) -> None:
    when = now()
    definition["status"] = {
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": [
            version["name"] for version in definition["spec"]["versions"] if version.get("storage")
        ],
        "conditions": [
            {
                "type": type_,
                "status": "True",
                "lastTransitionTime": when,
                "reason": reason,
                "message": message,
            }
            for type_, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ],
    }


def check(definition: Json) -> list[Cause]:
    spec = definition["spec"]
    causes: list[Cause] = []
    wanted = f"{spec.get('names', {}).get('plural')}.{spec.get('group')}"
    if definition["metadata"].get("name") != wanted:
        causes.append(
            wrong(
                "metadata.name",
                definition["metadata"].get("name"),
                'must be spec.names.plural+"."+spec.group',
            )
        )
    versions = spec.get("versions", [])
    if sum(1 for version in versions if version.get("storage")) != 1:
        causes.append(
            wrong("spec.versions", "", "must have exactly one version marked as storage version")
        )
    for at, version in enumerate(versions):
        path = f"spec.versions[{at}].schema.openAPIV3Schema"
        schema = version.get("schema", {}).get("openAPIV3Schema")
        if schema is None:
            causes.append(required(path, "schemas are required"))
        else:
            if schema.get("type") != "object":
                causes.append(
                    wrong(f"{path}.type", schema.get("type"), "must be object at the root")
                )
            causes += _check_schema(schema, path)
    return causes


def _check_schema(schema: Json, path: str) -> list[Cause]:
    """What keeps a schema from being structural."""
    causes = []
    free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get(
        "x-kubernetes-int-or-string"
    )
    if not schema.get("type") and not free:
        causes.append(required(f"{path}.type", "must not be empty for specified object fields"))
    if schema.get("type") == "array" and "items" not in schema:
        causes.append(required(f"{path}.items", "must be specified"))
    if schema.get("uniqueItems"):
        causes.append(forbidden_field(f"{path}.uniqueItems", "uniqueItems cannot be set to true"))
    if schema.get("properties") and schema.get("additionalProperties") not in (None, False):
        causes.append(
            forbidden_field(
                f"{path}.additionalProperties",
                "additionalProperties and properties are mutual exclusive",
            )
        )
    for word in ("$ref", "definitions", "dependencies", "deprecated", "id", "patternProperties"):
        if schema.get(word):
            causes.append(forbidden_field(f"{path}.{word}", f"{word} is not supported"))
    for name, inner in schema.get("properties", {}).items():
        causes += _check_schema(inner, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            causes += _check_schema(schema[name], f"{path}.{name}")
    return causes


def check_update(new: Json, old: Json) -> list[Cause]:
    return [
        wrong(f"spec.{name}", new["spec"].get(name), "field is immutable")
        for name in ("group", "scope")
        if new["spec"].get(name) != old["spec"].get(name)
    ]
