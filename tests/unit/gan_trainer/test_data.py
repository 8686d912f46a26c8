"""Training tiles: their order, and how they come from the store through a bounded cache."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.core.errors import DataError, InputMissing, RequestError, Stopped
from hdgan.core.tar_shards import shard_members
from hdgan.gan_trainer.data import TileSplit, TileStream, split_tiles, stain_labels, tile_labels
from hdgan.gan_trainer.data.order import epoch_order
from support.tile_artifacts import Tiles, make_tiles

BATCH = 4
MINE = np.arange(BATCH)


def stream(tiles: Tiles, folder: Path, **changes: Any) -> TileStream:
    rows = np.arange(len(tiles.index))
    values: dict[str, Any] = {
        "seed": 0,
        "batch": BATCH,
        "cache_bytes": None,
        "workers": 2,
        "owner": True,
        "check_stop": lambda: None,
        **changes,
    }
    split = TileSplit(tiles.index, rows, rows[:0])
    return TileStream(tiles.store, split, 32, folder / "cache", **values)


@settings(deadline=None, max_examples=60)
@given(
    shards=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    block=st.integers(1, 40),
    seed=st.integers(0, 2**31 - 1),
)
def test_an_epoch_shows_every_tile_once_and_few_shards_at_a_time(
    shards: list[int], block: int, seed: int
) -> None:
    shard_of_tile = np.repeat(np.arange(len(shards)), shards)
    sizes = np.array(shards)
    epoch = epoch_order(seed, 3, shard_of_tile, sizes, block)
    assert sorted(epoch.rows) == list(range(sum(shards)))
    start = 0
    for chosen, end in zip(epoch.blocks, epoch.ends, strict=True):
        assert set(shard_of_tile[epoch.rows[start:end]]) == set(chosen)
        assert len(chosen) == 1 or sizes[list(chosen)].sum() <= block
        start = end
    again = epoch_order(seed, 3, shard_of_tile, sizes, block)
    assert np.array_equal(epoch.rows, again.rows)


def test_order_of_a_set_that_fits_a_block_does_not_depend_on_its_shards() -> None:
    one = epoch_order(5, 0, np.zeros(40, dtype=np.int64), np.array([40]))
    many = epoch_order(5, 0, np.arange(40) // 4, np.full(10, 4))
    assert np.array_equal(one.rows, many.rows)
    assert not np.array_equal(one.rows, epoch_order(5, 1, np.arange(40) // 4, np.full(10, 4)).rows)


def test_stream_gives_the_tiles_of_the_index_whoever_reads_them(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path)
    seen: list[int] = []
    with stream(tiles, tmp_path) as whole:
        for first in range(0, 2 * len(tiles.pictures), BATCH):
            images, rows = whole.read(first, MINE)
            whole.prefetch(first + BATCH, MINE)
            for image, row in zip(images, rows, strict=True):
                assert np.array_equal(image, tiles.pictures[row])
            seen += rows.tolist()
    total = len(tiles.pictures)
    assert sorted(seen[:total]) == sorted(seen[total:]) == list(range(total))
    assert seen[:total] != seen[total:]
    # From the middle, and only every second sample, as another process would.
    with stream(tiles, tmp_path) as resumed:
        _, rows = resumed.read(8, np.array([1, 3]))
    assert rows.tolist() == [seen[9], seen[11]]


def bytes_in(folder: Path) -> int:
    """Of the files in a folder that another thread writes to: one may be gone when looked at."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total


def test_cache_stays_within_its_bytes_and_goes_round_for_ever(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, units=3, shards=3)
    largest = max(path.stat().st_size for path in tmp_path.glob("*.tar"))
    # A block of one shard each, and a cache of three.
    with stream(tiles, tmp_path, cache_bytes=3 * largest, block_bytes=1) as small:
        for first in range(0, 3 * len(tiles.pictures), BATCH):
            images, rows = small.read(first, MINE)
            small.prefetch(first + BATCH, MINE)
            assert all(
                np.array_equal(i, tiles.pictures[r]) for i, r in zip(images, rows, strict=True)
            )
            # A file that is being written counts as soon as it is there.
            assert bytes_in(tmp_path / "cache") <= 3 * largest
        assert 0 < small._cache.peak <= 3 * largest


def test_a_cache_that_cannot_work_is_refused_with_sizes(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path)
    with pytest.raises(RequestError, match=r"training tiles need .*tileCacheGigabytes"):
        stream(tiles, tmp_path, cache_bytes=1000)


def test_another_process_waits_for_the_owner(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path)
    found: list[Any] = []
    with stream(tiles, tmp_path, owner=False) as other:
        reading = threading.Thread(target=lambda: found.append(other.read(0, MINE)))
        reading.start()
        reading.join(0.3)
        assert reading.is_alive()
        with stream(tiles, tmp_path) as owner:
            images, _ = owner.read(0, MINE)
            reading.join(20)
    assert np.array_equal(found[0][0], images)


