"""The tiler's stage: every slide into tiles, all tiles into one index with folds."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from PIL import Image

from hdgan.core.errors import DataError, RequestError
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import SlidesConfig, TilerConfig
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
    check_holdout,
    read_folds,
    tile_folds,
    write_folds,
)
from hdgan.tiler.pictures import contact_sheet, png_bytes
from hdgan.tiler.progress import Progress
from hdgan.tiler.slide import SlideError, SlideOpener, open_slide
from hdgan.tiler.sources import described, name_clashes
from hdgan.tiler.unit import Unit, find_unit, make_unit, parquet_bytes


def run(context: StageContext, opener: SlideOpener = open_slide) -> None:
    """Cut every slide that has not been cut, then write slides.json, index, folds and contact."""
    config: TilerConfig = context.config
    slides = _slides_config(context)
    refs = load_snapshot(context.store, str(context.value("slides"))).slides
    facts = slide_facts([ref.name for ref in refs], slides)
    check_holdout(config.holdout, [fact.case for fact in facts.values()])

    units, bad = cut_slides(context, config, slides, refs, opener)
    if len(bad) > slides.max_bad_slides:
        raise DataError(_too_many_bad(bad, slides.max_bad_slides))
    cut = [_Cut(unit, facts[unit.ref.name]) for unit in units]
    full = [slide for slide in cut if slide.rows]
    if not full:
        raise DataError(_no_tiles(cut, config))
    check_holdout(config.holdout, [slide.facts.case for slide in full])

    folds = _folds(full, _known_folds(context), config)
    rows = _index_rows(full, folds)
    output = context.output
    output.add_bytes("index.parquet", parquet_bytes(rows, TILE_INDEX_SCHEMA))
    output.add_bytes("folds.parquet", write_folds(folds))
    output.add_bytes("slides.json", _slides_json(refs, cut, bad, rows, config))
    output.add_bytes("contact.png", png_bytes(_contact(full, config)))
    context.log(
        f"{len(rows)} tiles; slides with tiles: {len(full)}, without: {len(cut) - len(full)}, "
        f"set aside: {len(bad)}; holdout: {config.holdout}"
    )


TILER = Stage(name="tiler", version=STAGE_VERSIONS["tiler"], config=TilerConfig, run=run)


def cut_slides(
    context: StageContext,
    config: TilerConfig,
    slides: SlidesConfig,
    refs: Sequence[SlideFile],
    opener: SlideOpener,
) -> tuple[list[Unit], dict[str, str]]:
    """A unit for every good slide, and the reason for every bad one by name."""
    units: list[Unit] = []
    bad: dict[str, str] = {}
    clashes = name_clashes(refs, {ref.name: tile_prefix(ref.name) for ref in refs})
    progress = Progress(len(refs))
    for ref in refs:
        context.check_stop()

        def report(done: int, total: int) -> None:
            context.check_stop()
            context.progress(*progress.within(done, total), "tiles")

        try:
            if ref.name in clashes:
                raise SlideError(
                    f"is named like {clashes[ref.name]} but for its ending, so their tiles would "
                    "have the same names; rename one of them"
                )
            unit = find_unit(context.store, ref, config, slides.assume_mpp)
            if unit is None:
                unit = make_unit(
                    context.store,
                    ref,
                    config,
                    slides.assume_mpp,
                    scratch=context.scratch / "tiler",
                    attempt=context.attempt,
                    opener=opener,
                    report=report,
                )
                _warn_if_upsampled(context, unit)
            else:
                context.log(f"slide {ref.name}: tiles are there already", slide=ref.name)
            units.append(unit)
            progress.finish(unit.facts()["tiles"]["examined"])
        except SlideError as error:
            bad[ref.name] = str(error)
            progress.finish(0)
            context.log(f"slide {ref.name} {error}", level="warning", slide=ref.name)
        context.progress(*progress.now(), "tiles")
    return units, bad


class _Cut:
    """A slide with its tiles, read once."""

    def __init__(self, unit: Unit, facts: SlideFacts) -> None:
        self.unit = unit
        self.facts = facts
        self.name = unit.ref.name
        self.about: dict[str, Any] = unit.facts()
        self.rows: list[dict[str, Any]] = unit.index().to_pylist()

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


def _known_folds(context: StageContext) -> list[FoldRow]:
    if "folds" not in context.request.inputs:
        return []
    earlier = context.input("folds")
    return read_folds(earlier.read("folds.parquet"), earlier.uri("folds.parquet"))


def _folds(full: Sequence[_Cut], known: Sequence[FoldRow], config: TilerConfig) -> list[FoldRow]:
    other = {row.holdout for row in known} - {config.holdout}
    if other:
        raise RequestError(
            f"tiler.holdout is {config.holdout}, but the earlier folds were made with "
            f"{other.pop()}; folds are never changed: keep that, or start a run of another name"
        )
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
    config: TilerConfig,
) -> bytes:
    """What became of every slide, good or bad, in order of name."""
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
                "unitKey": slide.unit.key,
            }
        )
    per_fold = Counter(row["fold"] for row in rows)
    document = {
        "holdout": config.holdout,
        "folds": config.folds,
        "tilesPerFold": [per_fold[fold] for fold in range(config.folds)],
        "slides": entries,
    }
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _contact(full: Sequence[_Cut], config: TilerConfig) -> Image.Image:
    tiles = sum(len(slide.rows) for slide in full)
    title = (
        f"{tiles} tiles of {config.tile_size} px at {config.mpp:g} um/px, "
        f"slides: {len(full)}, holdout: {config.holdout}"
    )
    sheets = [
        (
            f"{slide.name}: {len(slide.rows)} tiles",
            Image.open(io.BytesIO(slide.unit.artifact.read("samples.png"))),
        )
        for slide in full
    ]
    return contact_sheet(title, sheets)


def _warn_if_upsampled(context: StageContext, unit: Unit) -> None:
    about = unit.facts()
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
    return (
        f"no tile was accepted: {examined} tiles of {len(cut)} slides were examined and each is "
        f"more than {config.max_whitespace:.0%} whitespace; set a larger tiler.maxWhitespace or a "
        "smaller tiler.tileSize, or look at thumbnail.png of a slide"
    )
