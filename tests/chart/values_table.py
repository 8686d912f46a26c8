"""Makes the tables of the chart's README: of the comments in `values.yaml`, and of the models that
values are passed on to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from chart.values_schema import Schema

MARK: Final = "# -- "
BEGIN: Final = "<!-- Written by make chart-files: values -->"
END: Final = "<!-- end -->"
LONGEST: Final = 48
"""Characters of a default in the table."""
NULL: Final = re.compile(r" Null: the installation's value( \(`[^`]*`\))?\.")
"""What the model says of fields of a run; these here are the installation's values."""


def values_table(file: Path) -> Iterator[str]:
    """A row for each commented value."""
    text = file.read_text(encoding="utf-8")
    yield "| Value | Default | Meaning |"
    yield "|---|---|---|"
    for path, node, words in commented(text):
        default = json.dumps(yaml.safe_load(yaml.serialize(node)))
        shown = "see values.yaml" if len(default) > LONGEST else f"`{default}`"
        yield f"| `{path}` | {shown} | {_cell(words)} |"


def commented(text: str) -> Iterator[tuple[str, yaml.Node, str]]:
    """Path, value and words of each value with a comment of its own."""
    lines = text.splitlines()
    for path, key, value in _values(yaml.compose(text), ""):
        words = _words(lines[: key.start_mark.line])
        if words:
            yield path, value, words


def uncommented(text: str) -> list[str]:
    """Paths of values that neither they nor what they are in has words for."""
    told = {path for path, _, _ in commented(text)}
    missing = []
    for path, _, value in _values(yaml.compose(text), ""):
        parts = path.split(".")
        above = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
        inner = isinstance(value, yaml.MappingNode) and value.value
        if not (told & above or inner):
            missing.append(path)
    return missing


def _values(node: Any, path: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        inner = f"{path}.{key.value}".lstrip(".")
        yield inner, key, value
        yield from _values(value, inner)


def _words(before: list[str]) -> str:
    """What the comment directly above says."""
    comment: list[str] = []
    for line in reversed(before):
        if not line.lstrip().startswith("#"):
            break
        comment.insert(0, line.strip())
        if line.lstrip().startswith(MARK):
            first = comment[0].removeprefix(MARK)
            return " ".join([first, *(one.removeprefix("#").strip() for one in comment[1:])])
    return ""


def model_table(schema: Schema, whole: Schema) -> Iterator[str]:
    """A row for each field of an object in the schema of the values."""
    fields = list(_fields(schema, whole, ""))
    defaults = any("default" in field for _, field in fields)
    yield "| Field | Default | Meaning |" if defaults else "| Field | Meaning |"
    yield "|---|---|---|" if defaults else "|---|---|"
    for name, field in fields:
        default = f"`{json.dumps(field['default'])}` | " if "default" in field else " | "
        words = _cell(field.get("description") or "As in a pod's spec.")
        yield f"| `{name}` | {default if defaults else ''}{NULL.sub('', words)} |"


def _fields(schema: Schema, whole: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Fields, those of sections in it one by one."""
    for name, field in schema["properties"].items():
        section = whole["definitions"].get(field.get("$ref", "").rpartition("/")[2], field)
        if section.get("properties") and name != "affinity":
            yield from _fields(section, whole, f"{path}{name}.")
        else:
            yield f"{path}{name}", field


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def tables(values: Path, schema: Schema) -> dict[str, str]:
    """The tables by the name that is in the marks around them."""
    made = {
        "values": values_table(values),
        "stores": model_table(schema["definitions"]["Store"], schema),
        "allow": model_table(schema["definitions"]["Allow"], schema),
        "pods": model_table(schema["definitions"]["StagePod"], schema),
        "settings": model_table(schema["properties"]["settings"], schema),
    }
    return {name: "\n".join(rows) for name, rows in made.items()}


def filled(page: str, made: dict[str, str]) -> str:
    """The page with the tables between their marks."""
    for name, table in made.items():
        begin = BEGIN.replace("values -->", f"{name} -->")
        before, found, rest = page.partition(begin)
        _, end, after = rest.partition(END)
        if not (found and end):
            raise ValueError(f"the page has no {begin} ... {END}")
        page = f"{before}{begin}\n\n{table}\n\n{END}{after}"
    return page
