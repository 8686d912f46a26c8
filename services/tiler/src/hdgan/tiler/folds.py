"""Folds: which part of the tiles is held out together. Append-only: what has a fold keeps it.

`holdout: case` gives every case (patient) one fold. `holdout: spatial`, for one case only, cuts
each slide into contiguous bands along its longer axis with about equal numbers of tiles; the gap
of one tile between held-out and training tiles is kept by whoever chooses rows for training.
Everything here is a function of values; `folds.parquet` is a plain list of `FoldRow`s.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from hdgan.core.errors import RequestError
from hdgan.core.parquet_tables import read_parquet

Holdout = Literal["case", "spatial"]

MAX_FOLD_ROWS = 1_000_000
MAX_FOLD_BYTES = 256 << 20

FOLDS_SCHEMA = pa.schema(
    [
        pa.field("holdout", pa.string(), nullable=False),
        pa.field("case", pa.string(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("stain", pa.string()),
        pa.field("centre", pa.string()),
        pa.field("slide", pa.string()),
        pa.field("axis", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("stop", pa.int64()),
    ]
)


@dataclass(frozen=True)
class FoldRow:
    """One case's fold, or one band of a slide: tiles whose corner on `axis` is in [start, stop)."""

    holdout: Holdout
    case: str
    fold: int
    stain: str | None = None
    centre: str | None = None
    slide: str | None = None
    axis: str | None = None
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True)
class CaseTiles:
    """What balancing a case needs to know: its stain and centre and how many tiles it brings."""

    case: str
    stain: str | None
    centre: str | None
    tiles: int


def check_holdout(holdout: Holdout, cases: Iterable[str]) -> None:
    """RequestError (64) unless the way of holding out fits the number of cases."""
    names = sorted(set(cases))
    if holdout == "spatial" and len(names) > 1:
        raise RequestError(
            f"tiler.holdout is spatial, which is for one case only, but the slides are of "
            f"{len(names)} cases ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}); "
            "set tiler.holdout: case"
        )
    if holdout == "case" and len(names) == 1:
        raise RequestError(
            f"tiler.holdout is case, but all slides with tiles are of one case ({names[0]}), so "
            "nothing could be held out; add slides of other cases or set tiler.holdout: spatial"
        )


def assign_cases(cases: Sequence[CaseTiles], known: Sequence[FoldRow], folds: int) -> list[FoldRow]:
    """`known` with a row for each new case, in the fold that most lacks its kind.

    Most lacking: fewest cases of its stain and centre, then of its stain, then of its centre, then
    fewest cases, then fewest tiles, then the lowest number. New cases go in order of name, so the
    result depends on nothing but the arguments.
    """
    rows = [row for row in known if row.holdout == "case"]
    _check_range(rows, folds)
    placed = {row.case for row in rows}
    tiles = Counter[int]()
    tiles_of = {case.case: case.tiles for case in cases}
    for row in rows:
        tiles[row.fold] += tiles_of.get(row.case, 0)
    for case in sorted(cases, key=lambda case: case.case):
        if case.case in placed:
            continue

        def shortage(fold: int, case: CaseTiles = case) -> tuple[int, ...]:
            here = [row for row in rows if row.fold == fold]
            stain = [row for row in here if row.stain == case.stain]
            centre = [row for row in here if row.centre == case.centre]
            both = [row for row in stain if row.centre == case.centre]
            return len(both), len(stain), len(centre), len(here), tiles[fold], fold

        fold = min(range(folds), key=shortage)
        tiles[fold] += case.tiles
        rows.append(FoldRow("case", case.case, fold, case.stain, case.centre))
    return rows


def assign_bands(
    case: str,
    slides: Mapping[str, tuple[tuple[int, int], Sequence[tuple[int, int]]]],
    known: Sequence[FoldRow],
    folds: int,
) -> list[FoldRow]:
    """`known` with `folds` bands for each new slide of the one case.

    slides: name -> (level-0 width and height, corners (x, y) of its accepted tiles).
    """
    rows = [row for row in known if row.holdout == "spatial"]
    _check_range(rows, folds)
    placed = {row.slide for row in rows}
    for name, (dimensions, corners) in sorted(slides.items()):
        if name in placed or not corners:
            continue
        along = 0 if dimensions[0] > dimensions[1] else 1
        axis = "xy"[along]
        cuts = band_cuts([corner[along] for corner in corners], folds)
        if len(cuts) < folds - 1:
            raise RequestError(
                f"tiler.holdout is spatial, but the tiles of slide {name} start at only "
                f"{len(cuts) + 1} places along {axis}, too few for {folds} bands; "
                "set fewer tiler.folds or a smaller tiler.stride"
            )
        edges = [0, *cuts, max(dimensions[along], 1)]
        rows.extend(
            FoldRow("spatial", case, fold, slide=name, axis=axis, start=start, stop=stop)
            for fold, (start, stop) in enumerate(pairwise(edges))
        )
    return rows


