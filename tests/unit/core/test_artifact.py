"""Artifacts: keys, commits that race, and files that are not what the manifest says."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.annotations import current, latest_version, publish, version
from hdgan.core.artifact import (
    Artifact,
    Attempt,
    FileEntry,
    artifact_key,
    content_digest,
    open_artifact,
)
from hdgan.core.errors import InputMissing, InternalError, RequestError, StoreError
from hdgan.core.store_file import FileStore

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def commit(store: FileStore, files: dict[str, bytes], key: str = KEY, **info: Any) -> Artifact:
    attempt = Attempt(store, "tiler", key)
    for name, data in files.items():
        attempt.add_bytes(name, data)
    return attempt.commit(info)


def test_the_key_is_the_digest_of_a_json_anyone_can_write() -> None:
    document = (
        '{"config":{"mpp":1,"tileSize":64},"inputs":{"slides":"' + KEY + '"},"stage":"tiler",'
        '"stageVersion":3}'
    )
    key = artifact_key("tiler", 3, {"tileSize": 64, "mpp": 1.0}, {"slides": KEY})
    assert key == hashlib.sha256(document.encode()).hexdigest()


def test_everything_that_matters_changes_the_key() -> None:
    keys = [
        artifact_key("tiler", 1, {}, {}),
        artifact_key("tiler", 2, {}, {}),
        artifact_key("dataset", 1, {}, {}),
        artifact_key("tiler", 1, {"a": 1}, {}),
        artifact_key("tiler", 1, {"a": 1.5}, {}),
        artifact_key("tiler", 1, {}, {"a": KEY}),
        artifact_key("tiler", 1, {}, {}, rerun="again"),
    ]
    assert len(set(keys)) == len(keys)
    assert artifact_key("tiler", 1, {}, {}, rerun=None) == keys[0]


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    )
)
def test_the_order_of_options_is_no_matter(config: dict[str, Any]) -> None:
    turned = dict(reversed(list(config.items())))
    assert artifact_key("a", 1, config, {}) == artifact_key("a", 1, turned, {})


def test_content_digest_knows_no_attempt_and_no_order() -> None:
    def entry(name: str, attempt: str) -> FileEntry:
        return FileEntry(name=name, size=1, sha256=KEY, attempt=attempt)

    one = content_digest([entry("a", "x"), entry("b", "x")])
    assert content_digest([entry("b", "y"), entry("a", "x")]) == one
    assert content_digest([entry("a", "x"), entry("c", "x")]) != one


def test_what_is_committed_is_read_back(store: FileStore, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(b"z" * 100_000)
    attempt = Attempt(
        store, "tiler", KEY, stage_version=4, attempt="first", config={"a": 1}, inputs={"i": KEY}
    )
    attempt.add_bytes("images/one.png", b"1")
    attempt.add_file("big.bin", source)
    assert open_artifact(store, "tiler", KEY) is None
    attempt.commit({"seconds": 3})
    artifact = open_artifact(store, "tiler", KEY)
    assert artifact is not None
    assert artifact.names() == ["big.bin", "images/one.png"]
    assert artifact.read("images/one.png") == b"1"
    target = artifact.fetch("big.bin", tmp_path / "deep" / "copy")
    assert target.read_bytes() == source.read_bytes()
    assert artifact.uri("big.bin").endswith(f"/artifacts/tiler/{KEY}/first/big.bin")
    assert artifact.run_info() == {"seconds": 3}
    manifest = artifact.manifest
    assert (manifest.stage_version, manifest.config, manifest.inputs) == (4, {"a": 1}, {"i": KEY})


def test_run_info_is_outside_the_content_digest(store: FileStore) -> None:
    one = commit(store, {"a": b"1"}, seconds=1)
    two = commit(store, {"a": b"1"}, key="cd" * 32, seconds=2)
    assert one.content_digest == two.content_digest
    assert one.manifest.attempt != two.manifest.attempt


def test_of_two_committers_with_different_bytes_both_adopt_the_same(tmp_path: Path) -> None:
    for turn in range(5):
        key = f"{turn:064x}"
        barrier = threading.Barrier(2)
        results: list[Artifact] = []

        def work(
            data: bytes,
            key: str = key,
            barrier: threading.Barrier = barrier,
            results: list[Artifact] = results,
        ) -> None:
            attempt = Attempt(FileStore(tmp_path), "tiler", key)
            attempt.add_bytes("a", data)
            barrier.wait()
            results.append(attempt.commit({}))

        threads = [threading.Thread(target=work, args=(data,)) for data in (b"one", b"two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({result.content_digest for result in results}) == 1
        assert len({result.read("a") for result in results}) == 1


def test_an_interrupted_commit_leaves_nothing_visible(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Attempt(store, "tiler", KEY, attempt="first")
    entry = attempt.add_bytes("a", b"1")

    def interrupted(key: str, data: bytes) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_if_absent", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attempt.commit({})
    assert open_artifact(store, "tiler", KEY) is None
    # The file is uploaded, and the next attempt takes it over.
    second = Attempt(store, "tiler", KEY, attempt="second")
    second.adopt(entry)
    second.add_bytes("b", b"2")
    artifact = second.commit({})
    assert (artifact.read("a"), artifact.read("b")) == (b"1", b"2")
    assert artifact.entry("a").attempt == "first"


def test_adopting_what_is_not_there_is_refused(store: FileStore) -> None:
    attempt = Attempt(store, "tiler", KEY)
    with pytest.raises(InputMissing, match="did not finish it"):
        attempt.adopt(FileEntry(name="a", size=1, sha256=KEY, attempt="gone"))


@pytest.mark.parametrize("data", [b"2", b"11"])
def test_a_tampered_file_is_refused(store: FileStore, tmp_path: Path, data: bytes) -> None:
    artifact = commit(store, {"a": b"1"})
    store.put(f"artifacts/tiler/{KEY}/{artifact.manifest.attempt}/a", data)
    with pytest.raises(InputMissing, match=r"changed or damaged.*Restore it"):
        artifact.read("a")
    with pytest.raises(InputMissing, match="changed or damaged"):
        artifact.fetch("a", tmp_path / "a")
    assert list(tmp_path.glob("*")) == [tmp_path / "store"]


def test_a_missing_file_is_refused(store: FileStore, tmp_path: Path) -> None:
    artifact = commit(store, {"a": b"1"})
    store.delete(f"artifacts/tiler/{KEY}/{artifact.manifest.attempt}/a")
    with pytest.raises(InputMissing, match="missing although the manifest names it"):
        artifact.read("a")
    with pytest.raises(InputMissing, match="missing although the manifest names it"):
        artifact.fetch("a", tmp_path / "a")
    with pytest.raises(InputMissing, match="has no file 'b'"):
        artifact.read("b")


def test_fetch_keeps_a_good_copy_and_replaces_a_bad_one(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = commit(store, {"a": b"1"})
    target = tmp_path / "copy"
    target.write_bytes(b"2")
    assert artifact.fetch("a", target).read_bytes() == b"1"
    monkeypatch.setattr(store, "get_to", None)  # a second download would fail
    artifact.fetch("a", target)


def test_a_manifest_that_is_wrong_in_itself_is_refused(store: FileStore) -> None:
    commit(store, {"a": b"1", "b": b"2"})
    place = f"artifacts/tiler/{KEY}/manifest.json"
    good = json.loads(store.get(place))

    def refused(**change: Any) -> None:
        store.put(place, json.dumps(good | change).encode())
        with pytest.raises(InputMissing, match=r"manifest\.json is damaged"):
            open_artifact(store, "tiler", KEY)

    refused(files=good["files"][:1])
    refused(key="cd" * 32)
    refused(stage="dataset")
    refused(surprise=1)
    refused(files=[good["files"][0] | {"name": "../../x"}, good["files"][1]])
    refused(files=[good["files"][0], good["files"][0]])
    store.put(place, b"{")
    with pytest.raises(InputMissing, match="damaged"):
        open_artifact(store, "tiler", KEY)


def test_misuse_is_a_bug_not_an_artifact(store: FileStore) -> None:
    attempt = Attempt(store, "tiler", KEY)
    with pytest.raises(InternalError, match="without files"):
        attempt.commit({})
    attempt.add_bytes("a", b"1")
    attempt.add_bytes("a", b"1")
    with pytest.raises(InternalError, match="twice with different content"):
        attempt.add_bytes("a", b"2")
    assert store.get(f"artifacts/tiler/{KEY}/{attempt.attempt}/a") == b"1"
    for name in ("manifest.json", "run-info.json", "../a", ""):
        with pytest.raises(InternalError):
            attempt.add_bytes(name, b"")
    with pytest.raises(RequestError):
        Attempt(store, "../x", KEY)
    with pytest.raises(RequestError):
        open_artifact(store, "tiler", "short")


def test_a_store_that_fails_is_not_a_missing_artifact(tmp_path: Path) -> None:
    class Broken(FileStore):
        def get(self, key: str) -> bytes:
            raise StoreError("unreachable")

    commit(FileStore(tmp_path), {"a": b"1"})
    with pytest.raises(StoreError, match="unreachable"):
        open_artifact(Broken(tmp_path), "tiler", KEY)


def annotated(store: FileStore, number: int) -> Artifact:
    attempt = Attempt(store, "annotations", f"{number:064x}")
    attempt.add_bytes("annotations.json", b"%d" % number)
    return attempt.commit({})


def test_annotation_versions_count_up_and_the_last_is_current(store: FileStore) -> None:
    assert current(store, KEY) is None
    for number in range(1, 8):
        artifact = annotated(store, number)
        assert publish(store, KEY, artifact) == number
        assert publish(store, KEY, artifact) == number
        found = current(store, KEY)
        assert found is not None
        assert found.read("annotations.json") == b"%d" % number
        assert latest_version(store, KEY) == number
    assert version(store, KEY, 3).read("annotations.json") == b"3"
    assert publish(store, KEY, annotated(store, 1)) == 8  # back to an older one: a new version


def test_annotations_published_at_once_get_two_numbers(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    artifacts = [annotated(store, 1), annotated(store, 2)]
    barrier = threading.Barrier(2)
    numbers: list[int] = []

    def work(artifact: Artifact) -> None:
        barrier.wait()
        numbers.append(publish(store, KEY, artifact))

    threads = [threading.Thread(target=work, args=(artifact,)) for artifact in artifacts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2]


def test_annotations_that_were_deleted_are_missed(store: FileStore) -> None:
    artifact = annotated(store, 1)
    publish(store, KEY, artifact)
    store.delete(f"artifacts/annotations/{artifact.manifest.key}/manifest.json")
    with pytest.raises(InputMissing, match="import the annotations again"):
        current(store, KEY)
