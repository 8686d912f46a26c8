"""The generator in the report: curves, measures, grids over time, and drift of newer tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hdgan.core.artifact import Artifact
from hdgan.core.errors import InputMissing
from hdgan.core.json_documents import MAX_BYTES, JsonError, parse_object
from hdgan.desk import charts, report_figures
from hdgan.desk.candidates import read_json
from hdgan.desk.charts import drawable
from hdgan.desk.pictures import open_rgb
from hdgan.desk.report_figures import Picture
from hdgan.desk.report_text import Fact, counted, is_number, number, percent

MAX_POINTS = 1000
"""Of a curve: more cannot be told apart on the page."""
ALARMING_COPIES = 0.05
"""Share of near copies from which a person should look: without copying it is about 0.01."""

GRIDS = 6
_GRID_IMAGES = 4

Line = list[tuple[float, float]]

CURVES: dict[str, dict[str, str]] = {
    "Losses": {"lossG": "generator", "lossD": "discriminator"},
    "ADA probability p": {"adaP": "p"},
    "Mean sign of D(real)": {"signReal": "sign of D(real)"},
}
"""Curves of training.jsonl by title: field and name of each line."""

KID = "KID against held-out tiles"
FLOOR = "half of the training tiles"


def read_log(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    """The lines of a log; [] where there is none. InputMissing where one is no JSON object."""
    if name not in artifact:
        return []
    try:
        if artifact.entry(name).size > MAX_BYTES:
            raise JsonError(f"it has {artifact.entry(name).size} bytes")
        return [parse_object(line, nan=True) for line in artifact.read(name).splitlines()]
    except JsonError as error:
        raise InputMissing(f"{artifact.uri(name)}: is no log of JSON lines: {error}") from error


def points(records: Sequence[Mapping[str, Any]], name: str) -> Line:
    """(kimg, value) of the records that have both as numbers that can be drawn, evenly thinned out
    where they are very many."""
    found = [(r["kimg"], r[name]) for r in records if name in r and "kimg" in r]
    drawn = [(float(x), float(y)) for x, y in found if drawable(x) and drawable(y)]
    return drawn[:: len(drawn) // MAX_POINTS + 1]


def not_drawn(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[int, str]:
    """How many values of a panel are no numbers (NaN, infinite) or too large to draw, and the kimg
    of the first in words; (0, "") if there is none."""
    lost = [r for r in records for n in names if n in r and not drawable(r[n])]
    if not lost:
        return 0, ""
    first = next((r["kimg"] for r in lost if drawable(r.get("kimg"))), None)
    return len(lost), "" if first is None else f"{float(first):g} kimg"


def training_panels(artifact: Artifact) -> dict[str, dict[str, Line]]:
    """Curves over kimg: panels by title, lines by name; {} without records."""
    panels: dict[str, dict[str, Line]] = {}
    records = read_log(artifact, "training.jsonl")
    for title, names in CURVES.items():
        lines = {label: points(records, name) for name, label in names.items()}
        lines = {label: line for label, line in lines.items() if line}
        if lines:
            panels[title] = lines
    kid = kid_lines(artifact)
    return panels | ({KID: kid} if kid else {})


def kid_lines(artifact: Artifact) -> dict[str, Line]:
    """KID over kimg, and what half of the training tiles give as a floor; {} if not measured."""
    line = points(read_log(artifact, "metrics.jsonl"), "kid")
    if not line:
        return {}
    floor = (evaluation(artifact).get("floor") or {}).get("whole")
    if not floor:
        return {"generator": line}
    return {"generator": line, FLOOR: [(x, float(floor["mean"])) for x, _ in line]}


def curves(
    panels: Mapping[str, Mapping[str, Line]], records: Sequence[Mapping[str, Any]]
) -> list[Picture]:
    """A chart of each panel; its caption says what of the records could not be drawn."""
    found = []
    for title, lines in panels.items():
        lost, since = not_drawn(records, list(CURVES.get(title, {})))
        axis = charts.axis_for([y for line in lines.values() for _, y in line])
        caption = title if title != KID else f"{KID}: lower is better, the dashed line is the floor"
        caption += f", {counted(max(map(len, lines.values())), 'record')}."
        if axis.beyond:
            caption += (
                f" {counted(axis.beyond, 'point')} beyond the axis, up to {axis.furthest:.3g}."
            )
        if axis.logarithmic:
            caption += " Logarithmic axis: the values differ by orders of magnitude."
        if lost:
            when = f", first at {since}" if since else ""
            what = counted(lost, "value")
            caption += f" {what} no number or too large{when}: it has diverged."
        data = charts.line_chart(lines, "kimg (thousands of images seen)", axis)
        found.append(report_figures.svg_picture(data, title, caption))
    return found


def evaluation(artifact: Artifact) -> dict[str, Any]:
    """evaluation.json; {} where there is none."""
    return read_json(artifact, "evaluation.json") if "evaluation.json" in artifact else {}


def generator_measures(artifact: Artifact) -> list[Fact]:
    """What evaluation.json says of the finished generator, as name, value and what it means."""
    document = evaluation(artifact)
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
        ("precision", "share of samples that look like held-out tiles"),
        ("recall", "share of held-out tiles that samples look like"),
    ):
        if document.get(name) is not None:
            facts.append(Fact(name, number(document[name]), f"{note}; {neighbours} neighbours"))
    copies = document.get("memorisation")
    if copies:
        facts.append(Fact("near copies", percent(float(copies["share"])), str(copies["note"])))
    return facts


def near_copies(artifact: Artifact) -> float | None:
    """Share of the samples that are near copies of training tiles, None if not measured."""
    share = (evaluation(artifact).get("memorisation") or {}).get("share")
    return float(share) if is_number(share) else None


def extractor_name(artifact: Artifact) -> str:
    """Name of the network whose features the generator was measured by; empty if it was not."""
    return str((evaluation(artifact).get("extractor") or {}).get("name", ""))


def training_section(artifact: Artifact, tile: int, own: str) -> dict[str, Any]:
    """What the page shows of the trainer's artifact.

    tile  pixels of a tile's side
    own   content digest of the run's tiles, to tell whether it was trained on them
    """
    panels, records = training_panels(artifact), read_log(artifact, "training.jsonl")
    seen = [x for lines in panels.values() for line in lines.values() for x, _ in line]
    kimg = max(seen, default=None)
    when = "" if kimg is None else f" after {kimg:g} kimg"
    pair = [
        report_figures.file_picture(artifact, name, alt, caption, pixelated=tile <= 128)
        for name, alt, caption in (
            ("reals.png", "real tiles", "Real tiles."),
            ("samples.png", "generated images", f"Generated images{when}."),
        )
    ]
    tiles = artifact.manifest.inputs.get("tiles", "")
    return {
        "kimg": kimg,
        "pair": [picture for picture in pair if picture],
        "grids": grids(artifact, tile),
        "curves": curves(panels, records),
        "measures": generator_measures(artifact),
        "extractor": extractor_name(artifact),
        "lost": sum(not_drawn(records, list(names))[0] for names in CURVES.values()),
        "copies": near_copies(artifact),
        "pinned": bool(own and tiles and tiles != own),
    }


def grids(artifact: Artifact, tile: int) -> list[Picture]:
    """Samples of the same latents at some moments of the training, the first and the last too."""
    names = [name for name in artifact.names() if name.startswith("grids/")]
    pictures = []
    for name in report_figures.evenly(names, GRIDS):
        rgb = open_rgb(artifact.read(name), artifact.uri(name), report_figures.MAX_SHEET_PIXELS)
        side = min(tile * _GRID_IMAGES, *rgb.shape[:2])
        digits = "".join(c for c in name if c.isdigit())
        caption = f"{int(digits) / 1000:g} kimg" if digits else name
        pictures.append(
            report_figures.photo(
                rgb[:side, :side],
                f"samples at {caption}",
                caption,
                side=report_figures.GRID_PX,
                most=report_figures.GRID_BYTES,
                pixelated=tile <= 128,
            )
        )
    return pictures


def drift_section(artifact: Artifact) -> dict[str, Any]:
    """How far newer tiles are from a generator that was not trained on them."""
    document = read_json(artifact, "drift.json")
    rows = []
    for name, label in (
        ("kidOfNewTiles", "tiles of new slides"),
        ("kid", "all tiles of this run"),
        ("kidWhenTrained", "held-out tiles, when the generator was trained"),
    ):
        for which, kid in (document.get(name) or {}).items():
            if kid:
                rows.append(
                    (
                        label if which == "whole" else f"{label} ({which})",
                        f"{number(kid['mean'])} ± {number(kid['standard_error'])}",
                        f"{int(kid['real']):,}",
                    )
                )
    return {
        "rows": rows,
        "new_slides": int(document.get("newSlides", 0)),
        "new_tiles": int(document.get("newTiles", 0)),
        "tiles": int(document.get("tiles", 0)),
        "reason": str(document.get("reason") or ""),
    }
