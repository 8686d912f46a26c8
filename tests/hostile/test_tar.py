"""Hostile shards, each with the message it must produce."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from hdgan.core.errors import DataError
from hdgan.core.tar_shards import read_shard, shard_members

KIND = "is a link, folder or extension; shards hold plain files"
NAME = "is not a valid key: "


def member(name: str, data: bytes = b"x", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def archive(add: Callable[[tarfile.TarFile], None], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        add(file)
    return buffer.getvalue()


def patched(data: bytes, start: int, content: bytes) -> bytes:
    """A header field replaced and the checksum put right."""
    changed = bytearray(data)
    changed[start : start + len(content)] = content
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


def long_name(file: tarfile.TarFile) -> None:
    file.addfile(tarfile.TarInfo("a" * 300))


def huge_pax(file: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * 5_000_000, "path": "../../b"}
    file.addfile(info)


END = bytes(1024)
LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
CASES = {
    "a link": (member("a", b"", **LINK) + END, KIND),
    "a hard link": (member("a", b"", type=tarfile.LNKTYPE, linkname="../b") + END, KIND),
    "a device": (member("a", b"", type=tarfile.BLKTYPE, devmajor=8) + END, KIND),
    "a terminal": (member("a", b"", type=tarfile.CHRTYPE) + END, KIND),
    "a pipe": (member("a", b"", type=tarfile.FIFOTYPE) + END, KIND),
    "a folder": (member("a", b"", type=tarfile.DIRTYPE) + END, KIND),
    "a contiguous file": (member("a", b"", type=tarfile.CONTTYPE) + END, KIND),
    "a sparse file": (member("a", b"", type=tarfile.GNUTYPE_SPARSE) + END, KIND),
    "a long name of GNU": (archive(long_name, tarfile.GNU_FORMAT), KIND),
    "headers of PAX": (archive(huge_pax, tarfile.PAX_FORMAT), KIND),
    "upwards": (member("../a") + END, NAME + r"it has the part '\.\.'"),
    "upwards further in": (member("a/../../b") + END, NAME + r"it has the part '\.\.'"),
    "from the root": (member("/etc/cron.d/a") + END, NAME + "it begins with /"),
    "from a drive": (member("C:\\a") + END, NAME + "it contains a backslash"),
    "here": (member("./a") + END, NAME + r"it has the part '\.'"),
    "nothing": (member("") + END, NAME + "it is empty"),
    "a line end": (member("a\nb") + END, NAME + "it contains a backslash or a control"),
    "our own temporary": (member(".hdgan-tmp-a") + END, "are reserved"),
    "twice": (member("a") + member("a") + END, "it is there twice"),
    "a prefix that leads out": (
        patched(member("a"), 345, b"../..") + END,
        NAME + r"it has the part '\.\.'",
    ),
    "larger than the file": (
        patched(member("a"), 124, b"00077777777\0") + END,
        "member 'a': truncated",
    ),
    "larger than is read": (
        patched(member("a"), 124, b"77777777777\0") + END,
        "8589934591 bytes; at most 1073741824 are read",
    ),
    "larger than 64 bits": (
        patched(member("a"), 124, b"\x80\0\0\0\x7f" + b"\xff" * 7) + END,
        "bytes; at most 1073741824 are read",
    ),
    "smaller than nothing": (
        patched(member("a"), 124, b"\xff" * 12) + END,
        "-1 bytes; at most 1073741824 are read",
    ),
    "no number": (patched(member("a"), 124, b"zzzzzzzzzzz\0") + END, "no tar header at byte 0"),
    "a checksum that is wrong": (b"b" + member("a")[1:] + END, "no tar header at byte 0"),
    "no text": (patched(member("a"), 0, b"\xff\xfe") + END, "no tar header at byte 0"),
    "cut off in a header": (member("a")[:300], "truncated at byte 0"),
    "cut off in a member": (member("a", b"x" * 600)[:700], "truncated"),
    "without an end": (member("a"), "truncated at byte 1024"),
    "gzip": (b"\x1f\x8b\x08" + bytes(600), "no tar header at byte 0"),
    "zip": (b"PK\x03\x04" + bytes(600), "no tar header at byte 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_shard_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    data, message = CASES[case]
    place = tmp_path / "shard.tar"
    place.write_bytes(data)
    tracemalloc.start()
    try:
        for read in (lambda: list(read_shard(place)), lambda: shard_members(place)):
            with pytest.raises(DataError, match=message) as error:
                read()
            assert str(error.value).startswith(str(place))
            assert len(str(error.value)) < 600
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert [one.name for one in tmp_path.iterdir()] == ["shard.tar"]


def test_a_sparse_file_on_disk_costs_no_memory(tmp_path: Path) -> None:
    """A member of 1 GiB of zeros in a file that takes no room: only its place is looked up."""
    place = tmp_path / "shard.tar"
    place.write_bytes(patched(member("a"), 124, b"10000000000\0")[:512])
    with place.open("r+b") as file:
        file.truncate(512 + (1 << 30) + 1024)
    assert shard_members(place) == {"a": (512, 1 << 30)}
    with pytest.raises(DataError, match="1073741824 bytes; at most 1048576 are read"):
        list(read_shard(place, max_member=1 << 20))
