"""Scores of the classifier in the report: Table 1, baselines, confusion, calibration, Figure 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hdgan.core.artifact import Artifact
from hdgan.core.masks import decode_mask
from hdgan.core.run import ClassConfig
from hdgan.desk import charts, report_figures
from hdgan.desk.candidates import Candidates, read_json
from hdgan.desk.report_figures import Picture
from hdgan.desk.report_text import interval, number, percent

FIGURE_2_ROWS = 6

BASELINE_TITLES = {
    "features": "generator features",
    "rgbBlurred": "RGB and blurred RGB",
    "rgb": "RGB alone",
    "majority": "majority class",
}


@dataclass(frozen=True)
class ScoreRow:
    """One row of a table of scores, as text."""

    name: str
    cells: list[str]


def table_1(test: Mapping[str, Any], classes: Sequence[ClassConfig]) -> list[ScoreRow]:
    """Accuracy (recall), Dice with its interval, IoU and boundary F: each class, then macro."""
    dice = test.get("dice", {})
    rows = []
    for entry in classes:
        per_class = [
            number(test.get(metric, {}).get("perClass", {}).get(entry.name))
            for metric in ("accuracy", "dice", "iou", "boundaryF")
        ]
        per_class.insert(2, interval(dice.get("perClassInterval95", {}).get(entry.name)))
        rows.append(ScoreRow(entry.name, per_class))
    macro = [number(test.get(m, {}).get("macro")) for m in ("accuracy", "dice", "iou", "boundaryF")]
    macro.insert(2, interval(dice.get("macroInterval95")))
    rows.append(ScoreRow("macro", macro))
    return rows


def baselines(scores: Mapping[str, Any]) -> list[ScoreRow]:
    """Macro and micro Dice of the ensemble and of what it has to beat, best first as named."""
    found = {"features": scores, **scores.get("baselines", {})}
    order = [name for name in BASELINE_TITLES if name in found]
    order += [name for name in found if name not in BASELINE_TITLES]
    rows = []
    for name in order:
        test = found[name].get("test", {})
        dice = test.get("dice", {})
        cells = [number(dice.get("macro")), interval(dice.get("macroInterval95"))]
        cells += [number(test.get("dice_micro")), number(test.get("iou", {}).get("macro"))]
        rows.append(ScoreRow(BASELINE_TITLES.get(name, name), cells))
    return rows


@dataclass(frozen=True)
class ConfusionCell:
    """Of the pixels labelled as one class, those predicted as one."""

    share: str
    pixels: str
    shade: float
    """0 to 1."""
    right: bool


@dataclass(frozen=True)
class ConfusionRow:
    """A labelled class and where its pixels went."""

    name: str
    total: str
    cells: list[ConfusionCell]


def confusion_rows(test: Mapping[str, Any], classes: Sequence[ClassConfig]) -> list[ConfusionRow]:
    """The confusion matrix, rows = labelled, columns = predicted."""
    rows = []
    matrix = test.get("confusion", [])
    for number_, (entry, counts) in enumerate(zip(classes, matrix, strict=False)):
        total = sum(counts)
        cells = [
            ConfusionCell(percent(n / max(total, 1)), f"{n:,} px", n / max(total, 1), i == number_)
            for i, n in enumerate(counts)
        ]
        rows.append(ConfusionRow(entry.name, f"{total:,} px", cells))
    return rows


def worst_mistake(test: Mapping[str, Any], classes: Sequence[ClassConfig]) -> str:
    """The most frequent confusion in words, by share of the labelled class; empty if none."""
    found = (0.0, "")
    for row, (entry, counts) in enumerate(zip(classes, test.get("confusion", []), strict=False)):
        total = max(sum(counts), 1)
        for column, (other, count) in enumerate(zip(classes, counts, strict=False)):
            if row != column and count / total > found[0]:
                words = f"{percent(count / total)} of {entry.name} is taken for {other.name}"
                found = (count / total, words)
    return found[1]


def reliability(test: Mapping[str, Any]) -> Picture | None:
    """Accuracy over confidence, beside the diagonal a calibrated classifier follows."""
    bins = [one for one in test.get("reliability", []) if one.get("pixels")]
    if not bins:
        return None
    line = [(float(one["confidence"]), float(one["accuracy"])) for one in bins]
    low = min(value for point in line for value in point)
    start = max(0.0, min(0.9, low - 0.05))
    data = charts.line_chart(
        {"ensemble": line, "calibrated": [(start, start), (1.0, 1.0)]},
        "confidence",
        charts.Axis(low=start, high=1.0),
        y_label="accuracy",
    )
    pixels = sum(int(one["pixels"]) for one in bins)
    caption = (
        f"Accuracy over confidence in {len(bins)} bins, {pixels:,} labelled test pixels. Below the "
        "dashed line it is surer than it is right, above it less sure."
    )
    return report_figures.svg_picture(data, "reliability diagram", caption)


@dataclass(frozen=True)
class Comparison:
    """One test image of Figure 2."""

    id: str
    wrong: str
    """Share of its labelled pixels."""
    pictures: list[Picture]


def figure_2(
    candidates: Candidates,
    annotations: Artifact,
    classifier: Artifact,
    classes: Sequence[ClassConfig],
) -> list[Comparison]:
    """Figure 2 of the paper: image, label, prediction, and where they differ."""
    images = read_json(annotations, "annotations.json")["images"]
    identities = [str(image["id"]) for image in images if image["split"] == "test"]
    rows = []
    for identity in report_figures.evenly(identities, FIGURE_2_ROWS):
        name = f"predictions/{identity}.png"
        if name not in classifier:
            continue
        truth = decode_mask(annotations.read(f"masks/{identity}.png"), classes=len(classes))
        guess = decode_mask(classifier.read(name), classes=len(classes), shape=truth.shape)
        labelled = truth != 255
        wrong = float((truth != guess)[labelled].mean()) if labelled.any() else float("nan")
        short = identity[:12]
        rows.append(
            Comparison(
                short,
                percent(wrong),
                [
                    report_figures.cell(candidates.rgb(identity), f"test image {short}", "image"),
                    report_figures.mask_cell(truth, classes, f"label of {short}", "label"),
                    report_figures.mask_cell(
                        guess, classes, f"prediction for {short}", "prediction"
                    ),
                    report_figures.difference_cell(
                        truth, guess, f"errors in {short}", f"{percent(wrong)} wrong"
                    ),
                ],
            )
        )
    return rows


def scores_section(
    scores: Mapping[str, Any],
    classes: Sequence[ClassConfig],
    classifier: Artifact,
    candidates: Candidates | None,
    annotations: Artifact | None,
) -> dict[str, Any]:
    """What the page shows of the classifier's artifact."""
    test = scores.get("test", {})
    rows: list[Comparison] = []
    if candidates is not None and annotations is not None:
        rows = figure_2(candidates, annotations, classifier, classes)
    return {
        "images": test.get("images"),
        "pixels": test.get("labelledPixels"),
        "figure_2": rows,
        "table_1": table_1(test, classes),
        "dice_micro": number(test.get("dice_micro")),
        "left_out": list(test.get("leftOut", [])),
        "tolerance": test.get("boundaryF", {}).get("tolerance", {}).get("um"),
        "baselines": baselines(scores),
        "confusion": confusion_rows(test, classes),
        "worst": worst_mistake(test, classes),
        "ece": number(test.get("ece"), 4),
        "reliability": reliability(test),
    }
