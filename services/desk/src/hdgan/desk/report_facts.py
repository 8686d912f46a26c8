"""The numbers of the report, taken from artifacts into plain values the template can print."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdgan.core.artifact import Artifact
from hdgan.core.errors import InputMissing
from hdgan.core.json_documents import MAX_BYTES, JsonError, parse_object
from hdgan.core.masks import decode_mask
from hdgan.core.parquet_tables import ParquetError, read_parquet
from hdgan.core.pipeline import NodeStatus
from hdgan.core.run import ClassConfig
from hdgan.desk.candidates import read_json
from hdgan.desk.charts import drawable

MAX_POINTS = 5000
"""Of a curve: more cannot be told apart on the page."""

BASELINE_TITLES = {
    "features": "generator features",
    "rgbBlurred": "RGB and blurred RGB",
    "rgb": "RGB alone",
    "majority": "majority class",
}


@dataclass(frozen=True)
class Fact:
    """One headline number."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Slide:
    """One slide of the tiler's list."""

    name: str
    case: str
    size: str
    mpp: str
    accepted: int
    rejected: dict[str, int]
    state: str


def number(value: object, digits: int = 3) -> str:
    """A score as text; a dash where it is undefined."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}"


def interval(values: object, digits: int = 3) -> str:
    """A 95 % interval as text, empty where there is none."""
    if not isinstance(values, Sequence) or len(values) != 2 or None in values:
        return ""
    return f"{number(values[0], digits)} to {number(values[1], digits)}"


def duration(seconds: object) -> str:
    """Seconds as people write them."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def slides(document: Mapping[str, Any]) -> list[Slide]:
    """The slides of slides.json, good and set aside."""
    found = []
    for entry in document.get("slides", []):
        tiles = entry.get("tiles", {})
        rejected = tiles.get("rejected", {})
        dimensions = entry.get("dimensions")
        mpp = entry.get("slideMpp")
        found.append(
            Slide(
                name=str(entry.get("name", "")),
                case=str(entry.get("case", "")),
                size=" x ".join(str(side) for side in dimensions) if dimensions else "–",
                mpp=number(mpp[0]) if mpp else "–",
                accepted=int(tiles.get("accepted", 0)),
                rejected={str(key): int(count) for key, count in rejected.items()},
                state=str(entry.get("reason") or entry.get("status", "")),
            )
        )
    return found


@dataclass(frozen=True)
class Fold:
    """What one fold has; stains and centres in words, empty where none is known."""

    number: int
    tiles: int
    cases: int
    stains: str
    centres: str


def folds(document: Mapping[str, Any]) -> list[Fold]:
    """The folds of slides.json; none where it does not say how they are made up."""
    return [
        Fold(
            number=int(one["fold"]),
            tiles=int(one["tiles"]),
            cases=int(one["cases"]),
            stains=_known(one["tilesByStain"]),
            centres=_known(one["tilesByCentre"]),
        )
        for one in document.get("balance", [])
    ]


def _known(tiles: Mapping[str, int]) -> str:
    if set(tiles) <= {"unknown"}:
        return ""
    return ", ".join(f"{name} {count}" for name, count in tiles.items())


REJECTED = {
    "noTissue": "no tissue",
    "compartment": "too little of the compartments",
    "whitespace": "whitespace",
    "pen": "pen",
    "blurred": "blurred",
}


def in_words(rejected: Mapping[str, int]) -> str:
    """Places that gave no tile, by reason."""
    known = [f"{rejected[key]} {words}" for key, words in REJECTED.items() if rejected.get(key)]
    other = [f"{count} {key}" for key, count in rejected.items() if key not in REJECTED]
    return ", ".join(known + other) or "none"


