"""The report: one self-contained HTML page of everything that exists of a run.

Every section asks for the artifacts it needs; where one is missing the page says so and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib import resources
from typing import Any, TypeVar

import jinja2
import markupsafe

from hdgan.core.artifact import Artifact
from hdgan.core.printable import printable
from hdgan.core.run import ClassConfig
from hdgan.core.well_formed import well_formed
from hdgan.desk import charts, report_facts, report_figures
from hdgan.desk.candidates import Candidates, read_json
from hdgan.desk.pictures import open_rgb
from hdgan.desk.report_facts import Fact
from hdgan.desk.report_figures import Picture
from hdgan.desk.run_artifacts import RunArtifacts

_GRIDS = 6
_GRID_IMAGES = 4
_LABELLED_SHOWN = 18
_FIGURE_2_ROWS = 8
_PAIRS_SHOWN = 12

_Made = TypeVar("_Made")


def render_report(view: RunArtifacts) -> str:
    """The HTML of a run's report, without links to anything outside the page."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    source = resources.files("hdgan.desk").joinpath("templates/report.html.j2")
    template = environment.from_string(source.read_text("utf-8"))
    context = report_context(view)
    with well_formed(f"what run {view.run.metadata.name} has made in {view.store.uri}"):
        return template.render(**context)


def _shown(value: Any) -> Any:
    """What the template prints of a value: texts without characters that turn or end them."""
    plain = isinstance(value, str) and not isinstance(value, markupsafe.Markup)
    return printable(value) if plain else value


def report_context(view: RunArtifacts) -> dict[str, Any]:
    """Everything the template prints; sections that cannot be filled are None."""
    found = view.artifacts
    classes = view.run.spec.annotations.classes
    candidates = Candidates(found["candidates"]) if "candidates" in found else None
    classifier, annotations = found.get("classifier"), found.get("annotations")
    scores = read_json(classifier, "scores.json") if classifier else None
    balance = _section(annotations, lambda one: report_facts.annotation_balance(one, len(classes)))
    dataset = _section(found.get("dataset"), lambda one: _dataset(one, classes, balance))
    side = view.run.spec.tiler.tile_size
    labels = candidates.artifact if candidates and annotations is None else annotations
    context: dict[str, Any] = {
        "name": view.run.metadata.name,
        "store": view.store.uri,
        "classes": [{"index": i, **asdict_class(c)} for i, c in enumerate(classes)],
        "tiles": _section(found.get("tiler"), _tiles),
        "training": _section(found.get("gan-trainer"), lambda one: _training(one, side)),
        "candidates": _section(labels, lambda _: _candidates(candidates, annotations, classes)),
        "scores": _section(
            classifier, lambda _: _scores(scores, classes, classifier, candidates, annotations)
        ),
        "dataset": dataset,
        "lineage": [asdict(row) for row in report_facts.lineage(found, view.statuses)],
        "missing": {s.name: s.reason for s in view.statuses if s.state != "done"},
    }
    context["verdict"], context["verdict_kind"] = _verdict(view, dataset)
    with well_formed(classifier) if classifier else nullcontext():
        context["facts"] = _facts(view, context, scores)
    return context


def _section(artifact: Artifact | None, make: Callable[[Artifact], _Made]) -> _Made | None:
    """What is made of an artifact, None where there is none. InputMissing where its documents are
    not what they have to be."""
    if artifact is None:
        return None
    with well_formed(artifact):
        return make(artifact)


def asdict_class(entry: ClassConfig) -> dict[str, str]:
    """A class as the template names it."""
    return {"name": entry.name, "color": entry.color}


def _verdict(view: RunArtifacts, dataset: dict[str, Any] | None) -> tuple[str, str]:
    """One sentence and its kind (good, waiting, bad)."""
    reasons = {status.state: status.reason for status in reversed(view.statuses)}
    if view.outcome == "GateFailed":
        kept = "" if dataset is None else f" Its {dataset['pairs']} pairs are not released."
        return f"A gate said no: {reasons.get('failed', '')}.{kept}", "bad"
    if dataset is not None:
        return f"The dataset is there: {dataset['pairs']} image + mask pairs.", "good"
    if view.outcome == "AwaitingAnnotation":
        return f"Waiting for annotations: {reasons.get('awaiting', '')}.", "waiting"
    if view.outcome == "Failed":
        return f"The run failed. {view.message}".strip(), "bad"
    for status in view.statuses:
        if status.state in ("ready", "waiting"):
            return f"Unfinished: the next stage is {status.name}.", "waiting"
    return "Nothing of this run exists yet.", "waiting"


