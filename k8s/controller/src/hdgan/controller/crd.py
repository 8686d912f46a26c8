"""The CustomResourceDefinition of DatasetRuns, generated from the models of a run and its status.

`python -m hdgan.controller.crd k8s/crd/datasetruns.hdgan.io.yaml` writes it; with `--check` it only
says whether the file is up to date.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from hdgan.controller.status import RunStatus
from hdgan.core.run import API_VERSION, DatasetRun, Metadata, RunSpec
from hdgan.core.schema import write_generated

Schema = dict[str, Any]

GROUP, VERSION = API_VERSION.split("/")

_MUTABLE: Final = ("suspend", "retry", "resources", "gates")
"""What of a run's spec may change after it was made, `resources.store` excepted."""

_DECLARED: Final[dict[str, list[tuple[str, str]]]] = {
    "spec.resources.scratch": [
        (
            "[has(self.emptyDir), has(self.ephemeral), has(self.claim)].filter(given, given).size()"
            " == 1",
            "give exactly one of emptyDir, ephemeral and claim",
        )
    ],
}
"""What the models check across fields and a schema can say only as a rule: rule, message."""

_KEYS: Final = {
    "status.conditions": "type",
    "status.stages": "name",
    "status.gates": "name",
}
"""Lists whose items are known by a field, so that several writers can share them."""

