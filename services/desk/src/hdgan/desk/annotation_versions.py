"""The versions of a run's annotations: the splits they fix, masks that are kept, a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdgan.core.annotations import latest_version, read_pointer, version
from hdgan.core.artifact import Artifact
from hdgan.core.masks import UNLABELLED, decode_mask, encode_mask
from hdgan.core.run import ClassConfig
from hdgan.core.store import Store
from hdgan.core.well_formed import well_formed
from hdgan.desk.artifact_documents import read_json
from hdgan.desk.candidates import published_splits
from hdgan.desk.sources import MatchedBy
from hdgan.desk.splits import SPLITS, Split
from hdgan.desk.understanding import Labelled


@dataclass(frozen=True)
class Version:
    """One import, as the list shows it."""

    seq: int
    author: str
    date: str
    splits: Mapping[str, int]
    """Images per split."""
    labelled_share: float | None
    """Of the pixels of its images; None where the import did not write it down."""


def fixed_splits(store: Store, candidates_digest: str) -> dict[str, Split]:
    """The split of every image that any version has labelled: an image never changes its split,
    also when a version without it comes between."""
    fixed: dict[str, Split] = {}
    for seq in range(latest_version(store, candidates_digest), 0, -1):
        fixed |= published_splits(version(store, candidates_digest, seq))
    return fixed


def kept_images(
    annotations: Artifact, classes: Sequence[ClassConfig]
) -> tuple[list[Labelled], list[str]]:
    """The masks of a version in the classes of the run, which are found by name, and what became
    of those that the run has not any more."""
    kept: list[Labelled] = []
    info = annotations.run_info()
    with well_formed(annotations):
        document = read_json(annotations, "annotations.json")
        before = [(str(one["name"]), str(one["color"])) for one in document["classes"]]
        ids = [str(image["id"]) for image in document["images"]]
    indices = {entry.name: index for index, entry in enumerate(classes)}
    same = before == [(entry.name, entry.color) for entry in classes]
    table = np.full(256, UNLABELLED, dtype=np.uint8)
    table[: len(before)] = [indices.get(name, UNLABELLED) for name, _ in before]
    empty = 0
    for identity in ids:
        place = f"masks/{identity}.png"
        png = annotations.read(place)
        mask = decode_mask(png, classes=len(before), source=annotations.uri(place))
        if not same:
            mask = table[mask]
            png = encode_mask(mask, classes)
        counts = np.bincount(mask.ravel(), minlength=256)
        if counts[UNLABELLED] == mask.size:
            empty += 1
            continue
        kept.append(
            Labelled(
                candidate=identity,
                png=png,
                pixels=tuple(counts[: len(classes)].tolist()),
                unlabelled=int(counts[UNLABELLED]),
                source=annotations.uri(place),
                matched_by=_matched_by(info, identity),
            )
        )
    gone = [name for name, _ in before if name not in indices]
    notices = []
    if gone:
        notices.append(
            f"the run has no class {', '.join(gone)} any more: what was labelled so before is "
            "unlabelled now" + (f", and {empty} images are left out" if empty else "")
        )
    return kept, notices


def labelled_by(annotations: Artifact) -> dict[str, Any]:
    """Who labelled each image of a version, and when, as the imports wrote it down."""
    info = annotations.run_info()
    found = info.get("labelledBy")
    if isinstance(found, dict):
        return dict(found)
    entry = {name: str(info.get(name, "")) for name in ("author", "date")}
    return dict.fromkeys(published_splits(annotations), entry)


def list_versions(store: Store, candidates_digest: str) -> list[Version]:
    """All versions, the oldest first."""
    found = []
    for seq in range(1, latest_version(store, candidates_digest) + 1):
        pointer = read_pointer(store, candidates_digest, seq)
        annotations = version(store, candidates_digest, seq)
        info = annotations.run_info()
        counts = Counter(published_splits(annotations).values())
        share = info.get("labelledShare")
        found.append(
            Version(
                seq=seq,
                author=pointer.author or str(info.get("author", "")),
                date=pointer.date or str(info.get("date", "")),
                splits={split: counts[split] for split in SPLITS},
                labelled_share=share if isinstance(share, float) else None,
            )
        )
    return found


def _matched_by(info: Mapping[str, Any], identity: str) -> MatchedBy:
    matched = info.get("matchedBy")
    value = matched.get(identity) if isinstance(matched, dict) else None
    # Before it was written down, only ids and names that were given --accept came in.
    return next((one for one in MatchedBy if one.value == value), MatchedBy.NAME)
