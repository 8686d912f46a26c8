"""The reader of JSON against Python's own: takes no more than that, and what it takes is equal."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.json_documents import MAX_DEPTH, MAX_DIGITS, JsonError, parse_json, parse_object
from support.fuzzing import damaged, examples, survives

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(max_size=20),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=30,
)


def _levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, (dict, list))) + max(map(_levels, inner), default=0)


def _readable(value: Any) -> bool:
    """Whether our rules take what Python has made of a text."""
    if isinstance(value, dict):
        return all(map(_readable, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(_readable, value))
    if isinstance(value, str):
        return not any("\ud800" <= one <= "\udfff" for one in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or len(str(abs(value))) <= MAX_DIGITS


@examples(200)
@given(VALUES, st.booleans())
def test_what_is_valid_is_read_as_it_is(value: Any, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    if _readable(value):
        assert parse_json(text.encode()) == json.loads(text)
        assert parse_json(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)
    else:
        with pytest.raises(JsonError):
            parse_json(text.encode())


@examples(400)
@given(st.one_of(st.binary(max_size=40), VALUES.flatmap(lambda v: damaged(json.dumps(v).encode()))))
def test_nothing_else_is_ever_raised_and_no_more_is_taken(data: bytes) -> None:
    found = survives(lambda: parse_json(data), JsonError)
    if isinstance(found, JsonError):
        return
    assert found == json.loads(data)
    assert _readable(found)
    assert _levels(found) <= MAX_DEPTH


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 10**6])
@pytest.mark.parametrize(("start", "middle", "end"), [("[", "", "]"), ('{"a":', "1", "}")])
def test_the_number_of_levels_is_exact(levels: int, start: str, middle: str, end: str) -> None:
    text = start * levels + middle + end * levels
    if levels <= MAX_DEPTH:
        parse_json(text)
    else:
        with pytest.raises(JsonError, match=r"nested too deeply: at most 64"):
            parse_json(text)


@pytest.mark.parametrize("unit", ["{},", "[],", '{"a":0},', '"",', "0,"])
def test_memory_is_bounded_by_the_number_of_values(unit: str) -> None:
    """The same 20 MB of text: it is not what it weighs that counts."""
    most, text = 500_000, "[" + unit * (20_000_000 // len(unit)) + "0]"
    tracemalloc.start()
    try:
        with pytest.raises(JsonError, match=r"values, at most 500000 are read"):
            parse_json(text, max_values=most)
        refused = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused < 1_000_000
    marks = sum(unit.count(mark) for mark in ",:[{")
    allowed = "[" + unit * (most // marks - 2) + "0]"
    tracemalloc.start()
    try:
        parse_json(allowed, max_values=most)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most * 130


def test_an_object_is_asked_for() -> None:
    for text, kind in (("[]", "a list"), ("null", "null"), ("1", "a number"), ('""', "a text")):
        with pytest.raises(JsonError, match=f"it holds {kind}, not an object"):
            parse_object(text)
