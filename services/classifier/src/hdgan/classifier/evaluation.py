"""From predictions on annotated images to the scores of a split, as `scores.json` states them.

An image is predicted in bands of rows, and what the scores are summed from is counted band by band:
no array of a picture's size is kept but the mask, and that only until the image is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hdgan.classifier import scores
from hdgan.classifier.predictors import Predict, PredictedRows
from hdgan.nets.ensemble import FoldedEnsemble
from hdgan.nets.labelling import iter_dense
from hdgan.nets.shards import ImageFeatures

C = TypeVar("C", scores.BoundaryCounts, scores.CalibrationCounts)

COUNT_PIXELS = 2**18
"""Labelled pixels are counted this many at a time: what they are copied to stays in the caches."""


@dataclass(frozen=True)
class Evaluated:
    """One annotated image: everything the split's scores are summed from.

    `pixels`: all of the picture's. `entropy_sum`, `uncertainty_sum`: over all of them; the latter,
    like `uncertainty`, None for predictors that are no ensemble.
    """

    id: str
    pixels: int
    matrix: scores.Counts
    boundary: scores.BoundaryCounts
    calibration: scores.CalibrationCounts
    entropy: scores.DetectionCounts
    entropy_sum: float
    uncertainty: scores.DetectionCounts | None
    uncertainty_sum: float | None


@dataclass(frozen=True)
class Prediction:
    """A whole picture's mask uint8 [H, W] and uncertainty float32 [H, W] in [0, 1] or None."""

    mask: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32] | None


OnPrediction = Callable[[ImageFeatures, Prediction], None]


def evaluate(
    image: ImageFeatures,
    predict: Predict,
    classes: int,
    tolerance_px: float,
    on_prediction: OnPrediction | None = None,
) -> Evaluated:
    """Predict one image and count against its labels.

    `on_prediction` is given the whole picture's prediction, to write it down; it is not kept.
    """
    mask = np.empty(image.labels.shape, dtype=np.uint8)
    unsure = np.zeros(image.labels.shape, dtype=np.float32) if on_prediction else None
    total: _RowCounts | None = None  # not a list: the counts of a band take half a megabyte
    for band in predict(image):
        rows = len(band.prediction)
        here = slice(band.first, band.first + rows)
        mask[here] = band.prediction
        if unsure is not None and band.uncertainty is not None:
            unsure[here] = band.uncertainty
        counts = _count_rows(np.asarray(image.labels[here]), band, classes)
        total = counts if total is None else total + counts
    assert total is not None
    if on_prediction is not None:
        shown = None if total.uncertainty is None else unsure
        on_prediction(image, Prediction(mask, shown))
    return Evaluated(
        id=image.id,
        pixels=mask.size,
        matrix=total.matrix,
        boundary=scores.boundary_counts(image.labels, mask, classes, tolerance_px),
        calibration=total.calibration,
        entropy=total.entropy,
        entropy_sum=total.entropy_sum,
        uncertainty=total.uncertainty,
        uncertainty_sum=total.uncertainty_sum if total.uncertainty is not None else None,
    )


@dataclass(frozen=True)
class _RowCounts:
    """What is counted in some rows of an image."""

    matrix: scores.Counts
    calibration: scores.CalibrationCounts
    entropy: scores.DetectionCounts
    entropy_sum: float
    uncertainty: scores.DetectionCounts | None
    uncertainty_sum: float

    def __add__(self, other: _RowCounts) -> _RowCounts:
        unsure = None
        if self.uncertainty is not None and other.uncertainty is not None:
            unsure = self.uncertainty + other.uncertainty
        return _RowCounts(
            self.matrix + other.matrix,
            self.calibration + other.calibration,
            self.entropy + other.entropy,
            self.entropy_sum + other.entropy_sum,
            unsure,
            self.uncertainty_sum + other.uncertainty_sum,
        )


