"""Gates find what they look at in the documents that trainer and classifier write."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hdgan.classifier.evaluation import evaluate, split_report
from hdgan.classifier.predictors import PredictedRows
from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.gate_measures import evaluation_of, scores_of
from hdgan.core.gates import measured_by
from hdgan.core.store import open_store
from hdgan.gan_trainer.metrics.evaluation import MIN_HELD_OUT, Compared, full
from hdgan.nets.image_features import extractor, open_extractor
from hdgan.nets.shards import ImageFeatures

RANDOM = np.random.default_rng(0)


def written(folder: Path, stage: str, name: str, document: object) -> Artifact:
    attempt = Attempt(open_store((folder / "store").as_uri()), stage, "a" * 64)
    attempt.add_bytes(name, json.dumps(document).encode())
    return attempt.commit({})


def normal(count: int) -> np.ndarray:
    return RANDOM.normal(size=(count, 8)).astype(np.float32)


def test_the_trainers_evaluation(tmp_path: Path) -> None:
    whole = Compared(normal(40), normal(40), normal(60))
    document = full({"whole": whole}, Compared(normal(40), normal(8 * 40), normal(60)))
    found = evaluation_of(written(tmp_path, "gan-trainer", "evaluation.json", document))
    assert found.kid == document["kid"]["whole"]["mean"]
    assert found.kid_error == document["kid"]["whole"]["standard_error"]
    assert found.memorisation == document["memorisation"]["share"]
    assert found.lack == ""


def test_an_evaluation_with_nothing_to_compare_with(tmp_path: Path) -> None:
    few = Compared(normal(MIN_HELD_OUT - 1), normal(40), normal(60))
    document = full({"whole": few}, few)
    found = evaluation_of(written(tmp_path, "gan-trainer", "evaluation.json", document))
    assert (found.kid, found.memorisation) == (None, None)
    assert "nothing to compare with" in found.lack


def test_the_classifiers_scores(tmp_path: Path) -> None:
    truth = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    guess = np.array([[0, 1, 1, 1]], dtype=np.uint8)
    flat = np.full(truth.shape, 0.9, dtype=np.float32)

    def predict(image: ImageFeatures) -> Iterator[PredictedRows]:
        yield PredictedRows(0, guess, flat, 1 - flat, None)

    image = ImageFeatures("one", "test", (), truth, np.zeros((1, 4, 3), dtype=np.uint8))
    report = split_report(
        [evaluate(image, predict, 3, 1.0)], "abc", tolerance_um=1.0, tolerance_px=1.0, seed=0
    )
    found = scores_of(written(tmp_path, "classifier", "scores.json", {"test": report}))
    # By hand: a has 1 of 2, b has 2 of 3, c is nowhere.
    assert found.class_iou == {"a": 1 / 2, "b": pytest.approx(2 / 3), "c": None}
    assert found.macro_dice == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.skipif(
    importlib.util.find_spec(extractor.PACKAGE) is None, reason="the weights are not installed"
)
def test_the_extractor_of_the_run_file_is_known_by_its_name(tmp_path: Path) -> None:
    spec = extractor.EFFICIENTNET
    assert measured_by(spec, open_extractor(spec, "cpu", tmp_path).name)