_COLUMNS: Final[list[Schema]] = [
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.stage"},
    {"name": "Progress", "type": "string", "jsonPath": ".status.progress"},
    {"name": "Dice", "type": "number", "jsonPath": ".status.macroDice"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
    {"name": "Store", "type": "string", "jsonPath": ".status.store", "priority": 1},
]

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED: Final = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function"}
    | {"if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
)
"""Names that a rule would have to spell in another way."""


class NotStructural(TypeError):
    """A model says something that the schema of a CustomResourceDefinition cannot say."""


def crd() -> Schema:
    """The CustomResourceDefinition (NotStructural)."""
    plural = "datasetruns"
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": _COLUMNS,
        "schema": {"openAPIV3Schema": _root()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": "DatasetRun",
                "listKind": "DatasetRunList",
                "plural": plural,
                "singular": "datasetrun",
                "shortNames": ["dsr"],
                "categories": ["hdgan"],
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _root() -> Schema:
    document = DatasetRun.model_json_schema(by_alias=True)
    fields = document["properties"]
    spec = structural(RunSpec, "spec")
    _freeze(spec)
    return {
        "type": "object",
        "description": _words(document["description"]),
        "required": ["spec"],
        "properties": {name: _structural(fields[name], {}, name) for name in ("apiVersion", "kind")}
        # Nothing else may be said of it; its name is limited by the rules below.
        | {"metadata": {"type": "object"}, "spec": spec, "status": structural(RunStatus, "status")},
        "x-kubernetes-validations": _name_rules(),
    }


def _name_rules() -> list[Schema]:
    """The API server takes DNS names of up to 253 characters; what is left of `Metadata` to say."""
    name = Metadata.model_json_schema()["properties"]["name"]
    most = name["maxLength"]
    return [
        _rule(
            f"self.metadata.name.size() <= {most}",
            f"metadata.name has at most {most} characters: Job names are made from it",
        ),
        _rule(
            "!self.metadata.name.contains('.')",
            "metadata.name has lower-case letters, digits and - only",
        ),
    ]


def structural(model: type[BaseModel], path: str) -> Schema:
    """The structural schema of a model.

    Raises NotStructural, naming the path, for what has no bound or cannot be represented. There are
    no defaults: the API server would store them, and a preset could not tell them from what was
    given.
    """
    document = model.model_json_schema(by_alias=True)
    return _structural(document, document.get("$defs", {}), path)


def _structural(node: Schema, models: dict[str, Schema], path: str) -> Schema:
    node = dict(node)
    while "$ref" in node:
        named = models[node.pop("$ref").removeprefix("#/$defs/")]
        node = named | node  # what is said of the field goes before what is said of its model
    node = {
        name: value for name, value in node.items() if name not in ("title", "default", "$defs")
    }
    if "anyOf" in node:
        return _nullable(node, models, path)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    description = node.pop("description", None)
    kind = node.pop("type", None)
    convert = {
        "object": _object,
        "array": _array,
        "string": _string,
        "integer": _integer,
        "number": _number,
        "boolean": _boolean,
    }.get(kind)
    if convert is None:
        raise NotStructural(f"{path}: a schema cannot say {kind or node!r}")
    result: Schema = {"type": kind}
    if description is not None:
        result["description"] = _words(description)
    result |= convert(node, models, path)
    if node:
        raise NotStructural(f"{path}: a schema cannot say {', '.join(sorted(node))}")
    rules = [_rule(rule, message) for rule, message in _DECLARED.get(path, [])]
    if rules:
        result["x-kubernetes-validations"] = rules
    return result


def _nullable(node: Schema, models: dict[str, Schema], path: str) -> Schema:
    """`X | None`, the only choice between types there is."""
    choices = [one for one in node.pop("anyOf") if one != {"type": "null"}]
    if len(choices) != 1:
        raise NotStructural(f"{path}: a choice between types; a field has one, or null")
    result = _structural(choices[0] | node, models, path)
    # The API server looks for null among the values of an enum, and never finds it; null where it
    # is not allowed it drops before it looks. So for enums, too, null means absent.
    return result if "enum" in result else result | {"nullable": True}


def _object(node: Schema, models: dict[str, Schema], path: str) -> Schema:
    if "properties" in node:
        result: Schema = {}
        if required := node.pop("required", None):
            result["required"] = required
        result["properties"] = {
            name: _structural(field, models, f"{path}.{name}")
            for name, field in node.pop("properties").items()
        }
        # Unknown fields are refused, or dropped, by the API server itself.
        if node.pop("additionalProperties", False) is not False:
            raise NotStructural(f"{path}: fields and other fields; a model has one or the other")
        return result
    if "additionalProperties" not in node:
        raise NotStructural(f"{path}: a mapping that does not say what is in it")
    values = node.pop("additionalProperties")
    # The length of keys is the one bound of a model that gets lost: no schema can say it.
    names = node.pop("propertyNames", {})
    most = node.pop("maxProperties", None)
    if "enum" in names:
        # A structural schema cannot limit keys: they are fields instead.
        fields = {name: _structural(values, models, f"{path}.{name}") for name in names["enum"]}
        if most is not None and most < len(fields):
            raise NotStructural(f"{path}: {len(fields)} keys, of which {most} may be given")
        return {"properties": fields}
    if lost := sorted(set(names) - {"minLength", "maxLength"}):
        raise NotStructural(f"{path}: a schema cannot say {', '.join(lost)} of keys")
    if most is None:
        raise NotStructural(f"{path}: a map without a bound; give the model's field a max_length")
    result = {"maxProperties": most}
    if node.pop("x-kubernetes-preserve-unknown-fields", False):
        return result | {"x-kubernetes-preserve-unknown-fields": True}
    return result | {"additionalProperties": _structural(values, models, f"{path}.*")}


def _array(node: Schema, models: dict[str, Schema], path: str) -> Schema:
    if "items" not in node or "maxItems" not in node:
        raise NotStructural(f"{path}: a list without a bound; give the model's field a max_length")
    result = _moved(node, "minItems", "maxItems")
    items = _structural(node.pop("items"), models, f"{path}[]")
    if items.get("nullable"):
        raise NotStructural(f"{path}[]: null in a list")
    result["items"] = items
    if key := _KEYS.get(path):
        result |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return result


def _string(node: Schema, models: dict[str, Schema], path: str) -> Schema:
    if "enum" in node:
        return _moved(node, "enum")
    # A pattern for exactly so many characters is a bound, too.
    exact = re.fullmatch(r"\^[^][\\]?\[[^][]*\]\{(\d+)\}\$", node.get("pattern", ""))
    if exact:
        literal = 0 if node["pattern"].startswith("^[") else 1
        node.setdefault("maxLength", literal + int(exact[1]))
    if "maxLength" not in node:
        raise NotStructural(f"{path}: text without a bound; give the model's field a max_length")
    return _moved(node, "minLength", "maxLength", "pattern")


def _integer(node: Schema, models: dict[str, Schema], path: str) -> Schema:
    result = _number(node, models, path)
    low, high = result.get("minimum"), result.get("maximum")
    small = low is not None and high is not None and low >= -(2**31) and high < 2**31
    return result if small else {"format": "int64"} | result


def _number(node: Schema, models: dict[str, Schema], path: str) -> Schema:
    result: Schema = {}
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if bound in node and exclusive in node:
            raise NotStructural(f"{path}: both {bound} and {exclusive}")
        if exclusive in node:
            result |= {bound: node.pop(exclusive), exclusive: True}
        result |= _moved(node, bound)
    return result


def _boolean(node: Schema, models: dict[str, Schema], path: str) -> Schema:
    return {}


def _moved(node: Schema, *names: str) -> Schema:
    return {name: node.pop(name) for name in names if name in node}


def _words(text: str) -> str:
    return " ".join(text.split())


def _freeze(spec: Schema) -> None:
    """Adds the rules that what is not in `_MUTABLE` stays as it was.

    In a rule null counts as absent where it says `has`, and only there: of two sections with the
    same null in them the API server says that they differ. So sections are compared field by field.
    """
    rules: list[Schema] = []
    for name, field in spec["properties"].items():
        if name in _MUTABLE:
            continue
        inner = field.get("properties", {})
        if all(map(_IDENTIFIER.fullmatch, inner)) and inner:
            field.setdefault("x-kubernetes-validations", [])
            field["x-kubernetes-validations"] += _unchanged(field, inner, f"spec.{name}.")
            if name not in spec["required"]:
                rules.append(_fixed(f"spec.{name}", f"has(self.{name}) == has(oldSelf.{name})"))
        else:
            rules += _unchanged(spec, [name], "spec.")
    # Artifacts a run has made already stay in the store they are in.
    store = "has({0}.resources) && has({0}.resources.store) ? {0}.resources.store : ''"
    same = f"({store.format('self')}) == ({store.format('oldSelf')})"
    spec["x-kubernetes-validations"] = [*rules, _fixed("spec.resources.store", same)]


def _unchanged(section: Schema, names: Iterable[str], path: str) -> list[Schema]:
    """For each of these fields of a section the rule that it stays as it was."""
    rules = []
    for name in names:
        if not _IDENTIFIER.fullmatch(name) or name in _RESERVED:
            raise NotStructural(f"{path}{name}: no name that a rule can say")
        if any(part.get("nullable") for part in _parts(section["properties"][name])):
            raise NotStructural(f"{path}{name}: has null in it, so that it equals nothing")
        same = f"self.{name} == oldSelf.{name}"
        if name not in section.get("required", []):
            same = f"has(self.{name}) ? has(oldSelf.{name}) && {same} : !has(oldSelf.{name})"
        rules.append(_fixed(f"{path}{name}", same))
    return rules


def _parts(schema: Schema) -> Iterator[Schema]:
    """What is in values of a schema, however deep."""
    inner = [*schema.get("properties", {}).values()]
    inner += [schema[name] for name in ("items", "additionalProperties") if name in schema]
    for part in inner:
        yield part
        yield from _parts(part)


def _fixed(path: str, rule: str) -> Schema:
    return _rule(rule, f"{path} cannot change after the run was made; make another run")


def _rule(rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message}


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def manifest(path: Path) -> str:
    """The file, which says by which command it is written."""
    text = yaml.dump(crd(), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return f"# Generated from the models of the run file: {_command(path)}\n{text}"


def _command(path: Path) -> str:
    return f"python -m hdgan.controller.crd k8s/crd/{path.name}"


def main(arguments: list[str] | None = None) -> int:
    """Write the file, or with --check compare it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hdgan.controller.crd", description=__doc__)
    parser.add_argument("file", type=Path, help="such as k8s/crd/datasetruns.hdgan.io.yaml")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args(arguments)
    file: Path = options.file
    return write_generated(file, manifest(file), _command(file), check=options.check)


if __name__ == "__main__":
    raise SystemExit(main())
