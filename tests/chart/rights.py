"""What a program of the controller's package does at the API server, read off its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hdgan.controller.api as api

PACKAGE: Final = "hdgan.controller"
FOLDER: Final = Path(api.__file__).parent
COLLECTIONS: Final = {
    name: str(value)
    for name, value in vars(api).items()
    if name.isupper() and isinstance(value, str) and "{namespace}" in value
}
VERBS: Final = {
    "get": ["get"],
    "list": ["list"],
    "watch": ["watch"],
    "create": ["create"],
    "patch": ["patch"],
    "delete": ["delete"],
    "replace_status": ["update"],
    "Watched": ["list", "watch"],
}
"""By the function that is called with a collection."""
CLIENT: Final = {"read": "get", "create": "create", "replace": "update"}
"""By the beginning of a method of the official client."""

Right = tuple[str, str, str]
"""API group, resource and verb."""


def rights(program: str) -> set[Right]:
    """What the modules that `python -m hdgan.controller[.program]` imports do."""
    found: set[Right] = set()
    for module in _reachable(program):
        if module != "api":
            found |= set(_of_module(module))
    return found


def exists(program: str) -> bool:
    """Whether there is such a program."""
    return (FOLDER / f"{program}.py").is_file()


def _reachable(program: str) -> set[str]:
    found: set[str] = set()
    waiting = [program]
    while waiting:
        module = waiting.pop()
        if module not in found and exists(module):
            found.add(module)
            waiting += _imports(module)
    return found


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module == PACKAGE:
                yield from (one.name for one in node.names)
            elif node.module.startswith(f"{PACKAGE}."):
                yield node.module.removeprefix(f"{PACKAGE}.")


def _of_module(module: str) -> Iterator[Right]:
    calls: dict[ast.AST, ast.Call] = {}
    mentioned: list[ast.Attribute] = []
    passed: list[str] = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Attribute) and node.attr in COLLECTIONS:
            mentioned.append(node)
        if isinstance(node, ast.Call):
            for argument in node.args:
                if isinstance(argument, ast.Attribute) and argument.attr in COLLECTIONS:
                    calls[argument] = node
                if isinstance(argument, ast.Name) and argument.id == "collection":
                    passed += [_called(node)] if _called(node) in VERBS else []
            lease = re.fullmatch(r"([a-z]+)_namespaced_([a-z]+)", _called(node))
            if lease:
                assert lease[2] == "lease", f"{module}.py: {lease[0]} is of a group unknown here"
                yield "coordination.k8s.io", "leases", CLIENT[lease[1]]
    for node in mentioned:
        place = f"{module}.py:{node.lineno}"
        # One that is kept for later may meet whatever the module does with a variable.
        names = [_called(calls[node])] if node in calls else passed
        assert names, f"{place}: what is done with {node.attr} cannot be told"
        group, resource = _resource(COLLECTIONS[node.attr])
        for name in names:
            assert name in VERBS, f"{place}: {name} is no way of asking that is known here"
            status = "/status" if name == "replace_status" else ""
            for verb in VERBS[name]:
                yield group, f"{resource}{status}", verb


def _called(call: ast.Call) -> str:
    called = call.func
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _resource(path: str) -> tuple[str, str]:
    parts = path.split("/")
    return "" if parts[0] == "api" else parts[1], parts[-1]


def _tree(module: str) -> ast.Module:
    return ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
