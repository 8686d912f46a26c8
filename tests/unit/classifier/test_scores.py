"""Scores against hand-counted cases and independent formulas."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.classifier.scores import (
    bootstrap_intervals,
    boundary,
    boundary_counts,
    calibration_counts,
    class_scores,
    confusion,
    dice_micro,
    dilate,
    left_out,
)

TRUTH = np.array([[0, 0, 0, 1], [0, 1, 1, 255]], dtype=np.uint8)
FOUND = np.array([[0, 0, 1, 1], [0, 1, 0, 2]], dtype=np.uint8)


def test_confusion_counts_labelled_pixels_by_truth_and_prediction() -> None:
    matrix = confusion(TRUTH, FOUND, 3)
    assert matrix.tolist() == [[3, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert left_out(matrix) == [2]


def test_scores_by_hand() -> None:
    scores = class_scores(confusion(TRUTH, FOUND, 3))
    np.testing.assert_allclose(scores.recall, [3 / 4, 2 / 3, np.nan])
    np.testing.assert_allclose(scores.precision, [3 / 4, 2 / 3, np.nan])
    np.testing.assert_allclose(scores.dice, [6 / 8, 4 / 6, np.nan])
    np.testing.assert_allclose(scores.iou, [3 / 5, 2 / 4, np.nan])
    assert scores.macro_dice == pytest.approx((6 / 8 + 4 / 6) / 2)


def test_a_class_only_in_the_prediction_counts_as_zero() -> None:
    scores = class_scores(np.array([[5, 0, 2], [0, 3, 0], [0, 0, 0]]))
    assert scores.dice[2] == 0.0
    assert math.isnan(scores.recall[2])
    assert scores.macro_dice == pytest.approx((10 / 12 + 1 + 0) / 3)


def test_dice_micro_is_pixel_accuracy_and_flatters_rare_classes() -> None:
    matrix = np.array([[98, 0], [2, 0]])
    assert dice_micro(matrix) == 0.98
    assert class_scores(matrix).macro_dice == pytest.approx((196 / 198 + 0) / 2)
    assert math.isnan(dice_micro(np.zeros((2, 2), dtype=np.int64)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_dice_and_iou_are_those_of_sets(seed: int) -> None:
    stream = np.random.default_rng(seed)
    truth = stream.integers(0, 3, (6, 7)).astype(np.uint8)
    found = stream.integers(0, 3, (6, 7)).astype(np.uint8)
    truth[stream.random(truth.shape) < 0.2] = 255
    scores = class_scores(confusion(truth, found, 3))
    for value in range(3):
        a = set(np.flatnonzero(truth == value).tolist())
        b = set(np.flatnonzero((found == value) & (truth != 255)).tolist())
        if a or b:
            assert scores.dice[value] == pytest.approx(2 * len(a & b) / (len(a) + len(b)))
            assert scores.iou[value] == pytest.approx(len(a & b) / len(a | b))


def test_boundaries_lie_between_labelled_classes_only() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 0, 1, 255], [255, 0, 0, 255]], dtype=np.uint8)
    assert boundary(mask, 0).astype(int).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert boundary(mask, 1).astype(int).tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), tenths=st.integers(0, 60))
def test_dilation_reaches_exactly_the_euclidean_distance(seed: int, tenths: int) -> None:
    radius = tenths / 10
    mask = np.random.default_rng(seed).random((9, 7)) < 0.08
    ys, xs = np.nonzero(mask)
    expected = np.zeros_like(mask)
    for y, x in np.ndindex(*mask.shape):
        near = (ys - y) ** 2 + (xs - x) ** 2 <= radius * radius + 1e-9
        expected[y, x] = near.any()
    assert np.array_equal(dilate(mask, radius), expected)


def halves(column: int) -> npt.NDArray[np.uint8]:
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[:, column:] = 1
    return mask


@pytest.mark.parametrize(("shift", "radius", "expected"), [(0, 0, 1), (2, 2, 1), (3, 2, 0)])
def test_a_shifted_boundary_scores_within_the_tolerance(
    shift: int, radius: float, expected: float
) -> None:
    counts = boundary_counts(halves(8), halves(8 + shift), 2, radius)
    assert counts.f_score().tolist() == [expected, expected]


def test_boundary_f_is_the_harmonic_mean() -> None:
    found = halves(8)
    found[:5] = 0  # the lower half of the boundary is found, and a new one along row 5
    counts = boundary_counts(halves(8), found, 2, 0.0)
    precision = int(counts.predicted_hit[1]) / int(counts.predicted[1])
    assert int(counts.true[1]) == 10
    assert int(counts.true_hit[1]) == 5
    assert int(counts.predicted[1]) == 5 + 11
    expected = 2 * precision * 0.5 / (precision + 0.5)
    assert counts.f_score()[1] == pytest.approx(expected)


def test_without_any_boundary_there_is_no_boundary_score() -> None:
    same = np.zeros((4, 4), dtype=np.uint8)
    assert np.isnan(boundary_counts(same, same, 2, 1.0).f_score()).all()


def test_calibration_error_by_hand() -> None:
    truth = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    sure = np.array([0.95, 0.55, 0.95, 0.99], dtype=np.float32)
    probabilities = np.stack([sure, 1 - sure])[:, None]
    counts = calibration_counts(truth, probabilities)
    assert counts.pixels.sum() == 3
    assert counts.pixels[14] == 2
    assert counts.right[14] == 1
    expected = (abs(1 - 1.90) + abs(1 - 0.55)) / 3
    assert counts.ece() == pytest.approx(expected, rel=1e-6)


def test_bins_are_closed_above() -> None:
    probabilities = np.array([[[1.0, 0.6]], [[0.0, 0.4]]], dtype=np.float64)
    counts = calibration_counts(
        np.zeros((1, 2), dtype=np.uint8), probabilities.astype(np.float32), bins=5
    )
    assert counts.pixels[4] == 1


def test_images_are_the_unit_of_the_bootstrap() -> None:
    good, bad = np.diag([50, 50]), np.array([[25, 25], [25, 25]])
    same = bootstrap_intervals([good] * 5, seed=0, draws=200)
    assert same.macro_dice == (1.0, 1.0)
    mixed = bootstrap_intervals([good, bad] * 4, seed=0, draws=500)
    low, high = mixed.macro_dice
    assert 0.5 <= low < 0.75 < high <= 1.0
    assert mixed == bootstrap_intervals([good, bad] * 4, seed=0, draws=500)


def test_a_class_absent_from_every_draw_has_no_interval() -> None:
    found = bootstrap_intervals([np.diag([5, 5, 0])] * 3, seed=0, draws=50)
    assert math.isnan(found.dice[2][0])
    assert found.macro_dice == (1.0, 1.0)