def _records(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    """The lines of a log. InputMissing where one is no JSON object."""
    try:
        if artifact.entry(name).size > MAX_BYTES:
            raise JsonError(f"it has {artifact.entry(name).size} bytes")
        return [parse_object(line, nan=True) for line in artifact.read(name).splitlines()]
    except JsonError as error:
        raise InputMissing(f"{artifact.uri(name)}: is no log of JSON lines: {error}") from error


def _points(records: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(kimg, value) of the records that have both as numbers that can be drawn, evenly thinned out
    where they are very many."""
    found = [(r["kimg"], r[name]) for r in records if name in r and "kimg" in r]
    drawn = [(float(x), float(y)) for x, y in found if drawable(x) and drawable(y)]
    return drawn[:: len(drawn) // MAX_POINTS + 1]


def training_panels(artifact: Artifact) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Curves of training.jsonl over kimg: panels by title, lines by name; {} without records."""
    if "training.jsonl" not in artifact:
        return {}
    records = _records(artifact, "training.jsonl")
    wanted = {
        "losses": {"lossG": "generator", "lossD": "discriminator"},
        "ADA probability": {"adaP": "p"},
        "sign of D(real)": {"signReal": "D(real)"},
    }
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for title, names in wanted.items():
        lines = {label: _points(records, name) for name, label in names.items()}
        lines = {label: points for label, points in lines.items() if points}
        if lines:
            panels[title] = lines
    kid = kid_lines(artifact)
    return panels | ({"KID against held-out tiles": kid} if kid else {})


def kid_lines(artifact: Artifact) -> dict[str, list[tuple[float, float]]]:
    """KID over kimg, and what half of the training tiles give as a floor; {} if not measured."""
    if "metrics.jsonl" not in artifact:
        return {}
    records = _records(artifact, "metrics.jsonl")
    points = _points(records, "kid")
    if not points:
        return {}
    floor = _evaluation(artifact).get("floor", {}).get("whole")
    if not floor:
        return {"generator": points}
    return {
        "generator": points,
        "half of the training tiles": [(x, float(floor["mean"])) for x, _ in points],
    }


def generator_measures(artifact: Artifact) -> list[Fact]:
    """What evaluation.json says of the finished generator, as name, value and what it means."""
    document = _evaluation(artifact)
    facts = []
    for view, kid in (document.get("kid") or {}).items():
        if not kid:
            continue
        floor = (document.get("floor") or {}).get(view)
        note = f"{kid['fake']} samples, {kid['real']} held-out tiles"
        if floor:
            note += f"; half of the training tiles: {number(floor['mean'])}"
        value = f"{number(kid['mean'])} ± {number(kid['standard_error'])}"
        facts.append(Fact("KID" if view == "whole" else f"KID ({view})", value, note))
    if document.get("fid") is not None:
        facts.append(Fact("FID", number(document["fid"], 1)))
    neighbours = document.get("neighbours")
    for name, note in (
        ("precision", "samples that look like held-out tiles"),
        ("recall", "held-out tiles that samples look like"),
    ):
        if document.get(name) is not None:
            facts.append(Fact(name, number(document[name]), f"{note}; {neighbours} neighbours"))
    copies = document.get("memorisation")
    if copies:
        value = f"{100 * float(copies['share']):.1f} %"
        facts.append(Fact("near copies", value, str(copies["note"])))
    return facts


def extractor_name(artifact: Artifact) -> str:
    """Name of the network whose features the generator was measured by; empty if it was not."""
    return str(_evaluation(artifact).get("extractor", {}).get("name", ""))


def _evaluation(artifact: Artifact) -> dict[str, Any]:
    found = read_json(artifact, "evaluation.json") if "evaluation.json" in artifact else {}
    return found if isinstance(found, dict) else {}


def split_counts(annotations: Artifact) -> Counter[str]:
    """Labelled images per split."""
    images = read_json(annotations, "annotations.json")["images"]
    return Counter(str(image["split"]) for image in images)


def annotation_balance(annotations: Artifact, classes: int) -> list[float]:
    """Share of the labelled pixels per class, over all labelled images."""
    counts = np.zeros(classes, dtype=np.int64)
    for image in read_json(annotations, "annotations.json")["images"]:
        mask = decode_mask(annotations.read(f"masks/{image['id']}.png"), classes=classes)
        counts += np.bincount(mask.ravel(), minlength=256)[:classes]
    return [float(share) for share in counts / max(int(counts.sum()), 1)]


@dataclass(frozen=True)
class DatasetFacts:
    """What index.parquet says of a dataset."""

    pairs: int
    shards: int
    balance: list[float] | None
    """Mean share of pixels per class; None if the index does not say."""


def dataset_facts(dataset: Artifact, classes: Sequence[ClassConfig]) -> DatasetFacts:
    """Read index.parquet."""
    columns = [f"fraction_{entry.name}" for entry in classes]
    try:
        table = read_parquet(dataset.read("index.parquet"), ["id", *columns])
    except ParquetError as error:
        raise InputMissing(f"{dataset.uri('index.parquet')}: {error}") from error
    balance = None
    if table.num_rows and all(name in table.column_names for name in columns):
        balance = [float(np.mean(table.column(name).to_numpy())) for name in columns]
    shards = sum(1 for name in dataset.names() if name.endswith(".tar"))
    return DatasetFacts(table.num_rows, shards, balance)


@dataclass(frozen=True)
class ScoreRow:
    """One row of Table 1, as text."""

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
class ConfusionRow:
    """A labelled class: share and pixels predicted as each class, with the shade of its cell."""

    name: str
    cells: list[tuple[str, str, float]]


def confusion_rows(test: Mapping[str, Any], classes: Sequence[ClassConfig]) -> list[ConfusionRow]:
    """The confusion matrix, rows = labelled, columns = predicted."""
    rows = []
    for entry, counts in zip(classes, test.get("confusion", []), strict=False):
        total = max(sum(counts), 1)
        cells = [(f"{100 * n / total:.1f} %", f"{n:,} px", n / total) for n in counts]
        rows.append(ConfusionRow(entry.name, cells))
    return rows


@dataclass(frozen=True)
class Lineage:
    """Where an artifact comes from and what it cost."""

    stage: str
    key: str
    digest: str
    state: str
    time: str
    device: str
    inputs: list[tuple[str, str]]
    """Name and content digest of each input."""


def lineage(artifacts: Mapping[str, Artifact], statuses: Sequence[NodeStatus]) -> list[Lineage]:
    """One row per stage and gate in the order they run; what does not exist says why."""
    rows = []
    for status in statuses:
        artifact = artifacts.get(status.name)
        info = artifact.run_info() if artifact else {}
        state = status.state + (f": {status.reason}" if status.reason else "")
        device = str(info.get("device", "–"))
        if info.get("author"):
            device = f"labelled by {info['author']}, {info.get('date', '')}"
        rows.append(
            Lineage(
                stage=status.name,
                key=artifact.manifest.key if artifact else status.key or "",
                digest=artifact.content_digest if artifact else "",
                state=state,
                time=duration(info.get("seconds")),
                device=device,
                inputs=sorted(artifact.manifest.inputs.items()) if artifact else [],
            )
        )
    return rows
