"""A dataset as plain folders: the bytes of its shards, whatever stops the export, and nothing that
did not verify."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hdgan.core.artifact import Attempt, open_artifact
from hdgan.core.dataset_export import Exported, export_dataset
from hdgan.core.errors import DataError, InputMissing, NoSpace, RequestError, StoreError
from hdgan.core.export_plan import MARKER
from hdgan.core.materialise import NOTE, materialise
from hdgan.core.sections import ClassConfig
from hdgan.core.store import open_store
from hdgan.core.tar_shards import read_shard, write_shard
from support.runs import CLASSES
from support.s3_server import new_bucket, point_aws_at, running_s3
from support.tiny_dataset import write_dataset, write_index

CLASS_CONFIGS = [ClassConfig(**item) for item in CLASSES]
KEY = "d" * 64
IDS = [f"{number:016x}" for number in range(4)]
FILES = 4 * 4 + 4
FOLDER_OF = {
    ".png": "images",
    ".mask.png": "masks",
    ".uncertainty.png": "uncertainty",
    ".json": "metadata",
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """4 pairs in 2 shards, with a card and a calibration."""
    folder = tmp_path / "data"
    write_dataset(folder, CLASS_CONFIGS)
    (folder / "README.md").write_text("# A card\n")
    (folder / "calibration.json").write_text("{}\n")
    return folder


@pytest.fixture
def uri(dataset: Path, tmp_path: Path) -> str:
    """The same as an artifact in a store."""
    return commit(dataset, (tmp_path / "store").as_uri())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def commit(dataset: Path, store_uri: str) -> str:
    attempt = Attempt(open_store(store_uri), "dataset", KEY)
    for path in sorted(dataset.iterdir()):
        attempt.add_file(path.name, path)
    attempt.commit({})
    return f"{store_uri}/artifacts/dataset/{KEY}"


def expected(dataset: Path) -> dict[str, bytes]:
    """What the export of a dataset has to hold, by an independent reader of tar files."""
    found = {
        name: (dataset / name).read_bytes()
        for name in ("README.md", "calibration.json", "classes.json", "index.parquet")
    }
    for shard in dataset.glob("*.tar"):
        with tarfile.open(shard) as archive:
            for member in archive:
                name, dot, rest = member.name.partition(".")
                content = archive.extractfile(member)
                assert content is not None
                suffix = "." + rest.rpartition(".")[2]
                found[f"{FOLDER_OF[dot + rest]}/{name}{suffix}"] = content.read()
    assert len(found) == FILES
    return found


def files(folder: Path) -> dict[str, bytes]:
    """All files in a folder but the marker; those that are unfinished, too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / MARKER
    }


def complete(folder: Path) -> bool:
    return bool(json.loads((folder / MARKER).read_text())["complete"])


def test_an_export_holds_the_bytes_of_the_shards(dataset: Path, uri: str, out: Path) -> None:
    looked: list[tuple[int, int]] = []
    done = export_dataset(uri, out, progress=lambda done, of: looked.append((done, of)))
    assert done == Exported(pairs=4, written=FILES, kept=0)
    assert looked == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert files(out) == expected(dataset)
    assert complete(out)
    artifact = open_artifact(open_store(uri.partition("/artifacts/")[0]), "dataset", KEY)
    assert artifact is not None
    assert json.loads((out / MARKER).read_text())["dataset"] == artifact.content_digest


