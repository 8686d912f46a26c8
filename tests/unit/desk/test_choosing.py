"""Which candidates are chosen: those that show most of what is not labelled yet."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.errors import InputMissing
from hdgan.core.store import open_store
from hdgan.desk.choosing import SPREAD, Ranking, choose, failed, read_ranking


def ranking(textures: Any, place: Any = None, **changes: Any) -> Ranking:
    """Of candidates `0`, `1`, ...; all clear, all equally real, far apart."""
    textures = np.asarray(textures, dtype=np.float64)
    count = len(textures)
    values: dict[str, Any] = {
        "ids": tuple(str(number) for number in range(count)),
        "textures": textures,
        "place": np.eye(count) if place is None else np.asarray(place, dtype=np.float64),
        "contrast": np.full(count, 50.0),
        "realism": np.zeros(count),
    }
    return Ranking(**(values | changes))


def test_what_is_rare_is_chosen_before_more_of_the_same() -> None:
    common, rare = [1.0, 0.0], [0.6, 0.4]
    assert choose(ranking([common, common, rare, common]), (), (), 1) == ["2"]


def test_what_has_been_labelled_need_not_be_shown_again() -> None:
    seen = ranking([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert choose(seen, ["0"], (), 1) == ["2"]
    assert choose(seen, ["2"], (), 1) == ["0"]


def test_of_equal_textures_the_one_in_the_middle_of_most_others_is_chosen() -> None:
    place = [[0.0], [1.0], [2.0], [40.0]]
    equal = ranking([[1.0]] * 4, place)
    assert choose(equal, (), (), 2) == ["1", "3"]


def test_every_free_candidate_comes_once_and_the_first_are_the_same_for_any_count() -> None:
    random = np.random.default_rng(0)
    seen = ranking(random.dirichlet(np.ones(5), 20), random.standard_normal((20, 4)))
    everything = choose(seen, ["3"], ["7", "9"])
    assert sorted(everything, key=int) == [str(n) for n in range(20) if n not in (3, 7, 9)]
    for count in (0, 1, 5, 99):
        assert choose(seen, ["3"], ["7", "9"], count) == everything[:count]


def test_greedy_is_within_its_bound_of_the_best_set() -> None:
    """1 - 1/e of the best three out of eight, for the sums as the module states them."""
    random = np.random.default_rng(1)
    seen = ranking(random.dirichlet(np.full(6, 0.3), 8), random.standard_normal((8, 3)))
    distances = np.linalg.norm(seen.place[:, None] - seen.place[None], axis=2)
    similar = 1 - distances / distances.max()
    single = np.sqrt(seen.textures).sum(axis=1).max(), similar.sum(axis=0).max()

    def worth(chosen: Any) -> float:
        rows = list(chosen)
        shown = np.sqrt(seen.textures[rows].sum(axis=0)).sum()
        return float(
            (1 - SPREAD) * shown / single[0] + SPREAD * similar[rows].max(axis=0).sum() / single[1]
        )

    best = max(worth(one) for one in itertools.combinations(range(8), 3))
    found = worth(int(one) for one in choose(seen, (), (), 3))
    assert (1 - 1 / np.e) * best <= found <= best


def test_near_duplicates_of_anything_known_come_last() -> None:
    place = [[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [5.0, 0.1]]
    place += [[float(x), y] for x in range(6) for y in (3.0, 4.0)]
    # 1 is like the labelled 0 and 3 like the test image 2, though both show what no other does.
    seen = ranking([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]] + [[1.0, 0.0]] * 12, place)
    assert set(choose(seen, ["0"], ["2"])[-2:]) == {"1", "3"}
    # Where 2 is free, the better of the two comes early, and then the other is the duplicate.
    free = choose(seen, ["0"], [])
    assert free[0] == "3"
    assert set(free[-2:]) == {"1", "2"}


def test_failed_pictures_come_last_however_rare() -> None:
    random = np.random.default_rng(2)
    realism = random.normal(-4.0, 0.5, 30)
    realism[4] = -30.0
    contrast = np.full(30, 40.0)
    contrast[9] = 1.0
    textures = np.tile([1.0, 0.0], (30, 1))
    textures[[4, 9]] = [0.0, 1.0]
    seen = ranking(textures, contrast=contrast, realism=realism)
    assert np.flatnonzero(failed(seen)).tolist() == [4, 9]
    assert set(choose(seen, (), ())[-2:]) == {"4", "9"}
    unknown = replace(seen, realism=np.full(30, np.nan))
    assert np.flatnonzero(failed(unknown)).tolist() == [9]


def test_once_there_is_an_ensemble_what_it_does_not_know_counts() -> None:
    textures = [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]
    before = ranking(textures)
    assert choose(before, (), ()) == ["0", "2", "1"]
    unsure = [[0.0, 0.01, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.01]]
    after = replace(before, unsure=np.asarray(unsure), uncertainty=np.array([0.01, 0.3, 0.01]))
    assert choose(after, (), ())[0] == "1"
    certain = replace(before, unsure=np.zeros((3, 3)), uncertainty=np.zeros(3))
    assert len(choose(certain, (), (), 3)) == 3


def test_a_single_candidate_and_equal_ones_are_no_problem() -> None:
    assert choose(ranking([[1.0]]), (), ()) == ["0"]
    assert sorted(choose(ranking([[1.0]] * 3, [[1.0]] * 3), (), ())) == ["0", "1", "2"]


# Reading the table


def written(folder: Path, document: Any = None, **columns: Any) -> tuple[Artifact, Artifact]:
    store = open_store((folder / "store").as_uri())
    drawn = Attempt(store, "candidates", "0" * 64)
    drawn.add_bytes("candidates.json", b"{}")
    candidates = drawn.commit({})
    values = {
        "id": ["a", "b"],
        "contrast": [50.0, 60.0],
        "realism": [float("nan"), 1.0],
        "texture0": [0.25, 0.5],
        "texture1": [0.75, 0.5],
        "place0": [1.0, 2.0],
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table({k: v for k, v in (values | columns).items() if v}), buffer)
    attempt = Attempt(store, "ranking", "1" * 64)
    attempt.add_bytes("ranking.parquet", buffer.getvalue())
    given = {"candidates": candidates.content_digest, "textures": 2, "place": 1, "ensemble": False}
    attempt.add_bytes("ranking.json", json.dumps(given | (document or {})).encode())
    return attempt.commit({}), candidates


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    seen = read_ranking(*written(tmp_path))
    assert seen.ids == ("a", "b")
    assert seen.textures.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert seen.place.tolist() == [[1.0], [2.0]]
    assert seen.contrast.tolist() == [50.0, 60.0]
    assert np.isnan(seen.realism[0])
    assert seen.unsure is None


@pytest.mark.parametrize(
    ("document", "columns"),
    [
        ({"candidates": "0" * 64}, {}),
        ({"textures": 10**9}, {}),
        ({"textures": 0}, {}),
        ({"textures": "two"}, {}),
        ({"place": -1}, {}),
        ({"ensemble": True}, {}),
        ({}, {"texture1": None}),
        ({}, {"contrast": [float("nan"), 1.0]}),
        ({}, {"place0": ["x", "y"]}),
        ({}, {"id": ["a", "a"]}),
    ],
)
def test_a_damaged_table_is_refused(
    tmp_path: Path, document: dict[str, Any], columns: dict[str, Any]
) -> None:
    with pytest.raises(InputMissing):
        read_ranking(*written(tmp_path, document, **columns))