def test_a_batch_is_ready_when_all_its_tiles_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = make_tiles(tmp_path)
    go = threading.Event()
    decode = TileStream._decode

    def held(self: TileStream, row: int) -> Any:
        assert go.wait(20)
        return decode(self, row)

    monkeypatch.setattr(TileStream, "_decode", held)
    with stream(tiles, tmp_path) as one:
        assert not one.ready(0, MINE, 0.05)
        go.set()
        assert one.ready(0, MINE, 20)
        assert len(one.read(0, MINE)[0]) == len(MINE)


def test_some_tiles_need_no_more_cache_than_training(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, units=3, shards=3)
    largest = max(path.stat().st_size for path in tmp_path.glob("*.tar"))
    with stream(tiles, tmp_path, cache_bytes=3 * largest, block_bytes=1) as small:
        some = small.some(30, 0)
    assert some.shape[0] == 30
    known = {picture.tobytes() for picture in tiles.pictures}
    assert all(image.tobytes() in known for image in some)


def test_shards_leave_scratch_when_the_training_is_over(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path)
    with stream(tiles, tmp_path) as one:
        one.read(0, MINE)
        assert bytes_in(tmp_path / "cache")
        one.discard()
    assert not (tmp_path / "cache").exists()


def test_waiting_can_be_stopped_and_threads_end(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path)
    before = threading.active_count()

    def stop() -> None:
        raise Stopped("told to")

    with (
        pytest.raises(Stopped),
        stream(tiles, tmp_path, owner=False, check_stop=stop) as waiting,
    ):
        waiting.read(0, MINE)
    assert threading.active_count() == before


def test_a_start_deletes_what_a_killed_one_left_and_keeps_whole_shards(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path)
    with stream(tiles, tmp_path) as first:
        first.read(0, MINE)
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    (tmp_path / "cache" / ".half.tar.tmp-1").write_bytes(b"half")
    with stream(tiles, tmp_path) as second:
        assert {p.name for p in (tmp_path / "cache").iterdir()} >= kept
        assert not (tmp_path / "cache" / ".half.tar.tmp-1").exists()
        second.read(0, MINE)


def damage_a_picture(tiles: Tiles, folder: Path) -> None:
    for path in (folder / "cache").iterdir():
        data = bytearray(path.read_bytes())
        for offset, size in shard_members(path).values():
            data[offset + size // 2] ^= 255
        path.write_bytes(data)


def delete_a_shard(tiles: Tiles, folder: Path) -> None:
    for path in (folder / "store" / "artifacts" / "slide-tiles").rglob("*.tar"):
        path.unlink()
    for path in (folder / "cache").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (damage_a_picture, DataError, "tile slide.*another SHA-256"),
        (delete_a_shard, InputMissing, "tar"),
    ],
)
def test_damage_is_an_error_that_names_it(
    damage: Callable[[Tiles, Path], None], error: type[Exception], says: str, tmp_path: Path
) -> None:
    tiles = make_tiles(tmp_path)
    with stream(tiles, tmp_path) as first:
        first.some(16, 0)
    damage(tiles, tmp_path)
    with stream(tiles, tmp_path) as second, pytest.raises(error, match=says):
        second.read(0, MINE)


def test_a_tile_of_another_size_is_refused(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, sides={5: 16})
    with (
        stream(tiles, tmp_path) as mixed,
        pytest.raises(RequestError, match=r"tile slide0-5 has shape \(16, 16, 3\).*tileSize"),
    ):
        mixed.some(len(tiles.pictures), 0)


def test_too_few_tiles_for_a_batch_are_refused(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, folds=2)
    assert len(split_tiles(tiles.artifact, 0, 8).train) == 8
    with pytest.raises(RequestError, match=r"only 8 of 16 tiles.*batch 9"):
        split_tiles(tiles.artifact, 0, 9)


def test_stains_become_labels(tmp_path: Path) -> None:
    split = split_tiles(make_tiles(tmp_path, stains=("PAS", "HE")).artifact, -1, 4)
    labels = stain_labels(split)
    assert labels == ("HE", "PAS")
    assert tile_labels(split, labels).tolist() == [1] * 8 + [0] * 8


@pytest.mark.parametrize(
    ("stains", "says"), [((None, "HE"), "slide0 has none"), (("HE",), "at least two stains")]
)
def test_labels_need_two_stains_and_one_for_every_tile(
    stains: tuple[str | None, ...], says: str, tmp_path: Path
) -> None:
    split = split_tiles(make_tiles(tmp_path, stains=stains).artifact, -1, 4)
    with pytest.raises(RequestError, match=says):
        stain_labels(split)