def test_a_complete_export_is_left_alone_and_what_is_lost_is_written_again(
    dataset: Path, uri: str, out: Path
) -> None:
    export_dataset(uri, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert export_dataset(uri, out) == Exported(pairs=4, written=0, kept=FILES)
    assert {path: path.stat().st_mtime_ns for path in before} == before

    (out / f"masks/{IDS[3]}.png").unlink()
    (out / f"images/{IDS[2]}.png").write_bytes(b"short")
    (out / "classes.json").write_text("[]")
    assert export_dataset(uri, out) == Exported(pairs=4, written=3, kept=FILES - 3)
    assert files(out) == expected(dataset)
    assert complete(out)


def test_a_folder_is_exported_like_the_artifact_it_was_made_from(
    dataset: Path, uri: str, out: Path, tmp_path: Path
) -> None:
    artifact = open_artifact(open_store(uri.partition("/artifacts/")[0]), "dataset", KEY)
    assert artifact is not None
    materialise(artifact, tmp_path / "made")
    export_dataset(str(tmp_path / "made"), out)
    assert files(out) == expected(dataset)
    assert export_dataset(uri, out).written == 0

    plain = tmp_path / "plain"  # without a note: the index alone says what is right
    assert export_dataset(dataset.as_uri(), plain).written == FILES
    assert files(plain) == expected(dataset)


def test_a_dataset_in_s3_is_exported(
    dataset: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3() as endpoint:
        point_aws_at(endpoint, monkeypatch)
        bucket = new_bucket(endpoint)
        assert export_dataset(commit(dataset, f"s3://{bucket}/store"), out).written == FILES
        assert files(out) == expected(dataset)
        prefix = f"s3://{bucket}/plain"
        for path in dataset.iterdir():
            open_store(prefix).put_from(path.name, path)
        assert export_dataset(prefix, out.with_name("plain")).written == FILES
        assert files(out.with_name("plain")) == expected(dataset)


# Ends itself the hard way just before it would rename a finished file for the n-th time.
KILLED = """
import os, signal, sys
from pathlib import Path
from hdgan.core import dataset_export

uri, folder, places = sys.argv[1], sys.argv[2], int(sys.argv[3])
replace = os.replace

def dying(source, target):
    global places
    if Path(folder) in Path(target).parents:
        places -= 1
    if places == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = dying
dataset_export.export_dataset(uri, Path(folder))
"""


def test_a_killed_export_goes_on_and_ends_the_same(dataset: Path, uri: str, out: Path) -> None:
    # The marker is 1, the files beside the shards are 2 to 5, then come the shards.
    counts = []
    for places in (1, 4, 10, 8, 30):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, uri, str(out), str(places)], check=False, timeout=60
        )
        if places == 30:
            assert ended.returncode == 0
            break
        assert ended.returncode == -signal.SIGKILL
        left = files(out)
        assert any(".hdgan-tmp-" in name for name in left)
        right = {name: data for name, data in left.items() if ".hdgan-tmp-" not in name}
        assert right.items() <= expected(dataset).items()
        assert places == 1 or not complete(out)
        counts.append(len(right))
    assert counts == sorted(set(counts))  # each start got further
    assert counts[-1] < FILES
    assert files(out) == expected(dataset)
    assert complete(out)


def test_a_resumed_export_reads_only_shards_that_are_missing(
    uri: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_dataset(uri, out, progress=stop)
    # A finished shard is not opened again: it may be gone.
    (shard,) = Path(uri.removeprefix("file://")).glob("*/shard-00000.tar")
    shard.unlink()
    assert export_dataset(uri, out) == Exported(pairs=4, written=4, kept=FILES - 4)
    assert complete(out)


def change(shard: Path, members: dict[str, bytes]) -> None:
    write_shard(shard, (dict(read_shard(shard)) | members).items())


@pytest.mark.parametrize("name", sorted(set(FOLDER_OF.values())))
def test_a_folder_of_it_that_is_a_link_is_refused(
    uri: str, out: Path, tmp_path: Path, name: str
) -> None:
    export_dataset(uri, out)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".hdgan-tmp-precious").write_text("keep")
    shutil.rmtree(out / name)
    (out / name).symlink_to(outside)
    with pytest.raises(RequestError, match=f"{name}: is a link"):
        export_dataset(uri, out)
    assert [one.name for one in outside.iterdir()] == [".hdgan-tmp-precious"]


def test_a_tampered_shard_is_refused_and_nothing_of_it_is_left(
    dataset: Path, uri: str, out: Path
) -> None:
    (shard,) = Path(uri.removeprefix("file://")).glob("*/shard-00001.tar")
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b'"mpp": 1.0', b'"mpp": 9.0'))
    with pytest.raises(InputMissing, match=r"shard-00001.tar has another SHA-256"):
        export_dataset(uri, out)
    assert not complete(out)
    left = files(out)
    assert left.items() <= expected(dataset).items()
    assert not any(IDS[2] in name or IDS[3] in name for name in left)
    shard.write_bytes(whole)
    assert export_dataset(uri, out).written == 8
    assert files(out) == expected(dataset)


