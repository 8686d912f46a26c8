"""Annotations in: everything is checked first; a new version is published only if all is well.

A version holds the images that were imported and those of the version before: labelling takes days,
and nothing of it is lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.core.annotations import STAGE, latest_version, publish_next, version
from hdgan.core.artifact import Artifact, Attempt, artifact_key
from hdgan.core.errors import RequestError, Stopped
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import AnnotationsConfig, ClassConfig
from hdgan.core.store import Store
from hdgan.desk.annotation_versions import fixed_splits, kept_images, labelled_by
from hdgan.desk.artifact_documents import read_json
from hdgan.desk.candidates import Candidates
from hdgan.desk.label_preview import preview
from hdgan.desk.messages import Messages
from hdgan.desk.sources import find_sources
from hdgan.desk.splits import SPLITS, Split, SplitCounts, split_of
from hdgan.desk.understanding import Labelled, Understood, understand

MAX_TRIES = 10
"""Imports of others that may come between before this one gives up."""


class AnnotationProblems(RequestError):
    """Nothing was imported; `problems` says what has to be changed."""

    def __init__(self, problems: Messages) -> None:
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems.lines())
        count = "1 problem" if problems.total == 1 else f"{problems.total:,} problems"
        super().__init__(f"nothing was imported: {count}\n{lines}")


@dataclass(frozen=True)
class Imported:
    """A published version."""

    artifact: Artifact
    version: int
    changed: bool
    """False when these very annotations were the current version already."""
    images: tuple[Labelled, ...]
    """All that the version holds."""
    new: int
    """How many of them were imported now."""
    notices: tuple[str, ...]
    """What somebody should know, though nothing is wrong."""


def import_annotations(
    store: Store,
    candidates: Candidates,
    config: AnnotationsConfig,
    paths: Sequence[Path],
    *,
    background: str | None = None,
    accept: bool = False,
    replace_all: bool = False,
    run_info: Mapping[str, Any] | None = None,
) -> Imported:
    """Check the files at `paths` and publish them as the annotations of `candidates`.

    background   class of pixels nobody labelled; None leaves them unlabelled
    accept       take files that only their names match with a candidate
    replace_all  let the version hold these images alone, not those of the version before as well
    run_info     author, date and the like, kept outside the content
    Raises AnnotationProblems (exit 64) with the problems; then nothing has been written.
    """
    names = [entry.name for entry in config.classes]
    if background is not None and background not in names:
        raise RequestError(
            f"--background {background!r}: is no class of the run; use one of {', '.join(names)}"
        )
    understood = understand(find_sources(paths), candidates, config.classes, background, accept)
    if not understood.problems and not understood.images:
        understood.problems.append("nothing is labelled in these files: label something first")
    if understood.problems:
        raise AnnotationProblems(understood.problems)
    digest = candidates.artifact.content_digest
    for _ in range(MAX_TRIES):
        seq = latest_version(store, digest)
        before = version(store, digest, seq) if seq else None
        merged = _merge(understood, None if replace_all else before, config.classes)
        assigned = candidates.assign(config, fixed_splits(store, digest))
        splits = {one.candidate: split_of(one.candidate, assigned) for one in merged.images}
        counts = SplitCounts(train=config.train, val=config.val, test=config.test)
        problems, lacking = check_set(merged.images, splits, counts, names)
        if problems:
            raise AnnotationProblems(Messages(problems))
        if background is None and before is not None and not replace_all:
            background = _background(before, names)
        images = sorted(merged.images, key=_order(candidates.ids, splits))
        fresh = {one.candidate for one in understood.images if one in images}
        notices = (*merged.notices.lines(), *lacking)
        info = {**(run_info or {}), "notices": list(notices)}
        info |= _provenance(images, fresh, before, info)
        artifact = _commit(store, candidates, config.classes, images, splits, background, info)
        if before is not None and before.content_digest == artifact.content_digest:
            return Imported(artifact, seq, False, tuple(images), len(fresh), notices)
        published = publish_next(
            store,
            digest,
            artifact,
            after=seq,
            author=str(info.get("author", "")),
            date=str(info.get("date", "")),
        )
        if published is not None:
            return Imported(artifact, published, True, tuple(images), len(fresh), notices)
    raise Stopped("others import annotations of these candidates all the time: try again later")


def _merge(
    understood: Understood, before: Artifact | None, classes: Sequence[ClassConfig]
) -> Understood:
    """What was imported, and of the version before what was not."""
    if before is None:
        return understood
    kept, notices = kept_images(before, classes)
    known = {one.candidate for one in kept}
    # Shapes that nobody has touched say what was there when they were exported; somebody else may
    # have changed it since.
    fresh = [one for one in understood.images if not (one.untouched and one.candidate in known)]
    replaced = {one.candidate for one in fresh}
    kept = [one for one in kept if one.candidate not in replaced]
    merged = Understood([*kept, *fresh], notices=Messages(notices))
    merged.notices.take(understood.notices)
    return merged


def _background(before: Artifact, names: Sequence[str]) -> str | None:
    """What unlabelled pixels of images that are kept were counted as."""
    found = read_json(before, "annotations.json").get("background")
    return found if found in names else None


def check_set(
    images: Sequence[Labelled],
    splits: Mapping[str, Split],
    counts: SplitCounts,
    class_names: Sequence[str],
) -> tuple[list[str], list[str]]:
    """What is wrong with the annotations as a whole, and what they lack so far; pure."""
    lacking = []
    for split in SPLITS:
        have = sum(1 for image in images if splits[image.candidate] == split)
        if have < counts.of(split):
            lacking.append(
                f"{split}: {have} of {counts.of(split)} images are labelled so far; `hdgan run` "
                "waits for the others, import them when they are labelled"
            )
    training = [image.pixels for image in images if splits[image.candidate] == "train"]
    absent = [
        name
        for index, name in enumerate(class_names)
        if training and not any(pixels[index] for pixels in training)
    ]
    if len(training) < counts.train:
        return [], [
            *lacking,
            *(f"class {name!r} has no pixel in any training image yet" for name in absent),
        ]
    problems = [
        f"class {name!r} has no pixel in any training image: label some, or take the class out of "
        "annotations.classes"
        for name in absent
    ]
    return problems, lacking


def _order(ids: Sequence[str], splits: Mapping[str, Split]) -> Any:
    position = {identity: n for n, identity in enumerate(ids)}
    return lambda image: (SPLITS.index(splits[image.candidate]), position[image.candidate])


def _provenance(
    images: Sequence[Labelled], fresh: set[str], before: Artifact | None, info: Mapping[str, Any]
) -> dict[str, Any]:
    """Who labelled what, and how it is known which candidate that was."""
    earlier = {} if before is None else labelled_by(before)
    now = {name: info[name] for name in ("author", "date") if name in info}
    total = sum(sum(image.pixels) + image.unlabelled for image in images)
    return {
        "matchedBy": {image.candidate: image.matched_by.value for image in images},
        "labelledBy": {
            one.candidate: now if one.candidate in fresh else earlier.get(one.candidate, {})
            for one in images
        },
        "labelledShare": sum(sum(image.pixels) for image in images) / total,
    }


def _commit(
    store: Store,
    candidates: Candidates,
    classes: Sequence[ClassConfig],
    images: Sequence[Labelled],
    splits: Mapping[str, Split],
    background: str | None,
    run_info: Mapping[str, Any],
) -> Artifact:
    entries = [
        {
            "id": image.candidate,
            "split": splits[image.candidate],
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
    attempt.add_bytes("preview.png", preview(candidates, classes, images, splits))
    return attempt.commit(dict(run_info))
