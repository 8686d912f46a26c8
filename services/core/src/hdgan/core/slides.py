"""The slides of a run as they were when it started: names, sizes and versions, and a digest of
these.

The list travels through the store, at `work/slides/<digest>.json`; requests carry only that key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.errors import InputMissing, KeyMissing, RequestError
from hdgan.core.store import Store, open_store

SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu"}
)
"""What OpenSlide reads (DICOM, with its many files a slide, is not supported)."""


class SlideFile(BaseModel):
    """One slide as it was when the run started."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1)
    """Path below the slides' folder, `/` between parts; unique in the run."""
    uri: str
    """Absolute path, or s3:// address."""
    size: int = Field(ge=0)
    """Bytes."""
    version: str
    """Changes with the content: modification time in ns of a file, ETag of an object."""


class SlideSnapshot(BaseModel):
    """All slides of a run, sorted by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    uri: str
    slides: list[SlideFile]

    @property
    def digest(self) -> str:
        """Identity of the set. A local folder may move; an object is known by its address."""
        return canonical_digest(
            [
                [item.uri if "://" in item.uri else item.name, item.size, item.version]
                for item in self.slides
            ]
        )

    @property
    def key(self) -> str:
        """Where the store keeps it."""
        return f"work/slides/{self.digest}.json"


def take_snapshot(uri: str) -> SlideSnapshot:
    """The slides at `uri` now: a file, a folder (searched through) or an s3:// prefix or object.

    RequestError where there is nothing that looks like a slide.
    """
    slides = sorted(_local(uri) if _is_local(uri) else _stored(uri), key=lambda item: item.name)
    if not slides:
        raise RequestError(
            f"slides.uri: no slide in {uri}. Looked for files that end in "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return SlideSnapshot(uri=uri, slides=slides)


def save_snapshot(store: Store, snapshot: SlideSnapshot) -> str:
    """Put the snapshot where requests can name it; returns the key."""
    document = canonical_json(snapshot.model_dump(mode="json"))
    try:
        if store.get(snapshot.key) == document:
            return snapshot.key
    except KeyMissing:
        pass
    # Written anew if it differs: the same slides, but their folder was moved.
    store.put(snapshot.key, document)
    return snapshot.key


def load_snapshot(store: Store, key: str) -> SlideSnapshot:
    """The snapshot that `save_snapshot` put at `key`."""
    try:
        return SlideSnapshot.model_validate_json(store.get(key))
    except KeyMissing:
        raise InputMissing(f"{store.url(key)} is gone: start the run again") from None
    except ValidationError as error:
        raise InputMissing(
            f"{store.url(key)} is no list of slides: delete it and start the run again"
        ) from error


def _is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def _local(uri: str) -> Iterator[SlideFile]:
    root = Path(unquote(urlsplit(uri).path) if uri.startswith("file://") else uri).absolute()
    try:
        if root.is_dir():
            for path in _walk(root):
                yield _file(path, path.relative_to(root).as_posix())
        elif root.suffix.lower() not in SUFFIXES and root.exists():
            return
        else:
            yield _file(root, root.name)
    except FileNotFoundError as error:
        raise RequestError(
            f"slides.uri: {error.filename} does not exist; name a slide or a folder with slides"
        ) from None
    except OSError as error:
        raise RequestError(
            f"slides.uri: {error.filename} cannot be read: {error.strerror}"
        ) from error


def _walk(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    # Links to folders are not followed: they could lead round in circles.
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder, name)


def _file(path: Path, name: str) -> SlideFile:
    status = path.stat()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise RequestError(
            f"slides.uri: the name {str(path)!a} is not UTF-8: rename the file"
        ) from None
    return SlideFile(name=name, uri=str(path), size=status.st_size, version=str(status.st_mtime_ns))


def _stored(uri: str) -> Iterator[SlideFile]:
    base, _, last = uri.rstrip("/").rpartition("/")
    if PurePosixPath(last).suffix.lower() in SUFFIXES:
        store, names = open_store(base), [last]
    else:
        store = open_store(uri.rstrip("/"))
        names = [name for name in store.list("") if PurePosixPath(name).suffix.lower() in SUFFIXES]
    for name in names:
        info = store.head(name)
        if info is None:
            raise RequestError(f"slides.uri: {store.url(name)} does not exist")
        yield SlideFile(name=name, uri=store.url(name), size=info.size, version=info.etag)
