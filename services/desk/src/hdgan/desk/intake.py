"""Annotations in: everything is checked first; a new version is published only if all is well."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.core.annotations import STAGE, current, publish
from hdgan.core.artifact import Artifact, Attempt, artifact_key
from hdgan.core.errors import RequestError
from hdgan.core.geojson import MAX_BYTES, GeoJsonError
from hdgan.core.masks import UNLABELLED, decode_mask, encode_mask
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import AnnotationsConfig, ClassConfig
from hdgan.core.store import Store
from hdgan.desk import geojson, mask_files
from hdgan.desk.candidates import Candidates, published_splits
from hdgan.desk.pictures import Cell, colour_mask, encode_png, in_rows, integer_zoom, outline, sheet
from hdgan.desk.png_text import read_candidate_id, with_candidate_id
from hdgan.desk.sources import (
    MatchedBy,
    MatchError,
    find_sources,
    is_raster,
    match,
    read_bounded,
)
from hdgan.desk.splits import SPLITS, Split, SplitCounts, split_of

Mask = npt.NDArray[np.uint8]

_PREVIEW_SIDE = 192
_PREVIEW_IMAGES_PER_ROW = 3


class AnnotationProblems(RequestError):
    """Nothing was imported; `problems` says everything that has to be changed."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"nothing was imported: {count}\n{lines}")


@dataclass(frozen=True)
class Labelled:
    """One candidate's mask as understood, ready to be stored."""

    candidate: str
    split: Split
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


@dataclass
class Understood:
    """What a set of files says, and everything that is wrong with it."""

    images: list[Labelled] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Imported:
    """A published version."""

    artifact: Artifact
    version: int
    changed: bool
    """False when these very annotations were the current version already."""
    images: tuple[Labelled, ...]


def import_annotations(
    store: Store,
    candidates: Candidates,
    config: AnnotationsConfig,
    paths: Sequence[Path],
    *,
    background: str | None = None,
    accept: bool = False,
    run_info: Mapping[str, Any] | None = None,
) -> Imported:
    """Check the files at `paths` and publish them as the annotations of `candidates`.

    background  class of pixels nobody labelled; None leaves them unlabelled
    accept      take masks that are matched by a shortened id in their name alone
    run_info    author, date and the like, kept outside the content
    Raises AnnotationProblems (exit 64) with all problems; then nothing has been written.
    """
    names = [entry.name for entry in config.classes]
    if background is not None and background not in names:
        raise RequestError(
            f"--background {background!r}: is no class of the run; use one of {', '.join(names)}"
        )
    before = current(store, candidates.artifact.content_digest)
    assigned = candidates.assign(config, published_splits(before))
    understood = understand(
        find_sources(paths), candidates, assigned, config.classes, background, accept
    )
    if not understood.problems:
        counts = SplitCounts(train=config.train, val=config.val, test=config.test)
        understood.problems += check_set(understood.images, counts, names)
    if understood.problems:
        raise AnnotationProblems(understood.problems)
    images = sorted(understood.images, key=_order(candidates.ids))
    artifact = _commit(store, candidates, config.classes, images, background, run_info or {})
    changed = before is None or before.content_digest != artifact.content_digest
    version = publish(store, candidates.artifact.content_digest, artifact)
    return Imported(artifact, version, changed, tuple(images))


def understand(
    files: Sequence[Path],
    candidates: Candidates,
    assigned: Mapping[str, Split],
    classes: Sequence[ClassConfig],
    background: str | None = None,
    accept: bool = False,
) -> Understood:
    """Read every file; problems are collected, each with the file's name and what to do."""
    result = Understood()
    ids = frozenset(candidates.ids)
    value = None if background is None else [c.name for c in classes].index(background)
    seen: dict[str, Labelled] = {}
    for path in files:
        for labelled in _read_file(path, candidates, ids, assigned, classes, value, accept, result):
            other = seen.get(labelled.candidate)
            if other is None:
                seen[labelled.candidate] = labelled
            elif labelled.untouched:
                pass
            elif other.untouched:
                seen[labelled.candidate] = labelled
            elif other.png != labelled.png:
                result.problems.append(
                    f"{path}: is another mask of candidate {labelled.candidate} than "
                    f"{other.source}: keep one of them"
                )
    result.images = list(seen.values())
    return result


