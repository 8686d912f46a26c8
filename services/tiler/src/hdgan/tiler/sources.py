"""How one slide of the run's snapshot gets onto this machine, and what identifies it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hdgan.core.canonical import canonical_digest
from hdgan.core.errors import KeyMissing, NoSpace
from hdgan.core.slides import SlideFile, is_multi_file, local_version
from hdgan.core.store import Store, open_store
from hdgan.tiler.slide import SlideError

CHUNK = 1 << 20

Watch = Callable[[int], None]
"""Called with the number of bytes just read, also with 0; may raise to stop."""


def unwatched(count: int) -> None:
    """For whoever needs no progress."""


@dataclass(frozen=True)
class LocalSlide:
    """A slide file that can be read now, and the digest of its bytes.

    sha256: of the file; of a slide of several files, of the list of all names and their digests.
    """

    path: Path
    sha256: str


def identity(slide: SlideFile) -> str:
    """Digest (64 hex digits) that an untouched slide keeps, even if its local folder moves."""
    place = slide.uri if is_remote(slide) else slide.name
    return canonical_digest([place, *slide.content])


def described(slide: SlideFile) -> dict[str, Any]:
    """The slide in documents; without the folder of a local one, which is not part of it."""
    about: dict[str, Any] = {"name": slide.name, "size": slide.size, "version": slide.version}
    if slide.companions:
        about["companions"] = [one.model_dump() for one in slide.companions]
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


def fetch(slide: SlideFile, folder: Path, watch: Watch = unwatched) -> LocalSlide:
    """Get the slide's files, below `folder` where they have to be copied, and their digest.

    Whoever calls removes the folder, also after an error: SlideError, StoreError or what `watch`
    raises, which is called before each file is copied and while digests are computed.
    """
    _check_complete(slide)
    if not is_remote(slide):
        path = Path(slide.uri)
        return LocalSlide(path, _digest_in_place(slide, path, watch))
    own = PurePosixPath(slide.uri).name
    # A lone file's name is of no use, and may be longer than a copy under way can have.
    path = folder / (own if is_multi_file(own) else f"slide{PurePosixPath(own).suffix.lower()}")
    parent = slide.uri.rpartition("/")[0]
    store = open_store(parent)
    files = [(own, path, slide.size, slide.version)]
    files += [(one.name, folder / one.name, one.size, one.version) for one in slide.companions]
    digests: list[list[str]] = []
    for key, target, size, version in files:
        watch(0)
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(store, key, target, (size, version))
        digests.append([key, _sha256(target, watch)])
    return LocalSlide(path, _joined(digests))


def remove(folder: Path) -> None:
    """Remove what `fetch` has copied, if anything."""
    shutil.rmtree(folder, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """Room on the disk that holds, or will hold, the folder."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def no_space(slide: SlideFile, folder: Path, free: int) -> NoSpace:
    """The error for a slide larger than the disk."""
    return NoSpace(
        f"slide {slide.name} has {slide.total_size} bytes, scratch at {folder} has {free} free; "
        "free some space there or name another folder with --scratch"
    )


def _check_complete(slide: SlideFile) -> None:
    suffix = PurePosixPath(slide.name).suffix.lower()
    if is_multi_file(slide.name) and not slide.companions:
        raise SlideError(
            f"is a {suffix} slide, which consists of several files, and none of the others lies "
            "beside it; copy them there under their own names, then start the run again"
        )


def _copy(store: Store, key: str, path: Path, known: tuple[int, str]) -> None:
    """One file, which has to be of the size and version the run's list says, before and after."""

    def check() -> None:
        info = store.head(key)
        if info is None:
            raise SlideError(f"is no longer at {store.url(key)}; start the run again")
        if (info.size, info.etag) != known:
            raise SlideError("changed since the run started; start the run again")

    check()  # before: another file may be larger than the room that was found for this one
    try:
        store.get_to(key, path)
    except KeyMissing as error:
        raise SlideError(f"is no longer at {store.url(key)}; start the run again") from error
    check()


def _digest_in_place(slide: SlideFile, path: Path, watch: Watch) -> str:
    files = [(path.name, path, slide.size, slide.version)]
    files += [(one.name, path.parent / one.name, one.size, one.version) for one in slide.companions]
    digests = []
    for name, file, size, version in files:
        try:
            if local_version(file) != (size, version):
                raise SlideError("changed since the run started; start the run again")
            digests.append([name, _sha256(file, watch)])
        except OSError as error:
            raise SlideError(
                f"cannot be read at {file}: {error.strerror or error}; "
                "put it back or take it out of slides.uri, then start the run again"
            ) from error
    return _joined(digests)


def _joined(digests: list[list[str]]) -> str:
    return digests[0][1] if len(digests) == 1 else canonical_digest(digests)


def _sha256(path: Path, watch: Watch) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            watch(len(chunk))
    return digest.hexdigest()
