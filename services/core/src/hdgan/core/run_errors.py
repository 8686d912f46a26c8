"""Turns pydantic's validation errors into lines a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_LINES = 20
_BOUNDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """One line per problem: source, dotted path in file names, the wrong value, what is allowed."""
    details = error.errors(include_url=False)
    lines = [f"{source}: {_line(detail, model)}" for detail in details[:MAX_LINES]]
    if len(details) > MAX_LINES:
        lines.append(f"{source}: and {len(details) - MAX_LINES} more problems")
    return "\n".join(lines)


def dotted(location: Sequence[int | str]) -> str:
    """`("spec", "classes", 0, "name")` as `spec.classes[0].name`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # A name with a line break in it must not begin a line of its own.
            name = part if part.isprintable() and len(part) <= 80 else shown(part)
            text += f".{name}" if text else name
    return text or "document"


def shown(value: object) -> str:
    """A value for a message, shortened: what was wrong must be seen, not all of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _line(detail: ErrorDetails, root: type[BaseModel]) -> str:
    location = detail["loc"]
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    path = dotted(location)
    if kind == "extra_forbidden":
        return f"{path}: unknown field{_suggestion(location, root)}"
    if kind == "missing":
        return f"{path}: required, but not given{_missing_hint(location)}"
    if kind == "value_error":
        reason = str(context.get("error", detail["msg"]))
        given = "" if isinstance(value, dict | BaseModel) else f"{shown(value)}: "
        return f"{path}: {given}{reason}"
    if kind == "literal_error":
        return f"{path}: {shown(value)} is not allowed; use {context.get('expected')}"
    if kind == "model_type":
        return f"{path}: {shown(value)} is not allowed; must be a mapping of fields"
    message = detail["msg"].removeprefix("Input should be ")
    message = message[:1].lower() + message[1:]
    bounds = _bounds(location, root)
    if not bounds:
        allowed = message
    elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        allowed = bounds
    else:
        allowed = f"{message}, {bounds}"
    return f"{path}: {shown(value)} is not allowed; must be {allowed}"


def _bounds(location: Sequence[int | str], root: type[BaseModel]) -> str:
    """`at least 1 and at most 11` for a bounded number: one error teaches the whole range."""
    model = _model_at(location[:-1], root)
    name = _field_name(model, location[-1]) if model and location else None
    if model is None or name is None:
        return ""
    found: dict[str, Any] = {}
    for item in model.model_fields[name].metadata:
        found.update({key: getattr(item, key) for key in _BOUNDS if hasattr(item, key)})
    return " and ".join(f"{_BOUNDS[key]} {value}" for key, value in found.items())


def _missing_hint(location: Sequence[int | str]) -> str:
    if location and location[-1] == "color":
        return ' (in YAML a colour needs quotes, color: "#aa3355", because # starts a comment)'
    return ""


def _suggestion(location: Sequence[int | str], root: type[BaseModel]) -> str:
    model = _model_at(location[:-1], root)
    if model is None:
        return ""
    names = [field.alias or name for name, field in model.model_fields.items()]
    wanted = str(location[-1])
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(wanted.replace("_", "").lower(), list(lowered), n=1)
    if close:
        return f"; did you mean {lowered[close[0]]}?"
    return f"; allowed here: {', '.join(names)}"


def _field_name(model: type[BaseModel], alias: int | str) -> str | None:
    for name, field in model.model_fields.items():
        if alias in (name, field.alias):
            return name
    return None


def _model_at(location: Sequence[int | str], root: type[BaseModel]) -> type[BaseModel] | None:
    """The model that holds what `location` names, or None where the path leaves the models."""
    model: type[BaseModel] | None = root
    for part in location:
        if isinstance(part, int):
            continue
        name = _field_name(model, part) if model else None
        if model is None or name is None:
            return None
        model = _model_in(model.model_fields[name].annotation)
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
