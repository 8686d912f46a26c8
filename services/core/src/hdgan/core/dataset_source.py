"""The files of a dataset wherever it lies: an artifact in a store, a plain folder, an `s3://`
prefix.

Where something says what a file must be (an artifact's manifest, or the note beside the files that
`hdgan run --dataset` has put into a folder), it is compared with what is read.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from hdgan.core.artifact import FileEntry, content_digest, open_artifact
from hdgan.core.atomic_file import TEMPORARY, explain_os_error, sha256_file
from hdgan.core.bounded_reading import read_object, refuse_link_out
from hdgan.core.canonical import canonical_digest
from hdgan.core.errors import DataError, RequestError
from hdgan.core.json_documents import parse_object, reason
from hdgan.core.materialise import MAX_NOTE_BYTES, NOTE
from hdgan.core.slides import local_path
from hdgan.core.store import Store, open_store

INDEX, CLASSES, CARD, CALIBRATION = "index.parquet", "classes.json", "README.md", "calibration.json"
BESIDE = {CLASSES: 1 << 20, INDEX: 1 << 30, CARD: 1 << 20, CALIBRATION: 256 << 20}
"""The files beside the shards, and how many bytes of each are read at most."""

_ARTIFACT = re.compile(r"(?P<store>.+)/artifacts/dataset/(?P<key>[0-9a-f]{64})")
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.tar")


class DatasetSource(Protocol):
    """A dataset for reading. DataError, InputMissing or StoreError for what is not there or not
    what it has to be."""

    uri: str
    digest: str | None
    """The content digest of the artifact this dataset is; None if nothing here says so."""
    copies: bool
    """Whether `shard` makes copies."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each file beside the shards that is there."""

    def read(self, name: str) -> bytes:
        """A file beside the shards. RequestError if it is not there."""

    def shard_sizes(self, indexed: set[str]) -> dict[str, int]:
        """Bytes of each shard the index names.

        DataError if one is missing, or if there is one that the index does not know.
        """

    def shard(self, name: str, scratch: Path | None = None) -> AbstractContextManager[Path]:
        """The path of a shard on this machine, for as long as it is needed.

        A copy lies in `scratch` (None: where the system keeps temporary files) under a name that
        begins with `TEMPORARY`.
        """


def open_dataset(uri: str) -> DatasetSource:
    """The dataset in a folder, at an `s3://` prefix, or at `<store>/artifacts/dataset/<key>`.

    RequestError if there is none.
    """
    uri = uri.rstrip("/") or "/"
    found = _ARTIFACT.fullmatch(uri)
    if found:
        return ArtifactSource(uri, open_store(found["store"]), found["key"])
    if "://" not in uri:
        folder = Path(uri).absolute()
        if not folder.is_dir():
            raise RequestError(f"{uri}: there is no such folder")
        return FolderSource(uri, open_store(folder.as_uri()))
    return FolderSource(uri, open_store(uri))


def is_shard_name(name: str) -> bool:
    """Whether a shard of a dataset can be called that."""
    return _SHARD.fullmatch(name) is not None


