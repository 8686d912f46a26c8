"""Reads the body of a built-in kind as the server's typed decoder does.

The official client's models say which fields there are and of which type; their own parser is not
used, as it also takes Python's spelling of the names.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from kubernetes import client

from cluster.fake_api.problems import Cause, required

Json = dict[str, Any]

# Times with exactly six digits after the point; all others lose what is below a second.
_MICRO = {
    ("V1LeaseSpec", "acquireTime"),
    ("V1LeaseSpec", "renewTime"),
    ("CoreV1Event", "eventTime"),
    ("EventsV1Event", "eventTime"),
    ("CoreV1EventSeries", "lastObservedTime"),
    ("EventsV1EventSeries", "lastObservedTime"),
}
_MICRO_TEXT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$")
_TIME_TEXT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
_QUANTITY = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|[eE][+-]?\d+)?$")
_QUANTITIES = ("limits", "requests", "capacity", "allocatable", "hard")
# Schemas in a schema, which the client's model leaves open.
_SCHEMAS = ("items", "additionalProperties")
_ZERO: dict[str, object] = {"str": "", "int": 0, "bool": False, "float": 0.0}


class DecodeError(Exception):
    """The body cannot be an object of this kind."""


@dataclass
class Decoded:
    """An object with only known fields; what was unknown, and what is missing."""

    value: Json
    unknown: list[str] = field(default_factory=list)
    missing: list[Cause] = field(default_factory=list)


@dataclass(frozen=True)
class _Model:
    name: str
    # JSON name -> type as the client writes it, and whether it must be there.
    fields: dict[str, str]
    required: frozenset[str]


@cache
def _model(name: str) -> _Model:
    model: Any = getattr(client, name)
    names: dict[str, str] = model.attribute_map
    return _Model(
        name,
        {names[own]: type_ for own, type_ in model.openapi_types.items()},
        frozenset(
            names[own]
            for own, info in model.model_fields.items()
            if own in names and info.is_required()
        ),
    )


def decode(model: str, body: Json) -> Decoded:
    """The object as the server keeps it. Raises `DecodeError` for a value of the wrong type."""
    decoded = Decoded({})
    decoded.value = _object(_model(model), body, "", decoded)
    return decoded


def _object(model: _Model, body: object, path: str, decoded: Decoded) -> Json:
    if not isinstance(body, dict):
        raise DecodeError(_mismatch(body, path, model.name))
    result: Json = {}
    for name, value in body.items():
        here = f"{path}.{name}" if path else name
        if name not in model.fields:
            decoded.unknown.append(here)
        elif value is not None:
            result[name] = _value(model, name, model.fields[name], value, here, decoded)
    for name in sorted(model.required - result.keys()):
        here = f"{path}.{name}" if path else name
        if path.split(".")[0] == "status":
            # Go writes the zero value of a field without omitempty.
            zero = _ZERO.get(model.fields[name])
            if zero is not None:
                result[name] = zero
        elif not (path == "" and name == "metadata"):
            decoded.missing.append(required(here))
    return result


def _value(model: _Model, name: str, type_: str, value: object, path: str, decoded: Decoded) -> Any:
    if type_ == "datetime":
        return _time(value, path, micro=(model.name, name) in _MICRO)
    if model.name == "V1JSONSchemaProps" and type_ == "object" and name in _SCHEMAS:
        return _object(model, value, path, decoded) if isinstance(value, dict) else value
    if name in _QUANTITIES and type_ == "Dict[str, str]" and isinstance(value, dict):
        return {key: _quantity(one, f"{path}.{key}") for key, one in value.items()}
    return _typed(type_, value, path, decoded)


def _typed(type_: str, value: object, path: str, decoded: Decoded) -> Any:
    if type_.startswith("List["):
        if not isinstance(value, list):
            raise DecodeError(_mismatch(value, path, "array"))
        inner = type_[5:-1]
        return [_typed(inner, one, f"{path}[{at}]", decoded) for at, one in enumerate(value)]
    if type_.startswith("Dict["):
        if not isinstance(value, dict):
            raise DecodeError(_mismatch(value, path, "map"))
        inner = type_[5:-1].partition(", ")[2]
        return {
            key: _typed(inner, one, f"{path}.{key}", decoded)
            for key, one in value.items()
            if one is not None
        }
    if type_ == "object":
        return value
    if type_ == "datetime":
        return _time(value, path, micro=False)
    if type_ == "bytes":
        return _base64(value, path)
    plain: Any = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(type_)
    if plain is None:
        return _object(_model(type_), value, path, decoded)
    if not isinstance(value, plain) or (isinstance(value, bool) and type_ != "bool"):
        raise DecodeError(_mismatch(value, path, {"str": "string"}.get(type_, type_)))
    return value


def _mismatch(value: object, path: str, wanted: str) -> str:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    found = kinds.get(type(value), "object")
    return f"json: cannot unmarshal {found} into Go struct field {path} of type {wanted}"


def _time(value: object, path: str, *, micro: bool) -> str:
    if not isinstance(value, str):
        raise DecodeError(_mismatch(value, path, "Time"))
    if micro and not _MICRO_TEXT.match(value):
        raise DecodeError(
            f'parsing time "{value}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse {path}'
        )
    if not _TIME_TEXT.match(value):
        raise DecodeError(f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": {path}')
    when = datetime.fromisoformat(value[:19] + (value[19:26] if micro else "") + _zone(value))
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ"
    return when.astimezone(UTC).strftime(form)


def _zone(value: str) -> str:
    return "+00:00" if value.endswith("Z") else value[-6:]


def _quantity(value: object, path: str) -> str:
    text = str(value) if isinstance(value, int | float | str) else ""
    if isinstance(value, bool) or not _QUANTITY.match(text):
        raise DecodeError(
            f"quantities must match the regular expression "
            f"'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {path}"
        )
    return text


def _base64(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise DecodeError(_mismatch(value, path, "bytes"))
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise DecodeError(f"illegal base64 data: {path}") from error
    return value
