"""Hostile run files, each with the message it must produce."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hdgan.core.errors import RequestError
from hdgan.core.run_file import parse_document

LAUGHS = b"a: &a [x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c]\n" % (one + 1, one + 1, one, one, one, one)
    for one in range(97, 120)
)
CASES = {
    "billion laughs": (LAUGHS, r"line 2, column 11: aliases \(\*name\) are not supported"),
    "an anchor to itself": (b"&a [*a]", r"aliases \(\*name\) are not supported"),
    "a call": (b"a: !!python/object/apply:os.system [id]", r"tags \(tag:yaml.org,2002:python/obj"),
    "a module": (b"!!python/module:os ''", "tags .* are not supported"),
    "a new object": (b"!!python/object/new:os.system [id]", "tags .* are not supported"),
    "a tag of its own": (b"!x {a: 1}", r"tags \(!x\) are not supported"),
    "a binary": (b"a: !!binary aGk=", "tags .* are not supported"),
    "a set": (b"!!set {a, b}", "tags .* are not supported"),
    "a name twice": (b"a: 1\nb: 2\na: 3", "line 3, column 1: 'a' is given twice"),
    "a name twice, in flow": (b"{a: 1, 'a': 2}", "line 1, column 8: 'a' is given twice"),
    "levels of lists": (b"[" * 500, "nested too deeply: at most 64 levels"),
    "levels of dashes": (b"- " * 5000, "nested too deeply: at most 64 levels"),
    "levels of names": (b"{a: " * 5000, "nested too deeply: at most 64 levels"),
    "levels of questions": (b"? " * 5000, "nested too deeply: at most 64 levels"),
    "a list as a name": (b"? [a, b]\n: 1", "unhashable"),
    "two documents": (b"a: 1\n---\nb: 2", "another document"),
    "no text": (b"a: \x00", r"special characters are not allowed|unacceptable character"),
    "UTF-16": ("a: 1".encode("utf-16"), r"not UTF-8 text \(byte 0\)"),
    "a quote never closed": (b'a: "' + b"x" * 1000, "found unexpected end of stream"),
    "half a surrogate pair": (b'a: "\\ud800"', r"contains a NUL or half a surrogate pair"),
    "a NUL in quotes": (b'a: "b\\0c"', r"contains a NUL or half a surrogate pair"),
    "more than a megabyte": (b"a: " + b"x" * (1 << 20), "larger than 1048576 bytes"),
    "a directive": (b"%YAML 2.0\n---\na: 1", "incompatible YAML document"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_run_file_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    data, message = CASES[case]
    place = tmp_path / "run.yaml"
    place.write_bytes(data)
    with pytest.raises(RequestError, match=message) as error:
        parse_document(place)
    assert str(error.value).startswith(f"{place}: ")
    assert len(str(error.value)) < 500


def test_what_yaml_1_1_would_make_of_it_stays_text(tmp_path: Path) -> None:
    place = tmp_path / "run.yaml"
    place.write_text("a: no\nb: 2001-01-01\nc: 0o17\nd: 1:30\ne: .inf\nf: <<\n<<: {g: 1}\n")
    assert parse_document(place) == {
        "a": "no",
        "b": "2001-01-01",
        "c": "0o17",
        "d": "1:30",
        "e": ".inf",
        "f": "<<",
        "<<": {"g": 1},
    }


def test_a_number_of_many_digits_stays_text(tmp_path: Path) -> None:
    place = tmp_path / "run.yaml"
    place.write_text(f"a: {'9' * 100_000}\nb: {'9' * 400}.0\n")
    found = parse_document(place)
    assert isinstance(found, dict)
    assert found["a"] == "9" * 100_000


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "run.yaml"
    os.mkfifo(place)
    with pytest.raises(RequestError, match=r"run\.yaml: cannot be read: it is no ordinary file"):
        parse_document(place)
    with pytest.raises(RequestError, match="cannot be read: it is no ordinary file"):
        parse_document(Path("/dev/zero"))
