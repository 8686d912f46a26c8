"""The test images are drawn once, at random, and nothing moves an image to another split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from hdgan.desk.splits import SplitCounts, assign_splits, split_of

IDS = [f"{n:032x}" for n in range(60)]


def test_each_split_gets_its_count_and_train_takes_the_first_that_are_left() -> None:
    assigned = assign_splits(IDS, SplitCounts(train=16, val=4, test=16), "seed")
    assert Counter(assigned.values()) == {"train": 16, "val": 4, "test": 16}
    held_out = {i for i, split in assigned.items() if split != "train"}
    expected = [i for i in IDS if i not in held_out][:16]
    assert [i for i, split in assigned.items() if split == "train"] == expected


def test_the_test_draw_is_random_and_depends_on_neither_ids_nor_other_counts() -> None:
    def test_set(ids: list[str], counts: SplitCounts, seed: str = "seed") -> set[int]:
        assigned = assign_splits(ids, counts, seed)
        return {n for n, i in enumerate(ids) if assigned.get(i) == "test"}

    drawn = test_set(IDS, SplitCounts(train=16, val=4, test=16))
    other_ids = [f"{n:032x}" for n in range(1000, 1060)]
    assert drawn == test_set(other_ids, SplitCounts(train=30, val=9, test=16))
    assert drawn != set(range(16))
    assert drawn != test_set(IDS, SplitCounts(train=16, val=4, test=16), "other seed")


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 20), st.data())
def test_published_splits_never_change(
    train: int, val: int, test: int, data: st.DataObject
) -> None:
    first = assign_splits(IDS, SplitCounts(train=train, val=val, test=test), "seed")
    larger = SplitCounts(
        train=data.draw(st.integers(1, 25)),
        val=data.draw(st.integers(1, 8)),
        test=data.draw(st.integers(1, 25)),
    )
    second = assign_splits(IDS, larger, "seed", first)
    assert {i: second[i] for i in first} == first
    assert Counter(second.values())["test"] == max(test, larger.test)


def test_an_image_nobody_asked_for_can_only_train() -> None:
    assert split_of("f" * 32, {}) == "train"


def test_train_follows_the_rank_which_knows_what_is_labelled_and_what_is_held_out() -> None:
    counts = SplitCounts(train=4, val=2, test=3)
    first = assign_splits(IDS, counts, "seed")
    labelled = {i for i, split in first.items() if split == "train"}
    held_out = set(first) - labelled
    asked: list[tuple[set[str], set[str]]] = []

    def backwards(known: Collection[str], apart: Collection[str]) -> list[str]:
        asked.append((set(known), set(apart)))
        return IDS[::-1]

    more = assign_splits(IDS, SplitCounts(train=7, val=2, test=3), "seed", first, backwards)
    assert asked == [(labelled, held_out)]
    assert {i: more[i] for i in first} == first
    expected = [i for i in IDS[::-1] if i not in first][:3]
    train = [i for i, split in more.items() if split == "train"]
    assert train[-3:] == expected
    assert set(train[:4]) == labelled
