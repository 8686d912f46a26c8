"""The slides of a run as they were when it started: names, sizes and versions, and a digest of
these.

The list travels through the store, at `work/slides/<digest>.json`; requests carry only that key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hdgan.core.bounded_reading import read_file, read_object
from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.errors import InputMissing, KeyMissing, RequestError
from hdgan.core.json_documents import parse_model, reason
from hdgan.core.store import Store, open_store
from hdgan.core.uris import file_path, is_path, split_uri

TIFF_SUFFIXES = frozenset({".tif", ".tiff", ".btf", ".tf8", ".tf2"})
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
SUFFIXES = (
    frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu"})
    | TIFF_SUFFIXES
    | PICTURE_SUFFIXES
)
"""What the tiler reads (DICOM, with its many files a slide and no main one, is not supported)."""

# Slides of several files: the one that is named here, and where its companions are written down.
FOLDER_SUFFIX, FOLDER_INDEX = ".mrxs", "Slidedat.ini"
LIST_SUFFIXES = frozenset({".vms", ".vmu"})
LIST_KEYS = ("imagefile", "mapfile", "optimisationfile", "macroimage")
# A list of companions is some hundred lines.
MAX_LIST_BYTES = 4 << 20
MAX_SNAPSHOT_BYTES = 256 << 20


class Companion(BaseModel):
    """A file without which a slide cannot be read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1)
    """Path seen from the folder of the slide's own file, `/` between parts."""
    size: int = Field(ge=0)
    version: str

    @field_validator("name")
    @classmethod
    def _stay_inside(cls, name: str) -> str:
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name:
            raise ValueError(f"{name!r} is no path below the slide's folder")
        return name


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
    companions: tuple[Companion, ...] = ()
    """The other files of a slide of several (MRXS, VMS, VMU), sorted by name."""

    @property
    def total_size(self) -> int:
        """Bytes of all its files."""
        return self.size + sum(one.size for one in self.companions)

    @property
    def content(self) -> list[Any]:
        """What changes with the slide's content: sizes and versions of all its files."""
        rest = [[one.name, one.size, one.version] for one in self.companions]
        return [self.size, self.version, *([rest] if rest else [])]


class SlideSnapshot(BaseModel):
    """All slides of a run, sorted by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    uri: str
    slides: list[SlideFile]

    @property
    def digest(self) -> str:
        """Identity of the set. A local folder may move; an object is known by its address."""
        return canonical_digest(
            [[item.uri if "://" in item.uri else item.name, *item.content] for item in self.slides]
        )

    @property
    def key(self) -> str:
        """Where the store keeps it."""
        return f"work/slides/{self.digest}.json"


def take_snapshot(uri: str) -> SlideSnapshot:
    """The slides at `uri` now: a file, a folder (searched through) or an s3:// prefix or object.

    RequestError where there is nothing that looks like a slide.
    """
    root = local_path(uri)
    found = _stored(uri) if root is None else _local(root.absolute())
    slides = sorted(found, key=lambda item: item.name)
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
        data = read_object(store, key, MAX_SNAPSHOT_BYTES)
        snapshot = parse_model(SlideSnapshot, data, max_bytes=MAX_SNAPSHOT_BYTES)
        if snapshot.key != key:
            raise ValueError("it was changed: its digest is not the one in its name")
        return snapshot
    except KeyMissing:
        raise InputMissing(f"{store.url(key)} is gone: start the run again") from None
    except ValueError as error:
        raise InputMissing(
            f"{store.url(key)} is no list of slides ({reason(error)}): delete it and start the run "
            "again"
        ) from error


def local_path(uri: str) -> Path | None:
    """The path that a path or file:// address names; None for an address in an object store.
    StoreError if it is no address, or carries credentials."""
    if is_path(uri):
        return Path(uri)
    parts = split_uri(uri)
    return file_path(parts) if parts.scheme == "file" else None


def local_version(path: Path) -> tuple[int, str]:
    """Size in bytes and version of a local file: another file, or a changed one, differs in one."""
    status = path.stat()
    return status.st_size, str(status.st_mtime_ns)


def _local(root: Path) -> Iterator[SlideFile]:
    try:
        if root.is_dir():
            paths = {path.relative_to(root).as_posix(): path for path in _walk(root)}
            yield from _slides(paths, _LocalFiles(paths))
        elif root.suffix.lower() not in SUFFIXES and root.exists():
            return
        else:
            near = [root]
            if _suffix(root.name) == FOLDER_SUFFIX and root.with_suffix("").is_dir():
                near += _walk(root.with_suffix(""))
            elif _suffix(root.name) in LIST_SUFFIXES:
                near += [path for path in root.parent.iterdir() if path.is_file()]
            paths = {path.relative_to(root.parent).as_posix(): path for path in near}
            yield _slide(root.name, set(paths), _LocalFiles(paths))
    except FileNotFoundError as error:
        raise RequestError(
            f"slides.uri: {error.filename} does not exist; name a slide or a folder with slides"
        ) from None
    except OSError as error:
        raise RequestError(
            f"slides.uri: {error.filename} cannot be read: {error.strerror}"
        ) from error


def _stored(uri: str) -> Iterator[SlideFile]:
    base, _, last = uri.rstrip("/").rpartition("/")
    if PurePosixPath(last).suffix.lower() in SUFFIXES:
        store = open_store(base)
        near: Iterable[str] = ()
        if _suffix(last) == FOLDER_SUFFIX:
            near = store.list(f"{_stem(last)}/")
        elif _suffix(last) in LIST_SUFFIXES:
            near = store.list("")
        yield _slide(last, {last, *near}, _StoredFiles(store))
    else:
        store = open_store(uri.rstrip("/"))
        yield from _slides(store.list(""), _StoredFiles(store))


class _Files(Protocol):
    """Where slides lie: names are relative paths with `/` between parts."""

    def describe(self, name: str) -> SlideFile:
        """A file, without companions."""

    def read(self, name: str) -> bytes:
        """The content of a small file."""


class _LocalFiles:
    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    def describe(self, name: str) -> SlideFile:
        path = self._paths[name]
        if not path.is_file() and path.exists():
            raise RequestError(
                f"slides.uri: {path} is no ordinary file (a pipe or a device): remove it"
            )
        size, version = local_version(path)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise RequestError(
                f"slides.uri: the name {str(path)!a} is not UTF-8: rename the file"
            ) from None
        return SlideFile(name=name, uri=str(path), size=size, version=version)

    def read(self, name: str) -> bytes:
        return read_file(self._paths[name], MAX_LIST_BYTES)


class _StoredFiles:
    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self, name: str) -> SlideFile:
        info = self._store.head(name)
        if info is None:
            raise RequestError(f"slides.uri: {self._store.url(name)} does not exist")
        return SlideFile(name=name, uri=self._store.url(name), size=info.size, version=info.etag)

    def read(self, name: str) -> bytes:
        return read_object(self._store, name, MAX_LIST_BYTES)


def is_multi_file(name: str) -> bool:
    """Whether a slide of this name consists of several files."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix == FOLDER_SUFFIX or suffix in LIST_SUFFIXES


