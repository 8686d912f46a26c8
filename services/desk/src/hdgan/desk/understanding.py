"""From the files an expert hands back to masks of candidates, with all that is wrong or unusual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hdgan.core.errors import RequestError
from hdgan.core.masks import UNLABELLED, encode_mask
from hdgan.core.run import ClassConfig
from hdgan.desk import mask_files
from hdgan.desk.candidates import Candidates
from hdgan.desk.drawing import Drawing, LabelFileError, Mask, Reading, draw
from hdgan.desk.formats import MAX_BYTES, read_labels
from hdgan.desk.mask_files import MaskError
from hdgan.desk.messages import Messages, shown_name
from hdgan.desk.pictures import Rgb
from hdgan.desk.png_text import with_candidate_id
from hdgan.desk.sources import MatchedBy, MatchError, match, read_bounded

LITTLE = 0.05
"""Share of an image below which so little is labelled that it may be an oversight."""
MANY_LONELY = 25
"""Single pixels of a class, alone among others, from which a mask was resized or smoothed."""
_SHOWN = 3


@dataclass(frozen=True)
class Labelled:
    """One candidate's mask as understood, ready to be stored."""

    candidate: str
    png: bytes
    """8-bit indexed PNG; the array itself would be too much memory for large images."""
    pixels: tuple[int, ...]
    """Labelled pixels per class."""
    unlabelled: int
    source: str
    matched_by: MatchedBy
    untouched: bool = False
    """Shapes of an earlier version that an export wrote and nobody has changed: whatever else
    labels this candidate holds instead."""

    @property
    def share(self) -> float:
        """The share of its pixels that is labelled."""
        return sum(self.pixels) / (sum(self.pixels) + self.unlabelled)


@dataclass
class Understood:
    """What a set of files says, everything that is wrong with it, and what somebody should know."""

    images: list[Labelled] = field(default_factory=list)
    problems: Messages = field(default_factory=Messages)
    notices: Messages = field(default_factory=Messages)


def understand(
    files: Sequence[Path],
    candidates: Candidates,
    classes: Sequence[ClassConfig],
    background: str | None = None,
    accept: bool = False,
) -> Understood:
    """Read every file; problems are collected, each with the file's name and what to do.

    background  class of pixels nobody labelled; None leaves them unlabelled
    accept      trust names where nothing in a file says which candidate it labels
    """
    result = Understood()
    reader = _Reader(candidates, classes, background, result)
    seen: dict[str, Labelled] = {}
    for path in files:
        for labelled in reader.read(path):
            other = seen.get(labelled.candidate)
            if other is None or (other.untouched and not labelled.untouched):
                seen[labelled.candidate] = labelled
            elif not labelled.untouched and other.png != labelled.png:
                result.problems.append(
                    f"{labelled.source}: is another mask of candidate {labelled.candidate} than "
                    f"{other.source}: keep one of them"
                )
    result.images = list(seen.values())
    if reader.unverified and not accept:
        result.problems.append(_unverified(reader.unverified))
    elif reader.unverified:
        count = len(reader.unverified)
        result.notices.append(f"{count} accepted by {'its name' if count == 1 else 'their names'}")
    return result


def _unverified(sources: Sequence[str]) -> str:
    shown = ", ".join(sources[:_SHOWN]) + (", ..." if len(sources) > _SHOWN else "")
    one = len(sources) == 1
    return (
        f"{shown}: {'1 is' if one else f'{len(sources)} are'} unverified: nothing inside says "
        f"which candidate {'it labels' if one else 'they label'}, only "
        f"{'its name does' if one else 'their names do'}. Look whether the "
        f"name{' is' if one else 's are'} right, then give --accept"
    )


