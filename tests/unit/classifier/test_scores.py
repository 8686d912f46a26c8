"""Scores against hand-counted cases and independent formulas."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.classifier import scores as module
from hdgan.classifier.scores import (
    BoundaryCounts,
    bootstrap_weights,
    boundary,
    boundary_counts,
    calibration_counts,
    class_scores,
    confusion,
    detection_counts,
    dice_micro,
    dilate,
    interval,
    left_out,
    mean_defined,
    pooled,
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
    found = boundary(mask, 2)
    assert (found == 1).astype(int).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert (found == 2).astype(int).tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tenths=st.integers(0, 140),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_dilation_reaches_exactly_the_euclidean_distance(
    seed: int, tenths: int, shape: tuple[int, int]
) -> None:
    radius = tenths / 10
    bits = np.zeros(shape, dtype=np.uint16)
    stream = np.random.default_rng(seed)
    for bit in (0, 1, 11):
        bits |= (stream.random(shape) < 0.04).astype(np.uint16) << bit
    expected = np.zeros_like(bits)
    for y, x in np.ndindex(*shape):
        for other_y, other_x in np.ndindex(*shape):
            if (other_y - y) ** 2 + (other_x - x) ** 2 <= radius * radius + 1e-9:
                expected[y, x] |= bits[other_y, other_x]
    assert np.array_equal(dilate(bits, radius), expected)


def plain_boundary_counts(
    truth: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8], classes: int, radius: float
) -> list[list[int]]:
    """By the definition, with lists of points."""

    def points(mask: npt.NDArray[np.uint8], value: int) -> npt.NDArray[np.int64]:
        padded = np.pad(mask, 1, constant_values=255)
        own = padded == value
        other = (padded != value) & (padded != 255)
        near = np.zeros_like(own)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            near |= np.roll(other, step, axis)
        return np.argwhere(own & near) - 1

    def hits(of: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> int:
        if not len(of) or not len(other):
            return 0
        squares = ((of[:, None] - other[None]) ** 2).sum(axis=2).min(axis=1)
        return int((squares <= radius * radius + 1e-9).sum())

    seen = np.where(truth == 255, np.uint8(255), found)
    result = []
    for value in range(classes):
        predicted, true = points(seen, value), points(truth, value)
        result.append([len(predicted), hits(predicted, true), len(true), hits(true, predicted)])
    return [list(column) for column in zip(*result, strict=True)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    radius=st.sampled_from([0.0, 1.0, 1.5, 2.3, 5.0, 40.0]),
    classes=st.sampled_from([2, 9, 32]),
    band=st.sampled_from([1, 30, 2**20]),
)
def test_boundaries_are_matched_as_points_are_whatever_the_bands(
    seed: int, radius: float, classes: int, band: int
) -> None:
    stream = np.random.default_rng(seed)
    truth = np.kron(stream.integers(0, classes, (4, 3)), np.ones((5, 6), dtype=int))
    found = np.where(stream.random(truth.shape) < 0.1, stream.integers(0, classes), truth)
    truth[stream.random(truth.shape) < 0.1] = 255
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BAND_PIXELS", band)
        counts = boundary_counts(truth.astype(np.uint8), found.astype(np.uint8), classes, radius)
    expected = plain_boundary_counts(
        truth.astype(np.uint8), found.astype(np.uint8), classes, radius
    )
    fields = (counts.predicted, counts.predicted_hit, counts.true, counts.true_hit)
    assert [one.tolist() for one in fields] == expected


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
    sure = np.array([[0.95, 0.55, 0.95, 0.99]], dtype=np.float32)
    counts = calibration_counts(truth, np.zeros_like(truth), sure)
    assert counts.pixels.sum() == 3
    assert counts.pixels[14] == 2
    assert counts.right[14] == 1
    expected = (abs(1 - 1.90) + abs(1 - 0.55)) / 3
    assert counts.ece() == pytest.approx(expected, rel=1e-6)


def test_bins_are_closed_above() -> None:
    right = np.zeros((1, 2), dtype=np.uint8)
    counts = calibration_counts(right, right, np.array([[1.0, 0.6]], dtype=np.float32), bins=5)
    assert counts.pixels[4] == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_uncertainty_tells_errors_as_often_as_pairs_of_pixels_say(seed: int) -> None:
    """Values with few bits, so that bins hold exact values and ties occur."""
    stream = np.random.default_rng(seed)
    truth, found = stream.integers(0, 2, (2, 6, 7)).astype(np.uint8)
    truth[stream.random(truth.shape) < 0.2] = 255
    unsure = (stream.integers(0, 65, truth.shape) / 64).astype(np.float32)
    counts = detection_counts(truth, found, unsure)
    wrong = unsure[(truth != 255) & (truth != found)]
    right = unsure[(truth != 255) & (truth == found)]
    if len(wrong) and len(right):
        pairs = wrong[:, None] - right[None]
        assert counts.auroc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        assert counts.mean_wrong == pytest.approx(wrong.mean())
        assert counts.mean_right == pytest.approx(right.mean())
    else:
        assert math.isnan(counts.auroc)


def test_counts_of_parts_are_those_of_the_whole() -> None:
    stream = np.random.default_rng(3)
    truth, found = stream.integers(0, 3, (2, 8, 5)).astype(np.uint8)
    sure = stream.random((8, 5), dtype=np.float32)
    whole = calibration_counts(truth, found, sure)
    parts = calibration_counts(truth[:3], found[:3], sure[:3]) + calibration_counts(
        truth[3:], found[3:], sure[3:]
    )
    assert parts.pixels.tolist() == whole.pixels.tolist()
    assert parts.right.tolist() == whole.right.tolist()
    np.testing.assert_allclose(parts.confidence, whole.confidence)
    detected = detection_counts(truth[:3], found[:3], sure[:3]) + detection_counts(
        truth[3:], found[3:], sure[3:]
    )
    assert detected.auroc == detection_counts(truth, found, sure).auroc


def macro_dice_interval(matrices: list[npt.NDArray[np.int64]], draws: int) -> tuple[float, float]:
    weights = bootstrap_weights(len(matrices), seed=0, draws=draws)
    return interval(mean_defined(class_scores(pooled(weights, matrices)).dice))


def test_images_are_the_unit_of_the_bootstrap() -> None:
    good, bad = np.diag([50, 50]), np.array([[25, 25], [25, 25]])
    assert macro_dice_interval([good] * 5, 200) == (1.0, 1.0)
    low, high = macro_dice_interval([good, bad] * 4, 500)
    assert 0.5 <= low < 0.75 < high <= 1.0
    assert (low, high) == macro_dice_interval([good, bad] * 4, 500)


def test_each_draw_takes_as_many_images_as_there_are() -> None:
    weights = bootstrap_weights(7, seed=1, draws=300)
    assert weights.shape == (300, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert abs(weights.mean(axis=0) - 1).max() < 0.25
    assert not np.array_equal(weights, bootstrap_weights(7, seed=2, draws=300))


def test_scores_of_draws_are_those_of_the_pooled_counts_of_each() -> None:
    stream = np.random.default_rng(0)
    matrices = [stream.integers(0, 9, (3, 3)) for _ in range(4)]
    weights = bootstrap_weights(4, seed=0, draws=6)
    many = class_scores(pooled(weights, matrices))
    boundaries = [stream.integers(0, 9, (4, 3)) for _ in range(4)]
    f_scores = BoundaryCounts(*np.moveaxis(pooled(weights, boundaries), 1, 0)).f_score()
    for draw, row in enumerate(weights.astype(int)):
        one = class_scores(sum(k * m for k, m in zip(row, matrices, strict=True)))
        np.testing.assert_allclose(many.dice[draw], one.dice)
        np.testing.assert_allclose(many.recall[draw], one.recall)
        counted = sum(k * b for k, b in zip(row, boundaries, strict=True))
        np.testing.assert_allclose(f_scores[draw], BoundaryCounts(*counted).f_score())


def test_a_class_absent_from_every_draw_has_no_interval() -> None:
    weights = bootstrap_weights(3, seed=0, draws=50)
    found = class_scores(pooled(weights, [np.diag([5, 5, 0])] * 3))
    assert math.isnan(interval(found.dice[:, 2])[0])
    assert interval(mean_defined(found.dice)) == (1.0, 1.0)
