"""Segmentation scores as pure functions of masks and of what is counted in them (numpy).

One confusion matrix is pooled over the labelled pixels of a split; everything is derived from it.
Dice flattened over classes equals pixel accuracy; it is reported as `dice_micro`, beside per-class
and macro Dice. Undefined values are NaN here and null in `scores.json`. What is counted adds up:
over bands of rows, over images, over the images a bootstrap draws. So derived scores take any
number of leading dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.core.masks import UNLABELLED

CALIBRATION_BINS = 15
BOOTSTRAP_DRAWS = 2000
CHUNK_PIXELS = 2**18  # counting takes 8 bytes for each of them
# Upper halves of the float32 from 0.0 to 1.0: bins that are ordered as the numbers are.
LEVELS = 0x3F80 + 1
BAND_PIXELS = 2**20  # of the boundary scores: a band of bits stays near the caches
TOLERANCE = 1e-9  # a radius of 2.0 um at 0.4 mpp is 5 pixels, not 4.999

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Bits = npt.NDArray[np.unsignedinteger[Any]]


def confusion(truth: Mask, prediction: Mask, classes: int) -> Counts:
    """Confusion matrix int64 [K, K], row = truth, column = prediction; truth 255 never counts."""
    counts = np.zeros(65536, dtype=np.int64)
    of_truth, predicted = truth.reshape(-1), prediction.reshape(-1)
    for first in range(0, len(of_truth), CHUNK_PIXELS):
        here = slice(first, first + CHUNK_PIXELS)
        pairs = of_truth[here].astype(np.uint16) << 8 | predicted[here]
        counts += np.bincount(pairs, minlength=65536)
    return np.ascontiguousarray(counts.reshape(256, 256)[:classes, :classes])


@dataclass(frozen=True)
class ClassScores:
    """Per class float64 [..., K], NaN where undefined.

    recall is the "accuracy" of the paper's Table 1. Dice and IoU are defined for a class in truth
    or prediction; recall needs it in truth, precision in the prediction.
    """

    recall: Floats
    precision: Floats
    dice: Floats
    iou: Floats

    @property
    def macro_dice(self) -> float:
        """Mean Dice of the classes in truth or prediction (of one matrix)."""
        return float(mean_defined(self.dice))


def class_scores(matrix: npt.NDArray[np.int64 | np.float64]) -> ClassScores:
    """Scores of confusion matrices [..., K, K]."""
    hit = np.diagonal(matrix, axis1=-2, axis2=-1).astype(np.float64)
    truth = matrix.sum(axis=-1).astype(np.float64)
    predicted = matrix.sum(axis=-2).astype(np.float64)
    return ClassScores(
        recall=ratio(hit, truth),
        precision=ratio(hit, predicted),
        dice=ratio(2 * hit, truth + predicted),
        iou=ratio(hit, truth + predicted - hit),
    )


def dice_micro(matrix: npt.NDArray[np.int64 | np.float64]) -> Floats:
    """Dice of all classes flattened together, float64 [...]: the share of pixels that are right."""
    hit = np.trace(matrix, axis1=-2, axis2=-1)
    return ratio(np.asarray(hit), np.asarray(matrix.sum(axis=(-2, -1))))


def mean_defined(values: Floats) -> Floats:
    """Mean along the last axis of the values that are not NaN; NaN if none is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    """above / below; NaN where there is nothing below."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def left_out(matrix: Counts) -> list[int]:
    """Classes absent from both truth and prediction: no mean includes them."""
    present = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    return np.flatnonzero(~present).tolist()


@dataclass(frozen=True)
class BoundaryCounts:
    """Per class int64 [..., K]: boundary pixels of prediction and truth, and how many of them found
    a partner."""

    predicted: npt.NDArray[Any]
    predicted_hit: npt.NDArray[Any]
    true: npt.NDArray[Any]
    true_hit: npt.NDArray[Any]

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(
            self.predicted + other.predicted,
            self.predicted_hit + other.predicted_hit,
            self.true + other.true,
            self.true_hit + other.true_hit,
        )

    def f_score(self) -> Floats:
        """Boundary F per class: harmonic mean of precision and recall; NaN without any boundary."""
        precision = self.predicted_hit / np.maximum(self.predicted, 1)
        recall = self.true_hit / np.maximum(self.true, 1)
        both = precision + recall
        scores = np.zeros(both.shape)
        np.divide(2 * precision * recall, both, out=scores, where=both > 0)
        return np.where(self.predicted + self.true > 0, scores, np.nan)


def boundary_counts(truth: Mask, prediction: Mask, classes: int, radius: float) -> BoundaryCounts:
    """Boundary pixels within `radius` pixels (Euclidean) of the other mask's boundary, per class.

    A boundary pixel of a class has a 4-neighbour of another class; both must be labelled in truth,
    so the edge of the annotation is no boundary. In bands of rows with what lies within `radius` of
    them; all classes at once, each in a bit of its own.
    """
    height, width = truth.shape
    reach = _reach(radius, height, width)
    rows = max(BAND_PIXELS // width, reach, 1)
    counts = np.zeros((4, classes), dtype=np.int64)

    def count(row: int, mask: Mask, found: npt.NDArray[np.bool_]) -> None:
        counts[row] += np.bincount(mask[found], minlength=classes)[:classes]

    for first in range(0, height, rows):
        last = min(first + rows, height)
        # A row more on either side: whether a pixel is a boundary depends on its neighbours.
        low, high = max(first - reach - 1, 0), min(last + reach + 1, height)
        of_truth = truth[low:high]
        seen = np.where(of_truth == UNLABELLED, np.uint8(UNLABELLED), prediction[low:high])
        true, predicted = (boundary(one, classes) for one in (of_truth, seen))
        inner = slice(first - low, last - low)
        near = [_near(one, inner, reach, radius) for one in (true, predicted)]
        count(0, seen[inner], predicted[inner] > 0)
        count(1, seen[inner], (predicted[inner] & near[0]) > 0)
        count(2, of_truth[inner], true[inner] > 0)
        count(3, of_truth[inner], (true[inner] & near[1]) > 0)
    return BoundaryCounts(*counts)


def boundary(mask: Mask, classes: int) -> Bits:
    """Boundary pixels of a mask [H, W]: bit k is set in pixels of class k that have a labelled
    4-neighbour of another class."""
    kind = next(one for one in (np.uint8, np.uint16, np.uint32) if classes <= 8 * one(0).itemsize)
    table: Bits = np.zeros(256, dtype=kind)
    table[:classes] = 1 << np.arange(classes)
    labelled = mask != UNLABELLED
    touching = np.zeros(mask.shape, dtype=bool)
    for one, next_to_it in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (mask[one] != mask[next_to_it]) & labelled[one] & labelled[next_to_it]
        touching[one] |= differ
        touching[next_to_it] |= differ
    result: Bits = table[mask]
    result[~touching] = 0
    return result


def dilate(bits: Bits, radius: float) -> Bits:
    """Every bit set where it is set in a pixel within `radius` (Euclidean, pixel centres)."""
    height, width = bits.shape
    return _near(bits, slice(0, height), _reach(radius, height, width), radius)


def _reach(radius: float, height: int, width: int) -> int:
    """Whole pixels within `radius`, at most what the picture has."""
    return min(math.floor(radius + TOLERANCE), max(height, width) - 1)


def _near(bits: Bits, inner: slice, reach: int, radius: float) -> Bits:
    """`dilate` for the rows `inner`; rows and columns outside `bits` have no bit set.

    A disc is a stack of horizontal runs that grow towards its middle. A run is made of three
    shorter ones that overlap or touch, so that each row of the disc costs a few passes.
    """
    rows, width = inner.stop - inner.start, bits.shape[1]
    runs = np.zeros((rows + 2 * reach, width + 2 * reach), dtype=bits.dtype)
    low, high = max(inner.start - reach, 0), min(inner.stop + reach, len(bits))
    top = low - (inner.start - reach)
    runs[top : top + high - low, reach : reach + width] = bits[low:high]
    result = np.zeros((rows, width), dtype=bits.dtype)
    square, half = (radius + TOLERANCE) ** 2, 0
    for offset in range(reach, -1, -1):
        wanted = min(math.floor(math.sqrt(max(square - offset * offset, 0.0))), reach)
        while half < wanted:
            longer = min(wanted, 3 * half + 1)
            runs = _joined(runs, longer - half)
            half = longer
        for row in {reach - offset, reach + offset}:
            result |= runs[row : row + rows, reach : reach + width]
    return result


def _joined(runs: Bits, shift: int) -> Bits:
    """Bits of a pixel and of the two `shift` columns to either side of it."""
    result = runs.copy()
    result[:, shift:] |= runs[:, :-shift]
    result[:, :-shift] |= runs[:, shift:]
    return result


@dataclass(frozen=True)
class CalibrationCounts:
    """Reliability bins over (0, 1], [..., bins]: pixels, summed confidence and right pixels of
    each."""

    pixels: npt.NDArray[Any]
    confidence: Floats
    right: npt.NDArray[Any]

    def __add__(self, other: CalibrationCounts) -> CalibrationCounts:
        return CalibrationCounts(
            self.pixels + other.pixels,
            self.confidence + other.confidence,
            self.right + other.right,
        )

    def ece(self) -> Floats:
        """Expected calibration error [...]: pixel-weighted |accuracy - confidence| over bins, in
        [0, 1]."""
        return ratio(np.abs(self.right - self.confidence).sum(axis=-1), self.pixels.sum(axis=-1))


def calibration_counts(
    truth: Mask, prediction: Mask, confidence: Values, bins: int = CALIBRATION_BINS
) -> CalibrationCounts:
    """Bin the labelled pixels by the probability of the predicted class.

    All [R, W]. Bins are equal in width: ((b)/bins, (b+1)/bins].
    """
    labelled = truth != UNLABELLED
    sure = np.minimum(confidence[labelled].astype(np.float64), 1.0)
    right = truth[labelled] == prediction[labelled]
    index = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    return CalibrationCounts(
        np.bincount(index, minlength=bins),
        np.bincount(index, weights=sure, minlength=bins).astype(np.float64),
        np.bincount(index[right], minlength=bins),
    )


@dataclass(frozen=True)
class DetectionCounts:
    """How unsure right and wrong labelled pixels are: counts int64 [LEVELS] and float64 sums."""

    right: Counts
    wrong: Counts
    right_sum: float
    wrong_sum: float

    def __add__(self, other: DetectionCounts) -> DetectionCounts:
        return DetectionCounts(
            self.right + other.right,
            self.wrong + other.wrong,
            self.right_sum + other.right_sum,
            self.wrong_sum + other.wrong_sum,
        )

    @property
    def mean_right(self) -> float:
        """Mean over the pixels that are right; NaN if none is."""
        count = int(self.right.sum())
        return self.right_sum / count if count else math.nan

    @property
    def mean_wrong(self) -> float:
        """Mean over the pixels that are wrong; NaN if none is."""
        count = int(self.wrong.sum())
        return self.wrong_sum / count if count else math.nan

    @property
    def auroc(self) -> float:
        """How likely a wrong pixel is less sure than a right one, ties counting half (area under
        the ROC curve): 0.5 says nothing about errors, 1 tells them all. NaN without either."""
        right, wrong = self.right.astype(np.float64), self.wrong.astype(np.float64)
        if not (right.any() and wrong.any()):
            return math.nan
        surer = np.cumsum(right) - right / 2
        return float(wrong @ surer / (wrong.sum() * right.sum()))


def detection_counts(truth: Mask, prediction: Mask, unsure: Values) -> DetectionCounts:
    """Count the labelled pixels by how unsure they are, float32 [R, W] in [0, 1]."""
    labelled = truth != UNLABELLED
    values = np.clip(unsure[labelled], 0.0, 1.0).astype(np.float32)
    wrong = truth[labelled] != prediction[labelled]
    levels = (values.view(np.uint32) >> 16).astype(np.int64)
    return DetectionCounts(
        np.bincount(levels[~wrong], minlength=LEVELS),
        np.bincount(levels[wrong], minlength=LEVELS),
        float(values[~wrong].sum(dtype=np.float64)),
        float(values[wrong].sum(dtype=np.float64)),
    )


def bootstrap_weights(images: int, seed: int, draws: int = BOOTSTRAP_DRAWS) -> Floats:
    """How often each draw takes each image, float64 [draws, images]: with replacement, as many as
    there are. Pixels of one image are not independent, so images are the unit."""
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([6, seed])))
    chosen = stream.integers(0, images, size=(draws, images))
    flat = chosen + images * np.arange(draws)[:, None]
    counts = np.bincount(flat.reshape(-1), minlength=draws * images)
    return counts.reshape(draws, images).astype(np.float64)


def pooled(weights: Floats, counts: Sequence[npt.NDArray[Any]]) -> Floats:
    """What each draw's images count together: [draws, ...] of arrays [...], one per image."""
    return np.tensordot(weights, np.stack(counts).astype(np.float64), axes=1)


def interval(values: Floats) -> tuple[float, float]:
    """95 % percentile interval of the draws [draws] in which a score is defined; NaN if none is."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5]).tolist()
    return low, high
