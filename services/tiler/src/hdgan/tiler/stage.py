"""The tiler's stage: every slide into tiles, all tiles into one index with folds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
from PIL import Image

from hdgan.core.errors import DataError, InputMissing, InternalError, RequestError
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.pieces import Pieces, missing_pieces, pieces_of_part
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import SlidesConfig, TilerConfig
from hdgan.core.slide_facts import AllFacts, load_facts
from hdgan.core.slides import SlideFile, load_snapshot
from hdgan.core.stage import Stage, StageContext
from hdgan.core.tiles import TILE_INDEX_SCHEMA
from hdgan.tiler.cases import SlideFacts, slide_facts
from hdgan.tiler.cut import tile_prefix
from hdgan.tiler.folds import (
    CaseTiles,
    FoldRow,
    assign_bands,
    assign_cases,
    balance,
    check_holdout,
    read_folds,
    tile_folds,
    write_folds,
)
from hdgan.tiler.opening import open_slide
from hdgan.tiler.pictures import contact_sheet, png_bytes
from hdgan.tiler.progress import Progress
from hdgan.tiler.slide import SlideOpener
from hdgan.tiler.sources import described, name_clashes
from hdgan.tiler.unit import STAGE as UNIT_STAGE
from hdgan.tiler.unit import Task, Unit, find_unit, parquet_bytes
from hdgan.tiler.workers import Bench, cut_all

MAX_SHEET_PIXELS = 1 << 24
"""Of one slide's part of a contact sheet: some thousand pixels across, some hundred high."""

TILER_INDEX_SCHEMA = pa.schema(
    [
        *TILE_INDEX_SCHEMA,
        # What readers of tiles do not need and people ask for.
        pa.field("centre", pa.string()),
        pa.field("diagnosis", pa.string()),
        pa.field("level", pa.int32(), nullable=False),
        pa.field("pen", pa.float32()),
        pa.field("focus", pa.float32()),
        pa.field("compartment", pa.float32()),
    ]
)


def run(context: StageContext, opener: SlideOpener = open_slide) -> None:
    """Cut this part's slides that have not been cut; merge what all parts have cut.

    Part p of N cuts the slides k with k % N == p, in order of name.
    """
    config: TilerConfig = context.config
    slides = _slides_config(context)
    refs = load_snapshot(context.store, str(context.value("slides"))).slides
    key = context.value("slideFacts")
    told = AllFacts() if key is None else load_facts(context.store, str(key))
    facts = slide_facts([ref.name for ref in refs], slides, told.facts)
    check_holdout(config.holdout, [fact.case for fact in facts.values()])
    known = _known_folds(context, config)
    tasks = [_task(ref, config, slides, told) for ref in refs]
    context.pins.add((UNIT_STAGE, task.key) for task in tasks)
    pieces = Pieces(context.store, context.request.stage, context.request.key)
    if not context.request.commit:
        if told.unused and context.part == 0:
            context.log(f"slides.metadata: {told.unused} rows name no slide of this run")
        cut_slides(context, tasks, pieces, opener)
    if context.committing:
        units, bad = _gather(context, tasks, pieces)
        if len(bad) > slides.max_bad_slides:
            raise DataError(_too_many_bad(bad, slides.max_bad_slides))
        _merge(context, config, refs, [_Cut(one, facts[one.ref.name]) for one in units], bad, known)


TILER = Stage(
    name="tiler", version=STAGE_VERSIONS["tiler"], config=TilerConfig, run=run, parts=True
)


def _task(ref: SlideFile, config: TilerConfig, slides: SlidesConfig, told: AllFacts) -> Task:
    row = told.facts.get(ref.name)
    return Task(
        ref=ref,
        config=config,
        assume_mpp=slides.assume_mpp,
        mpp=None if row is None else row.mpp,
        outlines=told.outlines.get(ref.name) if config.compartments else None,
    )


