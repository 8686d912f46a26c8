"""A shard is a pure function of its number: whoever makes it, after whatever else."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hdgan.core.errors import DataError, Stopped
from hdgan.core.masks import decode_mask
from hdgan.core.sections import Noise
from hdgan.core.tar_shards import write_shard
from hdgan.synthesizer.calibration import AcceptanceRule
from hdgan.synthesizer.sampling import SHARD_SPAN
from hdgan.synthesizer.shard import Pair, PairMaker, fill_shard, shard_sizes
from support.tiny_synthesizer import CLASSES, DIGEST, FakeLabeller, sampler

HALF = AcceptanceRule(0.5, 0.5)


def maker(noise: Noise = "constant", labeller: FakeLabeller | None = None) -> PairMaker:
    fake = labeller or FakeLabeller()
    return PairMaker(sampler(noise=noise), fake, CLASSES, mpp=2.0)  # type: ignore[arg-type]


def fill(maker: PairMaker, number: int, size: int, rule: AcceptanceRule = HALF) -> list[Pair]:
    return list(fill_shard(maker, number, size, rule, lambda: None))


def tar_of(pairs: list[Pair], path: Path) -> bytes:
    write_shard(path, (item for pair in pairs for item in sorted(pair.members.items())))
    return path.read_bytes()


@pytest.mark.parametrize("noise", ["constant", "perSample"])
def test_a_shard_is_the_same_alone_and_after_others(tmp_path: Path, noise: Noise) -> None:
    together = maker(noise)
    # The first shards take as many draws as they please, and one of them is larger than usual.
    before = [fill(together, 0, 3), fill(together, 1, 9)]
    after_others = fill(together, 2, 4)
    alone = fill(maker(noise), 2, 4)
    assert tar_of(alone, tmp_path / "alone") == tar_of(after_others, tmp_path / "after")
    assert [pair.row for pair in alone] == [pair.row for pair in after_others]
    indices = [pair.row["index"] for shard in before for pair in shard]
    assert indices[-1] - SHARD_SPAN > 8, "no draw was dropped: the rule does nothing here"


def test_shards_share_no_sample() -> None:
    one = maker()
    rows = [pair.row for number in range(3) for pair in fill(one, number, 4)]
    assert len({row["id"] for row in rows}) == 12
    assert [row["index"] // SHARD_SPAN for row in rows] == [0] * 4 + [1] * 4 + [2] * 4


def test_kept_are_exactly_those_the_rule_accepts() -> None:
    one = maker()
    kept = {pair.row["index"]: pair.row["uncertainty"] for pair in fill(one, 0, 6)}
    assert all(value <= HALF.max_uncertainty for value in kept.values())
    dropped = set(range(max(kept))) - set(kept)
    assert dropped
    assert all(one.uncertainty(index) > HALF.max_uncertainty for index in dropped)


def test_a_longer_shard_begins_with_the_shorter_one() -> None:
    short, long = fill(maker(), 3, 2), fill(maker(), 3, 5)
    assert [pair.members for pair in long[:2]] == [pair.members for pair in short]


def test_members_and_row_agree() -> None:
    (pair,) = fill(maker(), 0, 1)
    name = pair.row["id"]
    assert set(pair.members) == {
        f"{name}{end}" for end in (".png", ".mask.png", ".uncertainty.png", ".json")
    }
    described = json.loads(pair.members[f"{name}.json"])
    assert described["id"] == name
    assert described["generator"] == DIGEST
    assert described["scores"]["uncertainty"] == pair.row["uncertainty"]
    mask = decode_mask(pair.members[f"{name}.mask.png"], classes=2)
    assert pair.row["fraction_light"] == float((mask == 1).mean())
    assert pair.row["fraction_dark"] == float((mask == 0).mean())
    picture = Image.open(io.BytesIO(pair.members[f"{name}.png"]))
    assert (picture.size, picture.mode) == ((16, 16), "RGB")
    # The latent in the description makes the same picture again.
    source = sampler()
    w = np.array(described["w"], np.float32)
    assert np.array_equal(source.sample(described["index"]).ws[0, 0].numpy(), w)


def test_nothing_passes_is_an_error_that_ends() -> None:
    labeller = FakeLabeller(lambda image: 0.9)
    with pytest.raises(DataError, match=r"shard 1: only 0 of 220 images .* 0\.5 .*calibration"):
        fill(maker(labeller=labeller), 1, 1, AcceptanceRule(0.5, 1.0))
    assert labeller.labelled == 220


def test_a_stop_is_seen_before_every_draw() -> None:
    draws = 0

    def stop_at_third() -> None:
        nonlocal draws
        draws += 1
        if draws == 3:
            raise Stopped("stopped")

    labeller = FakeLabeller(lambda image: 0.9)
    with pytest.raises(Stopped):
        list(fill_shard(maker(labeller=labeller), 0, 1, HALF, stop_at_third))
    assert labeller.labelled == 2


@given(st.integers(1, 5000), st.integers(1, 600))
def test_shard_sizes_add_up_and_only_the_last_is_short(count: int, shard_size: int) -> None:
    sizes = shard_sizes(count, shard_size)
    assert sum(sizes) == count
    assert set(sizes[:-1]) <= {shard_size}
    assert 1 <= sizes[-1] <= shard_size
