"""From predictions on annotated images to the scores of a split, as `scores.json` states them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.classifier import scores
from hdgan.nets.ensemble import FoldedEnsemble
from hdgan.nets.labelling import label_dense
from hdgan.nets.shards import ImageFeatures


@dataclass(frozen=True)
class Evaluated:
    """One annotated image with its prediction and everything the split's scores are summed from.

    `uncertainty` float32 [H, W] in [0, 1]; None for predictors that have no ensemble.
    """

    id: str
    picture: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32] | None
    matrix: scores.Counts
    boundary: scores.BoundaryCounts
    calibration: scores.CalibrationCounts


Probabilities = npt.NDArray[np.float32]
Predict = Callable[[ImageFeatures], tuple[Probabilities, npt.NDArray[np.float32] | None]]
"""Class probabilities float32 [K, H, W] and uncertainty float32 [H, W] (or None) of an image."""


def ensemble_predictor(folded: FoldedEnsemble) -> Predict:
    """Predict with an ensemble from an image's maps."""

    def predict(image: ImageFeatures) -> tuple[Probabilities, npt.NDArray[np.float32] | None]:
        dense = label_dense(folded, image.maps, probabilities=True)
        assert dense.probabilities is not None
        return dense.probabilities, dense.uncertainty

    return predict


def prior_predictor(counts: Sequence[int]) -> Predict:
    """The majority class everywhere, as sure as the training labels are: the least to beat."""
    prior = np.asarray(counts, dtype=np.float32) / np.float32(sum(counts))

    def predict(image: ImageFeatures) -> tuple[Probabilities, npt.NDArray[np.float32] | None]:
        shape = (len(prior), *image.labels.shape)
        return np.broadcast_to(prior[:, None, None], shape), None

    return predict


def evaluate(
    image: ImageFeatures, predict: Predict, classes: int, tolerance_px: float
) -> Evaluated:
    """Predict one image and count against its labels."""
    probabilities, uncertainty = predict(image)
    prediction = probabilities.argmax(axis=0).astype(np.uint8)
    truth = np.asarray(image.labels)
    return Evaluated(
        id=image.id,
        picture=np.asarray(image.picture),
        truth=truth,
        prediction=prediction,
        uncertainty=uncertainty,
        matrix=scores.confusion(truth, prediction, classes),
        boundary=scores.boundary_counts(truth, prediction, classes, tolerance_px),
        calibration=scores.calibration_counts(truth, probabilities),
    )


def validation_dice(folded: FoldedEnsemble, images: Sequence[ImageFeatures]) -> float:
    """Macro Dice pooled over images: what early stopping watches."""
    classes = len(folded.spec.classes)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for image in images:
        prediction = label_dense(folded, image.maps).mask
        matrix += scores.confusion(np.asarray(image.labels), prediction, classes)
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
    boundaryF. `confusion`: row = labelled, column = predicted. `leftOut` names the classes that
    are in neither truth nor prediction.
    """
    matrix: scores.Counts = reduce(add, (one.matrix for one in images))
    of_classes = scores.class_scores(matrix)
    boundary = reduce(add, (one.boundary for one in images)).f_score()
    calibration = reduce(add, (one.calibration for one in images))
    intervals = scores.bootstrap_intervals([one.matrix for one in images], seed)

    def metric(values: scores.Floats) -> dict[str, Any]:
        per_class = {name: defined(one) for name, one in zip(names, values, strict=True)}
        return {"macro": defined(scores.mean_defined(values)), "perClass": per_class}

    return {
        "images": len(images),
        "labelledPixels": int(matrix.sum()),
        "labelledPerClass": dict(zip(names, matrix.sum(axis=1).tolist(), strict=True)),
        "classes": list(names),
        "confusion": matrix.tolist(),
        "accuracy": metric(of_classes.recall),
        "precision": metric(of_classes.precision),
        "dice": {
            **metric(of_classes.dice),
            "macroInterval95": [defined(one) for one in intervals.macro_dice],
            "perClassInterval95": {
                name: [defined(one) for one in interval]
                for name, interval in zip(names, intervals.dice, strict=True)
            },
        },
        "iou": metric(of_classes.iou),
        "boundaryF": {
            **metric(boundary),
            "tolerance": {"um": tolerance_um, "px": tolerance_px},
        },
        "dice_micro": defined(scores.dice_micro(matrix)),
        "leftOut": [names[index] for index in scores.left_out(matrix)],
        "ece": defined(calibration.ece()),
        "reliability": reliability(calibration),
        "perImage": [_image_report(one, names) for one in images],
    }


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


def _image_report(image: Evaluated, names: Sequence[str]) -> dict[str, Any]:
    of_classes = scores.class_scores(image.matrix)
    unsure = image.uncertainty
    return {
        "id": image.id,
        "labelledPixels": int(image.matrix.sum()),
        "macroDice": defined(of_classes.macro_dice),
        "dice_micro": defined(scores.dice_micro(image.matrix)),
        "dice": {name: defined(value) for name, value in zip(names, of_classes.dice, strict=True)},
        "uncertainty": None if unsure is None else float(unsure.mean(dtype=np.float64)),
    }


def defined(value: float) -> float | None:
    """A number for JSON: NaN, which JSON lacks, becomes null."""
    number = float(value)
    return None if math.isnan(number) else number
