"""The files an expert hands back: found, read within bounds, and matched to their candidates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hdgan.core.errors import RequestError
from hdgan.desk.export_layout import LABELS_FOLDER, NO_LABELS

MAX_FILES = 100_000
_RASTER = {".png"}
_VECTOR = {".geojson", ".json"}
# Long enough not to be a date or a word, short enough for a name a person shortened.
_PREFIX = re.compile(r"(?<![0-9a-f])[0-9a-f]{6,64}(?![0-9a-f])")


class MatchedBy(Enum):
    """How it is known which candidate a file labels."""

    CONTENT = "content"
    """By the id inside the file."""
    NAME = "name"
    """By the full id in its name."""
    PART_OF_NAME = "partOfName"
    """By the beginning of an id in its name: unverified."""


@dataclass(frozen=True)
class Match:
    """A candidate and how it was found."""

    candidate: str
    by: MatchedBy


class MatchError(Exception):
    """The file belongs to no candidate of this generator; the message says what to do."""


def find_sources(paths: Sequence[Path]) -> list[Path]:
    """PNG and GeoJSON files among `paths` and directly in the folders among them, in order; of the
    folder of an export also those in its labels/.

    RequestError when a path does not exist, is no format that is read, or a folder holds nothing.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            folders = [path, path / LABELS_FOLDER]
            inside = [
                found
                for folder in folders
                if folder.is_dir()
                for found in sorted(p for p in folder.iterdir() if p.is_file() and _wanted(p))
            ]
            if not inside:
                raise RequestError(f"{path}: holds no .png or .geojson file to import")
            found.extend(inside)
        elif not path.exists():
            raise RequestError(f"{path}: does not exist; give masks or folders with masks")
        elif path.suffix.lower() in _RASTER | _VECTOR:
            found.append(path)
        else:
            raise RequestError(f"{path}: only .png, .geojson and .json files can be imported")
        if len(found) > MAX_FILES:
            raise RequestError(f"more than {MAX_FILES} files to import: give only the masks")
    unique = {path.resolve(): path for path in found}
    return list(unique.values())


def _wanted(path: Path) -> bool:
    """Whether a file in a folder is meant: the other files of an export are not."""
    if path.name.startswith(".") or path.name in NO_LABELS:
        return False
    return path.suffix.lower() in _RASTER | _VECTOR


def is_raster(path: Path) -> bool:
    """Whether a source is a PNG (else it is GeoJSON)."""
    return path.suffix.lower() in _RASTER


def read_bounded(path: Path, limit: int) -> bytes:
    """The file's bytes. RequestError (without its name) when unreadable or larger than `limit`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise RequestError(f"cannot be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise RequestError(f"is larger than {limit} bytes: this is no mask")
    if not data:
        raise RequestError("is empty: save it again")
    return data


def match(stem: str, inside: str | None, ids: frozenset[str]) -> Match:
    """The candidate a file with name `stem` and id `inside` labels. MatchError if there is none.

    A name that carries the full id of another candidate than the file itself says is refused: one
    of them is wrong, and nobody can tell which.
    """
    words = _PREFIX.findall(stem.lower())
    named = [word for word in words if word in ids]
    if inside is not None:
        if inside not in ids:
            raise MatchError(
                f"belongs to candidate {inside}, which this run's generator did not make: "
                "annotations are valid for one generator; export its candidates and label those"
            )
        others = [word for word in named if word != inside]
        if others:
            raise MatchError(
                f"is named after candidate {others[0]} but says inside that it belongs to "
                f"{inside}: label the right picture, or rename the file"
            )
        return Match(inside, MatchedBy.CONTENT)
    if len(set(named)) > 1:
        raise MatchError(f"names several candidates ({', '.join(named)}): keep one id in its name")
    if named:
        return Match(named[0], MatchedBy.NAME)
    partly = {identity for word in words for identity in ids if identity.startswith(word)}
    if len(partly) == 1:
        return Match(partly.pop(), MatchedBy.PART_OF_NAME)
    if partly:
        raise MatchError("its name begins the ids of several candidates: use the full id")
    raise MatchError(
        "is of no candidate of this run: its name holds no candidate id and there is none inside. "
        "Keep the exported file name, or write the id into it"
    )
