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
# The parts of a time, each with Go's name of it.
_TIME_PARTS = (
    (r"\d{4}", "2006"),
    ("-", "-"),
    (r"\d\d", "01"),
    ("-", "-"),
    (r"\d\d", "02"),
    ("T", "T"),
    (r"\d\d", "15"),
    (":", ":"),
    (r"\d\d", "04"),
    (":", ":"),
    (r"\d\d", "05"),
)
_MICRO_PART = (r"\.\d{6}", ".000000")
_FRACTION_PART = (r"(?:\.\d+)?", "")
_ZONE_PART = (r"(?:Z|[+-]\d\d:\d\d)", "Z07:00")
_QUANTITY = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|[eE][+-]?\d+)?$")
_QUANTITIES = ("limits", "requests", "capacity", "allocatable", "hard")
# Schemas in a schema, which the client's model leaves open.
_SCHEMAS = ("items", "additionalProperties")
_ZERO: dict[str, object] = {"str": "", "int": 0, "bool": False, "float": 0.0, "bytes": ""}
# Models whose missing fields are looked at with the values of the others.
_CHECKED_LATER = ("V1OwnerReference", "V1JobSpec")
# All other whole numbers have 32 bits.
_LONG = {
    "activeDeadlineSeconds",
    "deletionGracePeriodSeconds",
    "expirationSeconds",
    "fsGroup",
    "generation",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minItems",
    "minLength",
    "minProperties",
    "observedGeneration",
    "runAsGroup",
    "runAsUser",
    "supplementalGroups",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
}


class DecodeError(Exception):
    """The body cannot be an object of this kind."""


class WrongType(DecodeError):
    """A value is of another type than its field."""

    def __init__(self, value: object, place: str, wanted: str) -> None:
        kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
        found = kinds.get(type(value), "object")
        if found == "number" and wanted in ("int32", "int64"):
            found += f" {value}"
        field = re.sub(r"\[\d+\]", "", place)
        where = f"struct field {field}" if field else "value"
        super().__init__(f"json: cannot unmarshal {found} into Go {where} of type {wanted}")
        self._value = value
        self._wanted = wanted

    def converting(self) -> str:
        """What is said where the object does not come as text: after a strategic merge patch."""
        kinds = {bool: "bool", int: "int64", float: "float64", str: "string", list: "slice"}
        found = kinds.get(type(self._value), "map")
        if self._wanted.startswith("map["):
            return f"cannot restore map from {found}"
        if self._wanted.startswith("[]"):
            return f"cannot restore slice from {found}"
        if self._wanted.startswith("v1."):
            return f"cannot restore struct from: {found}"
        if self._wanted == "string" and found in ("int64", "float64"):
            return f"cannot convert {found} to string"
        return f"unrecognized type: {self._wanted}"


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
        raise WrongType(body, path, f"v1.{_go_name(model.name)}")
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
        elif not (path == "" and name == "metadata") and model.name not in _CHECKED_LATER:
            decoded.missing.append(required(here))
    return result


def _value(model: _Model, name: str, type_: str, value: object, path: str, decoded: Decoded) -> Any:
    if type_ == "datetime":
        return _time(value, f"{_go_name(model.name)}.{path}", micro=(model.name, name) in _MICRO)
    if model.name == "V1JSONSchemaProps" and type_ == "object" and name in _SCHEMAS:
        return _object(model, value, path, decoded) if isinstance(value, dict) else value
    if name in _QUANTITIES and type_ == "Dict[str, str]" and isinstance(value, dict):
        return {key: _quantity(one) for key, one in value.items()}
    return _typed(type_, value, path, decoded, f"{_go_name(model.name)}.{path}")


def _typed(type_: str, value: object, path: str, decoded: Decoded, place: str) -> Any:
    """`place`: the field's name in a message, `path` with the Go struct the field is in."""
    if type_.startswith("List["):
        if not isinstance(value, list):
            raise WrongType(value, place, _go_type(type_, place))
        inner = type_[5:-1]
        return [_typed(inner, one, f"{path}[{at}]", decoded, place) for at, one in enumerate(value)]
    if type_.startswith("Dict["):
        if not isinstance(value, dict):
            raise WrongType(value, place, _go_type(type_, place))
        inner = type_[5:-1].partition(", ")[2]
        return {
            key: _typed(inner, one, f"{path}.{key}", decoded, place) for key, one in value.items()
        }
    if value is None and type_ in _ZERO:
        # In a list or a map; a field that is null is left out.
        return _ZERO[type_]
    if type_ == "object":
        return value
    if type_ == "datetime":
        return _time(value, place, micro=False)
    if type_ == "bytes":
        return _base64(value, place)
    plain: Any = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(type_)
    if plain is None:
        if not isinstance(value, dict | None):
            raise WrongType(value, place, _go_type(type_, place))
        return _object(_model(type_), value or {}, path, decoded)
    if not isinstance(value, plain) or (isinstance(value, bool) and type_ != "bool"):
        raise WrongType(value, place, _go_type(type_, place))
    if type_ == "int":
        bits = 63 if _is_long(place) else 31
        if not -(2**bits) <= value < 2**bits:
            raise WrongType(value, place, _go_type(type_, place))
    return value


def _go_name(model: str) -> str:
    """The struct's name: the client puts a version, or a group and a version, before it."""
    return re.sub(r"^[A-Za-z]*?V1(?=[A-Z])", "", model)


def _go_type(type_: str, place: str) -> str:
    if type_.startswith("List["):
        return "[]" + _go_type(type_[5:-1], place)
    if type_.startswith("Dict["):
        return "map[string]" + _go_type(type_[5:-1].partition(", ")[2], place)
    if type_ == "int":
        return "int64" if _is_long(place) else "int32"
    plain = {"str": "string", "bool": "bool", "float": "float64", "bytes": "[]uint8"}
    return plain.get(type_) or f"v1.{_go_name(type_)}"


def _is_long(place: str) -> bool:
    return place.rpartition(".")[2] in _LONG


def _time(value: object, place: str, *, micro: bool) -> str:
    if not isinstance(value, str):
        raise WrongType(value, place, "string")
    said = f'parsing time "{value}"'
    form = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    rest = value
    for pattern, name in (*_TIME_PARTS, _MICRO_PART if micro else _FRACTION_PART, _ZONE_PART):
        found = re.match(pattern, rest)
        if found is None:
            raise DecodeError(f'{said} as "{form}": cannot parse "{rest}" as "{name}"')
        rest = rest[found.end() :]
    if rest:
        raise DecodeError(f'{said}: extra text: "{rest}"')
    try:
        when = datetime.fromisoformat(value[:19] + (value[19:26] if micro else "") + _zone(value))
    except ValueError as error:
        month = int(value[5:7])
        part = "month" if not 1 <= month <= 12 else "day" if int(value[11:13]) < 24 else "hour"
        raise DecodeError(f"{said}: {part} out of range") from error
    written = "%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ"
    return when.astimezone(UTC).strftime(written)


def _zone(value: str) -> str:
    return "+00:00" if value.endswith("Z") else value[-6:]


def _quantity(value: object) -> str:
    text = str(value) if isinstance(value, int | float | str) else ""
    if isinstance(value, bool) or not _QUANTITY.match(text):
        raise DecodeError(
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    return text


def _base64(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise WrongType(value, place, "[]uint8")
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error as error:
        strange = re.search(r"[^A-Za-z0-9+/]", value)
        where = strange.start() if strange else len(value)
        raise DecodeError(f"illegal base64 data at input byte {where}") from error
    return value