def _read_file(
    path: Path,
    candidates: Candidates,
    ids: frozenset[str],
    assigned: Mapping[str, Split],
    classes: Sequence[ClassConfig],
    background: int | None,
    accept: bool,
    result: Understood,
) -> list[Labelled]:
    """The masks of one file; what is wrong with it goes to `result.problems`."""
    labelled: list[Labelled] = []
    problems: list[str] = []
    untouched = False
    try:
        if is_raster(path):
            data = read_bounded(path, mask_files.MAX_BYTES)
            inside = read_candidate_id(data)
            drawings: list[tuple[str | None, geojson.Drawing | None]] = [(inside, None)]
        else:
            data = read_bounded(path, MAX_BYTES)
            parsed = geojson.parse_geojson(data)
            problems += parsed.problems
            untouched = parsed.untouched
            drawings = [(drawing.candidate, drawing) for drawing in parsed.drawings]
        for inside, drawing in drawings:
            # A file with several drawings is about several candidates: its name says nothing.
            found = match(path.stem if len(drawings) == 1 else "", inside, ids)
            if found.by is MatchedBy.PART_OF_NAME and not accept:
                problems.append(
                    f"is unverified: only a part of the id of candidate {found.candidate} is in "
                    "its name; use the full id, or give --accept to trust the names"
                )
                continue
            if untouched and drawing is not None and not drawing.shapes:
                continue  # an export wrote it for shapes, and nobody has drawn any
            if drawing is None and _is_the_picture(data, candidates, found.candidate):
                # Masks saved beside what was exported: the picture itself is no label.
                continue
            height, width = candidates.rgb(found.candidate).shape[:2]
            if drawing is None:
                mask = mask_files.read_mask(data, classes, height, width)
            else:
                mask, wrong = geojson.draw(drawing.shapes, classes, height, width)
                problems += wrong
            if not (mask != UNLABELLED).any():
                problems.append("labels no pixel at all: label it, or leave the file out")
                continue
            if background is not None:
                mask[mask == UNLABELLED] = background
            counts = np.bincount(mask.ravel(), minlength=256)
            labelled.append(
                Labelled(
                    candidate=found.candidate,
                    split=split_of(found.candidate, assigned),
                    png=encode_mask(mask, classes),
                    pixels=tuple(counts[: len(classes)].tolist()),
                    unlabelled=int(counts[UNLABELLED]),
                    source=str(path),
                    matched_by=found.by,
                    untouched=untouched,
                )
            )
    except (RequestError, MatchError, GeoJsonError, mask_files.MaskError) as error:
        problems.append(str(error))
    result.problems += [f"{path}: {problem}" for problem in problems]
    return labelled


def _is_the_picture(data: bytes, candidates: Candidates, identity: str) -> bool:
    """Whether a PNG is the exported picture of a candidate, unchanged."""
    return data == with_candidate_id(candidates.png(identity), identity)


def check_set(
    images: Sequence[Labelled], counts: SplitCounts, class_names: Sequence[str]
) -> list[str]:
    """What is wrong with the annotations as a whole; pure."""
    problems = []
    for split in SPLITS:
        have = sum(1 for image in images if image.split == split)
        if have < counts.of(split):
            problems.append(
                f"{split}: {have} of {counts.of(split)} images are labelled; label the others "
                f"(export writes them as {split}-<id>.png), or lower annotations.{split}"
            )
    training = [image.pixels for image in images if image.split == "train"]
    for index, name in enumerate(class_names):
        if training and not any(pixels[index] for pixels in training):
            problems.append(
                f"class {name!r} has no pixel in any training image: label some, or take the "
                "class out of annotations.classes"
            )
    return problems


def _order(ids: Sequence[str]) -> Any:
    position = {identity: n for n, identity in enumerate(ids)}
    return lambda image: (SPLITS.index(image.split), position[image.candidate])


def _commit(
    store: Store,
    candidates: Candidates,
    classes: Sequence[ClassConfig],
    images: Sequence[Labelled],
    background: str | None,
    run_info: Mapping[str, Any],
) -> Artifact:
    entries = [
        {
            "id": image.candidate,
            "split": image.split,
            "sha256": hashlib.sha256(image.png).hexdigest(),
        }
        for image in images
    ]
    document = {
        "candidates": candidates.artifact.content_digest,
        "generator": candidates.generator,
        "classes": [{"name": entry.name, "color": entry.color} for entry in classes],
        "background": background,
        "images": entries,
    }
    inputs = {
        "candidates": candidates.artifact.content_digest,
        "generator": candidates.generator,
    }
    key = artifact_key(STAGE, STAGE_VERSIONS[STAGE], document, inputs)
    settings = {"classes": document["classes"], "background": background}
    attempt = Attempt(
        store,
        STAGE,
        key,
        stage_version=STAGE_VERSIONS[STAGE],
        config=settings,
        inputs=inputs,
    )
    attempt.need(candidates.artifact.manifest.stage, candidates.artifact.manifest.key)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    attempt.add_bytes("annotations.json", text.encode("utf-8"))
    for image in images:
        attempt.add_bytes(f"masks/{image.candidate}.png", image.png)
    attempt.add_bytes("preview.png", preview(candidates, classes, images))
    matched = {image.candidate: image.matched_by.value for image in images}
    return attempt.commit({**run_info, "matchedBy": matched})


def preview(
    candidates: Candidates, classes: Sequence[ClassConfig], images: Sequence[Labelled]
) -> bytes:
    """PNG of what was understood: each picture outlined in the class colours, beside its mask."""
    cells: list[Cell] = []
    for image in images:
        mask = decode_mask(image.png, classes=len(classes), source=image.source)
        picture = outline(candidates.rgb(image.candidate), mask, classes)
        total = sum(image.pixels) + image.unlabelled
        share = 100 * sum(image.pixels) / total
        cells.append(Cell(integer_zoom(picture, _PREVIEW_SIDE), f"{image.split} {image.candidate}"))
        colours = integer_zoom(colour_mask(mask, classes), _PREVIEW_SIDE)
        cells.append(Cell(colours, f"{share:.0f} % labelled"))
    return encode_png(sheet(in_rows(cells, 2 * _PREVIEW_IMAGES_PER_ROW), _PREVIEW_SIDE))
