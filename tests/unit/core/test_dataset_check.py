"""The dataset check passes whole datasets and names shard and id of everything that is wrong."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdgan.core.artifact import Attempt
from hdgan.core.dataset import check_dataset
from hdgan.core.dataset_index import read_classes, read_index
from hdgan.core.errors import DataError, RequestError
from hdgan.core.masks import encode_mask
from hdgan.core.sections import ClassConfig
from hdgan.core.store import open_store
from hdgan.core.tar_shards import read_shard, write_shard
from support.runs import CLASSES
from support.tiny_dataset import SIDE, png, write_dataset, write_index

CLASS_CONFIGS = [ClassConfig(**item) for item in CLASSES]
SHARD = "shard-00001.tar"
ID = f"{2:016x}"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", CLASS_CONFIGS)
    return tmp_path / "data"


def test_a_whole_dataset_passes(dataset: Path) -> None:
    looked: list[tuple[int, int]] = []
    summary = check_dataset(str(dataset), progress=lambda done, of: looked.append((done, of)))

    assert (summary.pairs, summary.shards, summary.sizes) == (4, 2, ((SIDE, SIDE),))
    assert summary.classes == ("glass", "dermis", "epidermis")
    assert sum(summary.fractions) == pytest.approx(1)
    assert summary.fractions[0] == pytest.approx(86 / 256)
    assert looked == [(1, 2), (2, 2)]
    assert check_dataset(dataset.as_uri(), min_pairs=4).pairs == 4
    with pytest.raises(DataError, match="4 pairs, at least 5"):
        check_dataset(str(dataset), min_pairs=5)


def test_an_artifact_in_a_store_passes(dataset: Path, tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    attempt = Attempt(store, "dataset", "d" * 64)
    for path in sorted(dataset.iterdir()):
        attempt.add_file(path.name, path)
    artifact = attempt.commit({})

    assert check_dataset(f"{store.uri}/artifacts/dataset/{artifact.manifest.key}").pairs == 4


def members(dataset: Path) -> dict[str, bytes]:
    return dict(read_shard(dataset / SHARD))


def rewrite(dataset: Path, change: Callable[[dict[str, bytes]], object]) -> None:
    """Change the members of the second shard."""
    found = members(dataset)
    change(found)
    write_shard(dataset / SHARD, found.items())


def forget_digests(dataset: Path) -> None:
    """An index without digests, so that the checks behind them are reached."""
    rows = write_dataset(dataset, CLASS_CONFIGS)
    write_index(
        dataset, [{n: v for n, v in row.items() if not n.endswith("sha256")} for row in rows]
    )


def mask(values: np.ndarray[Any, Any], classes: list[ClassConfig] = CLASS_CONFIGS) -> bytes:
    return encode_mask(values.astype(np.uint8), classes)


FLAT = np.zeros((SIDE, SIDE))
MORE = [*CLASS_CONFIGS, ClassConfig(name="more", color="#010203")]
SWAPPED = [CLASS_CONFIGS[1], CLASS_CONFIGS[0], CLASS_CONFIGS[2]]
PICTURE = np.zeros((SIDE, SIDE, 3), np.uint8)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is very large."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")):
        found += struct.pack(">I", len(data)) + kind + data
        found += struct.pack(">I", zlib.crc32(kind + data))
    return found


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (".json", None, "lacks"),
        (".json", b"{", "cannot be read"),
        (".json", b'{"id": "other", "mpp": 1.0}', "is about id other"),
        (".json", json.dumps({"id": ID, "mpp": 2.0}).encode(), "says mpp 2.0, the index 1.0"),
        (".png", b"no picture", "that can be decoded"),
        (".png", bomb(9_000), "are too many"),
        (".png", bomb(60_000), "pixels are too many"),
        (".png", png(PICTURE[:8]), f"16 x 8 pixels, the index says {SIDE} x {SIDE}"),
        (".png", png(PICTURE[..., 0]), "has the mode L"),
        (".uncertainty.png", png(PICTURE[:8, :, 0].astype(np.uint16)), "the uncertainty is"),
        (".uncertainty.png", png(PICTURE[..., 0]), "has the mode L"),
        (".mask.png", mask(FLAT[:8]), "at the size of the image"),
        (".mask.png", mask(FLAT + 3, MORE), r"holds the values \[3\]"),
        (".mask.png", mask(FLAT, SWAPPED), "colour 0 of the palette"),
        (".mask.png", png(PICTURE), "8-bit RGB PNG"),
        (".extra", b"x", "does not belong"),
    ],
)
def test_a_bad_member_is_named(dataset: Path, name: str, content: bytes | None, words: str) -> None:
    forget_digests(dataset)

    def change(found: dict[str, bytes]) -> None:
        if content is None:
            del found[ID + name]
        else:
            found[ID + name] = content
        # Files of one id stay side by side.
        ordered = sorted(found.items())
        found.clear()
        found.update(ordered)

    rewrite(dataset, change)

    with pytest.raises(DataError, match=words) as error:
        check_dataset(str(dataset))
    assert SHARD in str(error.value)
    assert ID in str(error.value)


def test_digests_of_the_index_are_compared(dataset: Path) -> None:
    rewrite(dataset, lambda found: found.update({f"{ID}.png": png(PICTURE)}))
    with pytest.raises(DataError, match=f"{SHARD}, id {ID}: {ID}.png is not the file"):
        check_dataset(str(dataset))


def test_index_and_shards_must_agree(dataset: Path) -> None:
    rows = write_dataset(dataset, CLASS_CONFIGS)

    def fails(changed: list[dict[str, Any]], words: str) -> None:
        write_index(dataset, changed)
        with pytest.raises(DataError, match=words):
            check_dataset(str(dataset))

    fails(rows[:3], "is not in the index")
    fails([*rows, rows[0] | {"id": "extra"}], "id extra: the index names it")
    fails([*rows, rows[0]], "is there twice")
    fails(rows[:2], f"{SHARD}: a shard the index does not know")
    fails([*rows, rows[0] | {"id": "x", "shard": "shard-00009.tar"}], "00009.tar: the index names")
    fails([*rows, rows[0] | {"id": "x", "shard": "../shard.tar"}], "no name of a shard")


def test_truncated_shards_and_other_folders_are_refused(dataset: Path, tmp_path: Path) -> None:
    shard = dataset / SHARD
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(DataError, match="truncated"):
        check_dataset(str(dataset))
    (dataset / "classes.json").write_text('{"classes": [{"index": 1}]}')
    with pytest.raises(DataError, match=r"classes.json"):
        check_dataset(str(dataset))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no classes.json"):
        check_dataset(str(tmp_path / "empty"))
    with pytest.raises(RequestError, match="no such folder"):
        check_dataset(str(tmp_path / "nowhere"))


def test_a_damaged_index_is_bad_data_whatever_byte_it_is(dataset: Path) -> None:
    whole = (dataset / "index.parquet").read_bytes()
    random = np.random.default_rng(0)
    refused: list[str] = []
    for trial in range(300):
        data = bytearray(whole)
        if trial % 2:
            data = data[: random.integers(len(data))]
        else:
            data[random.integers(len(data))] ^= 1 << random.integers(8)
        try:
            index = read_index(bytes(data), "there")
            for shard in index.shards():
                index.rows(shard)  # changed values are the business of the digests
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 150
    assert all("there/index.parquet" in words for words in refused)


@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"classes": ' * 200_000])
def test_classes_nested_too_deep_are_bad_data(data: bytes) -> None:
    with pytest.raises(DataError, match=r"there/classes\.json"):
        read_classes(data, "there")
