"""Comparison with the release before: scores, size and balance, and what went in differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.bounded_reading import read_object
from hdgan.core.errors import InputMissing, KeyMissing, StoreError
from hdgan.core.json_documents import parse_object
from hdgan.core.releases import Release, before_it, read_release
from hdgan.core.run import ClassConfig, DatasetRun
from hdgan.core.score_documents import scores_on_test_images
from hdgan.core.status_file import MAX_STATUS_BYTES
from hdgan.core.store import Store
from hdgan.core.well_formed import well_formed
from hdgan.desk.candidates import read_json
from hdgan.desk.report_dataset import balance_of, index_rows
from hdgan.desk.report_text import NOTHING, counted, is_number, listed, signed
from hdgan.desk.report_training import evaluation

SETTINGS_SHOWN = 40
_SAME = 5e-7


@dataclass(frozen=True)
class Measures:
    """What is compared of a release or a run; None where it is not known."""

    macro_dice: float | None = None
    macro_iou: float | None = None
    ece: float | None = None
    kid: float | None = None
    extractor: str = ""
    pairs: int | None = None
    class_dice: Mapping[str, float | None] | None = None
    class_iou: Mapping[str, float | None] | None = None
    balance: Mapping[str, float] | None = None
    slides: Mapping[str, str] | None = None
    """SHA-256 by name, of slides that gave tiles."""
    tiles: int | None = None


@dataclass(frozen=True)
class Row:
    """One measure before and now."""

    name: str
    before: str
    now: str
    difference: str
    verdict: str
    """better, worse, equal, or nothing where neither is better."""


def measures(artifacts: Mapping[str, Artifact], classes: Sequence[ClassConfig]) -> Measures:
    """Read what there is. InputMissing where a document is not what it has to be."""
    values: dict[str, Any] = {}
    for stage, read in (
        ("classifier", _of_classifier),
        ("gan-trainer", _of_generator),
        ("tiler", _of_tiles),
    ):
        artifact = artifacts.get(stage)
        if artifact is not None:
            with well_formed(artifact):
                values |= read(artifact)
    dataset = artifacts.get("dataset")
    if dataset is not None:
        with well_formed(dataset):
            rows = index_rows(dataset, classes)
            balance = balance_of(rows, classes)
        values["pairs"] = len(rows)
        if balance is not None:
            named = zip(classes, balance, strict=True)
            values["balance"] = {entry.name: share for entry, share in named}
    return Measures(**values)


def _of_classifier(classifier: Artifact) -> dict[str, Any]:
    found = scores_on_test_images(read_json(classifier, "scores.json"))
    return {
        "macro_dice": found.macro_dice,
        "macro_iou": found.macro_iou,
        "ece": found.ece,
        "class_dice": found.class_dice,
        "class_iou": found.class_iou,
    }


def _of_generator(generator: Artifact) -> dict[str, Any]:
    document = evaluation(generator)
    kid = ((document.get("kid") or {}).get("whole") or {}).get("mean")
    name = str((document.get("extractor") or {}).get("name", ""))
    return {"kid": _number(kid), "extractor": name}


def _of_tiles(tiles: Artifact) -> dict[str, Any]:
    entries = read_json(tiles, "slides.json").get("slides", [])
    used = [one for one in entries if one.get("tiles", {}).get("accepted")]
    return {
        "slides": {str(one["name"]): str(one.get("sha256") or "") for one in used},
        "tiles": sum(int(one["tiles"]["accepted"]) for one in used),
    }


def _number(value: object) -> float | None:
    return float(value) if is_number(value) else None


def rows(before: Measures, now: Measures, classes: Sequence[str]) -> list[Row]:
    """Each measure before and now; pure."""
    found = [
        _row("macro Dice (test)", before.macro_dice, now.macro_dice, better=1),
        _row("macro IoU (test)", before.macro_iou, now.macro_iou, better=1),
        _row("expected calibration error", before.ece, now.ece, better=-1, digits=4),
    ]
    for name in classes:
        for metric, old, new in (
            ("Dice", before.class_dice, now.class_dice),
            ("IoU", before.class_iou, now.class_iou),
        ):
            values = ((old or {}).get(name), (new or {}).get(name))
            found.append(_row(f"{metric} of {name}", *values, better=1))
    same_ruler = before.extractor == now.extractor
    kid = _row("KID against held-out tiles", before.kid, now.kid, better=-1)
    if not same_ruler and before.kid is not None and now.kid is not None:
        kid = Row(kid.name, kid.before, kid.now, "by other networks: not comparable", "")
    found.append(kid)
    found.append(_row("pairs", before.pairs, now.pairs, digits=0))
    found.append(_row("tiles", before.tiles, now.tiles, digits=0))
    for name in classes:
        values = ((before.balance or {}).get(name), (now.balance or {}).get(name))
        shares = [None if one is None else 100 * one for one in values]
        found.append(_row(f"share of {name} in the dataset, %", shares[0], shares[1], digits=1))
    return [row for row in found if (row.before, row.now) != (NOTHING, NOTHING)]


def _row(
    name: str, before: float | None, now: float | None, better: int = 0, digits: int = 3
) -> Row:
    difference, verdict = NOTHING, ""
    if before is not None and now is not None:
        change = now - before
        difference = signed(change, digits) if abs(change) > _SAME else "0"
        if better:
            verdict = "equal"
            if abs(change) > _SAME:
                verdict = "better" if change * better > 0 else "worse"
    return Row(name, _shown(before, digits), _shown(now, digits), difference, verdict)


def _shown(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def changed_inputs(
    before: Release, now: Mapping[str, str], old: Measures, new: Measures
) -> list[str]:
    """What went in differently, in words; pure.

    now  content digests of the run's artifacts by stage
    """
    found = []
    if old.slides is not None and new.slides is not None:
        known, here = set(old.slides.values()), set(new.slides.values())
        added = [name for name, digest in new.slides.items() if digest not in known]
        gone = [name for name, digest in old.slides.items() if digest not in here]
        if added:
            found.append(f"{counted(len(added), 'new slide')}: {listed(added)}")
        if gone:
            found.append(f"{counted(len(gone), 'slide')} no longer used: {listed(gone)}")
        if not added and not gone:
            found.append("the same slides")
    for stage, name in (
        ("tiler", "tiles"),
        ("gan-trainer", "generator"),
        ("annotations", "annotations"),
        ("classifier", "classifier"),
        ("dataset", "dataset"),
    ):
        reference = before.artifacts.get(stage)
        if reference is not None and stage in now:
            same = reference.content_digest == now[stage]
            found.append(f"{'the same' if same else 'other'} {name}")
    return found


@dataclass(frozen=True)
class Setting:
    """A setting that differs between the two frozen runs."""

    path: str
    before: str
    now: str


def changed_settings(before: Any, now: Any) -> list[Setting]:
    """Settings that differ, by their path in the run file; pure."""
    old, new = dict(_flat("spec", before)), dict(_flat("spec", now))
    return [
        Setting(path, _value(old, path), _value(new, path))
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    ]


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}", inner)
    else:
        yield path, value


def _value(settings: Mapping[str, Any], path: str) -> str:
    if path not in settings:
        return "not there"
    value = settings[path]
    text = "null" if value is None else str(value)
    return text if len(text) <= 200 else text[:200] + "…"


def comparison_section(
    store: Store,
    run: DatasetRun,
    artifacts: Mapping[str, Artifact],
    classes: Sequence[ClassConfig],
) -> dict[str, Any]:
    """What the page shows of the release before: that there is none, that it cannot be read, or
    how this run differs from it."""
    dataset = artifacts.get("dataset")
    content = None if dataset is None else dataset.content_digest
    name = before_it(store, run.dataset_name, content)
    if name is None:
        return {"release": None, "dataset": run.dataset_name}
    now = measures(artifacts, classes)
    try:
        release = read_release(store, run.dataset_name, name)
        found, gone = _artifacts_of(store, release)
        before = measures(found, [_class(one.name, one.color) for one in release.classes])
        settings = changed_settings(_frozen_spec(store, release), _spec(run))
        lost = ""
    except (InputMissing, KeyMissing, ValueError) as error:
        return {"release": name, "dataset": run.dataset_name, "lost": str(error)}
    except StoreError as error:
        return {"release": name, "dataset": run.dataset_name, "lost": str(error)}
    digests = {stage: one.content_digest for stage, one in artifacts.items()}
    annotations = release.artifacts.get("annotations")
    asked = digests.get("annotations")
    names = [entry.name for entry in classes]
    names += [one.name for one in release.classes if one.name not in names]
    return {
        "release": name,
        "dataset": run.dataset_name,
        "lost": lost,
        "created": f"{release.created:%Y-%m-%d %H:%M} UTC",
        "rows": rows(before, now, names),
        "inputs": changed_inputs(release, digests, before, now),
        "settings": settings[:SETTINGS_SHOWN],
        "more_settings": max(0, len(settings) - SETTINGS_SHOWN),
        "gone": gone,
        "same_test": asked is not None
        and annotations is not None
        and annotations.content_digest == asked,
    }


def _artifacts_of(store: Store, release: Release) -> tuple[dict[str, Artifact], list[str]]:
    """Those of a release that are still there, and the names of the others."""
    found, gone = {}, []
    for stage, reference in release.artifacts.items():
        artifact = open_artifact(store, reference.stage, reference.key)
        if artifact is None or artifact.content_digest != reference.content_digest:
            gone.append(stage)
        else:
            found[stage] = artifact
    return found, gone


def _frozen_spec(store: Store, release: Release) -> Any:
    place = f"runs/{release.run}/{release.run_digest}.json"
    document = parse_object(read_object(store, place, MAX_STATUS_BYTES))
    run = document.get("run")
    return run.get("spec") if isinstance(run, dict) else None


def _spec(run: DatasetRun) -> Any:
    return run.model_dump(mode="json", by_alias=True)["spec"]


def _class(name: str, color: str) -> ClassConfig:
    return ClassConfig(name=name, color=color)
