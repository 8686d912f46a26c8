"""Segmentation scores as pure functions of masks and probabilities (numpy).

One confusion matrix is pooled over the labelled pixels of a split; everything is derived from it.
Dice flattened over classes equals pixel accuracy; it is reported as `dice_micro`, beside per-class
and macro Dice. Undefined values are NaN here and null in `scores.json`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdgan.core.masks import UNLABELLED

CALIBRATION_BINS = 15
BOOTSTRAP_DRAWS = 2000

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.uint8]


def confusion(truth: Mask, prediction: Mask, classes: int) -> Counts:
    """Confusion matrix int64 [K, K], row = truth, column = prediction; truth 255 never counts."""
    labelled = truth != UNLABELLED
    pairs = truth[labelled].astype(np.int64) * classes + prediction[labelled]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassScores:
    """Per class float64 [K], NaN where undefined, and their means over the classes that are
    defined.

    recall is the "accuracy" of the paper's Table 1. Dice and IoU are defined for a class in truth
    or prediction; recall needs it in truth, precision in the prediction.
    """

    recall: Floats
    precision: Floats
    dice: Floats
    iou: Floats

    @property
    def macro_recall(self) -> float:
        return mean_defined(self.recall)

    @property
    def macro_precision(self) -> float:
        return mean_defined(self.precision)

    @property
    def macro_dice(self) -> float:
        return mean_defined(self.dice)

    @property
    def macro_iou(self) -> float:
        return mean_defined(self.iou)


def class_scores(matrix: Counts) -> ClassScores:
    """Scores of a confusion matrix [K, K]."""
    hit = np.diag(matrix).astype(np.float64)
    truth = matrix.sum(axis=1).astype(np.float64)
    predicted = matrix.sum(axis=0).astype(np.float64)
    return ClassScores(
        recall=_ratio(hit, truth),
        precision=_ratio(hit, predicted),
        dice=_ratio(2 * hit, truth + predicted),
        iou=_ratio(hit, truth + predicted - hit),
    )


def dice_micro(matrix: Counts) -> float:
    """Dice of all classes flattened together: equal to the share of pixels that are right."""
    total = int(matrix.sum())
    return float(np.trace(matrix)) / total if total else math.nan


def mean_defined(values: Floats) -> float:
    """Mean of the values that are not NaN; NaN if none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def left_out(matrix: Counts) -> list[int]:
    """Classes absent from both truth and prediction: no mean includes them."""
    present = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    return np.flatnonzero(~present).tolist()


