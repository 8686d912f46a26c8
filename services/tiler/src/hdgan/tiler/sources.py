"""How one slide of the run's snapshot gets onto this machine, and what identifies it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hdgan.core.canonical import canonical_digest
from hdgan.core.errors import KeyMissing, NoSpace
from hdgan.core.slides import SlideFile
from hdgan.core.store import open_store
from hdgan.tiler.slide import SlideError

# One slide made of several files: only the folder they lie in makes sense of them.
MULTI_FILE_SUFFIXES = frozenset({".mrxs", ".vms", ".vmu"})
CHUNK = 1 << 20


@dataclass(frozen=True)
class LocalSlide:
    """A slide file that can be read now, and the digest of its bytes."""

    path: Path
    sha256: str


def identity(slide: SlideFile) -> str:
    """Digest (64 hex digits) that an untouched slide keeps, even if its local folder moves."""
    place = slide.uri if is_remote(slide) else slide.name
    return canonical_digest([place, slide.size, slide.version])


def described(slide: SlideFile) -> dict[str, Any]:
    """The slide in documents; without the folder of a local one, which is not part of it."""
    about = {"name": slide.name, "size": slide.size, "version": slide.version}
    return {**about, "uri": slide.uri} if is_remote(slide) else about


def is_remote(slide: SlideFile) -> bool:
    """Whether the slide has to be copied before it can be read."""
    return "://" in slide.uri


def name_clashes(slides: Iterable[SlideFile], prefix_of: dict[str, str]) -> dict[str, str]:
    """Slides whose tiles would be named like those of an earlier slide: name -> the earlier one."""
    first: dict[str, str] = {}
    clashes: dict[str, str] = {}
    for slide in slides:
        # Compared without case: tiles of both would meet in one folder of some file systems.
        owner = first.setdefault(prefix_of[slide.name].casefold(), slide.name)
        if owner != slide.name:
            clashes[slide.name] = owner
    return clashes


@contextmanager
def local_slide(slide: SlideFile, folder: Path) -> Iterator[LocalSlide]:
    """The slide as a file on this machine: read in place, or copied to `folder` and removed after.

    Raises SlideError where the slide is gone, changed since the run started or not copyable.
    """
    if not is_remote(slide):
        path = Path(slide.uri)
        yield LocalSlide(path, _digest_in_place(slide, path))
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"slide{PurePosixPath(slide.name).suffix.lower()}"
    try:
        _copy(slide, path)
        yield LocalSlide(path, _sha256(path))
    finally:
        path.unlink(missing_ok=True)


def _copy(slide: SlideFile, path: Path) -> None:
    if path.suffix in MULTI_FILE_SUFFIXES:
        raise SlideError(
            f"is a {path.suffix} slide, which consists of several files, and lies in an object "
            "store; copy it with its companions into a folder and use that as slides.uri"
        )
    free = shutil.disk_usage(path.parent).free
    if free < slide.size:
        raise NoSpace(
            f"slide {slide.name} has {slide.size} bytes, scratch at {path.parent} has {free} free; "
            "free some space there or name another folder with --scratch"
        )
    parent, _, key = slide.uri.rpartition("/")
    store = open_store(parent)
    try:
        store.get_to(key, path)
    except KeyMissing as error:
        raise SlideError(f"is no longer at {slide.uri}; start the run again") from error
    info = store.head(key)
    if info is None or (info.size, info.etag) != (slide.size, slide.version):
        raise SlideError("changed since the run started; start the run again")


def _digest_in_place(slide: SlideFile, path: Path) -> str:
    try:
        status = path.stat()
        if (status.st_size, str(status.st_mtime_ns)) != (slide.size, slide.version):
            raise SlideError("changed since the run started; start the run again")
        return _sha256(path)
    except OSError as error:
        raise SlideError(
            f"cannot be read at {path}: {error.strerror or error}; "
            "put it back or take it out of slides.uri, then start the run again"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
