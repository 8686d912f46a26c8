"""Candidates and labels in the report: which version, by whom, when, and how they were matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdgan.core.annotations import latest_version, read_pointer
from hdgan.core.artifact import Artifact
from hdgan.core.errors import InputMissing, KeyMissing
from hdgan.core.masks import decode_mask
from hdgan.core.run import ClassConfig
from hdgan.core.store import Store
from hdgan.desk import report_figures
from hdgan.desk.candidates import Candidates, read_json
from hdgan.desk.report_figures import Picture
from hdgan.desk.report_text import counted, listed, percent
from hdgan.desk.sources import MatchedBy

LABELLED_SHOWN = 12
_VERSIONS_LOOKED_AT = 20

_MATCHED = {
    MatchedBy.CONTENT: "by the id inside the file",
    MatchedBy.PICTURE: "by the picture that the file names",
    MatchedBy.NAME: "by the full id in the file's name alone, accepted unverified",
    MatchedBy.PART_OF_NAME: "by a part of the id in the file's name alone, accepted unverified",
}


@dataclass(frozen=True)
class Labelled:
    """A candidate beside its mask."""

    id: str
    split: str
    note: str
    pictures: list[Picture]


@dataclass(frozen=True)
class ClassPixels:
    """What is labelled of one class."""

    name: str
    pixels: str
    share: str
    images: int


def annotation_pixels(annotations: Artifact, classes: int) -> tuple[list[int], list[int], int]:
    """Labelled pixels and images with any, per class, and pixels that are not labelled."""
    pixels = np.zeros(classes, dtype=np.int64)
    images = np.zeros(classes, dtype=np.int64)
    unlabelled = 0
    for image in read_json(annotations, "annotations.json")["images"]:
        mask = decode_mask(annotations.read(f"masks/{image['id']}.png"), classes=classes)
        counts = np.bincount(mask.ravel(), minlength=256)
        pixels += counts[:classes]
        images += counts[:classes] > 0
        unlabelled += int(counts[255])
    return pixels.tolist(), images.tolist(), unlabelled


def annotation_balance(annotations: Artifact, classes: int) -> list[float]:
    """Share of the labelled pixels per class, over all labelled images."""
    pixels, _, _ = annotation_pixels(annotations, classes)
    return [one / max(sum(pixels), 1) for one in pixels]


def split_counts(annotations: Artifact) -> Counter[str]:
    """Labelled images per split."""
    images = read_json(annotations, "annotations.json")["images"]
    return Counter(str(image["split"]) for image in images)


def version_of(store: Store, candidates_digest: str, annotations: Artifact) -> str:
    """Which version of the annotations of these candidates it is, in words; empty if unknown."""
    try:
        newest = latest_version(store, candidates_digest)
        for seq in range(newest, max(0, newest - _VERSIONS_LOOKED_AT), -1):
            if read_pointer(store, candidates_digest, seq).key == annotations.manifest.key:
                return f"version {seq}" + ("" if seq == newest else f" (there is {newest} already)")
    except (InputMissing, KeyMissing):
        pass
    return ""


def matched(run_info: Mapping[str, Any]) -> list[str]:
    """How masks were matched with candidates, in words with counts."""
    counts = _matched(run_info)
    words = {how.value: text for how, text in _MATCHED.items()}
    order = [*words, *sorted(set(counts) - set(words))]
    return [f"{counts[how]} {words.get(how, how)}" for how in order if counts[how]]


def unverified(run_info: Mapping[str, Any]) -> int:
    """Masks that nothing but the name of their file matches with a candidate."""
    counts = _matched(run_info)
    return sum(counts[how.value] for how in MatchedBy if not how.verified)


def _matched(run_info: Mapping[str, Any]) -> Counter[str]:
    found = run_info.get("matchedBy")
    return Counter(str(how) for how in found.values()) if isinstance(found, dict) else Counter()


def authors(run_info: Mapping[str, Any]) -> str:
    """Who labelled, with how many images where they were several; empty if nobody is named."""
    by = run_info.get("labelledBy")
    entries = list(by.values()) if isinstance(by, dict) else []
    names = Counter(str(one.get("author") or "") for one in entries if isinstance(one, dict))
    del names[""]
    if len(names) > 1:
        return listed([f"{name} ({count})" for name, count in names.most_common()])
    return next(iter(names), str(run_info.get("author") or ""))


def labels_section(
    candidates: Candidates,
    annotations: Artifact | None,
    classes: Sequence[ClassConfig],
) -> dict[str, Any]:
    """What the page shows of candidates and their annotations."""
    side = candidates.rgb(candidates.ids[0]).shape[0] if candidates.ids else 0
    context: dict[str, Any] = {
        "count": len(candidates.ids),
        "psi": candidates.document.get("psi"),
        "generator": candidates.generator,
        "sheet": report_figures.file_picture(
            candidates.artifact,
            "sheet.png",
            "sample of the candidates",
            f"The first of {counted(len(candidates.ids), 'candidate')}.",
            pixelated=side <= 128,
        ),
        "labelled": 0,
        "labels": None,
    }
    if annotations is None:
        return context
    document = read_json(annotations, "annotations.json")
    images, info = document["images"], annotations.run_info()
    pixels, with_any, unlabelled = annotation_pixels(annotations, len(classes))
    total = sum(pixels)
    return context | {
        "labelled": len(images),
        "splits": dict(split_counts(annotations)),
        "version": version_of(
            candidates.artifact.store, candidates.artifact.content_digest, annotations
        ),
        "digest": annotations.content_digest,
        "author": authors(info),
        "date": str(info.get("date") or ""),
        "matched": matched(info),
        "unverified": unverified(info),
        "background": str(document.get("background") or ""),
        "unlabelled": percent(unlabelled / max(total + unlabelled, 1)),
        "classes": [
            ClassPixels(entry.name, f"{n:,}", percent(n / max(total, 1)), count)
            for entry, n, count in zip(classes, pixels, with_any, strict=True)
        ],
        "labels": _shown(candidates, annotations, images, classes),
    }


def _shown(
    candidates: Candidates,
    annotations: Artifact,
    images: Sequence[dict[str, Any]],
    classes: Sequence[ClassConfig],
) -> list[Labelled]:
    """Some labelled candidates beside their masks, of every split."""
    found = []
    splits = {str(one["id"]): str(one["split"]) for one in images}
    for identity in report_figures.evenly(list(splits), LABELLED_SHOWN):
        mask = decode_mask(annotations.read(f"masks/{identity}.png"), classes=len(classes))
        short = identity[:12]
        pictures = [
            report_figures.cell(candidates.rgb(identity), f"candidate {short}"),
            report_figures.mask_cell(mask, classes, f"label of {short}"),
        ]
        labelled = percent(float((mask != 255).mean()), 0)
        found.append(Labelled(short, splits[identity], f"{labelled} labelled", pictures))
    return found