def _ratio(above: Floats, below: Floats) -> Floats:
    result = np.full(above.shape, np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


@dataclass(frozen=True)
class BoundaryCounts:
    """Per class int64 [K]: boundary pixels of prediction and truth, and how many found a
    partner."""

    predicted: Counts
    predicted_hit: Counts
    true: Counts
    true_hit: Counts

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(
            self.predicted + other.predicted,
            self.predicted_hit + other.predicted_hit,
            self.true + other.true,
            self.true_hit + other.true_hit,
        )

    def f_score(self) -> Floats:
        """Boundary F per class: harmonic mean of precision and recall; NaN without any boundary."""
        result = np.full(self.true.shape, np.nan)
        for index in range(len(result)):
            if self.predicted[index] + self.true[index] == 0:
                continue
            precision = self.predicted_hit[index] / max(int(self.predicted[index]), 1)
            recall = self.true_hit[index] / max(int(self.true[index]), 1)
            both = precision + recall
            result[index] = 2 * precision * recall / both if both else 0.0
        return result


def boundary_counts(truth: Mask, prediction: Mask, classes: int, radius: float) -> BoundaryCounts:
    """Boundary pixels within `radius` pixels (Euclidean) of the other mask's boundary, per class.

    A boundary pixel of a class has a 4-neighbour of another class; both must be labelled in truth,
    so the edge of the annotation is no boundary.
    """
    seen = np.where(truth == UNLABELLED, np.uint8(UNLABELLED), prediction)
    counts = np.zeros((4, classes), dtype=np.int64)
    for value in range(classes):
        of_truth = boundary(truth, value)
        of_prediction = boundary(seen, value)
        counts[0, value] = of_prediction.sum()
        counts[1, value] = (of_prediction & dilate(of_truth, radius)).sum()
        counts[2, value] = of_truth.sum()
        counts[3, value] = (of_truth & dilate(of_prediction, radius)).sum()
    return BoundaryCounts(*counts)


def boundary(mask: Mask, value: int) -> npt.NDArray[np.bool_]:
    """Pixels of class `value` with a labelled 4-neighbour of another class."""
    inside = mask == value
    other = (mask != value) & (mask != UNLABELLED)
    touching = np.zeros_like(inside)
    touching[1:] |= other[:-1]
    touching[:-1] |= other[1:]
    touching[:, 1:] |= other[:, :-1]
    touching[:, :-1] |= other[:, 1:]
    result: npt.NDArray[np.bool_] = inside & touching
    return result


def dilate(mask: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    """Pixels within `radius` (Euclidean, pixel centres) of a set pixel.

    A disc is a stack of horizontal runs, and a run is two look-ups in a row's cumulative sum: the
    cost grows with the radius, not with its square.
    """
    height, width = mask.shape
    sums = np.zeros((height, width + 1), dtype=np.int32)
    np.cumsum(mask, axis=1, out=sums[:, 1:])
    columns = np.arange(width)
    result = np.zeros_like(mask)
    radius += 1e-9  # a tolerance of 2.0 um at 0.4 mpp is 5 pixels, not 4.999
    reach = min(math.floor(radius), height - 1)
    for offset in range(-reach, reach + 1):
        half = math.floor(math.sqrt(max(radius * radius - offset * offset, 0.0)))
        low = np.maximum(columns - half, 0)
        high = np.minimum(columns + half + 1, width)
        found = sums[:, high] - sums[:, low] > 0
        if offset >= 0:
            result[offset:] |= found[: height - offset]
        else:
            result[:offset] |= found[-offset:]
    return result


@dataclass(frozen=True)
class CalibrationCounts:
    """Reliability bins over (0, 1]: pixels, summed confidence and right pixels of each."""

    pixels: Counts
    confidence: Floats
    right: Counts

    def __add__(self, other: CalibrationCounts) -> CalibrationCounts:
        return CalibrationCounts(
            self.pixels + other.pixels,
            self.confidence + other.confidence,
            self.right + other.right,
        )

    def ece(self) -> float:
        """Expected calibration error: pixel-weighted |accuracy - confidence| over bins, in [0,
        1]."""
        total = int(self.pixels.sum())
        if total == 0:
            return math.nan
        return float(np.abs(self.right - self.confidence).sum() / total)


def calibration_counts(
    truth: Mask, probabilities: npt.NDArray[np.float32], bins: int = CALIBRATION_BINS
) -> CalibrationCounts:
    """Bin the labelled pixels by the confidence of the predicted class.

    `probabilities` float32 [K, H, W]. Bins are equal in width: ((b)/bins, (b+1)/bins].
    """
    labelled = truth != UNLABELLED
    p_KN = probabilities[:, labelled].astype(np.float64)
    confidence = np.minimum(p_KN.max(axis=0), 1.0) if p_KN.size else np.zeros(0)
    right = p_KN.argmax(axis=0) == truth[labelled] if p_KN.size else np.zeros(0, dtype=bool)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return CalibrationCounts(
        np.bincount(index, minlength=bins),
        np.bincount(index, weights=confidence, minlength=bins).astype(np.float64),
        np.bincount(index, weights=right.astype(np.float64), minlength=bins).astype(np.int64),
    )


@dataclass(frozen=True)
class Intervals:
    """95 % bootstrap intervals over images: `macro_dice` (low, high), `dice` [K] of (low, high)."""

    macro_dice: tuple[float, float]
    dice: tuple[tuple[float, float], ...]


def bootstrap_intervals(
    matrices: Sequence[Counts], seed: int, draws: int = BOOTSTRAP_DRAWS
) -> Intervals:
    """Percentile bootstrap: images are drawn with replacement, their matrices pooled, Dice taken.

    Pixels of one image are not independent, so images are the unit. `matrices`: [K, K] per image.
    """
    stack = np.stack(matrices)
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([6, seed])))
    chosen = stream.integers(0, len(stack), size=(draws, len(stack)))
    macro = np.empty(draws)
    dice = np.empty((draws, stack.shape[1]))
    for draw, indices in enumerate(chosen):
        scores = class_scores(stack[indices].sum(axis=0))
        macro[draw] = scores.macro_dice
        dice[draw] = scores.dice
    return Intervals(_interval(macro), tuple(_interval(column) for column in dice.T))


def _interval(values: Floats) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5]).tolist()
    return low, high
