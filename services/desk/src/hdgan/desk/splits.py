"""Which candidates are labelled, and for what: train, val or test. Pure functions over ids.

The test images are drawn first and at random from all candidates, never ranked, so that whatever
chooses the training images later cannot make the test easier. An image never changes its split:
the draw depends on nothing but the candidates' seed, and splits already published are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class SplitCounts:
    """How many images each split is to have."""

    train: int
    val: int
    test: int

    def of(self, split: Split) -> int:
        """The count of one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


def draw_order(ids: Sequence[str], seed: str) -> list[str]:
    """A random permutation of `ids`: by the SHA-256 of seed and position in the stream.

    `seed` names the stream and its seed. Neither ids nor pictures enter: they differ from one
    machine to the next by rounding, and the same run file should draw the same images everywhere.
    """

    def place(position: int) -> bytes:
        return hashlib.sha256(f"split:{seed}:{position}".encode()).digest()

    return [ids[position] for position in sorted(range(len(ids)), key=place)]


def assign_splits(
    ids: Sequence[str],
    counts: SplitCounts,
    seed: str,
    published: Mapping[str, Split] | None = None,
) -> dict[str, Split]:
    """The split of each image chosen for labelling, in the order of `ids` within each split.

    Images in `published` (id to split, from annotations that exist) keep theirs. Then test and val
    are filled from the random draw and train from the candidates in their own order.
    """
    known = set(ids)
    chosen = {i: split for i, split in (published or {}).items() if i in known}
    queues: dict[Split, list[str]] = {"test": draw_order(ids, seed)}
    queues["val"] = queues["test"]
    queues["train"] = list(ids)
    for split in ("test", "val", "train"):
        missing = counts.of(split) - sum(1 for other in chosen.values() if other == split)
        free = (i for i in queues[split] if i not in chosen)
        for _, identity in zip(range(max(missing, 0)), list(free), strict=False):
            chosen[identity] = split
    position = {identity: n for n, identity in enumerate(ids)}
    order = sorted(chosen, key=lambda i: (SPLITS.index(chosen[i]), position[i]))
    return {identity: chosen[identity] for identity in order}


def split_of(identity: str, assigned: Mapping[str, Split]) -> Split:
    """The split of a labelled image; one nobody asked for can only train, as it was picked."""
    return assigned.get(identity, "train")
