"""The classifier as a whole, on features the extractor made."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.classifier import fitting
from hdgan.classifier.baselines import BLUR_FOLDER, rgb_features
from hdgan.classifier.stage import CLASSIFIER
from hdgan.classifier.training import Training, TrainingSettings
from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.claimed_folders import claimed
from hdgan.core.masks import decode_mask
from hdgan.core.stage import run_stage
from hdgan.core.store import open_store
from hdgan.nets.checkpoint import load_generator
from hdgan.nets.ensemble import PixelEnsemble, fold
from hdgan.nets.labelling import Labeller, label_dense
from hdgan.nets.shards import features_root, open_features, write_index, write_shard
from support.annotated_run import AnnotatedRun, make_run

CONFIG: dict[str, Any] = {
    "members": 3,
    "hidden": [16, 8],
    "batch": 128,
    "epochs": 4,
    "learningRate": 0.005,
    "patience": 4,
}


@dataclass(frozen=True)
class Extracted:
    run: AnnotatedRun
    folder: Path


@pytest.fixture
def extracted(tmp_path: Path) -> Extracted:
    """A run whose features are on scratch, written with the shard format's own functions."""
    run = make_run(tmp_path)
    store = open_store(run.store)
    generator_artifact = open_artifact(store, "gan-trainer", run.inputs["generator"].key)
    candidates = open_artifact(store, "candidates", run.inputs["candidates"].key)
    assert generator_artifact is not None
    assert candidates is not None
    generator = load_generator(generator_artifact.read)
    write_features(run, generator, candidates)
    return Extracted(run, tmp_path)


def write_features(run: AnnotatedRun, generator: Any, candidates: Artifact) -> None:
    import safetensors.torch

    from hdgan.nets.pyramid import feature_plan, render
    from support.annotated_run import SPLITS

    plan = feature_plan(generator.arch, 3)
    ws = safetensors.torch.load(candidates.read("latents.safetensors"))["w"]
    root = features_root(run.scratch, run.features_key)
    masks = run.masks()
    records = []
    for index, (name, split) in enumerate(zip(run.ids, SPLITS, strict=True)):
        rendered = render(generator, ws[index], "constant", plan, "float16")
        records.append(
            write_shard(
                root,
                name,
                split=split,
                plan=plan,
                dtype="float16",
                classes=2,
                maps=rendered.maps,
                labels=masks[name],
                picture=rendered.image,
            )
        )
    write_index(root, records, [one.name for one in run.classes])


def classify(
    made: Extracted, run: AnnotatedRun | None = None, **config: Any
) -> tuple[int, list[dict[str, Any]]]:
    out = io.StringIO()
    environ = (run or made.run).request("classifier", CONFIG | config, made.folder / "request.json")
    code = run_stage((CLASSIFIER,), environ, out)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def artifact_of(made: Extracted) -> Artifact:
    request = json.loads((made.folder / "request.json").read_text())
    artifact = open_artifact(open_store(made.run.store), "classifier", request["key"])
    assert artifact is not None
    return artifact


