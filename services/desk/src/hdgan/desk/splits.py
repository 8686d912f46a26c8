"""Which candidates are labelled, and for what: train, val or test. Pure functions over ids.

The test images are drawn first and at random from all candidates, never ranked, so that whatever
chooses the training images later cannot make the test easier. An image never changes its split:
the draw depends on nothing but the candidates' seed, and splits already published are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
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


Rank = Callable[[Collection[str], Collection[str]], Sequence[str]]
"""Given the images labelled to train and those held out for val and test: the others, those that
teach most first."""


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
    rank: Rank | None = None,
) -> dict[str, Split]:
    """The split of each image chosen for labelling: those to train in the order they are worth
    labelling, then val and test in the order of `ids`.

    Images in `published` (id to split, from annotations that exist) keep theirs. Then test and val
    are filled from the random draw, and train as `rank` says (None: as the candidates were drawn).
    """
    known = set(ids)
    chosen = {i: split for i, split in (published or {}).items() if i in known}
    drawn = draw_order(ids, seed)

    def fill(split: Split, queue: Sequence[str]) -> None:
        missing = counts.of(split) - sum(1 for other in chosen.values() if other == split)
        free = [identity for identity in queue if identity not in chosen]
        chosen.update(dict.fromkeys(free[: max(missing, 0)], split))

    fill("test", drawn)
    fill("val", drawn)
    labelled = {identity for identity, split in chosen.items() if split == "train"}
    fill("train", ids if rank is None else rank(labelled, chosen.keys() - labelled))
    position = {identity: n for n, identity in enumerate(ids)}
    place = {identity: n for n, identity in enumerate(chosen)}
    order = sorted(
        chosen,
        key=lambda i: (SPLITS.index(chosen[i]), place[i] if chosen[i] == "train" else position[i]),
    )
    return {identity: chosen[identity] for identity in order}


def split_of(identity: str, assigned: Mapping[str, Split]) -> Split:
    """The split of a labelled image; one nobody asked for can only train, as it was picked."""
    return assigned.get(identity, "train")
