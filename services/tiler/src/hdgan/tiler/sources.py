"""Which slides there are, and how one of them gets onto this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from hdgan.core.errors import KeyMissing, NoSpace, RequestError
from hdgan.core.store import open_store
from hdgan.tiler.slide import SlideError

SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu"}
)
# One slide made of several files: only the folder they lie in makes sense of them.
MULTI_FILE_SUFFIXES = frozenset({".mrxs", ".vms", ".vmu"})
CHUNK = 1 << 20


@dataclass(frozen=True)
class SlideRef:
    """A slide as it was when the run started.

    name: path below the slides' folder, unique in the run; uri: absolute path or s3:// address;
    size: bytes; version: what changes when the content does (file: mtime in ns; S3: ETag).
    """

    name: str
    uri: str
    size: int
    version: str

    @property
    def identity(self) -> str:
        """SHA-256 over URI, size and version: equal for an untouched slide, 64 hex digits."""
        text = json.dumps([self.uri, self.size, self.version], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def as_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class LocalSlide:
    """A slide file that can be read now, and the digest of its bytes."""

    path: Path
    sha256: str


def list_slides(uri: str) -> list[SlideRef]:
    """All slides below a folder or s3:// prefix, or the one slide named; sorted by name.

    Raises RequestError (64) where there is nothing, saying what was looked for.
    """
    if uri.startswith("s3://"):
        found = sorted(_list_s3(uri), key=lambda ref: ref.name)
    else:
        found = sorted(_list_folder(_local_path(uri)), key=lambda ref: ref.name)
    if not found:
        known = " ".join(sorted(SUFFIXES))
        raise RequestError(
            f"slides.uri: no slide in {uri}; files with these endings count as slides: {known}"
        )
    return found


def parse_snapshot(data: bytes, source: str) -> list[SlideRef]:
    """The slides of a snapshot: JSON {"slides": [{"name", "uri", "size", "version"}, ...]}."""
    try:
        slides = json.loads(data)["slides"]
        refs = [
            SlideRef(
                name=str(entry["name"]),
                uri=str(entry["uri"]),
                size=int(entry["size"]),
                version=str(entry["version"]),
            )
            for entry in slides
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{source}: is no list of slides ({type(error).__name__}: {error}); start the run again"
        ) from error
    if not refs:
        raise RequestError(f"{source}: names no slide; look at slides.uri of the run file")
    return sorted(refs, key=lambda ref: ref.name)


def first_of_each(refs: Iterable[SlideRef], prefix_of: dict[str, str]) -> dict[str, str]:
    """Slides whose tiles would be named like another slide's: name -> name of the first one."""
    first: dict[str, str] = {}
    clashes: dict[str, str] = {}
    for ref in refs:
        # Compared without case: tiles of both would meet in one folder of some file systems.
        owner = first.setdefault(prefix_of[ref.name].casefold(), ref.name)
        if owner != ref.name:
            clashes[ref.name] = owner
    return clashes


@contextmanager
def local_slide(ref: SlideRef, folder: Path) -> Iterator[LocalSlide]:
    """The slide as a file on this machine: read in place, or copied to `folder` and removed after.

    Raises SlideError where the slide is gone, changed since the run started or not copyable.
    """
    if not ref.uri.startswith("s3://"):
        path = _local_path(ref.uri)
        yield LocalSlide(path, _digest_in_place(ref, path))
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"slide{PurePosixPath(ref.name).suffix.lower()}"
    try:
        _copy(ref, path)
        yield LocalSlide(path, _sha256(path))
    finally:
        path.unlink(missing_ok=True)


def _list_folder(root: Path) -> Iterator[SlideRef]:
    if not root.exists():
        raise RequestError(
            f"slides.uri: {root} does not exist; name a folder, a slide file or s3://bucket/prefix"
        )
    if root.is_file():
        yield _file_ref(root, root.name)
        return
    for path in root.rglob("*"):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield _file_ref(path, path.relative_to(root).as_posix())


def _file_ref(path: Path, name: str) -> SlideRef:
    status = path.stat()
    return SlideRef(name, str(path.resolve()), status.st_size, str(status.st_mtime_ns))


def _list_s3(uri: str) -> Iterator[SlideRef]:
    if PurePosixPath(uri).suffix.lower() in SUFFIXES:
        parent, _, key = uri.rpartition("/")
        keys = [key]
    else:
        parent = uri.rstrip("/")
        keys = []
    store = open_store(parent)
    for key in keys or store.list(""):
        if PurePosixPath(key).suffix.lower() not in SUFFIXES:
            continue
        info = store.head(key)
        if info is not None:
            yield SlideRef(key, f"{parent}/{key}", info.size, info.etag)


def _copy(ref: SlideRef, path: Path) -> None:
    if path.suffix in MULTI_FILE_SUFFIXES:
        raise SlideError(
            f"is a {path.suffix} slide, which consists of several files, and lies in an object "
            "store; copy it with its companions into a folder and use that as slides.uri"
        )
    free = shutil.disk_usage(path.parent).free
    if free < ref.size:
        raise NoSpace(
            f"slide {ref.name} has {ref.size} bytes, scratch at {path.parent} has {free} free; "
            "free some space there or name another folder with --scratch"
        )
    parent, _, key = ref.uri.rpartition("/")
    try:
        open_store(parent).get_to(key, path)
    except KeyMissing as error:
        raise SlideError(f"is no longer at {ref.uri}; start the run again") from error
    if path.stat().st_size != ref.size:
        raise SlideError(
            f"had {ref.size} bytes when the run started, now {path.stat().st_size}; "
            "start the run again once it is complete"
        )


def _digest_in_place(ref: SlideRef, path: Path) -> str:
    try:
        status = path.stat()
        if (status.st_size, str(status.st_mtime_ns)) != (ref.size, ref.version):
            raise SlideError("changed since the run started; start the run again")
        return _sha256(path)
    except OSError as error:
        raise SlideError(
            f"cannot be read at {path}: {error.strerror or error}; "
            "put it back or remove it from slides.uri, then start the run again"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _local_path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else Path(uri)
