"""What an API server does with an object of a CustomResourceDefinition, as far as tests need it.

Nulls are dropped where the schema does not allow them, then unknown fields, the schema and the CEL
rules are looked at, the rules of an update with what was there before. This follows the sources of
apiextensions-apiserver (`prunenulls.go`, `cel/validation.go`), apiserver (`cel/common/values.go`)
and kube-openapi (`validate`); that a server agrees is not shown by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import cel
from jsonschema import Draft4Validator

Schema = dict[str, Any]


class Resource:
    """Objects of one kind, as a server with its schema treats them."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._validator = Draft4Validator(_strict(schema))

    def stored(self, document: Any) -> Any:
        """What the server keeps of a document: null is dropped where it is not allowed."""
        return _without_nulls(document, self._schema)

    def problems(self, document: Any, before: Any = None) -> list[str]:
        """Why the server would refuse a document, or its update from `before`."""
        wrong = [
            f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
            for error in self._validator.iter_errors(self.stored(document))
        ]
        # The server does not come to the rules where the schema does not hold.
        return wrong or self.broken_rules(document, before)

    def broken_rules(self, document: Any, before: Any = None) -> list[str]:
        """Path and message of the rules that a document, or its update, does not keep."""
        old = None if before is None else self.stored(before)
        return list(_broken_rules(self.stored(document), old, self._schema, ""))


def rules(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """All CEL rules in a schema with the path of their `self`."""
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule
    for name, inner in schema.get("properties", {}).items():
        yield from rules(inner, f"{path}.{name}".lstrip("."))
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from rules(schema[name], f"{path}[]")


def _without_nulls(document: Any, schema: Schema) -> Any:
    if isinstance(document, dict):
        kept: dict[str, Any] = {}
        for name, value in document.items():
            inner = _of_field(schema, name)
            if value is not None or inner is None or inner.get("nullable"):
                kept[name] = _without_nulls(value, inner or {})
        return kept
    if isinstance(document, list):
        return [_without_nulls(one, schema.get("items", {})) for one in document]
    return document


def _of_field(schema: Schema, name: str) -> Schema | None:
    found = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
    return found if isinstance(found, dict) else None


def _strict(schema: Schema) -> Schema:
    """As JSON schema draft 4, whose exclusive bounds are those of OpenAPI 3.0."""
    known = {"properties", "items", "additionalProperties", "nullable"}
    result = {name: value for name, value in schema.items() if name not in known}
    if "items" in schema:
        result["items"] = _strict(schema["items"])
    if "properties" in schema:
        result["properties"] = {
            name: _strict(inner) for name, inner in schema["properties"].items()
        }
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _strict(schema["additionalProperties"])
    elif "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    if schema.get("nullable"):
        # Not among the values of an enum: there the server refuses null all the same.
        result["type"] = [schema["type"], "null"]
    return result


def _broken_rules(value: Any, before: Any, schema: Schema, path: str) -> Iterator[str]:
    if value is None:
        return
    if found := schema.get("x-kubernetes-validations"):
        known = cel.Context({"self": _seen(value), "oldSelf": _seen(before)})
        for rule in found:
            if before is None and "oldSelf" in rule["rule"]:
                continue
            if _program(rule["rule"]).execute(known) is not True:
                yield f"{path}: {rule['message']}"
    if isinstance(value, dict):
        for name, inner in value.items():
            if (field := _of_field(schema, name)) is not None:
                old = before.get(name) if isinstance(before, dict) else None
                yield from _broken_rules(inner, old, field, f"{path}.{name}".lstrip("."))
    if isinstance(value, list):
        for inner in value:  # items have no counterpart in what was before
            yield from _broken_rules(inner, None, schema["items"], f"{path}[]")


@cache
def _program(rule: str) -> Any:
    return cel.compile(rule)


def _seen(value: Any) -> Any:
    """As rules see it: a field that is null is absent."""
    if isinstance(value, dict):
        return {name: _seen(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_seen(inner) for inner in value]
    return value
