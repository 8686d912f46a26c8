"""Merge patch (RFC 7386), JSON patch (RFC 6902), and what we need of strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

from cluster.fake_api.problems import Problem, go_text, unpatchable

Json = dict[str, Any]

# Lists that strategic merge patch merges by a key of their items.
_MERGE_KEYS = {
    "ownerReferences": "uid",
    "conditions": "type",
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
# Lists of plain values that it unites.
_UNITED = ("finalizers",)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def strategic(target: Any, patch: Any) -> Any:
    """Merge patch, with the lists above merged instead of replaced."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            listed = name.partition("/")[2]
            result[listed] = [one for one in result.get(listed, []) if one not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            result.pop(name, None)
        elif name in _MERGE_KEYS and isinstance(value, list):
            result[name] = _merged_list(result.get(name) or [], value, _MERGE_KEYS[name])
        elif name in _UNITED and isinstance(value, list):
            had = result.get(name) or []
            result[name] = _in_order(had, [one for one in had if one not in value], value)
        else:
            result[name] = strategic(result.get(name), value)
    return result


def _merged_list(had: list[Json], patch: list[Json], key: str) -> list[Json]:
    if any(one.get("$patch") == "replace" for one in patch):
        return [copy.deepcopy(one) for one in patch if "$patch" not in one]
    for item in patch:
        if key not in item:
            said = f"map: {go_text(item)} does not contain declared merge key: {key}"
            raise Problem(500, said, reason="")
    were = {one.get(key): one for one in had}
    gone = [item[key] for item in patch if item.get("$patch") == "delete"]
    named = [item for item in patch if item.get("$patch") != "delete"]
    now = {item[key]: strategic(were.get(item[key]), item) for item in named}
    kept = [one for one in were if one not in now and one not in gone]
    order = _in_order([*were], kept, [*now])
    return [now[one] if one in now else were[one] for one in order]


def _in_order(was: list[Any], kept: list[Any], named: list[Any]) -> list[Any]:
    """Two lists as one, as Kubernetes orders them: where `was` has both items, it decides which is
    first; in all other cases what the patch has named goes before what is kept."""
    left, right = list(kept), list(dict.fromkeys(named))
    result = []
    while left and right:
        first = left[0] in was and right[0] in was and was.index(left[0]) < was.index(right[0])
        result.append((left if first else right).pop(0))
    return result + left + right


def json_patch(target: Json, operations: list[Json]) -> Any:
    """RFC 6902. Raises `Problem` 422 when an operation cannot be done, a failed test too."""
    document: Any = {"": copy.deepcopy(target)}
    for operation in operations:
        try:
            _apply(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise unpatchable(
                "the server rejected our request due to an error in our request"
            ) from error
    return document[""]


def _apply(document: Any, operation: Json) -> None:
    what, path = operation["op"], _pointer(operation["path"])
    if what == "test":
        if _at(document, path) != operation["value"]:
            raise ValueError(f"test of {operation['path']} failed")
    elif what == "add":
        _add(document, path, operation["value"])
    elif what == "remove":
        _remove(document, path)
    elif what == "replace":
        # A field that is not there is no mistake here.
        if isinstance(_at(document, path[:-1]), list):
            _remove(document, path)
        _add(document, path, operation["value"])
    elif what == "move":
        value = _at(document, _pointer(operation["from"]))
        _remove(document, _pointer(operation["from"]))
        _add(document, path, value)
    elif what == "copy":
        _add(document, path, copy.deepcopy(_at(document, _pointer(operation["from"]))))
    else:
        raise ValueError(f"no operation {what}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")]


def _at(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _add(document: Any, path: list[str], value: Any) -> None:
    parent, last = _at(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        place = len(parent) if last == "-" else int(last)
        if not 0 <= place <= len(parent):
            raise IndexError(last)
        parent.insert(place, copy.deepcopy(value))
    else:
        parent[last] = copy.deepcopy(value)


def _remove(document: Any, path: list[str]) -> None:
    parent, last = _at(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[int(last)]
    else:
        del parent[last]
