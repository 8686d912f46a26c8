"""The report: one self-contained HTML page of everything that exists of a run.

Every section asks for the artifacts it needs; where one is missing the page says so and why.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from importlib import resources
from typing import Any, TypeVar

import jinja2
import markupsafe

from hdgan.core.artifact import Artifact
from hdgan.core.pipeline import NodeStatus
from hdgan.core.printable import printable
from hdgan.core.run import ClassConfig
from hdgan.core.well_formed import well_formed
from hdgan.desk import report_summary
from hdgan.desk.candidates import Candidates, read_json
from hdgan.desk.report_comparison import comparison_section
from hdgan.desk.report_cost import cost_section
from hdgan.desk.report_dataset import dataset_section
from hdgan.desk.report_gates import gates_section
from hdgan.desk.report_labels import annotation_balance, labels_section
from hdgan.desk.report_lineage import Trail, made, trail
from hdgan.desk.report_scores import scores_section
from hdgan.desk.report_text import Fact, interval, number
from hdgan.desk.report_tiles import slides, tiles_section
from hdgan.desk.report_training import drift_section, training_section
from hdgan.desk.run_artifacts import RunArtifacts

MAX_BYTES = 10_000_000
"""A report is never larger, whatever the size of the tiles: what it shows is counted, and each
picture has a budget (`report_figures`)."""

_TEMPLATES = "templates"

_Made = TypeVar("_Made")


def render_report(view: RunArtifacts) -> str:
    """The HTML of a run's report, without links to anything outside the page."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    template = environment.get_template("report.html.j2")
    context = report_context(view)
    with well_formed(f"what run {view.run.metadata.name} has made in {view.store.uri}"):
        return template.render(**context, style=markupsafe.Markup(_template("report.css")))


def _template(name: str) -> str:
    return resources.files("hdgan.desk").joinpath(_TEMPLATES, name).read_text("utf-8")


def _shown(value: Any) -> Any:
    """What the template prints of a value: texts without characters that turn or end them."""
    plain = isinstance(value, str) and not isinstance(value, markupsafe.Markup)
    return printable(value) if plain else value


def report_context(view: RunArtifacts) -> dict[str, Any]:
    """Everything the template prints; sections that cannot be filled are None."""
    found, run = view.artifacts, view.run
    name, classes = run.metadata.name, run.spec.annotations.classes
    candidates = Candidates(found["candidates"]) if "candidates" in found else None
    classifier, annotations = found.get("classifier"), found.get("annotations")
    tiler = found.get("tiler")
    own_tiles = tiler.content_digest if tiler else ""
    side = run.spec.tiler.tile_size
    scores = read_json(classifier, "scores.json") if classifier else None
    labels = candidates.artifact if candidates and annotations is None else annotations
    balance = _section(annotations, lambda one: annotation_balance(one, len(classes)))
    context: dict[str, Any] = {
        "name": name,
        "store": view.store.uri,
        "outcome": view.outcome,
        "classes": [{"index": i, **asdict_class(c)} for i, c in enumerate(classes)],
        "tiles": _section(tiler, tiles_section),
        "training": _section(
            found.get("gan-trainer"), lambda one: training_section(one, side, own_tiles)
        ),
        "drift": _section(found.get("drift"), drift_section),
        "labels": None
        if candidates is None
        else _section(labels, lambda _: labels_section(candidates, annotations, classes)),
        "scores": None
        if scores is None
        else _section(
            classifier,
            lambda one: scores_section(scores, classes, one, candidates, annotations),
        ),
        "dataset": _section(
            found.get("dataset"), lambda one: dataset_section(one, classes, balance)
        ),
        "made": made(found, view.statuses),
        "cost": cost_section(name, found, view.statuses),
        "gates": gates_section(view.store, run, view.external, found, view.outcome),
        "comparison": comparison_section(view.store, run, found, classes),
        "missing": {s.name: s.reason for s in view.statuses if s.state != "done"},
    }
    context["trail"] = _trail(view, context["dataset"])
    pairs = context["dataset"]["pairs"] if context["dataset"] else None
    context["verdict"], context["verdict_kind"] = report_summary.verdict(
        view.outcome,
        view.message,
        {status.state: status.reason for status in reversed(view.statuses)},
        _following(view.statuses),
        pairs,
    )
    with well_formed(classifier) if classifier else nullcontext():
        context["facts"] = _facts(view, context, scores)
        context["good"] = report_summary.is_it_good(context, scores)
        context["usable"] = report_summary.can_i_use_it(context)
        context["todo"] = report_summary.needs_a_person(context, scores)
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


def _following(statuses: tuple[NodeStatus, ...]) -> str:
    """The stage that comes next; empty where all are done, or nothing has been begun."""
    if not any(status.state == "done" for status in statuses):
        return ""
    return next((one.name for one in statuses if one.state in ("ready", "waiting")), "")


def _trail(view: RunArtifacts, dataset: dict[str, Any] | None) -> Trail | None:
    """The way from the median pair to the slides."""
    if not dataset or not dataset["shown"]:
        return None
    shown = [one for one in dataset["shown"] if one.pair.group == "median" and one.pictures]
    shown += [one for one in dataset["shown"] if one.pictures]
    chosen = (shown or dataset["shown"])[0]
    with well_formed(view.artifacts["dataset"]):
        tiler = view.artifacts.get("tiler")
        found = slides(read_json(tiler, "slides.json")) if tiler else []
        return trail(chosen, view.artifacts, tiler, found)


def _facts(view: RunArtifacts, context: dict[str, Any], scores: Any) -> list[Fact]:
    """Headline numbers of what exists."""
    facts = []
    if context["tiles"]:
        tiles = context["tiles"]
        facts.append(Fact("slides", f"{tiles['used']:,}", f"{tiles['aside_count']} set aside"))
        facts.append(Fact("tiles", f"{tiles['accepted']:,}", f"holdout: {tiles['holdout']}"))
    if context["training"] and context["training"]["kimg"] is not None:
        facts.append(Fact("trained", f"{context['training']['kimg']:g} kimg"))
    if context["labels"]:
        note = f"of {context['labels']['count']} candidates"
        facts.append(Fact("labelled", f"{context['labels']['labelled']} images", note))
    if scores:
        dice = scores.get("test", {}).get("dice", {})
        text = interval(dice.get("macroInterval95"))
        note = f"95 %: {text}" if text else "on the test images"
        facts.append(Fact("macro Dice (test)", number(dice.get("macro")), note))
    if context["dataset"]:
        side = view.run.spec.tiler.tile_size
        note = f"{side} x {side} px at {view.run.spec.tiler.mpp:g} µm/px"
        facts.append(Fact("dataset", f"{context['dataset']['pairs']:,} pairs", note))
    if context["cost"]:
        facts.append(Fact("computed in", context["cost"]["total"], "by this run"))
    return facts