class _Reader:
    """Reads one file after the other."""

    def __init__(
        self,
        candidates: Candidates,
        classes: Sequence[ClassConfig],
        background: str | None,
        result: Understood,
    ) -> None:
        self._candidates = candidates
        self._ids = frozenset(candidates.ids)
        self._classes = classes
        names = [entry.name for entry in classes]
        self._background = None if background is None else names.index(background)
        self._result = result
        self.unverified: list[str] = []

    def read(self, path: Path) -> list[Labelled]:
        """The masks of one file; what is wrong with it goes to the result's problems."""
        try:
            reading = read_labels(read_bounded(path, MAX_BYTES))
        except (RequestError, LabelFileError) as error:
            self._result.problems.append(f"{path}: {error}")
            return []
        self._result.problems.take(reading.wrong, f"{path}: ")
        self._result.notices.take(reading.notices, f"{path}: ")
        found, empty = [], 0
        for drawing in reading.drawings:
            where = str(path)
            if len(reading.drawings) > 1 and (drawing.picture or drawing.candidate):
                where += f", picture {shown_name(drawing.picture or drawing.candidate or '')}"
            if drawing.picture is not None and not drawing.areas:
                empty += 1  # a file about many pictures names also those nobody has come to
                continue
            try:
                labelled = self._understand(path, where, reading, drawing)
            except (RequestError, MatchError, LabelFileError, MaskError) as error:
                self._result.problems.append(f"{where}: {error}")
                continue
            if labelled is not None:
                found.append(labelled)
        if empty:
            pictures = "1 picture" if empty == 1 else f"{empty} pictures"
            self._result.notices.append(f"{path}: {pictures} without any shape; left out")
        return found

    def _understand(
        self, path: Path, where: str, reading: Reading, drawing: Drawing
    ) -> Labelled | None:
        """The mask that one drawing gives, None where it is none on purpose."""
        # A file about several pictures: its own name says nothing about one of them.
        stem = path.stem if len(reading.drawings) == 1 else ""
        found = match(stem, drawing.candidate, self._ids, drawing.picture)
        if reading.untouched and not drawing.areas:
            return None  # an export wrote it for shapes, and nobody has drawn any
        picture = self._candidates.png(found.candidate)
        if drawing.png is not None and drawing.png == with_candidate_id(picture, found.candidate):
            return None  # masks saved beside what was exported: the picture itself is no label
        if not found.by.verified:
            self.unverified.append(where)
        rgb = self._candidates.rgb(found.candidate)
        mask, wrong, notices = self._mask(drawing, rgb)
        self._result.problems.take(wrong, f"{where}: ")
        if not (mask != UNLABELLED).any():
            if not wrong:
                raise RequestError("labels no pixel at all: label it, or leave the file out")
            return None
        if self._background is not None:
            mask[mask == UNLABELLED] = self._background
        counts = np.bincount(mask.ravel(), minlength=256)
        labelled = Labelled(
            candidate=found.candidate,
            png=encode_mask(mask, self._classes),
            pixels=tuple(counts[: len(self._classes)].tolist()),
            unlabelled=int(counts[UNLABELLED]),
            source=where,
            matched_by=found.by,
            untouched=reading.untouched,
        )
        if not reading.untouched:
            notices += _oddities(mask, labelled)
            for notice in notices:
                self._result.notices.append(f"{where}: {notice}")
        return labelled

    def _mask(self, drawing: Drawing, rgb: Rgb) -> tuple[Mask, Messages, list[str]]:
        height, width = rgb.shape[:2]
        if drawing.png is not None:
            mask = mask_files.read_mask(drawing.png, self._classes, height, width, rgb)
            return mask, Messages(), []
        if drawing.size not in (None, (width, height)):
            shown = "{} x {}".format(*drawing.size) if drawing.size else ""
            raise RequestError(
                f"its picture is {shown} px, but its candidate is {width} x {height} px: label at "
                "the exported size, do not resize"
            )
        return draw(drawing.areas, self._classes, height, width)


def _oddities(mask: Mask, labelled: Labelled) -> list[str]:
    """What may be an oversight in a mask."""
    found = []
    if labelled.share < LITTLE:
        found.append(f"only {100 * labelled.share:.1f} % of it is labelled")
    lonely = lonely_pixels(mask)
    if lonely >= MANY_LONELY:
        found.append(
            f"{lonely} single pixels stand alone among other classes: was it resized, or saved with"
            " soft edges?"
        )
    return found


def lonely_pixels(mask: Mask) -> int:
    """Labelled pixels none of whose four neighbours has their class."""
    alone = mask != UNLABELLED
    alone[1:] &= mask[1:] != mask[:-1]
    alone[:-1] &= mask[:-1] != mask[1:]
    alone[:, 1:] &= mask[:, 1:] != mask[:, :-1]
    alone[:, :-1] &= mask[:, :-1] != mask[:, 1:]
    return int(np.count_nonzero(alone))