def test_a_folder_without_a_note_is_verified_by_its_index(dataset: Path, out: Path) -> None:
    right = expected(dataset)
    for suffix in (".png", ".mask.png", ".uncertainty.png"):
        write_dataset(dataset, CLASS_CONFIGS)
        change(dataset / "shard-00001.tar", {IDS[3] + suffix: b"other"})
        with pytest.raises(DataError, match=f"{IDS[3]}{suffix} is not the file the index names"):
            export_dataset(str(dataset), out)
        left = files(out)
        assert left.items() <= right.items()
        assert not any(IDS[3] in name for name in left)
    rows = write_dataset(dataset, CLASS_CONFIGS)
    write_index(dataset, [{n: v for n, v in row.items() if n != "mask_sha256"} for row in rows])
    with pytest.raises(RequestError, match="has no mask_sha256"):
        export_dataset(str(dataset), out.with_name("other"))
    write_index(dataset, [*rows[:3], rows[3] | {"mask_sha256": None}])
    with pytest.raises(RequestError, match="has no mask_sha256"):
        export_dataset(str(dataset), out.with_name("another"))


def test_a_folder_with_a_note_is_verified_by_it(uri: str, out: Path, tmp_path: Path) -> None:
    artifact = open_artifact(open_store(uri.partition("/artifacts/")[0]), "dataset", KEY)
    assert artifact is not None
    made = tmp_path / "made"
    materialise(artifact, made)
    data = (made / "shard-00000.tar").read_bytes()
    (made / "shard-00000.tar").unlink()  # it is a link into the store
    (made / "shard-00000.tar").write_bytes(data.replace(b'"mpp": 1.0', b'"mpp":  1.'))
    with pytest.raises(DataError, match=r"shard-00000.tar: is not the file that was put here"):
        export_dataset(str(made), out)
    assert not (out / "images").exists()
    (made / NOTE).write_text((made / NOTE).read_text().replace('"size": ', '"size": 1'))
    with pytest.raises(DataError, match="its digest does not match"):
        export_dataset(str(made), out)


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in more.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (tar_member("../outside.png", data=b"x"), r"part '\.\.'"),
        (tar_member("/tmp/outside.png", data=b"x"), "begins with /"),
        (tar_member(f"a/{IDS[0]}.png", data=b"x"), "is not in the index"),
        (tar_member("a\\b.png", data=b"x"), "backslash"),
        (tar_member(f"{IDS[0]}.png", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
        (tar_member(f"{IDS[0]}.png", tarfile.LNKTYPE, linkname="../x"), "is a link"),
        (tar_member(f"{IDS[0]}.png", tarfile.CHRTYPE, devmajor=1, devminor=3), "is a link, folder"),
        (tar_member(f"{IDS[0]}.png", tarfile.FIFOTYPE), "is a link, folder"),
        (tar_member("images", tarfile.DIRTYPE), "is a link, folder"),
        (tar_member("x" * 200 + ".png", data=b"x"), "extension"),
        (tar_member(f"{IDS[0]}.png", data=b"x") * 2, "it is there twice"),
        (tar_member(f"{IDS[0]}.exe", data=b"x"), "does not belong"),
        (tar_member(f"{IDS[3]}.png"), "lacks"),
        (tar_member(f"{IDS[0].upper()}A.png"), "is not in the index"),
        (tar_member(f"{IDS[2]}.png", data=b"x", size=10**7), "truncated"),
        (tar_member(f"{IDS[2]}.png", data=b"x", size=10**9), "at most 268435456 are read"),
    ],
)
def test_hostile_members_are_refused(
    dataset: Path, out: Path, tmp_path: Path, member: bytes, words: str
) -> None:
    right = expected(dataset)
    shard = dataset / "shard-00001.tar"
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    shard.write_bytes(member + shard.read_bytes())
    with pytest.raises(DataError, match=words):
        export_dataset(str(dataset), out)
    assert files(out).items() <= right.items()
    assert not any(path.is_symlink() for path in out.rglob("*"))
    after = {path for path in tmp_path.rglob("*") if out not in path.parents}
    assert after - before == {out.parent, out}
    assert not complete(out)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../x", "letters, digits"),
        ("a/b", "letters, digits"),
        ("", "letters, digits"),
        ("a.b", "letters, digits"),
        ("-rf", "letters, digits"),
        ("é", "letters, digits"),
        ("x" * 81, "letters, digits"),
        ("A1\n", "letters, digits"),
    ],
)
def test_ids_that_are_no_plain_names_are_refused(
    dataset: Path, out: Path, name: str, words: str
) -> None:
    rows = write_dataset(dataset, CLASS_CONFIGS)
    write_index(dataset, [*rows[:3], rows[3] | {"id": name}])
    with pytest.raises(DataError, match=words):
        export_dataset(str(dataset), out)
    assert not out.exists()


