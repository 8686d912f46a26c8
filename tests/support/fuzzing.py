"""How parsers are fuzzed: arbitrary bytes, damaged valid files, and JSON with values replaced.

`make test` runs a few examples of each, always the same ones. Many and new ones:

    HYPOTHESIS_PROFILE=fuzz .venv/bin/python -m pytest tests/fuzz

What holds for every parser: it gives a result or an `HdganError` (or, below those, the one error
its docstring names) with a message; it never raises anything else.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hdgan.core.errors import HdganError, KeyMissing
from hdgan.core.store import check_key
from hdgan.core.store_protocol import ObjectInfo

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"


def examples(few: int, many: int = 3000) -> settings:
    """Settings of a fuzzing test: `few` examples in `make test`."""
    return settings(
        max_examples=many if MANY else few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def survives(parse: Callable[[], Any], *allowed: type[Exception]) -> Any:
    """The result of a parser, or its error; any other exception than those allowed passes."""
    try:
        return parse()
    except Exception as raised:
        if not isinstance(raised, (HdganError, *allowed)):
            raise
        error = raised
    assert str(error).strip(), "an error without a message"
    return error


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid file with bytes changed, cut off, left out, repeated or put in."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(["flip", "set", "cut", "leave", "repeat", "insert", "number"]))
        if kind == "flip":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[place] = draw(st.sampled_from([0, 1, 9, 32, 127, 128, 254, 255]))
        elif kind == "cut":
            del data[place:]
        elif kind == "leave":
            del data[place : place + draw(st.integers(1, 64))]
        elif kind == "repeat":
            part = data[place : place + draw(st.integers(1, 64))]
            data[place:place] = part * draw(st.integers(1, 4))
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=16))
        else:
            size = draw(st.sampled_from([2, 4, 8]))
            value = draw(st.sampled_from([0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62]))
            order = draw(st.sampled_from(["little", "big"]))
            data[place : place + size] = (value % (1 << 8 * size)).to_bytes(
                size, "little" if order == "little" else "big"
            )
    return bytes(data)


def _nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


HOSTILE_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    10**23,
    0.5,
    -0.5,
    1e-300,
    1e308,
    -1e308,
    "",
    "0",
    "-1",
    "nan",
    "x" * 5000,
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "a\u0000b",
    "\u202e\u0007\u001b[2J",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "$\\frac{$",
    [],
    {},
    [None],
    [[]],
    [1, "a", None],
    {"": None},
    {"a": {"b": []}},
    _nested(40),
    _nested(60),
)


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    if isinstance(value, dict):
        for name in value:
            yield from _places(value[name], (*place, name))
    elif isinstance(value, list):
        for index in range(min(len(value), 3)):
            yield from _places(value[index], (*place, index))


@st.composite
def changed_json(draw: st.DrawFn, valid: Any) -> Any:
    """A document with some values replaced, left out, renamed or repeated."""
    document = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(_places(document))))
        if not place:
            if draw(st.integers(0, 9)) == 0:
                return draw(st.sampled_from(HOSTILE_VALUES))
            continue
        holder = document
        for part in place[:-1]:
            holder = holder[part]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "drop", "rename", "repeat"]))
        if kind == "replace":
            holder[place[-1]] = copy.deepcopy(draw(st.sampled_from(HOSTILE_VALUES)))
        elif kind == "drop":
            del holder[place[-1]]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(["", "extra", "a" * 300, "__class__"]))] = holder.pop(
                place[-1]
            )
        elif isinstance(holder, list):
            holder.insert(place[-1], copy.deepcopy(holder[place[-1]]))
    return document


def json_files(valid: Any) -> st.SearchStrategy[bytes]:
    """Bytes for a parser of JSON documents of one kind: rarely nonsense, mostly nearly right."""
    text = json.dumps(valid).encode()
    deep = b"[" * 100_000
    return st.one_of(
        changed_json(valid).map(lambda value: json.dumps(value).encode()),
        changed_json(valid).map(lambda value: json.dumps(value).encode()),
        damaged(text),
        st.binary(max_size=64),
        st.sampled_from(
            [deep, b'{"a":' * 50_000, b"9" * 100_000, b"\xff\xfe{}", b"NaN", b'"\\ud800"']
        ),
    )


class MemoryStore:
    """Objects in memory: what parsers that read from a store are fuzzed with."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})

    @property
    def uri(self) -> str:
        return "memory://store"

    def url(self, key: str) -> str:
        return f"{self.uri}/{check_key(key)}"

    def get(self, key: str) -> bytes:
        try:
            return self.objects[check_key(key)]
        except KeyError:
            raise KeyMissing(f"{self.url(key)}: there is no such object") from None

    def head(self, key: str) -> ObjectInfo | None:
        data = self.objects.get(check_key(key))
        now = datetime.now(UTC)
        return None if data is None else ObjectInfo(len(data), "etag", now)

    def get_to(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        path.write_bytes(self.get(key))

    def sha256(self, key: str) -> str:
        import hashlib

        return hashlib.sha256(self.get(key)).hexdigest()

    def put(self, key: str, data: bytes) -> None:
        self.objects[check_key(key)] = data

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self.objects.setdefault(check_key(key), data) is data

    def list(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in self.objects if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self.objects.pop(check_key(key), None)