def test_everything_a_reader_needs_is_written(extracted: Extracted) -> None:
    code, events = classify(extracted)
    assert code == 0, events[-1]
    artifact = artifact_of(extracted)
    scored = extracted.run.ids[4:]
    assert artifact.names() == sorted(
        ["ensemble.json", "ensemble.safetensors", "scores.json", "training.jsonl"]
        + ["figure2.png", "confusion.png", "reliability.png"]
        + [f"predictions/{name}.png" for name in scored]
    )
    for name in ("figure2.png", "confusion.png", "reliability.png"):
        assert Image.open(io.BytesIO(artifact.read(name))).size[0] > 100
    scores = json.loads(artifact.read("scores.json"))
    for split, ids in (("val", scored[:2]), ("test", scored[2:])):
        own = scores[split]
        assert own["images"] == 2
        assert own["labelledPixels"] == 2 * 15 * 16  # one row of 16 is unlabelled in each
        assert np.sum(own["confusion"]) == own["labelledPixels"]
        low, high = own["dice"]["macroInterval95"]
        assert low <= own["dice"]["macro"] <= high
        assert len(own["reliability"]) == 15
        assert [one["id"] for one in own["perImage"]] == list(ids)
        for one in own["perImage"]:
            for name in ("Accuracy", "Precision", "Dice", "Iou", "BoundaryF"):
                assert 0 <= one[f"macro{name}"] <= 1
                assert set(one[name[0].lower() + name[1:]]) == {"dark", "light"}
            assert 0 <= one["ece"] <= 1
            assert 0 <= one["uncertainty"] <= 1
            assert 0 < one["entropy"] <= 1
        mean = np.mean([one["entropy"] for one in own["perImage"]])
        assert own["entropy"]["mean"] == pytest.approx(mean)
        assert 0 <= own["uncertainty"]["auroc"] <= 1
    alone = scores["singleMember"]
    assert alone["member"] == 0
    assert alone["test"]["labelledPixels"] == scores["test"]["labelledPixels"]
    assert alone["test"]["uncertainty"] is None
    assert alone["test"]["entropy"]["mean"] > 0
    assert sorted(scores["baselines"]) == ["majority", "rgb", "rgbBlurred"]
    majority = scores["baselines"]["majority"]["test"]
    assert 0.0 in majority["dice"]["perClass"].values()
    lines = [json.loads(line) for line in artifact.read("training.jsonl").splitlines()]
    assert {line["model"] for line in lines} == {"features", "rgb", "rgbBlurred"}
    assert [line["epoch"] for line in lines if line["model"] == "features"] == [0, 1, 2, 3]
    metrics = [event["values"] for event in events if event["event"] == "metric"]
    assert any("val_macro_dice" in one for one in metrics)
    assert metrics[-1]["test_macro_dice_features"] == scores["test"]["dice"]["macro"]


def test_written_scores_follow_from_written_predictions(extracted: Extracted) -> None:
    classify(extracted)
    artifact = artifact_of(extracted)
    scores = json.loads(artifact.read("scores.json"))
    masks = extracted.run.masks()
    right = total = 0
    for name in extracted.run.ids[6:]:
        prediction = decode_mask(artifact.read(f"predictions/{name}.png"), classes=2)
        labelled = masks[name] != 255
        right += int((prediction == masks[name])[labelled].sum())
        total += int(labelled.sum())
    assert scores["test"]["dice_micro"] == pytest.approx(right / total)


def test_serving_gives_the_predictions_that_were_scored(extracted: Extracted) -> None:
    classify(extracted)
    artifact = artifact_of(extracted)
    store = open_store(extracted.run.store)
    ensemble = PixelEnsemble.load(artifact.read)
    assert ensemble.spec.generator == extracted.run.inputs["generator"].content_digest
    assert ensemble.spec.dtype == "float16"
    generator_artifact = open_artifact(store, "gan-trainer", ensemble_key(extracted))
    candidates = open_artifact(store, "candidates", extracted.run.inputs["candidates"].key)
    assert generator_artifact is not None
    assert candidates is not None
    import safetensors.torch

    generator = load_generator(generator_artifact.read)
    ws = safetensors.torch.load(candidates.read("latents.safetensors"))["w"]
    name = extracted.run.ids[7]
    labelled = Labeller(ensemble).label(generator, ws[7], "constant")
    assert np.array_equal(labelled.image, extracted.run.pictures()[name])
    stored = decode_mask(artifact.read(f"predictions/{name}.png"), classes=2)
    assert np.array_equal(labelled.mask, stored)


def ensemble_key(made: Extracted) -> str:
    return made.run.inputs["generator"].key


def test_the_ensemble_learns_the_rule(extracted: Extracted) -> None:
    classify(extracted, epochs=30, patience=30)
    scores = json.loads(artifact_of(extracted).read("scores.json"))
    assert scores["val"]["dice"]["macro"] > 0.75
    majority = scores["baselines"]["majority"]["val"]["dice"]["macro"]
    assert scores["val"]["dice"]["macro"] > majority + 0.2


