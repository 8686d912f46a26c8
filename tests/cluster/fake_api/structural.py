"""Structural schemas of custom kinds: unknown fields, defaults and validation."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from datetime import datetime
from typing import Any

from cluster.fake_api import expressions
from cluster.fake_api.problems import (
    Cause,
    forbidden_field,
    required,
    too_long,
    too_many,
    unsupported,
    wrong,
)

Json = dict[str, Any]

_ALWAYS_KNOWN = ("apiVersion", "kind", "metadata")


def prune(value: Json, schema: Json) -> tuple[Json, list[str]]:
    """The object without fields the schema does not know, and the paths of those."""
    unknown: list[str] = []
    result = {name: value[name] for name in _ALWAYS_KNOWN if name in value}
    rest = {name: one for name, one in value.items() if name not in _ALWAYS_KNOWN}
    result |= _pruned(rest, schema, "", unknown)
    return result, sorted(unknown)


def _pruned(value: Any, schema: Json, path: str, unknown: list[str]) -> Any:
    if isinstance(value, list):
        items = schema.get("items")
        if items is None:
            return copy.deepcopy(value)
        return [_pruned(one, items, f"{path}[{at}]", unknown) for at, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    properties: Json = schema.get("properties", {})
    more = schema.get("additionalProperties")
    keep = schema.get("x-kubernetes-preserve-unknown-fields") or more is True
    result: Json = {}
    for name, one in value.items():
        here = f"{path}.{name}" if path else name
        if name in properties:
            result[name] = _pruned(one, properties[name], here, unknown)
        elif isinstance(more, dict):
            result[name] = _pruned(one, more, here, unknown)
        elif keep:
            result[name] = copy.deepcopy(one)
        else:
            unknown.append(here)
    return result


def fill_defaults(value: Any, schema: Json) -> None:
    """Drops nulls that are not allowed, and writes the schema's defaults into the object."""
    if isinstance(value, dict):
        properties: Json = schema.get("properties", {})
        more = schema.get("additionalProperties")
        for name, one in list(value.items()):
            inner = properties.get(name, more if isinstance(more, dict) else None)
            if one is None and inner is not None and not inner.get("nullable"):
                del value[name]
        for name, inner in properties.items():
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
        for name, one in value.items():
            inner = properties.get(name, more if isinstance(more, dict) else None)
            if inner is not None:
                fill_defaults(one, inner)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for one in value:
            fill_defaults(one, schema["items"])


# What keeps the rules from being looked at.
_BLOCKING = (
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
)
# A value that is not there.
_NONE = object()


def check(
    value: Json, schema: Json, old: Json | None, others: list[Cause], *, status: bool = False
) -> tuple[list[Cause], list[str]]:
    """All that the schema refuses, its rules included, and what it only warns of.

    `old` is the state before an update: what was wrong before and stays the same is not refused
    (ratcheting). `others`: what else is wrong with the object. Rules are only looked at when
    nothing is wrong that they could rely on. `status`: only that may have changed.
    """
    # metadata is checked elsewhere; the schema may only restrict its name.
    if status:
        causes = _check_status(value, schema, old)
    else:
        causes = _Check().run(value, schema, "", _NONE if old is None else old)
    if not rules_in(schema):
        return causes, []
    if any(cause.reason in _BLOCKING for cause in (*others, *causes)):
        why = (
            "some validation rules were not checked because the object was invalid; correct the "
            "existing errors to complete validation"
        )
        return [*causes, wrong("<nil>", None, why)], []
    rules = _Rules()
    rules.run(value, schema, "", _NONE if old is None else old, held=False)
    return causes + rules.causes, rules.warnings


def _check_status(value: Json, schema: Json, old: Json | None) -> list[Cause]:
    """The status alone. In the messages, paths begin in it."""
    inner = schema.get("properties", {}).get("status")
    if inner is None or "status" not in value:
        return []
    causes = _Check().run(value["status"], inner, "", _before(old, "status"))
    return [
        cause
        if cause.field == "<nil>"
        else replace(cause, field=f"status.{cause.field}".removesuffix("."))
        for cause in causes
    ]


def _same(value: Any, old: Any) -> bool:
    """Whether nothing has changed; in JSON, 1, 1.0 and true are three things."""
    return old is not _NONE and json.dumps(value, sort_keys=True) == json.dumps(old, sort_keys=True)


def _before(old: Any, name: str) -> Any:
    return old.get(name, _NONE) if isinstance(old, dict) else _NONE