def _count_rows(truth: npt.NDArray[np.uint8], band: PredictedRows, classes: int) -> _RowCounts:
    """Count a band of any height, some rows at a time."""
    step = max(1, COUNT_PIXELS // truth.shape[1])

    def part(first: int) -> _RowCounts:
        here = slice(first, first + step)
        labels, predicted = truth[here], band.prediction[here]
        unsure = None if band.uncertainty is None else band.uncertainty[here]
        spread = band.entropy[here]
        return _RowCounts(
            scores.confusion(labels, predicted, classes),
            scores.calibration_counts(labels, predicted, band.confidence[here]),
            scores.detection_counts(labels, predicted, spread),
            float(spread.sum(dtype=np.float64)),
            None if unsure is None else scores.detection_counts(labels, predicted, unsure),
            0.0 if unsure is None else float(unsure.sum(dtype=np.float64)),
        )

    return reduce(add, map(part, range(0, len(truth), step)))


def validation_dice(folded: FoldedEnsemble, images: Sequence[ImageFeatures]) -> float:
    """Macro Dice pooled over images: what early stopping watches."""
    classes = len(folded.spec.classes)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for image in images:
        for first, band in iter_dense(folded, image.maps):
            truth = image.labels[first : first + len(band.mask)]
            matrix += scores.confusion(np.asarray(truth), band.mask, classes)
    return scores.class_scores(matrix).macro_dice


def split_report(
    images: Sequence[Evaluated],
    names: Sequence[str],
    *,
    tolerance_um: float,
    tolerance_px: float,
    seed: int,
) -> dict[str, Any]:
    """All scores of a split as JSON; undefined values are null.

    Per class and macro: accuracy (recall, as in the paper's Table 1), precision, dice, iou,
    boundaryF, each with 95 % bootstrap intervals over images. `confusion`: row = labelled, column =
    predicted. `leftOut` names the classes that are in neither truth nor prediction. `uncertainty`
    (null without members that could disagree) and `entropy`: mean over all pixels; over the
    labelled ones that are right and wrong; and how well it tells these apart (`auroc`).
    """
    weights = scores.bootstrap_weights(len(images), seed)
    matrix: scores.Counts = reduce(add, (one.matrix for one in images))
    boundary = reduce(add, (one.boundary for one in images))
    calibration = reduce(add, (one.calibration for one in images))
    drawn_matrix = scores.pooled(weights, [one.matrix for one in images])
    drawn_boundary = _drawn(weights, [one.boundary for one in images])
    drawn_calibration = _drawn(weights, [one.calibration for one in images])
    of_classes, in_draws = scores.class_scores(matrix), scores.class_scores(drawn_matrix)

    def metric(values: scores.Floats, draws: scores.Floats) -> dict[str, Any]:
        """Of values [K] and their draws [draws, K]."""
        return {
            "macro": defined(scores.mean_defined(values)),
            "macroInterval95": _interval(scores.mean_defined(draws)),
            "perClass": _per_class(names, values),
            "perClassInterval95": {
                name: _interval(column) for name, column in zip(names, draws.T, strict=True)
            },
        }

    return {
        "images": len(images),
        "labelledPixels": int(matrix.sum()),
        "labelledPerClass": dict(zip(names, matrix.sum(axis=1).tolist(), strict=True)),
        "classes": list(names),
        "confusion": matrix.tolist(),
        "accuracy": metric(of_classes.recall, in_draws.recall),
        "precision": metric(of_classes.precision, in_draws.precision),
        "dice": metric(of_classes.dice, in_draws.dice),
        "iou": metric(of_classes.iou, in_draws.iou),
        "boundaryF": {
            **metric(boundary.f_score(), drawn_boundary.f_score()),
            "tolerance": {"um": tolerance_um, "px": tolerance_px},
        },
        "dice_micro": defined(scores.dice_micro(matrix)),
        "dice_microInterval95": _interval(scores.dice_micro(drawn_matrix)),
        "leftOut": [names[index] for index in scores.left_out(matrix)],
        "ece": defined(calibration.ece()),
        "eceInterval95": _interval(drawn_calibration.ece()),
        "reliability": reliability(calibration),
        "uncertainty": _unsureness(
            images, [one.uncertainty for one in images], [one.uncertainty_sum for one in images]
        ),
        "entropy": _unsureness(
            images, [one.entropy for one in images], [one.entropy_sum for one in images]
        ),
        "perImage": [image_report(one, names) for one in images],
    }


def image_report(image: Evaluated, names: Sequence[str]) -> dict[str, Any]:
    """The same scores of one image; uncertainty and entropy are means over all its pixels."""
    of_classes = scores.class_scores(image.matrix)
    report: dict[str, Any] = {
        "id": image.id,
        "labelledPixels": int(image.matrix.sum()),
        "dice_micro": defined(scores.dice_micro(image.matrix)),
        "ece": defined(image.calibration.ece()),
        "uncertainty": None
        if image.uncertainty_sum is None
        else image.uncertainty_sum / image.pixels,
        "entropy": image.entropy_sum / image.pixels,
    }
    for name, values in {
        "Accuracy": of_classes.recall,
        "Precision": of_classes.precision,
        "Dice": of_classes.dice,
        "Iou": of_classes.iou,
        "BoundaryF": image.boundary.f_score(),
    }.items():
        report[f"macro{name}"] = defined(scores.mean_defined(values))
        report[name[0].lower() + name[1:]] = _per_class(names, values)
    return report


def reliability(calibration: scores.CalibrationCounts) -> list[dict[str, Any]]:
    """The bins of the reliability diagram; mean confidence and accuracy are null in empty bins."""
    bins = len(calibration.pixels)
    return [
        {
            "from": index / bins,
            "to": (index + 1) / bins,
            "pixels": int(pixels),
            "confidence": float(confidence) / int(pixels) if pixels else None,
            "accuracy": int(right) / int(pixels) if pixels else None,
        }
        for index, (pixels, confidence, right) in enumerate(
            zip(calibration.pixels, calibration.confidence, calibration.right, strict=True)
        )
    ]


def _unsureness(
    images: Sequence[Evaluated],
    counts: Sequence[scores.DetectionCounts | None],
    sums: Sequence[float | None],
) -> dict[str, Any] | None:
    known = [one for one in counts if one is not None]
    if len(known) < len(counts):
        return None
    total = reduce(add, known)
    return {
        "mean": sum(one for one in sums if one is not None) / sum(one.pixels for one in images),
        "right": defined(total.mean_right),
        "wrong": defined(total.mean_wrong),
        "auroc": defined(total.auroc),
    }


def _drawn(weights: scores.Floats, counts: Sequence[C]) -> C:
    """What each draw's images count together, field by field."""
    return type(counts[0])(
        **{
            field.name: scores.pooled(weights, [getattr(one, field.name) for one in counts])
            for field in fields(counts[0])
        }
    )


def _per_class(names: Sequence[str], values: scores.Floats) -> dict[str, float | None]:
    return {name: defined(value) for name, value in zip(names, values, strict=True)}


def _interval(draws: scores.Floats) -> list[float | None]:
    return [defined(one) for one in scores.interval(draws)]


def defined(value: Any) -> float | None:
    """A number for JSON: NaN, which JSON lacks, becomes null."""
    number = float(value)
    return None if math.isnan(number) else number
