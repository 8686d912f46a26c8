"""Shards: damaged tar files, and headers with one field replaced."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.dataset_pairs import read_pairs
from hdgan.core.tar_shards import read_shard, shard_members, write_shard
from support.fuzzing import damaged, examples, survives

FOLDER = Path(tempfile.mkdtemp(prefix="hdgan-fuzz-"))
PLACE = FOLDER / "shard.tar"
write_shard(PLACE, [("a.png", b"x" * 700), ("a.json", b"{}"), ("b.png", b"")])
VALID = PLACE.read_bytes()

# Where the fields of a ustar header lie, and what may be in them.
FIELDS = [(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)]
CONTENTS = [
    b"../../etc/passwd",
    b"/etc/passwd",
    b"a/../../b",
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"77777777777\0",
    b"-0000000001\0",
    b"\x80\x00\x00\x00\x00\x00\x00\x00\x7f\xff\xff\xff",
    b"1",
    b"2",
    b"5",
    b"x",
    b"L",
    b"S",
    b"g",
    b"\xff\xfe\xfd",
    b"",
]


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """The valid shard with a field of its first header replaced and the checksum put right."""
    data = bytearray(VALID)
    start, size = draw(st.sampled_from(FIELDS))
    data[start : start + size] = draw(st.sampled_from(CONTENTS))[:size].ljust(size, b"\0")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@examples(400, 20_000)
@given(st.one_of(damaged(VALID), headers(), st.binary(max_size=1100)))
def test_a_damaged_shard_is_read_or_refused(data: bytes) -> None:
    PLACE.write_bytes(data)
    found = survives(lambda: dict(read_shard(PLACE)))
    if isinstance(found, dict):
        assert sum(map(len, found.values())) <= len(data)
        for name in found:
            assert not name.startswith("/")
            assert ".." not in name.split("/")
            assert (FOLDER / name).resolve().is_relative_to(FOLDER.resolve())
    survives(lambda: shard_members(PLACE))
    survives(lambda: list(read_pairs(PLACE, "shard", {"a": {}, "b": {}})))


def test_the_headers_made_here_are_ones_that_tarfile_reads() -> None:
    """Else the test above would only meet wrong checksums."""
    data = bytearray(VALID)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert tarfile.TarInfo.frombuf(bytes(data[:512]), "utf-8", "strict").name == "a.png"