class _Check:
    def run(self, value: Any, schema: Json, path: str, old: Any) -> list[Cause]:
        causes = self._all(value, schema, path, old)
        return [] if causes and _same(value, old) else causes

    def _all(self, value: Any, schema: Json, path: str, old: Any) -> list[Cause]:
        if value is None:
            if schema.get("nullable"):
                return []
            wanted = schema.get("type", "any")
            return [
                Cause(
                    path,
                    f'Invalid value: "null": {path} in body must be of type {wanted}: "null"',
                    "FieldValueTypeInvalid",
                )
            ]
        causes = self._type(value, schema, path)
        causes += self._plain(value, schema, path)
        if isinstance(value, dict):
            causes += self._object(value, schema, path, old)
        elif isinstance(value, list):
            causes += self._list(value, schema, path, old)
        causes += self._combined(value, schema, path)
        return causes

    def _type(self, value: Any, schema: Json, path: str) -> list[Cause]:
        if schema.get("x-kubernetes-int-or-string"):
            good = isinstance(value, int | str) and not isinstance(value, bool)
            wanted = "integer,string"
        else:
            wanted = schema.get("type", "")
            good = not wanted or _is_a(value, wanted)
        if good:
            return []
        found = _kind_of(value)
        return [
            Cause(
                path,
                f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"',
                "FieldValueTypeInvalid",
            )
        ]

    def _plain(self, value: Any, schema: Json, path: str) -> list[Cause]:
        causes = []
        if "enum" in schema and value not in schema["enum"]:
            causes.append(unsupported(path, value, [str(one) for one in schema["enum"]]))
        if isinstance(value, int | float) and not isinstance(value, bool):
            if schema.get("type") == "integer" and value % 1:
                why = f"Checked value must be of type integer (default format) in {path}"
                causes.append(wrong("<nil>", "", why))
            causes += _check_number(value, schema, path)
        if isinstance(value, str):
            causes += _check_text(value, schema, path)
        return causes

    def _object(self, value: Json, schema: Json, path: str, old: Any) -> list[Cause]:
        causes = _check_size(len(value), schema, path, "Properties")
        properties: Json = schema.get("properties", {})
        more = schema.get("additionalProperties")
        # Of several fields, the real server tells in any order.
        for name, one in value.items():
            here = f"{path}.{name}" if path else name
            if not path and name in _ALWAYS_KNOWN:
                continue
            if name in properties:
                causes += self.run(one, properties[name], here, _before(old, name))
            elif isinstance(more, dict):
                causes += self.run(one, more, here, _before(old, name))
        for name in schema.get("required", []):
            if name not in value:
                causes.append(required(f"{path}.{name}" if path else name))
        return causes

    def _list(self, value: list[Any], schema: Json, path: str, old: Any) -> list[Cause]:
        causes = []
        items = schema.get("items")
        if isinstance(items, dict):
            for at, one in enumerate(value):
                causes += self.run(one, items, f"{path}[{at}]", _partner(one, schema, old))
        causes += _check_size(len(value), schema, path, "Items")
        keys = schema.get("x-kubernetes-list-map-keys", [])
        kind = schema.get("x-kubernetes-list-type")
        if kind in ("set", "map"):
            seen: list[Any] = []
            for at, one in enumerate(value):
                key = one if kind == "set" else [one.get(name) for name in keys]
                if key in seen:
                    causes.append(
                        Cause(f"{path}[{at}]", f"Duplicate value: {key}", "FieldValueDuplicate")
                    )
                seen.append(key)
        return causes

    def _combined(self, value: Any, schema: Json, path: str) -> list[Cause]:
        causes = []
        for inner in schema.get("allOf", []):
            causes += self.run(value, inner, path, _NONE)
        any_of = schema.get("anyOf", [])
        if any_of and all(self.run(value, inner, path, _NONE) for inner in any_of):
            causes.append(
                wrong(path, "", f"{path} in body must validate at least one schema (anyOf)")
            )
        one_of = schema.get("oneOf", [])
        fits = [inner for inner in one_of if not self.run(value, inner, path, _NONE)]
        if one_of and len(fits) != 1:
            causes.append(
                wrong(path, "", f"{path} in body must validate one and only one schema (oneOf)")
            )
        if "not" in schema and not self.run(value, schema["not"], path, _NONE):
            causes.append(wrong(path, "", f"{path} in body must not validate the schema (not)"))
        return causes


