"""The files an expert hands back: found, read within bounds, and matched to their candidates."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

from hdgan.core.bounded_reading import TooLarge, read_file
from hdgan.core.errors import RequestError
from hdgan.desk.export_layout import LABELS_FOLDER, NO_LABELS

MAX_FILES = 100_000
_SHOWN = 3
_ENDINGS = frozenset({".png", ".geojson", ".json", ".xml"})
"""Of the files in a folder that are looked at."""
# Long enough not to be a date or a word, short enough for a name a person shortened.
_PREFIX = re.compile(r"(?<![0-9a-f])[0-9a-f]{6,64}(?![0-9a-f])")


class MatchedBy(Enum):
    """How it is known which candidate a file labels."""

    CONTENT = "content"
    """By the id inside the file."""
    PICTURE = "picture"
    """By the full id in the name of the picture that the tool recorded in the file."""
    NAME = "name"
    """By the full id in the file's own name alone: unverified."""
    PART_OF_NAME = "partOfName"
    """By the beginning of an id in a name: unverified."""

    @property
    def verified(self) -> bool:
        """Whether the file itself says it: names are changed, and files copied under others."""
        return self in (MatchedBy.CONTENT, MatchedBy.PICTURE)


@dataclass(frozen=True)
class Match:
    """A candidate and how it was found."""

    candidate: str
    by: MatchedBy


class MatchError(Exception):
    """The file belongs to no candidate of this generator; the message says what to do."""


def find_sources(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and those directly in the folders among them that end like labels,
    in order; of the folder of an export also those in its labels/.

    RequestError when a path does not exist or a folder holds nothing. What a file is, is known by
    its content: one that is named itself may end in anything.
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
                raise RequestError(
                    f"{path}: holds no file to import: none ends in {', '.join(sorted(_ENDINGS))}"
                )
            found.extend(inside)
        elif not path.exists():
            raise RequestError(f"{path}: does not exist; give files with labels, or folders")
        else:
            found.append(path)
        if len(found) > MAX_FILES:
            raise RequestError(f"more than {MAX_FILES} files to import: give only the labels")
    unique = {path.resolve(): path for path in found}
    return list(unique.values())


def _wanted(path: Path) -> bool:
    """Whether a file in a folder is meant: the other files of an export are not."""
    if path.name.startswith(".") or path.name in NO_LABELS:
        return False
    return path.suffix.lower() in _ENDINGS


def read_bounded(path: Path, limit: int) -> bytes:
    """The file's bytes. RequestError (without its name) when unreadable or larger than `limit`."""
    try:
        data = read_file(path, limit)
    except TooLarge:
        raise RequestError(f"is larger than {limit} bytes: this is no file of labels") from None
    except OSError as error:
        raise RequestError(f"cannot be read: {error.strerror or error}") from None
    if not data:
        raise RequestError("is empty: save it again")
    return data


def match(stem: str, inside: str | None, ids: frozenset[str], picture: str | None = None) -> Match:
    """The candidate that a drawing labels. MatchError if there is none.

    stem     name of the file without its ending; "" for a file about several pictures
    inside   the id that the file gives
    picture  what the file calls the picture that was labelled

    Where two of them name two candidates, that is refused: one is wrong, and nobody can tell which.
    """
    named = {word for word in _words(stem) if word in ids}
    shown = {word for word in _words(picture or "") if word in ids}
    if inside is not None:
        if inside not in ids:
            raise MatchError(
                f"belongs to candidate {inside}, which this run's generator did not make: "
                "annotations are valid for one generator; export its candidates and label those"
            )
        _refuse_other(named - {inside}, inside)
        for other in shown - {inside}:
            raise MatchError(
                f"says that it belongs to candidate {inside} but was drawn on the picture of "
                f"{other}: label the right picture"
            )
        return Match(inside, MatchedBy.CONTENT)
    if len(shown) == 1:
        (only,) = shown
        _refuse_other(named - shown, only)
        return Match(only, MatchedBy.PICTURE)
    for several in (shown, named):
        if len(several) > 1:
            some = sorted(several)[:_SHOWN]
            more = ", ..." if len(several) > _SHOWN else ""
            raise MatchError(
                f"names several candidates ({', '.join(some)}{more}): keep one id in its name"
            )
    if named:
        return Match(named.pop(), MatchedBy.NAME)
    words = _words(picture or "") or _words(stem)
    partly = _begun(words, ids)
    if len(partly) == 1:
        return Match(partly.pop(), MatchedBy.PART_OF_NAME)
    if partly:
        raise MatchError("its name begins the ids of several candidates: use the full id")
    for word in words:
        if len(word) in _in_order(ids)[1]:
            raise MatchError(
                f"is named after candidate {word}, which this run's generator did not make: "
                "annotations are valid for one generator; export its candidates and label those"
            )
    raise MatchError(
        "is of no candidate of this run: its name holds no candidate id and there is none inside. "
        "Keep the exported file name, or write the id into it"
    )


def _words(name: str) -> list[str]:
    """What may be an id, or the beginning of one, in a name."""
    return _PREFIX.findall(name.lower())


def _begun(words: Sequence[str], ids: frozenset[str]) -> set[str]:
    """Ids that begin with one of these words: all, or more than one."""
    ordered, _ = _in_order(ids)
    found: set[str] = set()
    for word in words:
        place = bisect_left(ordered, word)
        found.update(one for one in ordered[place : place + 2] if one.startswith(word))
        if len(found) > 1:
            break
    return found


@lru_cache(maxsize=2)
def _in_order(ids: frozenset[str]) -> tuple[Sequence[str], frozenset[int]]:
    """The ids in order, and which lengths they have: not anew for each of thousands of pictures."""
    return sorted(ids), frozenset(len(identity) for identity in ids)


def _refuse_other(named: set[str], inside: str) -> None:
    for other in sorted(named):
        raise MatchError(
            f"is named after candidate {other} but says inside that it belongs to {inside}: label "
            "the right picture, or rename the file"
        )
