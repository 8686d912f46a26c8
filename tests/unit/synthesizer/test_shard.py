"""A shard is a pure function of its number: whoever makes it, after whatever else."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hdgan.core.errors import DataError
from hdgan.core.masks import decode_mask
from hdgan.core.sections import Noise, QuotaConfig
from hdgan.core.tar_shards import write_shard
from hdgan.nets.latents import draw_acceptance
from hdgan.synthesizer.calibration import AcceptanceRule
from hdgan.synthesizer.pair import Pair, PairMaker
from hdgan.synthesizer.quotas import solve
from hdgan.synthesizer.sampling import SHARD_SPAN
from hdgan.synthesizer.shard import Place, fill_shard, shard_sizes
from hdgan.synthesizer.smoothing import smooth_mask
from support.tiny_synthesizer import CLASSES, DIGEST, FakeLabeller, sampler

START = Place()
HALF = AcceptanceRule(0.5, 0.5)


def maker(noise: Noise = "constant", labeller: FakeLabeller | None = None) -> PairMaker:
    fake = labeller or FakeLabeller()
    return PairMaker(sampler(noise=noise), fake, CLASSES, mpp=2.0)  # type: ignore[arg-type]


MAKER = maker()


def outcomes(
    maker: PairMaker,
    number: int,
    size: int,
    rule: AcceptanceRule = HALF,
    start: Place = START,
    pause: Callable[[], bool] = lambda: False,
) -> list[tuple[Place, Pair | None]]:
    with ThreadPoolExecutor(3) as threads:
        return list(fill_shard(maker, number, size, rule, start, pause, threads))


def fill(maker: PairMaker, number: int, size: int, rule: AcceptanceRule = HALF) -> list[Pair]:
    return [pair for _, pair in outcomes(maker, number, size, rule) if pair is not None]


def tar_of(pairs: list[Pair], path: Path) -> bytes:
    write_shard(path, (item for pair in pairs for item in pair.members.items()))
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
    assert all(one.label(index).measured.uncertainty > HALF.max_uncertainty for index in dropped)


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
    with pytest.raises(DataError, match=r"shard 1: only 0 of 220 images .* 0\.5;.*calibration"):
        fill(maker(labeller=labeller), 1, 1, AcceptanceRule(0.5, 1.0))
    assert labeller.labelled == 220


def after(draws: int) -> Callable[[], bool]:
    """A pause after so many draws."""
    counted = itertools.count()
    return lambda: next(counted) >= draws


@given(st.integers(0, 12), st.integers(0, 12))
@settings(deadline=None, max_examples=10)
def test_a_shard_that_pauses_and_goes_on_is_the_same(first: int, second: int) -> None:
    whole = outcomes(MAKER, 4, 5)
    parts: list[tuple[Place, Pair | None]] = []
    place = START
    for draws in (first, second, 1000):
        got = outcomes(MAKER, 4, 5, start=place, pause=after(draws))
        parts += got
        place = got[-1][0] if got else place
    assert [reached for reached, _ in parts] == [reached for reached, _ in whole]
    assert [pair and pair.members for _, pair in parts] == [p and p.members for _, p in whole]


def test_a_pause_gives_out_what_was_begun_and_labels_no_more() -> None:
    labeller = FakeLabeller(lambda image: 0.1)
    asked = iter([False, False, True])
    got = outcomes(maker(labeller=labeller), 0, 9, pause=lambda: next(asked))
    assert [(place.draws, place.pairs) for place, _ in got] == [(1, 1), (2, 2)]
    assert labeller.labelled == 2


def test_thinned_images_are_those_whose_draw_says_so() -> None:
    """Half of the images qualify and all are asked for; then, of the others, two in three."""
    quota = QuotaConfig.model_validate({"class": "light", "minFraction": 0.4, "share": 0.6})
    rule = AcceptanceRule(1.0, 5 / 6, (quota,), solve([(0,), ()], [quota]))
    one = maker(labeller=FakeLabeller(lambda image: 0.1, threshold=120))
    pairs = fill(one, 0, 40, rule)
    kept = {pair.row["index"]: pair.row for pair in pairs}
    for pair in pairs:
        described = json.loads(pair.members[f"{pair.row['id']}.json"])
        assert described["acceptanceProbability"] == pair.row["acceptance_probability"]
    rich = 0
    for index in range(max(kept) + 1):
        fraction = one.label(index).measured.fractions["light"]
        probability = 1.0 if fraction >= 0.4 else 2 / 3
        assert (index in kept) == (draw_acceptance(0, "dataset", index) < probability)
        if index in kept:
            assert kept[index]["acceptance_probability"] == pytest.approx(probability)
            rich += fraction >= 0.4
    assert 0 < rich < len(kept) < max(kept) + 1


def test_ignored_pixels_are_those_whose_stored_uncertainty_is_above_the_limit() -> None:
    labeller = FakeLabeller(lambda image: 0.1, varied=True)
    one = dataclasses.replace(maker(labeller=labeller), ignore_above=0.5, smoothing_px=1.5)
    (pair,) = fill(one, 0, 1, AcceptanceRule(1.0, 1.0))
    name = pair.row["id"]
    mask = decode_mask(pair.members[f"{name}.mask.png"], classes=2)
    levels = np.asarray(Image.open(io.BytesIO(pair.members[f"{name}.uncertainty.png"])))
    assert np.array_equal(mask == 255, levels > 0.5 * 65535)
    assert 0 < pair.row["ignored"] < 1
    # A pixel that is exactly at the limit is not above it.
    limit = next(int(v) for v in levels.ravel() if v and int(v) / 65535 * 65535 == v)
    (at_limit,) = fill(
        dataclasses.replace(one, ignore_above=limit / 65535), 0, 1, AcceptanceRule(1.0, 1.0)
    )
    ignored = decode_mask(at_limit.members[f"{name}.mask.png"], classes=2) == 255
    assert np.array_equal(ignored, levels > limit)
    assert pair.row["ignored"] == float((mask == 255).mean())
    assert pair.row["fraction_dark"] == float((mask == 0).mean())
    # Smoothed before: what is left are the pixels of the smoothed mask.
    plain = maker(labeller=labeller).label(0).mask
    smoothed = smooth_mask(plain, 2, 1.5)
    assert not np.array_equal(plain, smoothed)
    assert np.array_equal(mask[mask != 255], smoothed[mask != 255])
    described = json.loads(pair.members[f"{name}.json"])
    assert described["scores"]["ignored"] == pair.row["ignored"]
    assert described["acceptanceProbability"] == 1.0


@given(st.integers(1, 5000), st.integers(1, 600))
def test_shard_sizes_add_up_and_only_the_last_is_short(count: int, shard_size: int) -> None:
    sizes = shard_sizes(count, shard_size)
    assert sum(sizes) == count
    assert set(sizes[:-1]) <= {shard_size}
    assert 1 <= sizes[-1] <= shard_size