def cut_slides(
    context: StageContext, tasks: Sequence[Task], pieces: Pieces, opener: SlideOpener
) -> None:
    """See to it that every slide of this part has its tiles, or a reason in `pieces` why not."""
    clashes = _clashes(tasks)
    mine = [tasks[n] for n in pieces_of_part(len(tasks), context.part, context.parts)]
    progress = Progress(len(mine))
    todo = []
    for task in mine:
        name = task.ref.name
        unit = None if name in clashes else find_unit(context.store, task)
        if name in clashes:
            context.log(f"slide {name} {clashes[name]}", level="warning", slide=name)
            progress.finish(name, 0)
        elif unit is not None:
            context.log(f"slide {name}: tiles are there already", slide=name)
            progress.finish(name, unit.facts()["tiles"]["examined"])
        else:
            todo.append(task)

    def report(task: Task, done: int, total: int) -> None:
        context.check_stop()
        progress.within(task.ref.name, done, total)
        context.progress(*progress.now(), "tiles")

    context.check_stop()
    workers = min(context.threads, len(todo)) if opener is open_slide else 1
    bench = Bench(
        store=context.store.uri,
        scratch=context.scratch / "tiler",
        attempt=context.attempt,
        cache_bytes=_cache_bytes(context),
        threads=max(1, context.threads // max(1, workers)),
    )
    outcomes = cut_all(
        todo,
        bench,
        workers=workers,
        progress=report,
        check_stop=context.check_stop,
        opener=opener,
    )
    with closing(outcomes):  # ends processes and removes copies also when this loop is left early
        context.tally.queued("slides", len(todo))
        for number, outcome in enumerate(outcomes, 1):
            context.tally.queued("slides", len(todo) - number)
            task, total = outcome.task, 0
            if outcome.reason is not None:
                _set_aside(context, pieces, task, outcome.reason)
            else:
                unit = find_unit(context.store, task)
                if unit is None:
                    raise InternalError(
                        f"tiles of {task.ref.name} were cut but are not in the store"
                    )
                about = unit.facts()
                total = about["tiles"]["examined"]
                _say_cut(context, unit, about, outcome.seconds)
            progress.finish(task.ref.name, total)
            context.progress(*progress.now(), "tiles")
            context.check_stop()


def _cache_bytes(context: StageContext) -> int:
    gigabytes = context.value("slideCacheGigabytes")
    if not isinstance(gigabytes, int | float):
        raise RequestError(
            f"request.context.slideCacheGigabytes must be a number, got {gigabytes!r}"
        )
    return int(gigabytes * 1e9)


def _set_aside(context: StageContext, pieces: Pieces, task: Task, reason: str) -> None:
    pieces.keep(_record(task), {"reason": reason})
    context.log(f"slide {task.ref.name} {reason}", level="warning", slide=task.ref.name)


def _record(task: Task) -> str:
    """Where it is noted why a slide cannot be used: of this slide, cut in this way."""
    return f"set-aside-{task.key}"


def _clashes(tasks: Sequence[Task]) -> dict[str, str]:
    """Slides whose tiles would be named like those of another, and that as a reason."""
    prefixes = {task.ref.name: tile_prefix(task.ref.name) for task in tasks}
    return {
        name: f"is named like {other} but for its ending, so their tiles would have the same "
        "names; rename one of them"
        for name, other in name_clashes([task.ref for task in tasks], prefixes).items()
    }


def _gather(
    context: StageContext, tasks: Sequence[Task], pieces: Pieces
) -> tuple[list[Unit], dict[str, str]]:
    """A unit for every good slide, and the reason for every bad one by name.

    InputMissing if a part has not finished.
    """
    units: list[Unit] = []
    bad: dict[str, str] = {}
    missing: list[str] = []
    clashes = _clashes(tasks)
    for number, task in enumerate(tasks):
        name = task.ref.name
        if name in clashes:
            bad[name] = clashes[name]
        elif (unit := find_unit(context.store, task)) is not None:
            units.append(unit)
        elif (record := pieces.find(_record(task))) is not None:
            bad[name] = str(record["reason"])
        else:
            missing.append(f"{name} (part {number % context.parts})")
    if missing:
        raise missing_pieces(missing, context.parts, "slides")
    return units, bad


def _merge(
    context: StageContext,
    config: TilerConfig,
    refs: Sequence[SlideFile],
    cut: Sequence[_Cut],
    bad: dict[str, str],
    known: Sequence[FoldRow],
) -> None:
    """Write index, folds, slides.json and contact sheets."""
    full = [slide for slide in cut if slide.rows]
    if not full:
        raise DataError(_no_tiles(cut, config))
    check_holdout(config.holdout, [slide.facts.case for slide in full])
    folds = _folds(full, known, config)
    rows = _index_rows(full, folds)
    output = context.output
    for slide in cut:
        output.need(UNIT_STAGE, slide.unit.key)
    output.add_bytes("index.parquet", parquet_bytes(rows, TILER_INDEX_SCHEMA))
    output.add_bytes("folds.parquet", write_folds(folds))
    output.add_bytes("slides.json", _slides_json(refs, cut, bad, rows, folds, config))
    output.add_bytes("contact.png", png_bytes(_contact(full, config, "samples.png")))
    output.add_bytes("rejects.png", png_bytes(_contact(cut, config, "rejects.png")))
    context.log(
        f"{len(rows)} tiles; slides with tiles: {len(full)}, without: {len(cut) - len(full)}, "
        f"set aside: {len(bad)}; holdout: {config.holdout}"
    )


class _Cut:
    """A slide with its tiles, read once."""

    def __init__(self, unit: Unit, facts: SlideFacts) -> None:
        self.unit = unit
        self.facts = facts
        self.name = unit.ref.name
        self.about: dict[str, Any] = unit.facts()
        self.rows: list[dict[str, Any]] = unit.index().to_pylist()

    @property
    def rejected(self) -> Counter[str]:
        """Places that gave no tile, by reason."""
        return Counter(self.about["tiles"]["rejected"])

    @property
    def summary(self) -> str:
        """Its tiles and rejects in words."""
        rejects = [f"{count} {reason}" for reason, count in sorted(self.rejected.items())]
        return ", ".join([f"{len(self.rows)} tiles", *rejects])

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Level-0 (x, y) of each tile."""
        return [(row["x"], row["y"]) for row in self.rows]

    @property
    def dimensions(self) -> tuple[int, int]:
        """Level-0 width and height."""
        width, height = self.about["dimensions"]
        return width, height


def _slides_config(context: StageContext) -> SlidesConfig:
    # Through JSON, because strict models take whole numbers for floats only there.
    return SlidesConfig.model_validate_json(json.dumps(context.value("slidesConfig")))


def _known_folds(context: StageContext, config: TilerConfig) -> list[FoldRow]:
    if "folds" not in context.request.inputs:
        return []
    earlier = context.input("folds")
    known = read_folds(earlier.read("folds.parquet"), earlier.uri("folds.parquet"))
    other = {row.holdout for row in known} - {config.holdout}
    if other:
        raise RequestError(
            f"tiler.holdout is {config.holdout}, but the earlier folds were made with "
            f"{other.pop()}; folds are never changed: keep that, or start a run of another name"
        )
    return known


def _folds(full: Sequence[_Cut], known: Sequence[FoldRow], config: TilerConfig) -> list[FoldRow]:
    if config.holdout == "spatial":
        slides = {slide.name: (slide.dimensions, slide.corners) for slide in full}
        return assign_bands(full[0].facts.case, slides, known, config.folds)
    tiles: Counter[SlideFacts] = Counter()
    for slide in full:
        tiles[slide.facts] += len(slide.rows)
    # A case with slides of several stains is balanced by the first of them, in order of name.
    cases: dict[str, CaseTiles] = {}
    for slide in full:
        case = slide.facts.case
        total = sum(count for facts, count in tiles.items() if facts.case == case)
        cases.setdefault(case, CaseTiles(case, slide.facts.stain, slide.facts.centre, total))
    return assign_cases(list(cases.values()), known, config.folds)


def _index_rows(full: Sequence[_Cut], folds: Sequence[FoldRow]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for slide in full:
        numbers = tile_folds(folds, slide.facts.case, slide.name, slide.corners)
        rows.extend(
            {
                **row,
                "slide": slide.name,
                "case": slide.facts.case,
                "stain": slide.facts.stain,
                "centre": slide.facts.centre,
                "diagnosis": slide.facts.diagnosis,
                "fold": fold,
                "unit_key": slide.unit.key,
            }
            for row, fold in zip(slide.rows, numbers, strict=True)
        )
    return rows


def _slides_json(
    refs: Sequence[SlideFile],
    cut: Sequence[_Cut],
    bad: dict[str, str],
    rows: Sequence[dict[str, Any]],
    folds: Sequence[FoldRow],
    config: TilerConfig,
) -> bytes:
    """What became of every slide, good or bad, in order of name, and how even the folds are."""
    by_name = {slide.name: slide for slide in cut}
    entries: list[dict[str, Any]] = []
    for ref in refs:
        slide = by_name.get(ref.name)
        if slide is None:
            entries.append({**described(ref), "status": "setAside", "reason": bad[ref.name]})
            continue
        entries.append(
            {
                **slide.about,
                "status": "tiled" if slide.rows else "noTissue",
                "case": slide.facts.case,
                "stain": slide.facts.stain,
                "centre": slide.facts.centre,
                "diagnosis": slide.facts.diagnosis,
                "unitKey": slide.unit.key,
            }
        )
    per_fold = Counter(row["fold"] for row in rows)
    document = {
        "holdout": config.holdout,
        "folds": config.folds,
        "tilesPerFold": [per_fold[fold] for fold in range(config.folds)],
        "balance": balance(folds, rows, config.folds),
        "rejected": dict(sorted(sum((slide.rejected for slide in cut), Counter()).items())),
        "slides": entries,
    }
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _contact(shown: Sequence[_Cut], config: TilerConfig, sheet: str) -> Image.Image:
    """Samples of slides under each other; sheet: which of a unit's pictures."""
    tiles = sum(len(slide.rows) for slide in shown)
    title = (
        f"{tiles} tiles of {config.tile_size} px at {config.mpp:g} um/px, "
        f"slides: {len(shown)}, holdout: {config.holdout}"
    )
    sheets = [
        (
            f"{slide.name}: {slide.summary}",
            _sheet(slide.unit, sheet),
        )
        for slide in shown
    ]
    return contact_sheet(title, sheets)


def _sheet(unit: Unit, name: str) -> Image.Image:
    """A contact sheet of a slide."""
    try:
        with open_picture(unit.artifact.read(name), max_pixels=MAX_SHEET_PIXELS) as picture:
            return picture.convert("RGB")
    except PictureError as error:
        raise InputMissing(f"{unit.artifact.uri(name)}: {error}") from error


def _say_cut(context: StageContext, unit: Unit, about: dict[str, Any], seconds: float) -> None:
    tiles = about["tiles"]
    context.tally.rejected(tiles["rejected"])
    context.log(
        f"slide {unit.ref.name}: {tiles['accepted']} tiles of {tiles['examined']} places in "
        f"{seconds:.1f} s, {unit.ref.size / 1e6 / max(seconds, 1e-3):.1f} MB/s",
        slide=unit.ref.name,
    )
    if about["upsampled"]:
        scale = about["slideMpp"][0]
        context.log(
            f"slide {unit.ref.name} has {scale:g} um/px, coarser than tiler.mpp: its tiles are "
            "enlarged and show no finer detail",
            level="warning",
            slide=unit.ref.name,
        )


def _too_many_bad(bad: dict[str, str], allowed: int) -> str:
    shown = [f"{name}: {reason}" for name, reason in list(bad.items())[:20]]
    more = [f"... and {len(bad) - 20} more"] if len(bad) > 20 else []
    return "\n  ".join(
        [
            f"{len(bad)} slides cannot be used, slides.maxBadSlides allows {allowed}. Repair or "
            f"remove them, or set slides.maxBadSlides: {len(bad)} to go on without them:",
            *shown,
            *more,
        ]
    )


def _no_tiles(cut: Sequence[_Cut], config: TilerConfig) -> str:
    examined = sum(slide.about["tiles"]["examined"] for slide in cut)
    rejected = sum((slide.rejected for slide in cut), Counter[str]())
    why = ", ".join(f"{reason}: {count}" for reason, count in rejected.most_common())
    return (
        f"no tile was accepted: {examined} places of {len(cut)} slides were examined "
        f"({why or 'none'}; tiler.maxWhitespace is {config.max_whitespace:g}). Set a larger "
        "tiler.maxWhitespace or a smaller tiler.tileSize, or look at thumbnail.png of a slide"
    )
