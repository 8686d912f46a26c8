"""The dataset in the report: its most and least certain pairs, class balance, uncertainty."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.core.artifact import Artifact
from hdgan.core.dataset_pairs import MAX_MEMBER_BYTES
from hdgan.core.errors import DataError, InputMissing
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.core.masks import decode_mask
from hdgan.core.parquet_tables import ParquetError, read_parquet
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.run import ClassConfig
from hdgan.core.tar_shards import read_shard
from hdgan.desk import charts, report_figures
from hdgan.desk.candidates import read_json
from hdgan.desk.pictures import MAX_PIXELS, open_rgb
from hdgan.desk.report_figures import Picture
from hdgan.desk.report_text import counted, number, percent

OF_EACH = 3
"""Pairs shown of the best, the median and the worst."""
MAX_SHARD_BYTES = 2 << 30
"""Of all shards that are fetched for the pairs shown; one is fetched whatever its size."""

GROUPS = {
    "worst": "Worst: the least certain",
    "median": "Median",
    "best": "Best: the most certain",
}

Map = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A pair of the dataset as the page shows it."""

    id: str
    group: str
    rank: int
    """From 1, the most certain."""
    uncertainty: float
    shard: str
    row: Mapping[str, Any]
    """Its row of the index."""


@dataclass(frozen=True)
class ShownPair:
    """A pair with its pictures; none if its shard was not fetched."""

    pair: Pair
    uncertainty: str
    pictures: list[Picture]
    document: Mapping[str, Any]
    """What its JSON says."""
    mask_sha256: str
    """Of the mask that was read; empty if it was not."""


def index_rows(dataset: Artifact, classes: Sequence[ClassConfig]) -> list[dict[str, Any]]:
    """The rows of index.parquet with what the report uses of them."""
    columns = ["id", "shard", "index", "uncertainty", "mask_sha256"]
    columns += [f"fraction_{entry.name}" for entry in classes]
    try:
        table = read_parquet(dataset.read("index.parquet"), columns)
    except ParquetError as error:
        raise InputMissing(f"{dataset.uri('index.parquet')}: {error}") from error
    return [dict(row) for row in table.to_pylist()]


def balance_of(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[ClassConfig]
) -> list[float] | None:
    """Mean share of an image's pixels per class; None if the index does not say."""
    names = [f"fraction_{entry.name}" for entry in classes]
    if not rows or any(rows[0].get(name) is None for name in names):
        return None
    return [float(np.mean([float(row[name]) for row in rows])) for name in names]


def choose(rows: Sequence[Mapping[str, Any]], of_each: int = OF_EACH) -> list[Pair]:
    """The least certain pairs, the median ones and the most certain ones, each once; pairs of equal
    uncertainty in the order of their ids."""
    known = [row for row in rows if isinstance(row.get("uncertainty"), float)]
    ordered = sorted(known, key=lambda row: (row["uncertainty"], str(row["id"])))
    count = len(ordered)
    wanted = {
        "worst": list(range(count - 1, -1, -1)),
        "median": sorted(range(count), key=lambda place: (abs(2 * place - count + 1), place)),
        "best": list(range(count)),
    }
    taken: dict[int, str] = {}
    for _ in range(of_each):  # one of each in turn: three pairs are one of each, not three worst
        for group, places in wanted.items():
            place = next((one for one in places[: 3 * of_each] if one not in taken), None)
            if place is not None:
                taken[place] = group
    return [
        Pair(
            id=str(ordered[place]["id"]),
            group=group,
            rank=place + 1,
            uncertainty=float(ordered[place]["uncertainty"]),
            shard=str(ordered[place]["shard"]),
            row=ordered[place],
        )
        for group in GROUPS
        for place in sorted((one for one in taken if taken[one] == group), reverse=group == "worst")
    ]


def read_members(dataset: Artifact, pairs: Sequence[Pair]) -> dict[str, dict[str, bytes]]:
    """Members of the pairs by id and kind, of as many shards as may be fetched."""
    found: dict[str, dict[str, bytes]] = {}
    # One of each group first: a best, a worst and a median one are worth more than three worst.
    seen: Counter[str] = Counter()
    turns = []
    for pair in pairs:
        turns.append((seen[pair.group], pair))
        seen[pair.group] += 1
    shards, size = list[str](), 0
    for _, pair in sorted(turns, key=lambda turn: turn[0]):
        if pair.shard in shards:
            continue
        if shards and size + dataset.entry(pair.shard).size > MAX_SHARD_BYTES:
            continue
        shards.append(pair.shard)
        size += dataset.entry(pair.shard).size
    wanted = {pair.id for pair in pairs}
    with tempfile.TemporaryDirectory(prefix="hdgan-report-") as folder:
        for shard in shards:
            path = dataset.fetch(shard, Path(folder) / "shard.tar")
            for name, data in read_shard(path, max_member=MAX_MEMBER_BYTES):
                identity, _, kind = name.partition(".")
                if identity in wanted:
                    found.setdefault(identity, {})[kind] = data
            path.unlink()
    return found