def _is_a(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    kinds: dict[str, Any] = {
        "number": (int, float),
        "string": str,
        "object": dict,
        "array": list,
        "boolean": bool,
    }
    return isinstance(value, kinds[wanted])


def _kind_of(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _check_number(value: float, schema: Json, path: str) -> list[Cause]:
    causes = []
    if "minimum" in schema:
        least, open_ = schema["minimum"], schema.get("exclusiveMinimum")
        if value < least or (open_ and value == least):
            word = "greater than" if open_ else "greater than or equal to"
            causes.append(wrong(path, value, f"{path} in body should be {word} {least}"))
    if "maximum" in schema:
        most, open_ = schema["maximum"], schema.get("exclusiveMaximum")
        if value > most or (open_ and value == most):
            word = "less than" if open_ else "less than or equal to"
            causes.append(wrong(path, value, f"{path} in body should be {word} {most}"))
    step = schema.get("multipleOf")
    if step and (value / step) % 1:
        causes.append(wrong(path, value, f"{path} in body should be a multiple of {step}"))
    bounds = {"int32": 2**31, "int64": 2**63}.get(schema.get("format", ""))
    if bounds is not None and not -bounds <= value < bounds:
        causes.append(wrong(path, value, f"{path} in body must be of type {schema['format']}"))
    return causes


def _check_text(value: str, schema: Json, path: str) -> list[Cause]:
    causes = []
    if len(value) > schema.get("maxLength", len(value)):
        most = schema["maxLength"]
        causes.append(too_long(path, most))
    if len(value) < schema.get("minLength", 0):
        least = schema["minLength"]
        causes.append(wrong(path, value, f"{path} in body should be at least {least} chars long"))
    pattern = schema.get("pattern")
    if pattern is not None and not re.search(pattern, value):
        causes.append(wrong(path, value, f"{path} in body should match '{pattern}'"))
    if schema.get("format") == "date-time":
        try:
            datetime.fromisoformat(value)
        except ValueError:
            causes.append(wrong(path, value, f"{path} in body must be of type date-time"))
    return causes


def _check_size(size: int, schema: Json, path: str, what: str) -> list[Cause]:
    causes = []
    if size > schema.get(f"max{what}", size):
        most = schema[f"max{what}"]
        causes.append(too_many(path, size, most))
    if size < schema.get(f"min{what}", 0):
        least = schema[f"min{what}"]
        causes.append(
            wrong(path, size, f"{path} in body should have at least {least} {what.lower()}")
        )
    return causes


class _Rules:
    """What the rules of a schema say of an object."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []
        self.warnings: list[str] = []

    def run(self, value: Any, schema: Json, path: str, old: Any, *, held: bool) -> None:
        """`held`: a part of the object around this one is as it was."""
        if value is None:
            return
        held = held or _same(value, old)
        for rule in schema.get("x-kubernetes-validations", []):
            self._rule(rule, value, schema, path, old, held=held)
        if isinstance(value, dict):
            more = schema.get("additionalProperties")
            for name, one in value.items():
                inner = schema.get("properties", {}).get(
                    name, more if isinstance(more, dict) else None
                )
                if inner is not None:
                    here = f"{path}.{name}" if path else name
                    self.run(one, inner, here, _before(old, name), held=held)
        elif isinstance(value, list) and isinstance(schema.get("items"), dict):
            for at, one in enumerate(value):
                partner = _partner(one, schema, old)
                self.run(one, schema["items"], f"{path}[{at}]", partner, held=held)

    def _rule(
        self, rule: Json, value: Any, schema: Json, path: str, old: Any, *, held: bool
    ) -> None:
        said = (rule.get("message") or rule["rule"]).strip()
        try:
            before = None if old is _NONE else _numbers(old, schema)
            good = expressions.holds(rule["rule"], _numbers(value, schema), before)
        except expressions.Unanswerable as error:
            why = f"{error} evaluating rule: {said}"
            self.causes.append(wrong(path or "<nil>", schema.get("type"), why))
            return
        if good:
            return
        where = path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "")[1:]
        if "message" not in rule:
            said = f"failed rule: {said}"
        cause = _refusal(where or "<nil>", value, said, rule.get("reason", "FieldValueInvalid"))
        if held and not expressions.about_change(rule["rule"]):
            self.warnings.append(cause.line())
        else:
            self.causes.append(cause)


def _refusal(path: str, value: Any, said: str, reason: str) -> Cause:
    if reason == "FieldValueRequired":
        return required(path, said)
    if reason == "FieldValueForbidden":
        return forbidden_field(path, said)
    if reason == "FieldValueDuplicate":
        return Cause(path, f"Duplicate value: {json.dumps(value)}", reason)
    if isinstance(value, dict | list):
        return Cause(path, f"Invalid value: {said}")
    return wrong(path, value, said)


def _numbers(value: Any, schema: Json) -> Any:
    """The value as rules see it."""
    if isinstance(value, float) and schema.get("type") == "integer":
        return expressions.NotWhole(value)
    if isinstance(value, dict):
        properties: Json = schema.get("properties", {})
        more = schema.get("additionalProperties")
        rest: Json = more if isinstance(more, dict) else {}
        return {name: _numbers(one, properties.get(name, rest)) for name, one in value.items()}
    if isinstance(value, list):
        items: Json = schema.get("items") or {}
        return [_numbers(one, items) for one in value]
    return value


def _partner(item: Any, schema: Json, old: Any) -> Any:
    """The item before the update: only items of a list with keys can be told apart."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if not keys or not isinstance(old, list):
        return _NONE
    if not isinstance(item, dict):
        return _NONE
    wanted = [item.get(key) for key in keys]
    return next((one for one in old if [one.get(key) for key in keys] == wanted), _NONE)


def rules_in(schema: Json) -> list[str]:
    """Every rule of a schema."""
    found = [rule["rule"] for rule in schema.get("x-kubernetes-validations", [])]
    inner = [*schema.get("properties", {}).values()]
    inner += [schema[name] for name in ("items", "additionalProperties") if name in schema]
    for one in inner:
        if isinstance(one, dict):
            found += rules_in(one)
    return found