class FolderSource:
    """A dataset whose files lie side by side in a folder or at an `s3://` prefix."""

    def __init__(self, uri: str, store: Store) -> None:
        self.uri = uri
        self._store = store
        self._folder = local_path(store.uri)
        self._listed = self._note()
        self.digest = content_digest(self._listed.values()) if self._listed else None
        self.copies = not store.uri.startswith("file://")

    def sizes(self) -> dict[str, int]:
        found = {name: self._store.head(name) for name in BESIDE}
        return {name: info.size for name, info in found.items() if info is not None}

    def read(self, name: str) -> bytes:
        info = self._store.head(name)
        if info is None:
            raise RequestError(
                f"{self.uri}: there is no {name}, so this is no dataset; name the folder that "
                "`hdgan run --dataset` filled"
            )
        _check_size(self.uri, name, info.size)
        self._refuse_link(name)
        data = self._store.get(name)
        self._compare(name, hashlib.sha256(data).hexdigest())
        return data

    def shard_sizes(self, indexed: set[str]) -> dict[str, int]:
        sizes = {}
        for name in sorted(indexed):
            info = self._store.head(name)
            if info is None:
                raise DataError(f"{self.uri}/{name}: the index names this shard, it is not there")
            sizes[name] = info.size
        for name in self._store.list(""):
            if is_shard_name(name) and name not in indexed:
                raise DataError(
                    f"{self.uri}/{name}: a shard the index does not know: it is of another "
                    "dataset; remove it"
                )
        return sizes

    @contextmanager
    def shard(self, name: str, scratch: Path | None = None) -> Iterator[Path]:
        self._refuse_link(name)
        if not self.copies:
            path = Path(unquote(urlsplit(self._store.url(name)).path))
            if self._listed:
                try:
                    self._compare(name, sha256_file(path))
                except OSError as error:
                    raise explain_os_error(error, "read", path) from error
            yield path
            return
        with _scratch(scratch) as folder:
            path = folder / name
            self._store.get_to(name, path)
            self._compare(name, sha256_file(path))
            yield path

    def _refuse_link(self, name: str) -> None:
        """DataError if a file of a folder is a link to what lies outside of it."""
        if self._folder is not None:
            refuse_link_out(self._folder, self._folder / name)

    def _note(self) -> dict[str, FileEntry]:
        """What the note of `hdgan run --dataset` says about the files; {} if there is none."""
        info = self._store.head(NOTE)
        if info is None:
            return {}
        try:
            self._refuse_link(NOTE)
            data = read_object(self._store, NOTE, MAX_NOTE_BYTES)
            document = parse_object(data, max_bytes=MAX_NOTE_BYTES)
            listed = {
                name: FileEntry(name=name, size=said["size"], sha256=said["sha256"], attempt="note")
                for name, said in document["files"].items()
            }
            if content_digest(listed.values()) != document["contentDigest"]:
                raise ValueError("its digest does not match its list of files")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.uri}/{NOTE}: is damaged ({reason(error)}): make the folder again with "
                "`hdgan run --dataset`"
            ) from error
        return listed

    def _compare(self, name: str, sha256: str) -> None:
        if self._listed and (name not in self._listed or self._listed[name].sha256 != sha256):
            raise DataError(
                f"{self.uri}/{name}: is not the file that was put here (SHA-256, see {NOTE}): make "
                "the folder again with `hdgan run --dataset`, or copy it again with its note"
            )


class ArtifactSource:
    """A dataset artifact in a store; its manifest vouches for every byte."""

    copies = True  # a local file, too: nobody changes it between its verification and its use

    def __init__(self, uri: str, store: Store, key: str) -> None:
        artifact = open_artifact(store, "dataset", key)
        if artifact is None:
            raise RequestError(f"{uri}: there is no such dataset in {store.uri}")
        self.uri = uri
        self._artifact = artifact
        self.digest: str | None = artifact.content_digest

    def sizes(self) -> dict[str, int]:
        return {name: self._artifact.entry(name).size for name in BESIDE if name in self._artifact}

    def read(self, name: str) -> bytes:
        _check_size(self.uri, name, self._artifact.entry(name).size)
        return self._artifact.read(name)

    def shard_sizes(self, indexed: set[str]) -> dict[str, int]:
        shards = {name for name in self._artifact.names() if is_shard_name(name)}
        for name in sorted(shards ^ indexed):
            raise DataError(f"{self.uri}/{name}: index and manifest disagree about this shard")
        return {name: self._artifact.entry(name).size for name in sorted(indexed)}

    @contextmanager
    def shard(self, name: str, scratch: Path | None = None) -> Iterator[Path]:
        with _scratch(scratch) as folder:
            yield self._artifact.fetch(name, folder / name)


def identity(source: DatasetSource, beside: dict[str, bytes]) -> str:
    """64 hex digits that tell a dataset from others: the content digest of the artifact where one
    is known, else a digest of the files beside the shards."""
    if source.digest is not None:
        return source.digest
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in beside.items()}
    return canonical_digest(listed)


@contextmanager
def _scratch(parent: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=parent) as folder:
        yield Path(folder)


def _check_size(uri: str, name: str, size: int) -> None:
    if size > BESIDE[name]:
        raise DataError(f"{uri}/{name}: {size} bytes; at most {BESIDE[name]} are read")
