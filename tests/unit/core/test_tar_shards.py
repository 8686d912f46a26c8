"""Shards: the same members give the same bytes; what is no plain shard is refused."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.errors import DataError, InputMissing
from hdgan.core.tar_shards import read_shard, write_shard

MEMBERS = [("b.png", b"x" * 513), ("a/1.json", b""), ("ü.txt", b"y" * 512)]


def foreign(path: Path, *members: tarfile.TarInfo, format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"z" * info.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return info


def test_members_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "s.tar"
    assert write_shard(path, iter(MEMBERS)) == 3
    assert list(read_shard(path)) == MEMBERS


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_shard(path, MEMBERS)
    with tarfile.open(path, "r:") as archive:
        found = archive.getmembers()
        assert [info.name for info in found] == [name for name, _ in MEMBERS]
        assert {(info.mtime, info.uid, info.gid, info.mode) for info in found} == {(0, 0, 0, 0o644)}
        assert {info.uname + info.gname for info in found} == {""}
        extracted = archive.extractfile("b.png")
        assert extracted is not None
        assert extracted.read() == MEMBERS[0][1]


def test_bytes_depend_on_nothing_but_the_members(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    write_shard(one, MEMBERS)
    os.umask(os.umask(0o077))
    write_shard(two, MEMBERS)
    assert one.read_bytes() == two.read_bytes()


@given(st.lists(st.binary(max_size=1100), max_size=5))
def test_any_sizes(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("shards") / "s.tar"
    members = [(f"{i}.bin", data) for i, data in enumerate(contents)]
    write_shard(path, members)
    assert list(read_shard(path)) == members
    assert path.stat().st_size % 512 == 0


@pytest.mark.parametrize("name", ["x" * 101, "ü" * 51, "../x", "/x", "", "a//b"])
def test_bad_names_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot hold a member"):
        write_shard(tmp_path / "s.tar", [(name, b"")])
    assert list(tmp_path.iterdir()) == []


def test_a_name_given_twice_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="given twice"):
        write_shard(tmp_path / "s.tar", [("a", b"1"), ("a", b"2")])


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_folders_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = foreign(tmp_path / "s.tar", member("x", kind))
    with pytest.raises(DataError, match="plain files"):
        list(read_shard(path))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="not a valid key"):
        list(read_shard(foreign(tmp_path / "s.tar", member(name))))


def test_extended_headers_and_repeated_names_are_refused(tmp_path: Path) -> None:
    long = foreign(tmp_path / "l.tar", member("y" * 300), format=tarfile.PAX_FORMAT)
    with pytest.raises(DataError, match="extension"):
        list(read_shard(long))
    with pytest.raises(DataError, match="there twice"):
        list(read_shard(foreign(tmp_path / "t.tar", member("x"), member("x"))))


def test_large_members_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = foreign(tmp_path / "s.tar", member("x", size=2000))
    with pytest.raises(DataError, match="2000 bytes; at most 1999"):
        list(read_shard(path, max_member=1999))
    claims = tmp_path / "c.tar"
    claims.write_bytes(member("x", size=1 << 32).tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(DataError, match="at most"):
        list(read_shard(claims))


@pytest.mark.parametrize("keep", [100, 512, 700, 1024, 1500])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "s.tar"
    write_shard(path, [("a", b"1" * 600)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="truncated"):
        list(read_shard(path))


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(b"PNG" * 1000)
    with pytest.raises(DataError, match="no tar header at byte 0"):
        list(read_shard(path))
    with pytest.raises(InputMissing, match="no such shard"):
        list(read_shard(tmp_path / "gone.tar"))