def _facts(view: RunArtifacts, context: dict[str, Any], scores: Any) -> list[Fact]:
    """Headline numbers of what exists."""
    facts = []
    if context["tiles"]:
        tiles = context["tiles"]
        facts.append(Fact("slides", str(len(tiles["slides"]))))
        facts.append(Fact("tiles", f"{tiles['accepted']:,}", f"holdout: {tiles['holdout']}"))
    if context["training"] and context["training"]["kimg"] is not None:
        facts.append(Fact("trained", f"{context['training']['kimg']:g} kimg"))
    if context["candidates"]:
        labelled = context["candidates"]["labelled"]
        note = f"of {context['candidates']['count']} candidates"
        facts.append(Fact("labelled", f"{labelled} images", note))
    if scores:
        dice = scores.get("test", {}).get("dice", {})
        text = report_facts.interval(dice.get("macroInterval95"))
        note = f"95 %: {text}" if text else "on the test images"
        facts.append(Fact("macro Dice (test)", report_facts.number(dice.get("macro")), note))
    if context["dataset"]:
        side = view.run.spec.tiler.tile_size
        note = f"{side} x {side} px at {view.run.spec.tiler.mpp:g} µm/px"
        facts.append(Fact("dataset", f"{context['dataset']['pairs']:,} pairs", note))
    return facts


def _tiles(artifact: Artifact) -> dict[str, Any]:
    document = read_json(artifact, "slides.json")
    slides = report_facts.slides(document)
    return {
        "slides": slides,
        "accepted": sum(slide.accepted for slide in slides),
        "rejected": report_facts.in_words(
            sum((Counter(one.rejected) for one in slides), Counter[str]())
        ),
        "set_aside": sum(1 for slide in slides if not slide.accepted),
        "holdout": str(document.get("holdout", "")),
        "per_fold": list(document.get("tilesPerFold", [])),
        "folds": report_facts.folds(document),
        "contact": report_figures.file_picture(
            artifact, "contact.png", "accepted tiles", "Accepted tiles."
        ),
        "rejects": report_figures.file_picture(
            artifact, "rejects.png", "rejected tiles", "Rejected tiles, each with the reason."
        ),
        "in_words": report_facts.in_words,
    }


def _training(artifact: Artifact, tile: int) -> dict[str, Any]:
    panels = report_facts.training_panels(artifact)
    points = [x for lines in panels.values() for line in lines.values() for x, _ in line]
    pair = [
        report_figures.file_picture(artifact, name, alt, alt, pixelated=True)
        for name, alt in (("reals.png", "real tiles"), ("samples.png", "generated images"))
    ]
    curves = None
    if panels:
        curves = report_figures.svg_picture(charts.line_panels(panels, "kimg"), "training curves")
    return {
        "kimg": max(points, default=None),
        "pair": [picture for picture in pair if picture],
        "grids": _grids(artifact, tile),
        "curves": curves,
        "measures": report_facts.generator_measures(artifact),
        "extractor": report_facts.extractor_name(artifact),
    }


def _grids(artifact: Artifact, tile: int) -> list[Picture]:
    names = [name for name in artifact.names() if name.startswith("grids/")]
    pictures = []
    for name in report_figures.evenly(names, _GRIDS):
        rgb = open_rgb(artifact.read(name), artifact.uri(name), report_figures.MAX_SHEET_PIXELS)
        corner = report_figures.sample_corner(rgb, tile, _GRID_IMAGES)
        digits = "".join(c for c in name if c.isdigit())
        caption = f"{int(digits) / 1000:g} kimg" if digits else name
        alt = f"samples at {caption}"
        pictures.append(report_figures.rgb_picture(corner, alt, caption, pixelated=True))
    return pictures