@pytest.mark.parametrize("stop_at", [5, 40])
def test_stopped_and_started_again_it_ends_the_same(
    extracted: Extracted, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """5 steps are within the first model, 40 within the second."""
    stop_after(monkeypatch, stop_at)
    code, events = classify(extracted)
    assert code == 75, events[-1]
    monkeypatch.undo()
    code, events = classify(extracted)
    assert code == 0
    assert any("going on from step" in str(event.get("message")) for event in events)
    resumed = artifact_of(extracted).content_digest
    clean = replace(extracted.run, store=extracted.run.store + "-clean")
    copy_inputs(extracted.run, clean)
    assert classify(extracted, clean)[0] == 0
    request = json.loads((extracted.folder / "request.json").read_text())
    fresh = open_artifact(open_store(clean.store), "classifier", request["key"])
    assert fresh is not None
    assert fresh.content_digest == resumed


@pytest.mark.parametrize("end", [False, True])
def test_a_kill_within_an_epoch_costs_what_was_not_saved_yet(
    extracted: Extracted, monkeypatch: pytest.MonkeyPatch, end: bool
) -> None:
    """Saving at every step, it dies in the second epoch: within it, or right at its beginning."""
    steps: list[int] = []
    original: Callable[[Training, int], float] = Training.step

    def step(self: Training, number: int) -> float:
        if number == self.steps_per_epoch + (0 if end else 2):
            raise RuntimeError("killed")
        steps.append(number)
        return original(self, number)

    monkeypatch.setattr(fitting, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(Training, "step", step)
    assert classify(extracted)[0] == 70
    monkeypatch.undo()
    code, events = classify(extracted)
    assert code == 0
    going_on = f"features: going on from step {steps[-1] + 1}"
    assert any(event.get("message") == going_on for event in events)
    resumed = artifact_of(extracted).content_digest
    clean = replace(extracted.run, store=extracted.run.store + "-clean")
    copy_inputs(extracted.run, clean)
    assert classify(extracted, clean)[0] == 0
    request = json.loads((extracted.folder / "request.json").read_text())
    fresh = open_artifact(open_store(clean.store), "classifier", request["key"])
    assert fresh is not None
    assert fresh.content_digest == resumed


def copy_inputs(run: AnnotatedRun, to: AnnotatedRun) -> None:
    import shutil
    from urllib.parse import urlparse

    before, after = (Path(urlparse(one.store).path) for one in (run, to))
    shutil.copytree(before, after)
    shutil.rmtree(after / "artifacts" / "classifier")
    assert not (after / "work").exists(), "a stage that ended keeps nothing to resume from"


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Make the process receive SIGTERM in step `steps`, counted over all models."""
    import os
    import signal

    taken = 0
    original: Callable[[Training, int], float] = Training.step

    def step(self: Training, number: int) -> float:
        nonlocal taken
        taken += 1
        if taken == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, number)

    monkeypatch.setattr(Training, "step", step)


def test_every_option_of_training_reaches_it(
    extracted: Extracted, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Training, int]] = []
    original: Callable[..., None] = Training.__init__

    def begin(self: Training, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        made.append((self, named["epoch_pixels"]))

    monkeypatch.setattr(Training, "__init__", begin)
    options: dict[str, Any] = {
        "dropout": 0.3, "labelSmoothing": 0.2, "featureNoise": 0.4, "optimizer": "sgd",
        "epochPixels": 300, "epochs": 2, "seed": 9, "patience": 7,
    }  # fmt: skip
    assert classify(extracted, **options)[0] == 0
    for training, epoch_pixels in made:
        assert epoch_pixels == 300
        assert training.ensemble.spec.dropout == 0.3
        assert training.ensemble.spec.hidden == (16, 8)
        assert training.settings == TrainingSettings(
            optimizer="sgd", learning_rate=0.005, batch=128, epochs=2, patience=7, seed=9,
            label_smoothing=0.2, feature_noise=0.4,
        )  # fmt: skip
    assert len(made) == 3


def test_the_prior_of_the_labels_is_given_back(extracted: Extracted) -> None:
    assert classify(extracted)[0] == 0
    made = artifact_of(extracted)
    correction = PixelEnsemble.load(made.read).spec.log_prior_correction
    labelled = json.loads(made.read("scores.json"))["training"]["perClass"]
    counts = np.array(list(labelled.values()))
    assert counts[0] != counts[1]
    np.testing.assert_allclose(correction, np.log(counts / counts.sum()) - np.log(0.5))


def test_the_ensemble_says_in_which_precision_its_features_were_rendered(
    extracted: Extracted,
) -> None:
    run, store = extracted.run, open_store(extracted.run.store)
    generator = open_artifact(store, "gan-trainer", run.inputs["generator"].key)
    candidates = open_artifact(store, "candidates", run.inputs["candidates"].key)
    assert generator is not None
    assert candidates is not None
    document = json.loads(candidates.read("candidates.json")) | {"precision": "bfloat16"}
    mixed = run.with_candidates({"candidates.json": json.dumps(document).encode()})
    write_features(mixed, load_generator(generator.read), candidates)
    for one, precision in ((run, "float32"), (mixed, "bfloat16")):
        assert classify(extracted, one, epochs=1)[0] == 0
        assert PixelEnsemble.load(artifact_of(extracted).read).spec.precision == precision


def test_missing_features_ask_for_extraction(extracted: Extracted) -> None:
    (features_root(extracted.run.scratch, extracted.run.features_key) / "index.json").unlink()
    code, events = classify(extracted)
    assert code == 66
    assert "extract" in events[-1]["message"]


def test_a_class_without_training_pixels_is_a_request_error(extracted: Extracted) -> None:
    root = features_root(extracted.run.scratch, extracted.run.features_key)
    features = open_features(root)
    records = []
    for image in features.images:
        labels = np.where(np.asarray(image.labels) == 1, 0, image.labels).astype(np.uint8)
        records.append(
            write_shard(
                root,
                image.id,
                split=image.split,
                plan=features.plan,
                dtype=features.dtype,
                classes=2,
                maps=[torch.from_numpy(np.array(one)) for one in image.maps],
                labels=labels,
                picture=np.array(image.picture),
            )
        )
    write_index(root, records, features.classes)
    code, events = classify(extracted)
    assert code == 64
    assert "no training image has a pixel of class 'light'" in events[-1]["message"]


def test_one_member_alone_is_no_ensemble_to_compare_with(extracted: Extracted) -> None:
    code, events = classify(extracted, members=1)
    assert code == 0, events[-1]
    scores = json.loads(artifact_of(extracted).read("scores.json"))
    assert scores["singleMember"] is None
    assert scores["test"]["uncertainty"] is None
    assert scores["test"]["perImage"][0]["uncertainty"] is None


def test_blurred_pictures_are_gone_when_all_is_scored_and_the_features_stay(
    extracted: Extracted, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = features_root(extracted.run.scratch, extracted.run.features_key)
    stop_after(monkeypatch, 5)
    assert classify(extracted)[0] == 75
    monkeypatch.undo()
    before = {one: one.stat().st_mtime_ns for one in root.glob(f"{BLUR_FOLDER}-*/*/shard.json")}
    assert len(before) == 8
    code, events = classify(extracted)
    assert code == 0
    units = {event["unit"] for event in events if event["event"] == "progress"}
    assert "blurred pictures" not in units  # they were still there
    assert "predictions scored" in units
    assert list(root.glob(f"{BLUR_FOLDER}*")) == []
    assert len(open_features(root).images) == 8


def test_another_classifier_on_the_same_features_keeps_its_blurred_pictures(
    extracted: Extracted,
) -> None:
    root = features_root(extracted.run.scratch, extracted.run.features_key)
    with claimed(root, BLUR_FOLDER) as others:
        (others / "shard.json").write_text("theirs")
        assert classify(extracted)[0] == 0
        assert [path.name for path in root.glob(f"{BLUR_FOLDER}*")] == [others.name]
        assert (others / "shard.json").read_text() == "theirs"


def test_too_little_space_for_the_blurred_baseline_is_known_at_once(
    extracted: Extracted, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    code, events = classify(extracted)
    assert code == 69
    assert "blurring 8 pictures for the baseline rgbBlurred needs" in events[-1]["message"]


def test_dense_labels_of_a_baseline_use_the_same_code(extracted: Extracted) -> None:
    features = rgb_features(
        open_features(features_root(extracted.run.scratch, extracted.run.features_key))
    )
    classify(extracted)
    ensemble = PixelEnsemble.load(artifact_of(extracted).read)
    spec = replace(ensemble.spec, plan=features.plan, mean=features.mean, std=features.std)
    dense = label_dense(fold(PixelEnsemble(spec)), features.images[0].maps)
    assert dense.mask.shape == (16, 16)
