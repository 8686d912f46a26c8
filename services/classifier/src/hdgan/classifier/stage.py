"""The classifier stage: feature shards -> pixel-classifier ensemble, scores, figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hdgan.classifier import figures
from hdgan.classifier.baselines import BLUR_FOLDER, BLUR_SIGMAS, blurred_features, rgb_features
from hdgan.classifier.evaluation import OnPrediction, Prediction, evaluate, split_report
from hdgan.classifier.fitting import Fitted, Fitter, Model
from hdgan.classifier.labelled_pixels import LabelledPixels, labelled_pixels, require_every_class
from hdgan.classifier.predictors import (
    Predict,
    ensemble_predictor,
    one_member,
    prior_predictor,
)
from hdgan.core.claimed_folders import claimed
from hdgan.core.classes import request_classes
from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.json_documents import parse_object
from hdgan.core.masks import encode_mask
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import ClassConfig, ClassifierConfig, ExtractorConfig
from hdgan.core.stage import Stage, StageContext
from hdgan.nets.ensemble import fold
from hdgan.nets.precision import Precision, precision_of
from hdgan.nets.shards import FeatureSet, ImageFeatures, features_root, open_features

SCORED_SPLITS = ("val", "test")
SINGLE_MEMBER = 0


def classify(ctx: StageContext) -> None:
    """Train the ensemble and its baselines, score them on val and test, write everything down."""
    config: ClassifierConfig = ctx.config
    classes = request_classes(ctx.value("classes"))
    features = _features(ctx, [one.name for one in classes])
    pixels = labelled_pixels([one.labels for one in features.split("train")], len(classes))
    counts = pixels.counts
    require_every_class(counts, features.classes)
    if not features.split("test"):
        raise RequestError("no annotated image is of split test: nothing to score on, label some")

    # Several classifiers may share these features.
    with claimed(features_root(ctx.scratch, str(ctx.value("featuresKey"))), BLUR_FOLDER) as folder:
        _classify(ctx, config, classes, features, pixels, folder)
        # Made again in minutes; the features, which take longer, stay for the next run.
        shutil.rmtree(folder, ignore_errors=True)


def _classify(
    ctx: StageContext,
    config: ClassifierConfig,
    classes: tuple[ClassConfig, ...],
    features: FeatureSet,
    pixels: LabelledPixels,
    blurred_folder: Path,
) -> None:
    counts = pixels.counts
    models = (
        Model("features", features),
        Model("rgb", rgb_features(features)),
        Model("rgbBlurred", _blurred(ctx, features, blurred_folder)),
    )
    generator = ctx.input("generator").content_digest
    blocks = _extractor(ctx).blocks
    precision = _precision(ctx)
    fitter = Fitter(
        ctx,
        config,
        classes,
        generator=generator,
        blocks=blocks,
        precision=precision,
        pixels=pixels,
    )
    fitted = fitter.fit_all(models)

    scored = _candidates(ctx, models, fitted, counts)
    figure2: list[figures.Panels] = []
    reports = _score_all(ctx, scored, _prediction_writer(ctx, classes, figure2))
    macro = {name: report["test"]["dice"]["macro"] for name, report in reports.items()}
    ctx.metric(**{f"test_macro_dice_{name}": value for name, value in macro.items()})
    ctx.log("macro Dice on test: " + ", ".join(f"{n} {v:.3f}" for n, v in macro.items()))

    for name, data in fitted[0].ensemble.dump().items():
        ctx.output.add_bytes(name, data)
    document = _scores_document(ctx, features, counts, fitted, reports)
    ctx.output.add_bytes("scores.json", _json(document))
    ctx.output.add_bytes("training.jsonl", _training_log(fitted))
    _write_figures(ctx, classes, reports["features"]["test"], figure2)


def _features(ctx: StageContext, names: list[str]) -> FeatureSet:
    features = open_features(features_root(ctx.scratch, str(ctx.value("featuresKey"))))
    if list(features.classes) != names:
        raise InputMissing(
            f"features on scratch were extracted for the classes {', '.join(features.classes)}, "
            f"this run has {', '.join(names)}: extract them again"
        )
    return features


def _precision(ctx: StageContext) -> Precision:
    """In which the candidates were rendered, and with them the features."""
    candidates = ctx.input("candidates")
    try:
        return precision_of(parse_object(candidates.read("candidates.json")))
    except ValueError as error:
        where = candidates.uri("candidates.json")
        raise InputMissing(f"{where} is not a candidates index: {error!r}") from error


def _extractor(ctx: StageContext) -> ExtractorConfig:
    try:
        return ExtractorConfig.model_validate_json(json.dumps(ctx.value("extractor")))
    except ValidationError as error:
        raise RequestError(f"request.context.extractor is not valid: {error}") from error


def _blurred(ctx: StageContext, features: FeatureSet, folder: Path) -> FeatureSet:
    def on_image(done: int, total: int) -> None:
        ctx.check_stop()
        ctx.progress(done, total, "blurred pictures")

    return blurred_features(
        features,
        folder,
        require_space=lambda size, images: ctx.require_scratch(
            size, f"blurring {images} pictures for the baseline rgbBlurred"
        ),
        on_image=on_image,
    )


@dataclass(frozen=True)
class Scored:
    """Something to score: its name in `scores.json`, what it labels, and how."""

    name: str
    features: FeatureSet
    predict: Predict


def _candidates(
    ctx: StageContext, models: Sequence[Model], fitted: Sequence[Fitted], counts: Sequence[int]
) -> list[Scored]:
    """The ensemble, one of its members, and the baselines."""
    result = []
    for model, one in zip(models, fitted, strict=True):
        folded = fold(one.ensemble).to(ctx.device)
        result.append(Scored(model.name, model.features, ensemble_predictor(folded)))
        if model.name == "features" and folded.spec.members > 1:
            alone = ensemble_predictor(one_member(folded, SINGLE_MEMBER))
            result.append(Scored("singleMember", model.features, alone))
    return [*result, Scored("majority", models[0].features, prior_predictor(counts))]


def _score_all(
    ctx: StageContext, scored: Sequence[Scored], on_prediction: OnPrediction
) -> dict[str, dict[str, Any]]:
    """Reports by name and split, of the splits that have images; one image at a time.

    `on_prediction` is given the ensemble's predictions.
    """
    config: ClassifierConfig = ctx.config
    tolerance_px = config.boundary_tolerance_um / _mpp(ctx)
    total = len(scored) * sum(len(scored[0].features.split(one)) for one in SCORED_SPLITS)
    done = 0
    reports: dict[str, dict[str, Any]] = {}
    for one in scored:
        reports[one.name] = {}
        for split in SCORED_SPLITS:
            evaluated = []
            for image in one.features.split(split):
                ctx.check_stop()
                evaluated.append(
                    evaluate(
                        image,
                        one.predict,
                        len(one.features.classes),
                        tolerance_px,
                        on_prediction if one.name == "features" else None,
                    )
                )
                done += 1
                ctx.progress(done, total, "predictions scored")
            if evaluated:
                reports[one.name][split] = split_report(
                    evaluated,
                    one.features.classes,
                    tolerance_um=config.boundary_tolerance_um,
                    tolerance_px=tolerance_px,
                    seed=config.seed,
                )
    return reports


def _prediction_writer(
    ctx: StageContext, classes: Sequence[ClassConfig], figure2: list[figures.Panels]
) -> OnPrediction:
    """Writes each prediction as a mask, and keeps small pictures of those on test in `figure2`."""

    def write(image: ImageFeatures, prediction: Prediction) -> None:
        mask = encode_mask(prediction.mask, classes)
        ctx.output.add_bytes(f"predictions/{image.id}.png", mask)
        if image.split == "test":
            figure2.append(figures.panels(image, prediction))

    return write


def _mpp(ctx: StageContext) -> float:
    value = ctx.value("mpp")
    if not isinstance(value, int | float) or not value > 0:
        raise RequestError(f"request.context.mpp must be a positive number, got {value!r}")
    return float(value)


def _scores_document(
    ctx: StageContext,
    features: FeatureSet,
    counts: tuple[int, ...],
    fitted: list[Fitted],
    reports: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """`scores.json`. `val`, `test`: the ensemble's scores; `singleMember`, `baselines`: the same of
    one of its members (null if there is only one) and of what needs no generator."""
    total = sum(counts)
    return {
        "format": 1,
        "generator": ctx.input("generator").content_digest,
        "classes": list(features.classes),
        "mpp": _mpp(ctx),
        "channels": features.plan.channels,
        "training": {
            "images": len(features.split("train")),
            "labelledPixels": total,
            "perClass": dict(zip(features.classes, counts, strict=True)),
            "models": {
                one.name: {
                    "epochs": len(one.history),
                    "bestEpoch": one.best_epoch,
                    "channels": one.ensemble.spec.plan.channels,
                }
                for one in fitted
            },
        },
        **reports["features"],
        "singleMember": {
            "what": "one member of the ensemble alone",
            "member": SINGLE_MEMBER,
            **reports["singleMember"],
        }
        if "singleMember" in reports
        else None,
        "baselines": {
            "majority": {"what": "the most frequent training class", **reports["majority"]},
            "rgb": {"what": "the same ensemble on RGB alone", **reports["rgb"]},
            "rgbBlurred": {
                "what": "the same ensemble on RGB and Gaussian-blurred RGB",
                "sigmasPx": sorted(BLUR_SIGMAS),
                **reports["rgbBlurred"],
            },
        },
    }


def _training_log(fitted: list[Fitted]) -> bytes:
    """One JSON line per model and epoch; no clocks, so that equal training gives equal bytes."""
    lines = []
    for one in fitted:
        for record in one.history:
            values = asdict(record)
            lines.append(
                {
                    "model": one.name,
                    "epoch": values["epoch"],
                    "loss": values["loss"],
                    "valMacroDice": values["val_macro_dice"],
                }
            )
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()


def _write_figures(
    ctx: StageContext,
    classes: Sequence[ClassConfig],
    test: dict[str, Any],
    figure2: Sequence[figures.Panels],
) -> None:
    names, colours = [one.name for one in classes], [one.rgb for one in classes]
    ctx.output.add_bytes("figure2.png", figures.segmentations(figure2, names, colours))
    ctx.output.add_bytes("confusion.png", figures.confusion_matrix(test))
    ctx.output.add_bytes("reliability.png", figures.reliability_diagram(test))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


CLASSIFIER = Stage(
    name="classifier",
    version=STAGE_VERSIONS["classifier"],
    config=ClassifierConfig,
    run=classify,
)