def show_pairs(
    dataset: Artifact, pairs: Sequence[Pair], classes: Sequence[ClassConfig]
) -> tuple[list[ShownPair], float]:
    """The pairs with their pictures, and the uncertainty that is white in all of their maps."""
    members = read_members(dataset, pairs)
    maps = {
        identity: _uncertainty(files["uncertainty.png"], identity)
        for identity, files in members.items()
        if "uncertainty.png" in files
    }
    white = max((float(np.quantile(one, 0.995)) for one in maps.values()), default=0.0) or 1.0
    shown = []
    for pair in pairs:
        files = members.get(pair.id, {})
        pictures: list[Picture] = []
        short = pair.id[:12]
        if "png" in files and "mask.png" in files:
            mask = decode_mask(files["mask.png"], classes=len(classes))
            pictures = [
                report_figures.cell(open_rgb(files["png"], pair.id), f"image {short}", "image"),
                report_figures.mask_cell(mask, classes, f"mask of {short}", "mask"),
            ]
        if pictures and pair.id in maps:
            grey = np.clip(maps[pair.id] / white, 0, 1) * 255
            rgb = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
            pictures.append(report_figures.cell(rgb, f"uncertainty map of {short}", "uncertainty"))
        digest = hashlib.sha256(files["mask.png"]).hexdigest() if "mask.png" in files else ""
        document = _document(files.get("json", b"{}"), pair.id)
        shown.append(ShownPair(pair, number(pair.uncertainty, 4), pictures, document, digest))
    return shown, white


def _document(data: bytes, identity: str) -> Mapping[str, Any]:
    try:
        return parse_object(data)
    except JsonError as error:
        raise DataError(f"{identity}.json cannot be read: {error}") from None


def _uncertainty(data: bytes, identity: str) -> Map:
    """A 16-bit uncertainty PNG as values from 0 to 1."""
    try:
        with open_picture(data, max_pixels=MAX_PIXELS) as picture:
            if picture.mode not in ("I;16", "I", "L"):
                raise PictureError(f"it is of mode {picture.mode}")
            return np.asarray(picture, dtype=np.float64) / 65535
    except PictureError as error:
        raise DataError(f"uncertainty of {identity}: cannot be read: {error}") from None


def calibration_of(dataset: Artifact) -> dict[str, Any]:
    """calibration.json; {} where there is none."""
    return read_json(dataset, "calibration.json") if "calibration.json" in dataset else {}


def dataset_section(
    dataset: Artifact, classes: Sequence[ClassConfig], annotated: Sequence[float] | None
) -> dict[str, Any]:
    """What the page shows of the dataset.

    annotated  share of the labelled pixels per class
    """
    rows = index_rows(dataset, classes)
    balance = balance_of(rows, classes)
    calibration = calibration_of(dataset)
    pairs, white = show_pairs(dataset, choose(rows), classes)
    values = [row["uncertainty"] for row in rows if row.get("uncertainty") is not None]
    return {
        "pairs": len(rows),
        "shards": sum(1 for name in dataset.names() if name.endswith(".tar")),
        "groups": [
            (title, [one for one in pairs if one.pair.group == group])
            for group, title in GROUPS.items()
            if any(one.pair.group == group for one in pairs)
        ],
        "shown": pairs,
        "white": number(white, 3),
        "balance": balance,
        "balance_chart": _balance_chart(annotated, balance, classes, len(rows)),
        "uncertainty": _uncertainty_chart(calibration, values),
        "drop": percent(calibration.get("dropMostUncertain"), 0),
        "threshold": number(calibration.get("maxUncertainty"), 4),
        "acceptance": percent(calibration.get("expectedAcceptance"), 0),
    }


def _balance_chart(
    annotated: Sequence[float] | None,
    balance: Sequence[float] | None,
    classes: Sequence[ClassConfig],
    pairs: int,
) -> Picture | None:
    groups = {"dataset": balance, "annotations": annotated}
    present = {name: list(values) for name, values in groups.items() if values is not None}
    if not present:
        return None
    data = charts.grouped_bars(present, [entry.name for entry in classes])
    caption = (
        f"Share of the pixels per class: {counted(pairs, 'pair')} of the dataset beside all "
        "labelled pixels of the annotations."
    )
    return report_figures.svg_picture(data, "class balance", caption)


def _uncertainty_chart(calibration: Mapping[str, Any], values: Sequence[float]) -> Picture | None:
    drawn = calibration.get("uncertainties")
    if drawn:
        limit = calibration.get("maxUncertainty")
        data = charts.histogram(drawn, limit, "mean uncertainty of an image")
        caption = (
            f"{counted(len(drawn), 'image')} of the calibration draw. Those right of the dashed "
            f"line, above {number(limit, 4)}, are not kept."
        )
        return report_figures.svg_picture(data, "uncertainty of the calibration draw", caption)
    if not values:
        return None
    data = charts.histogram(values, None, "mean uncertainty of an image")
    caption = f"{counted(len(values), 'pair')} of the dataset; none was left out for it."
    return report_figures.svg_picture(data, "uncertainty of the pairs", caption)
