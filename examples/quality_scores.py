"""Figures of quality.json from classifier artifacts: pure functions over confusion matrices.

Images are compared in pairs: both sides of a difference see the same drawn images, which says more
than two intervals that overlap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.classifier.scores import (
    BOOTSTRAP_DRAWS,
    boundary_counts,
    class_scores,
    confusion,
    mean_defined,
)
from hdgan.core.artifact import Artifact
from hdgan.core.masks import decode_mask
from hdgan.synthesizer.smoothing import smooth_mask

Mask = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BASELINES = ("rgb", "rgbBlurred", "majority")
DIGITS = 4


@dataclass(frozen=True)
class Predictions:
    """Scores of a classifier, and its masks of the test images beside the labelled ones."""

    scores: dict[str, Any]
    truth: tuple[Mask, ...]
    predicted: tuple[Mask, ...]

    @property
    def matrices(self) -> Counts:
        """Confusion matrices int64 [images, K, K], row = truth."""
        classes = len(self.scores["classes"])
        pairs = zip(self.truth, self.predicted, strict=True)
        return np.stack([confusion(truth, mask, classes) for truth, mask in pairs])


def read_predictions(classifier: Artifact, annotations: Artifact) -> Predictions:
    """What a classifier artifact says of the test images."""
    scores = json.loads(classifier.read("scores.json"))
    ids = [image["id"] for image in scores["test"]["perImage"]]
    return Predictions(
        scores,
        tuple(decode_mask(annotations.read(f"masks/{name}.png")) for name in ids),
        tuple(decode_mask(classifier.read(f"predictions/{name}.png")) for name in ids),
    )


def macro_dice(matrices: Counts) -> float:
    """Macro Dice of [images, K, K], pooled over the images."""
    return float(class_scores(matrices.sum(axis=0)).macro_dice)


def difference(
    ours: Sequence[Counts], theirs: Sequence[Counts], draws: int = BOOTSTRAP_DRAWS
) -> dict[str, Any]:
    """Macro Dice of `ours` less that of `theirs`, and its 95 % bootstrap over images, in pairs.

    Each side is one or more classifiers' [images, K, K] on the same images; several count with the
    mean of their scores.
    """

    def gap(chosen: npt.NDArray[np.int64]) -> float:
        first, second = (
            np.mean([macro_dice(one[chosen]) for one in side]) for side in (ours, theirs)
        )
        return float(first - second)

    images = len(ours[0])
    stream = np.random.Generator(np.random.Philox(0))
    drawn = [gap(one) for one in stream.integers(0, images, size=(draws, images))]
    return {
        "value": round(gap(np.arange(images)), DIGITS),
        "interval95": _rounded(np.percentile(drawn, [2.5, 97.5]).tolist()),
    }


def block_scores(
    ensemble: Predictions, singles: Sequence[Predictions], paper: Predictions
) -> dict[str, Any]:
    """A row of the table: the ensemble, single members, and how they differ."""
    alone = [macro_dice(one.matrices) for one in singles]
    return {
        "channels": ensemble.scores["channels"],
        "ensemble": shown_scores(ensemble.scores),
        "lessPaperBlocks": None
        if ensemble is paper
        else difference([ensemble.matrices], [paper.matrices]),
        "single": {
            "macroDice": round(float(np.mean(alone)), DIGITS),
            "range": _rounded([min(alone), max(alone)]),
        },
        "ensembleLessSingle": difference([ensemble.matrices], [one.matrices for one in singles]),
    }


def baseline_scores(paper: Predictions) -> dict[str, Any]:
    """Scores of the baselines, which no block enters."""
    baselines = paper.scores["baselines"]
    return {
        name: shown_scores(baselines[name])
        | ({"sigmasPx": baselines[name]["sigmasPx"]} if "sigmasPx" in baselines[name] else {})
        for name in BASELINES
    }


def smoothing_scores(paper: Predictions, mpp: float, radii_um: Sequence[float]) -> list[Any]:
    """What a majority filter of each radius does to the ensemble's masks; first, without one."""
    plain = paper.matrices
    rows = []
    for radius in (0.0, *radii_um):
        smoothed = _smoothed(paper, radius / mpp)
        matrices = smoothed.matrices
        pairs = zip(smoothed.predicted, paper.predicted, strict=True)
        rows.append(
            {
                "radiusUm": radius,
                "radiusPx": radius / mpp,
                "macroDice": _round(macro_dice(matrices)),
                "lessUnsmoothed": difference([matrices], [plain]) if radius else None,
                "boundaryF": _round(_boundary_f(smoothed)),
                "changed": _round(float(np.mean([(one != other).mean() for one, other in pairs]))),
            }
        )
    return rows


def _smoothed(found: Predictions, radius_px: float) -> Predictions:
    if not radius_px:
        return found
    classes = len(found.scores["classes"])
    masks = tuple(smooth_mask(mask, classes, radius_px) for mask in found.predicted)
    return replace(found, predicted=masks)


def _boundary_f(found: Predictions) -> float:
    """Macro boundary F-score at the tolerance of scores.json, pooled over the images."""
    classes = len(found.scores["classes"])
    tolerance = found.scores["test"]["boundaryF"]["tolerance"]["px"]
    pairs = zip(found.truth, found.predicted, strict=True)
    counts = [boundary_counts(truth, mask, classes, tolerance) for truth, mask in pairs]
    return float(mean_defined(reduce(add, counts).f_score()))


def shown_scores(scores: dict[str, Any]) -> dict[str, Any]:
    """The figures that are shown, of `scores.json` or of a part of it that has a `test`."""
    test = scores["test"]
    dice = test["dice"]
    return {
        "macroDice": _round(dice["macro"]),
        "interval95": _rounded(dice["macroInterval95"]),
        "perClass": {name: _round(value) for name, value in dice["perClass"].items()},
        "boundaryF": _round(test["boundaryF"]["macro"]),
        "ece": _round(test["ece"]),
    }


def _round(value: float | None) -> float | None:
    """Null stays null: what is undefined, such as the Dice of a class that is nowhere."""
    return None if value is None else round(value, DIGITS)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), DIGITS) for value in values]
