"""Scores of an image counted band by band are those of its whole arrays."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hdgan.classifier import evaluation, predictors, scores
from hdgan.classifier.evaluation import Prediction, evaluate, split_report, validation_dice
from hdgan.classifier.figures import block_means, panels, segmentations
from hdgan.classifier.predictors import (
    PredictedRows,
    ensemble_predictor,
    one_member,
    prior_predictor,
)
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, PixelEnsemble, fold
from hdgan.nets.labelling import iter_dense, label_dense
from hdgan.nets.pyramid import FeatureMap, FeaturePlan
from hdgan.nets.shards import ImageFeatures

SIDE = 32
PLAN = FeaturePlan(SIDE, (FeatureMap("b16.conv1", 16, 6), FeatureMap("b32.conv1", 32, 4)))


def ensemble(members: int = 4) -> PixelEnsemble:
    spec = EnsembleSpec(
        plan=PLAN, blocks=2, dtype="float16",
        classes=tuple(ClassLabel(name, "#000000") for name in "abc"),
        hidden=(16, 8), members=members, dropout=0.0, mean=np.zeros(10), std=np.ones(10),
        log_prior_correction=np.array([0.1, -0.3, 0.2]), generator="g" * 64,
    )  # fmt: skip
    made = PixelEnsemble(spec, seed=3)
    with torch.no_grad():
        made.weights[-1].mul_(6.0)
    return made.eval()


def image(seed: int = 0, split: str = "test") -> ImageFeatures:
    stream = np.random.default_rng(seed)
    maps = tuple(
        stream.normal(size=(one.resolution, one.resolution, one.channels)).astype(np.float16)
        for one in PLAN.maps
    )
    labels = np.kron(stream.integers(0, 3, (8, 8)), np.ones((4, 4), dtype=int)).astype(np.uint8)
    labels[stream.random(labels.shape) < 0.2] = 255
    picture = stream.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    return ImageFeatures(f"image{seed}", split, maps, labels, picture)


@pytest.mark.parametrize("count_pixels", [1, 100, 2**18])
def test_an_image_is_scored_as_its_whole_arrays_are(
    monkeypatch: pytest.MonkeyPatch, count_pixels: int
) -> None:
    monkeypatch.setattr(evaluation, "COUNT_PIXELS", count_pixels)
    # Small bands, so that several are joined.
    monkeypatch.setattr(
        predictors, "iter_dense", lambda *a, **named: iter_dense(*a, **named, budget=20_000)
    )
    one, folded = image(), fold(ensemble())
    seen: list[Prediction] = []
    found = evaluate(one, ensemble_predictor(folded), 3, 2.0, lambda image, made: seen.append(made))
    whole = label_dense(folded, one.maps, probabilities=True)
    assert whole.probabilities is not None
    assert np.array_equal(seen[0].mask, whole.mask)
    assert np.array_equal(whole.mask, whole.probabilities.argmax(axis=0))
    assert seen[0].uncertainty is not None
    assert np.array_equal(seen[0].uncertainty, whole.uncertainty)

    labelled = one.labels != 255
    matrix = np.zeros((3, 3), dtype=int)
    np.add.at(matrix, (one.labels[labelled], whole.mask[labelled]), 1)
    assert found.matrix.tolist() == matrix.tolist()
    sure = whole.probabilities.max(axis=0)
    expected = scores.calibration_counts(one.labels, whole.mask, sure)
    assert found.calibration.pixels.tolist() == expected.pixels.tolist()
    assert found.calibration.ece() == pytest.approx(float(expected.ece()))
    assert found.pixels == SIDE * SIDE
    assert found.entropy_sum == pytest.approx(whole.entropy.sum(dtype=float))
    assert found.uncertainty_sum == pytest.approx(whole.uncertainty.sum(dtype=float))
    wrong = whole.uncertainty[labelled & (one.labels != whole.mask)]
    assert found.uncertainty is not None
    assert found.uncertainty.mean_wrong == pytest.approx(wrong.mean(dtype=float))


def test_memory_does_not_grow_with_the_number_of_bands() -> None:
    def predict(image: ImageFeatures) -> Iterator[PredictedRows]:
        values = np.full((1, SIDE), 0.5, dtype=np.float32)
        for first in range(SIDE):
            yield PredictedRows(first, image.labels[first : first + 1] % 3, values, values, values)

    tracemalloc.start()
    try:
        evaluate(image(), predict, 3, 2.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    of_a_band = 4 * 8 * scores.LEVELS
    assert peak < SIDE * of_a_band / 2


def test_one_member_is_that_member() -> None:
    made, one = ensemble(), image()
    folded = fold(made)
    p_MNK = torch.stack(
        [
            torch.from_numpy(
                np.asarray(
                    label_dense(one_member(folded, i), one.maps, probabilities=True).probabilities
                )
            )
            for i in range(4)
        ]
    )
    mean = np.asarray(label_dense(folded, one.maps, probabilities=True).probabilities)
    np.testing.assert_allclose(p_MNK.mean(dim=0).numpy(), mean, atol=1e-5)
    rows = torch.randn(9, PLAN.channels)
    with torch.no_grad():
        torch.testing.assert_close(
            one_member(folded, 2).logits(rows)[0], made(rows)[2], rtol=1e-4, atol=1e-4
        )
    with pytest.raises(IndexError, match="no member 4 among 4"):
        one_member(folded, 4)
    linear = PixelEnsemble(replace(made.spec, hidden=()), seed=3).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            one_member(fold(linear), 2).logits(rows)[0], linear(rows)[2], rtol=1e-4, atol=1e-4
        )


def test_the_majority_is_as_sure_as_the_labels_are() -> None:
    (band,) = prior_predictor([30, 60, 10])(image())
    assert (band.prediction == 1).all()
    assert band.confidence[3, 4] == pytest.approx(0.6)
    entropy = -sum(p * math.log(p) for p in (0.3, 0.6, 0.1)) / math.log(3)
    assert band.entropy[0, 0] == pytest.approx(entropy)
    assert band.uncertainty is None


def test_validation_dice_is_pooled_over_images() -> None:
    folded, images = fold(ensemble()), [image(1), image(2)]
    first, second = (
        scores.confusion(one.labels, label_dense(folded, one.maps).mask, 3) for one in images
    )
    matrix = first + second
    assert validation_dice(folded, images) == scores.class_scores(matrix).macro_dice


def fixed(prediction: npt.NDArray[np.uint8], sure: float) -> predictors.Predict:
    def predict(image: ImageFeatures) -> Iterator[PredictedRows]:
        flat = np.full(prediction.shape, sure, dtype=np.float32)
        yield PredictedRows(0, prediction, flat, 1 - flat, None)

    return predict


def test_a_report_states_every_score_with_its_interval_and_images_with_theirs() -> None:
    one, other = image(1), image(2)
    good = np.where(one.labels == 255, 0, one.labels).astype(np.uint8)
    bad = np.zeros_like(good)
    evaluated = [
        evaluate(one, fixed(good, 0.9), 3, 2.0),
        evaluate(other, fixed(bad, 0.9), 3, 2.0),
    ]
    report = split_report(evaluated, "abc", tolerance_um=2.0, tolerance_px=2.0, seed=0)
    json.dumps(report, allow_nan=False)
    for name in ("accuracy", "precision", "dice", "iou", "boundaryF"):
        low, high = report[name]["macroInterval95"]
        assert low <= report[name]["macro"] <= high
        assert set(report[name]["perClassInterval95"]) == set("abc")
    assert report["dice"]["macroInterval95"][1] == 1.0  # draws of the good image alone
    first, second = report["perImage"]
    assert [first[f"macro{n}"] for n in ("Accuracy", "Precision", "Dice", "Iou")] == [1.0] * 4
    assert first["boundaryF"] == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert first["ece"] == pytest.approx(0.1)
    assert first["entropy"] == pytest.approx(0.1)
    assert second["accuracy"] == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert second["precision"]["b"] is None
    assert second["macroIou"] == pytest.approx(second["iou"]["a"] / 3)
    share = (other.labels == 0).sum() / (other.labels != 255).sum()
    assert second["dice_micro"] == pytest.approx(share)
    assert second["ece"] == pytest.approx(0.9 - share)
    assert report["uncertainty"] is None
    assert report["entropy"]["auroc"] == 0.5


def test_a_class_nobody_has_is_named_and_left_out() -> None:
    one = replace(image(), labels=np.zeros((SIDE, SIDE), dtype=np.uint8))
    evaluated = [evaluate(one, fixed(np.zeros_like(one.labels), 1.0), 3, 1.0)]
    report = split_report(evaluated, "abc", tolerance_um=1.0, tolerance_px=1.0, seed=0)
    assert report["leftOut"] == ["b", "c"]
    assert report["dice"]["macro"] == 1.0
    assert report["boundaryF"]["macro"] is None
    assert report["perImage"][0]["macroBoundaryF"] is None


def test_panels_of_a_large_picture_are_small_and_show_the_same() -> None:
    side = 1024
    labels = np.zeros((side, side), dtype=np.uint8)
    labels[:, side // 2 :] = 1
    picture = np.zeros((side, side, 3), dtype=np.uint8)
    picture[::2] = 255
    unsure = np.linspace(0, 1, side, dtype=np.float32) * np.ones((side, 1), dtype=np.float32)
    large = ImageFeatures("x" * 20, "test", (), labels, picture)
    found = panels(large, Prediction(labels, unsure))
    assert found.picture.shape == (512, 512, 3)
    assert np.unique(found.picture).tolist() == [128]
    assert np.array_equal(found.truth, labels[::2, ::2])
    np.testing.assert_allclose(found.uncertainty[0], block_means(unsure, 2)[5])
    assert abs(found.uncertainty.mean() - 0.5) < 1e-3
    small = panels(image(), Prediction(image().labels, None))
    assert small.picture.shape == (SIDE, SIDE, 3)
    assert small.uncertainty.max() == 0
    assert segmentations([found, small], ["a", "b"], [(0, 0, 0), (255, 255, 255)])[:4] == b"\x89PNG"
