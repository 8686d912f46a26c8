"""Folds never change once given, balance what is new, and cut one case into fair bands."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.errors import RequestError
from hdgan.tiler.folds import (
    CaseTiles,
    FoldRow,
    assign_bands,
    assign_cases,
    band_cuts,
    check_holdout,
    read_folds,
    tile_folds,
    write_folds,
)

stains = st.sampled_from([None, "HE", "PAS"])
case_lists = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4), st.tuples(stains, stains, st.integers(1, 50))
).map(lambda found: [CaseTiles(name, *facts) for name, facts in found.items()])


@given(case_lists, case_lists, st.integers(2, 6))
def test_known_cases_keep_their_fold(
    first: list[CaseTiles], more: list[CaseTiles], folds: int
) -> None:
    before = assign_cases(first, [], folds)
    after = assign_cases([*first, *more], before, folds)
    assert after[: len(before)] == before
    assert {row.case for row in after} == {case.case for case in [*first, *more]}
    assert len({row.case for row in after}) == len(after)


@given(case_lists, st.integers(2, 6))
def test_every_stain_is_spread_evenly(cases: list[CaseTiles], folds: int) -> None:
    rows = assign_cases(cases, [], folds)
    kinds = {(row.stain, row.centre) for row in rows}
    for kind in kinds:
        sizes = Counter(row.fold for row in rows if (row.stain, row.centre) == kind)
        assert max(sizes.values()) - min(sizes[fold] for fold in range(folds)) <= 1


def test_a_new_case_goes_where_its_stain_is_most_short() -> None:
    known = [FoldRow("case", "a", 0, "HE"), FoldRow("case", "b", 1, "PAS")]
    rows = assign_cases([CaseTiles("c", "HE", None, 1)], known, 2)
    assert rows[-1] == FoldRow("case", "c", 1, "HE")


def test_order_of_cases_does_not_matter() -> None:
    cases = [CaseTiles(f"c{i}", "HE" if i % 3 else "PAS", None, i) for i in range(20)]
    assert assign_cases(cases, [], 5) == assign_cases(cases[::-1], [], 5)


def test_fewer_folds_than_given_before_is_refused() -> None:
    with pytest.raises(RequestError, match=r"tiler\.folds to at least 5"):
        assign_cases([], [FoldRow("case", "a", 4)], 3)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=300), st.integers(2, 6))
def test_bands_are_contiguous_and_none_is_empty(positions: list[int], bands: int) -> None:
    cuts = band_cuts(positions, bands)
    assert cuts == sorted(set(cuts))
    if len(set(positions)) < bands:
        assert len(cuts) < bands - 1 or len(set(positions)) == 1
        return
    assert len(cuts) == bands - 1
    sizes = Counter(sum(position >= cut for cut in cuts) for position in positions)
    assert set(sizes) == set(range(bands))


@given(st.integers(2, 8), st.integers(1, 5), st.integers(1, 40))
def test_bands_of_even_tissue_are_equal_up_to_one_row(
    bands: int, per_row: int, rows_each: int
) -> None:
    positions = [row * 32 for row in range(bands * rows_each) for _ in range(per_row)]
    cuts = band_cuts(positions, bands)
    assert cuts == [32 * rows_each * band for band in range(1, bands)]


def test_bands_lie_along_the_longer_axis_and_tiles_find_theirs() -> None:
    corners = [(x, y) for y in range(0, 1000, 10) for x in (0, 50)]
    rows = assign_bands("one", {"s.svs": ((100, 1010), corners)}, [], 5)
    assert [(row.axis, row.fold, row.start, row.stop) for row in rows] == [
        ("y", 0, 0, 200),
        ("y", 1, 200, 400),
        ("y", 2, 400, 600),
        ("y", 3, 600, 800),
        ("y", 4, 800, 1010),
    ]
    folds = tile_folds(rows, "one", "s.svs", corners)
    assert Counter(folds) == dict.fromkeys(range(5), 40)
    assert folds == sorted(folds)


def test_bands_of_a_known_slide_stay_and_a_new_one_gets_its_own() -> None:
    first = assign_bands("one", {"a": ((9, 1), [(x, 0) for x in range(9)])}, [], 3)
    more = {"a": ((9, 1), [(8, 0)] * 5), "b": ((1, 6), [(0, y) for y in range(6)])}
    both = assign_bands("one", more, first, 3)
    assert both[:3] == first
    assert [(row.slide, row.axis, row.start) for row in both[3:]] == [
        ("b", "y", 0),
        ("b", "y", 2),
        ("b", "y", 4),
    ]


def test_too_few_places_for_the_bands_is_refused() -> None:
    with pytest.raises(RequestError, match=r"fewer tiler\.folds or a smaller tiler\.stride"):
        assign_bands("one", {"a": ((100, 10), [(0, 0), (50, 0)])}, [], 3)


def test_holdout_must_fit_the_number_of_cases() -> None:
    check_holdout("case", ["a", "b"])
    check_holdout("spatial", ["a", "a"])
    with pytest.raises(RequestError, match=r"set tiler\.holdout: case"):
        check_holdout("spatial", ["a", "b"])
    with pytest.raises(RequestError, match=r"set tiler\.holdout: spatial"):
        check_holdout("case", ["a", "a"])


def test_folds_survive_the_file() -> None:
    rows = [FoldRow("case", "a", 3, "HE", None), FoldRow("spatial", "b", 0, None, "x", "s", "y", 1)]
    assert read_folds(write_folds(rows), "here") == rows
    with pytest.raises(RequestError, match=r"here: is no folds\.parquet"):
        read_folds(b"junk", "here")
