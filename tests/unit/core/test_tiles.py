"""The tile index: which tiles may train beside a held-out fold, and reading their pixels."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.errors import DataError, InputMissing
from hdgan.core.store import Store, open_store
from hdgan.core.tar_shards import write_shard
from hdgan.core.tiles import TILE_INDEX_SCHEMA, iter_tiles, load_index, training_rows
from support.tiny_dataset import png


def row(x: int, y: int, fold: int, slide: str = "a", side: int = 10, **rest: Any) -> dict[str, Any]:
    values = {
        "tile": f"{slide}-{x}-{y}",
        "slide": slide,
        "case": slide,
        "stain": None,
        "fold": fold,
        "x": x,
        "y": y,
        "width": side,
        "height": side,
        "mpp": 1.0,
        "whitespace": 0.0,
        "shard": "tiles-00000.tar",
        "unit_key": "0" * 64,
        "digest": "0" * 64,
    }
    return values | rest


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TILE_INDEX_SCHEMA)


def test_a_gap_of_a_tile_is_kept_around_held_out_tiles() -> None:
    rows = [row(x, 0, fold=int(x >= 50)) for x in range(0, 100, 10)]
    # Held out from 50 on: 40..50 touches, 30..40 is 10 away, which is one tile.
    assert training_rows(table(rows), 1).tolist() == [0, 1, 2, 3]
    corner = [row(0, 0, 1), row(10, 10, 0), row(19, 19, 0), row(20, 19, 0), row(-20, -20, 0)]
    assert training_rows(table(corner), 1).tolist() == [3, 4]


def test_other_slides_need_no_gap_and_minus_one_holds_out_nothing() -> None:
    rows = [row(0, 0, 1), row(0, 0, 0, slide="b"), row(5, 0, 0)]
    assert training_rows(table(rows), 1).tolist() == [1]
    assert training_rows(table(rows), -1).tolist() == [0, 1, 2]
    assert training_rows(table(rows), 7).tolist() == [0, 1, 2]


boxes = st.lists(
    st.tuples(
        st.integers(-200, 200),
        st.integers(-200, 200),
        st.integers(0, 2),
        st.sampled_from(["a", "b"]),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(boxes)
def test_the_gap_holds_for_any_layout(layout: list[tuple[int, int, int, str, int]]) -> None:
    """Against the definition, pixel by pixel of the pairwise distance."""
    rows = [row(x, y, fold, slide, side) for x, y, fold, slide, side in layout]
    expected = []
    for number, one in enumerate(rows):
        if one["fold"] == 1:
            continue
        clear = True
        for other in rows:
            if other["fold"] != 1 or other["slide"] != one["slide"]:
                continue
            spans = []
            for axis, extent in (("x", "width"), ("y", "height")):
                first, second = sorted((one, other), key=lambda box: box[axis])
                spans.append(max(0, second[axis] - first[axis] - first[extent]))
            clear = clear and max(spans) >= max(one["width"], other["width"])
        if clear:
            expected.append(number)
    assert training_rows(table(rows), 1).tolist() == expected


def _store_tiles(folder: Path) -> tuple[Store, pa.Table, list[np.ndarray[Any, Any]]]:
    """Two unit artifacts with two tiles each, and the index of all four."""
    store = open_store(folder.as_uri())
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(4)]
    rows = []
    for unit in (0, 1):
        key = str(unit) * 64
        members = {}
        for number in (2 * unit, 2 * unit + 1):
            data = png(pictures[number])
            made = row(number, 0, 0, unit_key=key, digest=hashlib.sha256(data).hexdigest())
            members[f"{made['tile']}.png"] = data
            rows.append(made)
        shard = folder / f"unit-{unit}.tar"
        write_shard(shard, members.items())
        attempt = Attempt(store, "slide-tiles", key)
        attempt.add_file("tiles-00000.tar", shard)
        attempt.commit({})
    return store, table(rows), pictures


def test_the_chosen_tiles_come_with_their_rows(tmp_path: Path) -> None:
    store, index, pictures = _store_tiles(tmp_path)

    found = dict(iter_tiles(store, index, [3, 0, 2]))

    assert sorted(found) == [0, 2, 3]
    for number, pixels in found.items():
        np.testing.assert_array_equal(pixels, pictures[number])


def test_the_temporary_copy_of_a_shard_lies_on_scratch(tmp_path: Path) -> None:
    store, index, _ = _store_tiles(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    tiles = iter_tiles(store, index, range(4), scratch)
    next(tiles)
    assert len(list(scratch.rglob("shard.tar"))) == 1
    list(tiles)
    assert not list(scratch.iterdir())


def test_tiles_that_are_missing_or_wrong_are_refused(tmp_path: Path) -> None:
    store, index, _ = _store_tiles(tmp_path)

    def changed(column: str, value: str) -> pa.Table:
        rows = index.to_pylist()
        rows[1][column] = value
        return table(rows)

    with pytest.raises(InputMissing, match="lacks 1 tiles the index names, such as gone"):
        list(iter_tiles(store, changed("tile", "gone"), range(4)))
    with pytest.raises(InputMissing, match="slide-tiles/fff"):
        list(iter_tiles(store, changed("unit_key", "f" * 64), range(4)))
    with pytest.raises(DataError, match="another SHA-256"):
        list(iter_tiles(store, changed("digest", "f" * 64), range(4)))


def _artifact(store: Store, key: str, data: bytes) -> Artifact:
    attempt = Attempt(store, "tiler", key * 64)
    attempt.add_bytes("index.parquet", data)
    return attempt.commit({})


def test_an_index_is_read_back_and_other_tables_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())

    def parquet(content: pa.Table) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(content, buffer)
        return buffer.getvalue()

    index = table([row(0, 0, 0), row(10, 0, 1, stain="HE")])
    assert load_index(_artifact(store, "1", parquet(index))).equals(index)
    with pytest.raises(InputMissing, match="lacks the columns fold"):
        load_index(_artifact(store, "2", parquet(index.drop_columns(["fold"]))))
    with pytest.raises(InputMissing, match="no tile index"):
        load_index(_artifact(store, "3", b"not parquet"))
