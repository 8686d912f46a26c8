"""Reads the text of a run file into plain values: bounded, no surprises of YAML 1.1, no aliases, no
tags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hdgan.core.bounded_reading import TooLarge, read_file
from hdgan.core.errors import RequestError
from hdgan.core.json_documents import MAX_DEPTH, parse_json

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
"""Values and names that a YAML file may have: PyYAML takes half a minute for a megabyte of them."""


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of the 1.2 core schema: `1e-4` is a number, `no` and dates are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    depth = 0
    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        try:
            return self._compose_node(parent, index)
        finally:
            self.depth -= 1

    def _compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise yaml.composer.ComposerError(
                None,
                None,
                f"more than {MAX_NODES} values and names: this is not a run file",
                self.get_mark(),
            )
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(
                None,
                None,
                f"nested too deeply: at most {MAX_DEPTH} levels are read",
                self.get_mark(),
            )
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not supported in run files", mark
            )
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(
                None,
                None,
                f"tags ({event.tag}) are not supported in run files; put quotes around texts",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            name = str(key_node.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is given twice", key_node.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)), 10)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)))


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]{1,30}$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def parse_document(path: Path) -> object:
    """The one document in a YAML or (suffix `.json`) JSON file. RequestError says what is wrong
    where."""
    try:
        raw = read_file(path, MAX_BYTES)
    except TooLarge:
        raise RequestError(
            f"{path}: larger than {MAX_BYTES} bytes: this is not a run file"
        ) from None
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file; give the path of a run file") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    try:
        document = parse_json(text) if path.suffix.lower() == ".json" else _parse_yaml(text)
        _refuse_unusable_text(document)
        return document
    except (yaml.YAMLError, ValueError) as error:
        raise RequestError(f"{path}: {_where(error)}") from None
    except RecursionError:
        raise RequestError(f"{path}: nested too deeply: this is not a run file") from None


def _parse_yaml(text: str) -> object:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _refuse_unusable_text(value: object) -> None:
    """ValueError for text that escapes brought in and that can be no name, path or URI."""
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_unusable_text(name)
            _refuse_unusable_text(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_unusable_text(item)
    elif isinstance(value, str) and re.search("[\x00\ud800-\udfff]", value):
        shortened = value if len(value) <= 80 else f"{value[:77]}..."
        raise ValueError(
            f"{shortened!a} contains a NUL or half a surrogate pair: correct its escapes"
        )


def _where(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"{place}{error.problem or error.context}"
    if isinstance(error, yaml.reader.ReaderError):
        return (
            f"character {error.position} is U+{error.character:04X}, which no text has: save it as"
            " UTF-8"
        )
    return " ".join(str(error).split())
