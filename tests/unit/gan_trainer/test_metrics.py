"""Measures of generated images against brute force, closed forms and constructed cases."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from hdgan.core.pins import Pins
from hdgan.gan_trainer.metrics import real_features
from hdgan.gan_trainer.metrics.evaluation import Compared, full, quick
from hdgan.gan_trainer.metrics.fid import fid
from hdgan.gan_trainer.metrics.kid import kid, mmd2
from hdgan.gan_trainer.metrics.memorisation import Thumbnails, memorisation, orientations
from hdgan.gan_trainer.metrics.precision_recall import precision_recall
from hdgan.gan_trainer.metrics.real_features import tile_features
from hdgan.gan_trainer.metrics.views import view, views_of
from support.tile_artifacts import make_tiles

RANDOM = np.random.default_rng(0)


def normal(n: int, dim: int = 8, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return (RANDOM.normal(size=(n, dim)) * scale + mean).astype(np.float32)


def test_mmd_is_the_unbiased_sum_over_pairs() -> None:
    x, y = normal(6, 3), normal(5, 3)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(np.dot(a.astype(np.float64), b.astype(np.float64))) / 3 + 1) ** 3

    expected = (
        np.mean([k(a, b) for a, b in itertools.permutations(x, 2)])
        + np.mean([k(a, b) for a, b in itertools.permutations(y, 2)])
        - 2 * np.mean([k(a, b) for a in x for b in y])
    )
    assert mmd2(x, y) == pytest.approx(expected, rel=1e-9)


def test_kid_is_zero_for_equal_distributions_and_its_error_says_how_sure() -> None:
    same = [kid(normal(400), normal(400)) for _ in range(20)]
    found = np.array([(one.mean, one.standard_error) for one in same if one is not None])
    # Unbiased: within two standard errors of zero nearly always, on both sides of it.
    assert (np.abs(found[:, 0]) < 3 * found[:, 1]).mean() > 0.7
    assert (found[:, 0] > 0).any()
    assert (found[:, 0] < 0).any()
    shifted = kid(normal(400), normal(500, mean=0.5))
    assert shifted is not None
    assert shifted.mean > 5 * shifted.standard_error
    assert (shifted.real, shifted.fake, shifted.subset) == (400, 500, 400)


def test_kid_is_the_same_every_time_and_nothing_for_a_handful() -> None:
    x, y = normal(1500), normal(1200)
    assert kid(x, y) == kid(x, y)
    assert kid(x[:15], y) is None
    assert quick(x[:15], y) == {}


def test_fid_of_gaussians_is_the_closed_form() -> None:
    """N(0, 1) against N(m, s^2) in d independent dimensions: d (m^2 + (1 - s)^2)."""
    x, y = normal(60_000, 4), normal(60_000, 4, mean=0.5, scale=2.0)
    assert fid(x, y) == pytest.approx(4 * (0.25 + 1.0), rel=0.02)
    assert fid(x, x) == pytest.approx(0.0, abs=1e-6)


def test_precision_and_recall_tell_dropped_modes_from_nonsense() -> None:
    left, right = normal(200, 4, mean=-10), normal(200, 4, mean=10)
    nonsense = normal(200, 4, mean=50)
    real = np.concatenate([left, right])
    dropped = precision_recall(real, normal(400, 4, mean=-10))
    assert dropped[0] > 0.9
    assert dropped[1] == pytest.approx(0.5, abs=0.05)
    noisy = precision_recall(real, np.concatenate([real + 0.01, nonsense]))
    assert noisy[0] == pytest.approx(2 / 3, abs=0.02)
    assert noisy[1] == pytest.approx(1.0)


def test_memorisation_finds_copies_in_any_orientation_and_only_those() -> None:
    tiles = RANDOM.integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    training, held_out, new = tiles[:100], tiles[100:200], tiles[200:]
    copies = np.stack([np.rot90(t, 3)[:, ::-1] for t in training[:25]])
    noisy = np.clip(copies.astype(int) + RANDOM.integers(-3, 4, copies.shape), 0, 255)
    samples = np.concatenate([noisy.astype(np.uint8), new[:75]])
    thumbnails = Thumbnails()
    found = memorisation(
        thumbnails(samples), thumbnails(orientations(training)), thumbnails(held_out)
    )
    assert 0.25 <= found.share <= 0.29
    honest = memorisation(thumbnails(new), thumbnails(orientations(training)), thumbnails(held_out))
    assert honest.share < 0.06


def test_thumbnail_distance_is_the_root_mean_square_in_grey_levels() -> None:
    a, b = (
        Thumbnails()(np.full((1, 32, 32, 3), 10, np.uint8)),
        np.full((1, 32, 32, 3), 17, np.uint8),
    )
    assert np.linalg.norm(a - Thumbnails()(b)) == pytest.approx(7.0, rel=1e-5)


def test_orientations_are_the_eight_symmetries() -> None:
    found = orientations(RANDOM.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8))
    assert len({one.tobytes() for one in found}) == 8


def test_large_images_are_looked_at_whole_and_in_crops_at_native_size() -> None:
    assert views_of(256) == ("whole",)
    assert views_of(512) == ("whole", "crops")
    images = RANDOM.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    crops = view(images, "crops", 16, 0, 10)
    assert crops.shape == (3, 16, 16, 3)
    # The place of a crop belongs to the image's number alone.
    assert np.array_equal(view(images[1:2], "crops", 16, 0, 11)[0], crops[1])
    windows = np.lib.stride_tricks.sliding_window_view(images[0], (16, 16, 3)).reshape(
        -1, 16, 16, 3
    )
    assert any(np.array_equal(window, crops[0]) for window in windows)


def test_evaluation_says_why_something_is_missing() -> None:
    thumbnails = Compared(normal(40), normal(8 * 40), normal(60))
    document = full({"whole": Compared(normal(40), normal(40), normal(60))}, thumbnails)
    assert document["fid"] is None
    assert "2048" in document["fidReason"]
    assert document["kid"]["whole"]["fake"] == 60
    assert document["floor"]["whole"]["fake"] == 20
    assert "no guarantee of privacy" in document["memorisation"]["note"]
    assert document["memorisation"]["trainingTiles"] == 40
    nothing = full({"whole": Compared(normal(0), normal(40), normal(60))}, thumbnails)
    assert nothing["kid"]["whole"] is None
    assert nothing["precision"] is None
    assert "nothing to compare with" in nothing["reason"]
    many = full({"whole": Compared(normal(2100), normal(40), normal(2048))}, thumbnails)
    assert many["fid"] > 0


def test_features_of_tiles_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = make_tiles(tmp_path)
    rows = np.array([5, 2, 9])

    def features(turned: bool) -> np.ndarray:
        return tile_features(
            tiles.store,
            Pins(tiles.store, "run"),
            tiles.artifact,
            tiles.index,
            rows,
            Thumbnails(),
            "whole",
            seed=0,
            turned=turned,
            scratch=tmp_path,
            attempt="attempt",
            check=lambda: None,
        )

    pictures = np.stack([tiles.pictures[row] for row in rows])
    first = features(False)
    np.testing.assert_array_equal(first, Thumbnails()(pictures))
    turned = features(True)
    np.testing.assert_array_equal(turned, Thumbnails()(orientations(pictures)))
    monkeypatch.setattr(real_features, "iter_tiles", None)
    np.testing.assert_array_equal(features(False), first)
