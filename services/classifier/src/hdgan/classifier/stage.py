"""The classifier stage: feature shards -> pixel-classifier ensemble, scores, figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from hdgan.classifier import figures
from hdgan.classifier.baselines import BLUR_SIGMAS, rgb_features
from hdgan.classifier.evaluation import (
    Evaluated,
    Predict,
    ensemble_predictor,
    evaluate,
    prior_predictor,
    split_report,
)
from hdgan.classifier.fitting import Fitted, Fitter, Model
from hdgan.classifier.labelled_pixels import labelled_pixels, require_every_class
from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.masks import encode_mask
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import ClassConfig, ClassifierConfig, ExtractorConfig
from hdgan.core.stage import Stage, StageContext
from hdgan.nets.ensemble import fold
from hdgan.nets.precision import Precision, precision_of
from hdgan.nets.shards import FeatureSet, features_root, open_features

SCORED_SPLITS = ("val", "test")


def classify(ctx: StageContext) -> None:
    """Train the ensemble and its baselines, score them on val and test, write everything down."""
    config: ClassifierConfig = ctx.config
    classes = _classes(ctx)
    features = _features(ctx, [one.name for one in classes])
    counts = labelled_pixels(
        [np.asarray(one.labels) for one in features.split("train")], len(classes)
    ).counts
    require_every_class(counts, features.classes)
    if not features.split("test"):
        raise RequestError("no annotated image is of split test: nothing to score on, label some")

    models = (
        Model("features", features),
        Model("rgb", rgb_features(features)),
        Model("rgbBlurred", rgb_features(features, BLUR_SIGMAS)),
    )
    generator = ctx.input("generator").content_digest
    blocks = _extractor(ctx).blocks
    precision = _precision(ctx)
    fitter = Fitter(ctx, config, classes, generator=generator, blocks=blocks, precision=precision)
    fitted = fitter.fit_all(models)

    predictors = {
        model.name: ensemble_predictor(fold(one.ensemble).to(ctx.device))
        for model, one in zip(models, fitted, strict=True)
    }
    predictors["majority"] = prior_predictor(counts)
    sets = {model.name: model.features for model in models} | {"majority": features}
    reports: dict[str, dict[str, Any]] = {}
    evaluated: dict[str, list[Evaluated]] = {}
    for name, predict in predictors.items():
        ctx.check_stop()
        reports[name], images = _score(ctx, sets[name], predict)
        if name == "features":
            evaluated = images
    macro = {name: report["test"]["dice"]["macro"] for name, report in reports.items()}
    ctx.metric(**{f"test_macro_dice_{name}": value for name, value in macro.items()})
    ctx.log("macro Dice on test: " + ", ".join(f"{n} {v:.3f}" for n, v in macro.items()))

    for name, data in fitted[0].ensemble.dump().items():
        ctx.output.add_bytes(name, data)
    document = _scores_document(ctx, features, counts, fitted, reports)
    ctx.output.add_bytes("scores.json", _json(document))
    ctx.output.add_bytes("training.jsonl", _training_log(fitted))
    _write_pictures(ctx, classes, reports["features"], evaluated)


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
        return precision_of(json.loads(candidates.read("candidates.json")))
    except (AttributeError, ValueError) as error:
        where = candidates.uri("candidates.json")
        raise InputMissing(f"{where} is not a candidates index: {error!r}") from error


def _extractor(ctx: StageContext) -> ExtractorConfig:
    try:
        return ExtractorConfig.model_validate_json(json.dumps(ctx.value("extractor")))
    except ValidationError as error:
        raise RequestError(f"request.context.extractor is not valid: {error}") from error


def _classes(ctx: StageContext) -> list[ClassConfig]:
    try:
        return TypeAdapter(list[ClassConfig]).validate_json(json.dumps(ctx.value("classes")))
    except ValidationError as error:
        raise RequestError(f"request.context.classes is not valid: {error}") from error


def _score(
    ctx: StageContext, features: FeatureSet, predict: Predict
) -> tuple[dict[str, Any], dict[str, list[Evaluated]]]:
    """Reports and predictions of the splits that have images."""
    config: ClassifierConfig = ctx.config
    tolerance_px = config.boundary_tolerance_um / _mpp(ctx)
    reports, evaluated = {}, {}
    for split in SCORED_SPLITS:
        images = features.split(split)
        if not images:
            continue
        classes = len(features.classes)
        evaluated[split] = [evaluate(one, predict, classes, tolerance_px) for one in images]
        reports[split] = split_report(
            evaluated[split],
            features.classes,
            tolerance_um=config.boundary_tolerance_um,
            tolerance_px=tolerance_px,
            seed=config.seed,
        )
    return reports, evaluated


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
    """`scores.json`. `val`, `test`: the ensemble's scores; `baselines`: the same of others."""
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
        "baselines": {
            "majority": {"what": "the most frequent training class", **reports["majority"]},
            "rgb": {"what": "the same ensemble on RGB alone", **reports["rgb"]},
            "rgbBlurred": {
                "what": "the same ensemble on RGB and Gaussian-blurred RGB",
                "sigmasPx": list(BLUR_SIGMAS),
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


def _write_pictures(
    ctx: StageContext,
    classes: list[ClassConfig],
    reports: dict[str, Any],
    evaluated: dict[str, list[Evaluated]],
) -> None:
    for images in evaluated.values():
        for one in images:
            mask = encode_mask(one.prediction, classes)
            ctx.output.add_bytes(f"predictions/{one.id}.png", mask)
    names = [one.name for one in classes]
    colours = [one.rgb for one in classes]
    figure2 = figures.segmentations(evaluated["test"], names, colours)
    ctx.output.add_bytes("figure2.png", figure2)
    ctx.output.add_bytes("confusion.png", figures.confusion_matrix(reports["test"]))
    ctx.output.add_bytes("reliability.png", figures.reliability_diagram(reports["test"]))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


CLASSIFIER = Stage(
    name="classifier",
    version=STAGE_VERSIONS["classifier"],
    config=ClassifierConfig,
    run=classify,
)
