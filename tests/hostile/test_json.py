"""Hostile JSON, each with the message it must produce."""

from __future__ import annotations

import pytest

from hdgan.core.json_documents import JsonError, parse_json, parse_model
from hdgan.core.request import InputRef

CASES = {
    "a hundred thousand levels": (b"[" * 100_000, "nested too deeply: at most 64 levels"),
    "as many, closed": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply: at most 64 levels"),
    "levels of objects": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
    "a million digits": (b"9" * 1_000_000, "a number of 1000000 digits, at most 24"),
    "4000 digits, which Python reads": (b"[" + b"9" * 4000 + b"]", "a number of 4000 digits"),
    "a number beyond floats": (b"[1e999]", "the number 1e999 is too large"),
    "NaN": (b"[NaN]", "NaN is not a number JSON knows"),
    "minus infinity": (b"[-Infinity]", "-Infinity is not a number JSON knows"),
    "half a surrogate pair": (b'["\\ud800"]', r"the text '\\ud800' has half a surrogate pair"),
    "the same as a name": (b'{"\\udfff": 1}', "half a surrogate pair"),
    "a name twice": (b'{"a": 1, "b": 2, "a": 3}', "'a' is given twice"),
    "a name twice, written differently": (b'{"a": 1, "\\u0061": 3}', "'a' is given twice"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), r"not UTF-8 text \(byte 0\)"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-be"), "line 1, column 1"),
    "Latin 1": ('"é"'.encode("latin-1"), r"not UTF-8 text \(byte 1\)"),
    "surrogates in UTF-8": (b'"\xed\xa0\x80"', r"not UTF-8 text \(byte 1\)"),
    "a second document": (b"{} {}", "line 1, column 4: Extra data"),
    "cut off": (b'{"a": [1,\n 2', "line 2, column 3"),
    "nothing": (b"", "line 1, column 1"),
    "a comment": (b"{} // x", "Extra data"),
    "a single quote": (b"{'a': 1}", "line 1, column 2"),
    "too many values": (b"[" + b"0," * 5_000_000 + b"0]", "values, at most 5000000"),
    "too many bytes": (b'"' + b"x" * (64 << 20) + b'"', "bytes, at most 67108864"),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_json_is_refused_with_its_reason(case: str) -> None:
    data, message = CASES[case]
    with pytest.raises(JsonError, match=message):
        parse_json(data)
    with pytest.raises(JsonError, match=message):
        parse_model(InputRef, data)


def test_a_byte_order_mark_is_no_harm() -> None:
    text = b'\xef\xbb\xbf{"stage": "tiler", "key": "%s", "contentDigest": "%s"}'
    text %= (b"a" * 64, b"b" * 64)
    assert parse_json(text)["stage"] == "tiler"
    assert parse_model(InputRef, text).stage == "tiler"


def test_logs_of_a_training_that_diverged_are_read() -> None:
    (value,) = parse_json(b"[NaN]", nan=True)
    assert value != value
    assert parse_json(b"[-Infinity, 1e999]", nan=True) == [float("-inf"), float("inf")]