def _candidates(
    candidates: Candidates | None, annotations: Artifact | None, classes: Sequence[ClassConfig]
) -> dict[str, Any] | None:
    if candidates is None:
        return None
    context: dict[str, Any] = {
        "count": len(candidates.ids),
        "psi": candidates.document.get("psi"),
        "sheet": report_figures.file_picture(
            candidates.artifact, "sheet.png", "candidates", pixelated=True
        ),
        "labelled": 0,
        "splits": {},
        "labels": None,
        "author": "",
    }
    if annotations is not None:
        images = read_json(annotations, "annotations.json")["images"]
        shown = [(str(i["id"]), str(i["split"])) for i in images[:_LABELLED_SHOWN]]
        info = annotations.run_info()
        context |= {
            "labelled": len(images),
            "splits": dict(report_facts.split_counts(annotations)),
            "labels": report_figures.labelled_sheet(candidates, annotations, shown, classes),
            "author": ", ".join(str(info[k]) for k in ("author", "date") if info.get(k)),
        }
    return context


def _scores(
    scores: Any,
    classes: Sequence[ClassConfig],
    classifier: Artifact | None,
    candidates: Candidates | None,
    annotations: Artifact | None,
) -> dict[str, Any] | None:
    if scores is None or classifier is None:
        return None
    test = scores.get("test", {})
    figure_2 = None
    if candidates is not None and annotations is not None:
        images = read_json(annotations, "annotations.json")["images"]
        identities = [str(image["id"]) for image in images if image["split"] == "test"]
        chosen = report_figures.evenly(identities, _FIGURE_2_ROWS)
        figure_2 = report_figures.truth_beside_prediction(
            candidates, annotations, classifier, chosen, classes
        )
    return {
        "images": test.get("images"),
        "pixels": test.get("labelledPixels"),
        "figure_2": figure_2
        or report_figures.file_picture(classifier, "figure2.png", "segmentation beside truth"),
        "table_1": report_facts.table_1(test, classes),
        "dice_micro": report_facts.number(test.get("dice_micro")),
        "left_out": list(test.get("leftOut", [])),
        "tolerance": test.get("boundaryF", {}).get("tolerance", {}).get("um"),
        "baselines": report_facts.baselines(scores),
        "confusion": report_facts.confusion_rows(test, classes),
        "ece": report_facts.number(test.get("ece"), 4),
        "reliability": _reliability(test),
    }


def _reliability(test: dict[str, Any]) -> Picture | None:
    """Accuracy over confidence, beside the diagonal a calibrated classifier follows."""
    bins = [one for one in test.get("reliability", []) if one.get("pixels")]
    if not bins:
        return None
    points = [(float(one["confidence"]), float(one["accuracy"])) for one in bins]
    panel = {"ensemble": points, "calibrated": [(0.0, 0.0), (1.0, 1.0)]}
    data = charts.line_panels({"accuracy over confidence": panel}, "confidence")
    return report_figures.svg_picture(data, "reliability diagram")


def _dataset(
    artifact: Artifact, classes: Sequence[ClassConfig], balance: list[float] | None
) -> dict[str, Any]:
    facts = report_facts.dataset_facts(artifact, classes)
    groups = {"annotations": balance, "dataset": facts.balance}
    present = {name: values for name, values in groups.items() if values is not None}
    calibration = read_json(artifact, "calibration.json") if "calibration.json" in artifact else {}
    uncertainty = None
    if calibration.get("uncertainties"):
        data = charts.histogram(
            calibration["uncertainties"],
            calibration.get("maxUncertainty"),
            "mean uncertainty of an image",
        )
        uncertainty = report_figures.svg_picture(data, "uncertainty of the calibration draw")
    chart = None
    if present:
        chart = report_figures.svg_picture(
            charts.grouped_bars(present, [entry.name for entry in classes]), "class balance"
        )
    return {
        "pairs": facts.pairs,
        "shards": facts.shards,
        "samples": report_figures.dataset_sheet(artifact, classes, _PAIRS_SHOWN),
        "balance": chart,
        "uncertainty": uncertainty,
        "threshold": report_facts.number(calibration.get("maxUncertainty"), 4),
    }