def band_cuts(positions: Sequence[int], bands: int) -> list[int]:
    """Where to cut sorted positions into contiguous bands of about equal size.

    A cut is the first position of the next band; tiles at one position stay together. `bands` - 1
    cuts, rising, or fewer where there are too few different positions.
    """
    counts = Counter(positions)
    places = sorted(counts)
    if len(places) < bands:
        return places[1:]
    before = [0]
    for place in places:
        before.append(before[-1] + counts[place])
    cuts: list[int] = []
    first = 1
    for band in range(1, bands):
        wanted = len(positions) * band / bands
        # Every later band needs at least one place.
        room = range(first, len(places) - (bands - 1 - band))
        chosen = min(room, key=lambda index: (abs(before[index] - wanted), index))
        cuts.append(places[chosen])
        first = chosen + 1
    return cuts


def tile_folds(
    rows: Sequence[FoldRow], case: str, slide: str, corners: Sequence[tuple[int, int]]
) -> list[int]:
    """The fold of each tile of a slide, by its level-0 corner; `rows` cover its case or slide."""
    for row in rows:
        if row.holdout == "case" and row.case == case:
            return [row.fold] * len(corners)
    bands = sorted((row for row in rows if row.slide == slide), key=lambda row: row.start or 0)
    along = "xy".index(bands[0].axis or "x")
    starts = [row.start or 0 for row in bands]
    # A corner before the first start or after the last stop belongs to the nearest band.
    return [bands[max(bisect_right(starts, xy[along]) - 1, 0)].fold for xy in corners]


def balance(
    folds: Sequence[FoldRow], rows: Iterable[Mapping[str, object]], count: int
) -> list[dict[str, object]]:
    """What each fold has: its tiles, cases, and tiles by stain and centre.

    rows: of the index of tiles, with `fold`, `stain` and `centre`; count: of folds.
    """
    tiles: list[Counter[str]] = [Counter() for _ in range(count)]
    stains: list[Counter[str]] = [Counter() for _ in range(count)]
    centres: list[Counter[str]] = [Counter() for _ in range(count)]
    for row in rows:
        fold = int(str(row["fold"]))
        tiles[fold]["tiles"] += 1
        stains[fold][str(row["stain"] or "unknown")] += 1
        centres[fold][str(row["centre"] or "unknown")] += 1
    return [
        {
            "fold": fold,
            "tiles": tiles[fold]["tiles"],
            "cases": len({row.case for row in folds if row.fold == fold}),
            "tilesByStain": dict(sorted(stains[fold].items())),
            "tilesByCentre": dict(sorted(centres[fold].items())),
        }
        for fold in range(count)
    ]


def write_folds(rows: Sequence[FoldRow]) -> bytes:
    """`folds.parquet`."""
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=FOLDS_SCHEMA)
    pq.write_table(table, buffer)
    return buffer.getvalue()


def read_folds(data: bytes, source: str) -> list[FoldRow]:
    """Rows of a `folds.parquet`; RequestError (64) where it is something else."""
    try:
        table = read_parquet(
            data, FOLDS_SCHEMA.names, max_rows=MAX_FOLD_ROWS, max_bytes=MAX_FOLD_BYTES
        )
        rows = table.cast(FOLDS_SCHEMA).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise RequestError(f"{source}: is no folds.parquet ({error})") from error
    names = [field.name for field in fields(FoldRow)]
    found = [FoldRow(**{name: row[name] for name in names}) for row in rows]
    for row in found:
        if row.holdout not in get_args(Holdout) or row.axis not in (None, "x", "y"):
            raise RequestError(
                f"{source}: is no folds.parquet (holdout {row.holdout[:40]!r}, axis "
                f"{str(row.axis)[:40]!r})"
            )
    return found


def _check_range(rows: Sequence[FoldRow], folds: int) -> None:
    beyond = [row for row in rows if not 0 <= row.fold < folds]
    if beyond:
        raise RequestError(
            f"tiler.folds is {folds}, but case {beyond[0].case} already has fold "
            f"{beyond[0].fold} (folds count from 0 and are never changed); "
            f"set tiler.folds to at least {max(row.fold for row in beyond) + 1}"
        )
