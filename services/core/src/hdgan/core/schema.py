"""JSON schema and documentation of the run file, both generated from the model.

`python -m hdgan.core.schema docs/run-file.md` writes the page; with `--check` it only says whether
the page is up to date.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hdgan.core.run import API_VERSION, DatasetRun, RunSpec, Section

_HEAD = f"""# The run file

One YAML or JSON file says everything about a run; `hdgan run FILE` and Kubernetes read the same
document. Only `slides.uri` and `annotations.classes` have no default. A field that is null or
absent has its default; an unknown field is an error. Relative paths are relative to the file.

```yaml
apiVersion: {API_VERSION}
kind: DatasetRun
metadata:
  name: skin
spec:
  slides:
    uri: slides
  annotations:
    classes:
      - {{name: epidermis, color: "#7e3f98"}}
      - {{name: dermis, color: "#f4a6c0"}}
```

`hdgan schema` prints this format as JSON schema, for editors that complete and check while typing.
This page is generated from the program: edit the descriptions there.
"""


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the run file, names as in files."""
    schema = DatasetRun.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def markdown() -> str:
    """The page `docs/run-file.md`: one table for each section."""
    lines = [_HEAD, *_table("metadata", _model(DatasetRun, "metadata"))]
    plain: list[str] = []
    for name, field in RunSpec.model_fields.items():
        alias = field.alias or name
        model = _model_of(field.annotation)
        if model is None:
            plain.append(_row(alias, field))
        else:
            lines += _tables(alias, model)
    lines += ["## Directly under spec", "", *_HEADER, *plain, ""]
    return "\n".join(lines).rstrip() + "\n"


_HEADER = ["| Field | Type | Default | Meaning |", "|---|---|---|---|"]


def _tables(title: str, model: type[BaseModel]) -> Iterator[str]:
    """The table of a section and, after it, those of the sections in it."""
    yield from _table(title, model)
    inner = [
        (f"{title}.{field.alias}{'[]' if 'list' in str(field.annotation) else ''}", nested)
        for field in model.model_fields.values()
        if (nested := _model_of(field.annotation)) is not None
    ]
    # What several sections have in common is shown once.
    bases = [_base(nested) for _, nested in inner]
    common = {base for base in bases if bases.count(base) > 1}
    for base in sorted(common, key=bases.index):
        yield from _tables(f"{title}.*", base)
    for (place, nested), base in zip(inner, bases, strict=True):
        if base not in common:
            yield from _tables(place, nested)
        elif nested is not base:
            yield from _table(place, nested, without=frozenset(base.model_fields))


def _base(model: type[BaseModel]) -> type[BaseModel]:
    """The section whose fields a section only adds to, or the section itself."""
    (parent,) = model.__bases__
    return model if parent is Section else parent


def _table(
    title: str, model: type[BaseModel], without: frozenset[str] = frozenset()
) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield " ".join((model.__doc__ or "").split())
    yield ""
    yield from _HEADER
    for name, field in model.model_fields.items():
        if name not in without:
            yield _row(field.alias or name, field)
    yield ""


def _row(alias: str, field: FieldInfo) -> str:
    meaning = " ".join((field.description or "").split())
    cells = [f"`{alias}`", _type(field), _default(field), meaning]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value)}`"


def _type(field: FieldInfo) -> str:
    bounds = {
        sign: getattr(item, name)
        for item in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(item, name)
    }
    return ", ".join([_spelled(field.annotation), *(f"{s} {v}" for s, v in bounds.items())])


def _spelled(annotation: object) -> str:
    """A type in words a reader of YAML knows."""
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if annotation is JsonValue:
        return "any"
    if isinstance(annotation, type) and annotation in words:
        return words[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    arguments = get_args(annotation)
    if type(None) in arguments:
        return _spelled(next(part for part in arguments if part is not type(None)))
    if get_origin(annotation) is Annotated:
        return _spelled(arguments[0])
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        inner = _model_of(annotation)
        return "list of sections" if inner else f"list of {_spelled(arguments[0])}s"
    if origin is dict:
        return f"mapping of {_spelled(arguments[0])} to {_spelled(arguments[1])}"
    if arguments:
        return " or ".join(f"`{value}`" for value in arguments)
    raise TypeError(f"no words for {annotation!r}: add them to {__name__}")


def _model(parent: type[BaseModel], name: str) -> type[BaseModel]:
    model = _model_of(parent.model_fields[name].annotation)
    if model is None:
        raise TypeError(f"{parent.__name__}.{name} is not a section")
    return model


def _model_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_model_of, get_args(annotation)) if m), None)


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with --check compare it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hdgan.core.schema", description=__doc__)
    parser.add_argument("page", type=Path, help="the page, such as docs/run-file.md")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args(arguments)
    page: Path = options.page
    command = f"python -m hdgan.core.schema {page}"
    return write_generated(page, markdown(), command, check=options.check)


def write_generated(file: Path, text: str, command: str, *, check: bool) -> int:
    """Write a generated file; with `check` only compare it. Returns an exit code: 1 if it is stale,
    which is printed together with the command that writes it."""
    if check:
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            return 0
        print(f"{file} is stale: write it again with {command}")
        return 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
