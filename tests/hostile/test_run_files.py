"""Hostile run files, each with the message it must produce."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hdgan.core.errors import RequestError
from hdgan.core.run import load_run
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
    "no text": (b"a: \x00", r"character 3 is U\+0000, which no text has: save it as UTF-8"),
    "an escape": (b"a: \x1b[2J", r"character 3 is U\+001B, which no text has"),
    "UTF-16": ("a: 1".encode("utf-16"), r"not UTF-8 text \(byte 0\)"),
    "UTF-16 without a mark": ("a: 1".encode("utf-16-le"), r"character 1 is U\+0000"),
    "very many names": (b"{" + b"a," * 30_000 + b"}", "more than 20000 values and names"),
    "very many values": (b"[" + b"1," * 30_000 + b"]", "more than 20000 values and names"),
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


@pytest.mark.parametrize("name", ["run.yaml", "run.json"])
def test_a_byte_order_mark_is_no_harm(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    place.write_bytes(b"\xef\xbb\xbf{}")
    assert parse_document(place) == {}


def test_a_name_with_a_line_break_begins_no_line_of_a_message(tmp_path: Path) -> None:
    place = tmp_path / "run.yaml"
    place.write_text('"x\\nfake: all is well": 1\n')
    with pytest.raises(RequestError, match=r"'x\\nfake: all is well': unknown field") as error:
        load_run(place)
    assert not any(line.startswith("fake") for line in str(error.value).splitlines())


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("slides: {uri: %r}", "spec.slides.uri"),
        ("slides: {uri: x, metadata: %r}", "spec.slides.metadata"),
        ("slides: {uri: x, outlines: %r}", "spec.slides.outlines"),
        ("slides: {uri: x}\n  ganTrainer: {initFrom: %r}", "spec.ganTrainer.initFrom"),
    ],
)
def test_secrets_in_addresses_are_refused_and_not_repeated(
    field: str, name: str, tmp_path: Path
) -> None:
    place = tmp_path / "run.yaml"
    for address in ("s3://id:q7/J9@bucket/p", "s3:/id:q7/J9@bucket", "s3://id:J9@bucket/p"):
        place.write_text(
            "apiVersion: hdgan.io/v1alpha1\nkind: DatasetRun\nmetadata: {name: a}\nspec:\n"
            "  annotations: {classes: [{name: a, color: '#ff0000'}, {name: b, color: '#00ff00'}]}\n"
            f"  {field % address}\n"
        )
        with pytest.raises(RequestError, match=f"run.yaml: {name}: ") as error:
            load_run(place)
        assert "J9" not in str(error.value)