def test_ids_that_some_systems_take_for_one_are_refused(dataset: Path, out: Path) -> None:
    rows = write_dataset(dataset, CLASS_CONFIGS)
    write_index(dataset, [*rows[:2], rows[2] | {"id": "ab"}, rows[3] | {"id": "aB"}])
    with pytest.raises(DataError, match="id ab is there twice"):
        export_dataset(str(dataset), out)


def test_a_folder_with_something_else_in_it_is_refused(dataset: Path, uri: str, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(RequestError, match=r"is not empty \(it has 'thesis.tex'\)"):
        export_dataset(uri, out)
    assert files(out) == {"thesis.tex": b"mine"}
    (out / "thesis.tex").unlink()
    export_dataset(uri, out)

    other = dataset.with_name("other")
    write_dataset(other, CLASS_CONFIGS, count=3)
    with pytest.raises(RequestError, match="is an export of another dataset"):
        export_dataset(str(other), out)
    assert files(out) == expected(dataset)
    (out / MARKER).write_text("{}")
    with pytest.raises(RequestError, match="is damaged"):
        export_dataset(uri, out)
    with pytest.raises(RequestError, match="no such folder"):
        export_dataset(str(dataset / "nowhere"), out)
    with pytest.raises(StoreError, match="a file of this name is in the way"):
        export_dataset(uri, dataset / "README.md")


def test_two_exports_into_one_folder_do_not_meet(uri: str, out: Path) -> None:
    out.mkdir(parents=True)
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(RequestError, match="another export into this folder is running"):
        export_dataset(uri, out)
    os.close(handle)
    assert export_dataset(uri, out).written == FILES


def test_too_little_space_is_said_before_anything_is_written(
    uri: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100_000

    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage)
    with pytest.raises(NoSpace, match=r"needs 1\d\d\.\d kB more, 100\.0 kB are free"):
        export_dataset(uri, out)
    assert list(out.iterdir()) == []
    Usage.free = 200_000
    export_dataset(uri, out)
    Usage.free = 60_000  # what is there already needs no room
    assert export_dataset(uri, out).written == 0
    (out / f"masks/{IDS[3]}.png").unlink()
    assert export_dataset(uri, out).written == 1


@contextmanager
def small_files_only() -> Iterator[None]:
    """Writing a file of more than 800 bytes fails as on a full disk. No fixture: pytest's own
    output may go to a file, and it writes there before fixtures end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_on_the_way_leaves_only_whole_files(dataset: Path, out: Path) -> None:
    right = expected(dataset)
    export_dataset(str(dataset), out)
    for pattern in ("images", "masks", "uncertainty", "metadata"):
        for path in (out / pattern).iterdir():
            path.unlink()
    with small_files_only(), pytest.raises(NoSpace, match=os.strerror(errno.EFBIG)):
        export_dataset(str(dataset), out)
    left = files(out)
    assert left.items() <= right.items()
    assert not any(name.startswith("images/") for name in left)  # they have more than 800 bytes


def test_the_command_says_what_it_did(uri: str, out: Path, dataset: Path) -> None:
    def command(place: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hdgan.core.cli", "dataset", "export", place, str(out)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    first = command(uri)
    assert first.returncode == 0, first.stderr
    assert "export: started" in first.stdout
    assert f"{out}: 4 pairs, {FILES} files written, 0 were there already" in first.stdout
    again = command(uri)
    assert (again.returncode, "started" in again.stdout) == (0, False)
    assert "4 pairs, complete already" in again.stdout
    other = command(dataset)
    assert other.returncode == 64
    assert "another dataset" in other.stderr
    assert "Traceback" not in other.stderr