def _slides(listed: Iterable[str], files: _Files) -> Iterator[SlideFile]:
    """The slides among files; a slide's companions are none of their own."""
    names = set(listed)
    # An MRXS's folder may hold anything; a VMS's pictures are ordinary JPEG files beside it.
    folders = {
        _stem(name)
        for name in names
        if _suffix(name) == FOLDER_SUFFIX and f"{_stem(name)}/{FOLDER_INDEX}" in names
    }
    slides = {
        name
        for name in names
        if _suffix(name) in SUFFIXES
        and folders.isdisjoint(str(folder) for folder in PurePosixPath(name).parents)
    }
    described = {name: _slide(name, names, files) for name in sorted(slides) if is_multi_file(name)}
    taken = {
        str(PurePosixPath(name).parent / one.name)
        for name, slide in described.items()
        for one in slide.companions
    }
    for name in sorted(slides - taken):
        yield described.get(name) or files.describe(name)


def _slide(name: str, names: AbstractSet[str], files: _Files) -> SlideFile:
    slide = files.describe(name)
    if not is_multi_file(name):
        return slide
    folder = PurePosixPath(name).parent
    if _suffix(name) == FOLDER_SUFFIX:
        within = f"{_stem(name)}/"
        whole = f"{within}{FOLDER_INDEX}" in names
        found = {other for other in names if whole and other.startswith(within)}
    elif slide.size > MAX_LIST_BYTES:
        raise RequestError(
            f"slides.uri: {slide.uri} has {slide.size} bytes, far more than a list of a slide's "
            "files has; it is no such list: rename or remove it"
        )
    else:
        wanted = {str(folder / one) for one in _listed_files(files.read(name))}
        found = {other for other in names if other in wanted and other != name}
    companions = []
    for other in sorted(found):
        one = files.describe(other)
        relative = PurePosixPath(other).relative_to(folder).as_posix()
        companions.append(Companion(name=relative, size=one.size, version=one.version))
    return slide.model_copy(update={"companions": tuple(companions)})


def _listed_files(content: bytes) -> Iterator[str]:
    """The files beside it that a VMS or VMU file names."""
    for line in content.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition("=")
        value = value.strip()
        if (
            key.strip().lower().startswith(LIST_KEYS)
            and value
            and PurePosixPath(value).name == value
        ):
            yield value


def _walk(root: Path) -> Iterator[Path]:
    """All files that are not hidden."""

    def refuse(error: OSError) -> None:
        raise error

    # Links to folders are not followed: they could lead round in circles.
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith("."):
                yield Path(folder, name)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)]
