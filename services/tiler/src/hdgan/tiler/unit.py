"""The unit of reuse: the tiles of one slide as an artifact of its own (`slide-tiles`).

Its key depends on that slide and on how it is cut, on nothing else: another slide in the run, a
case's name or the folds never cut it again.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hdgan.core.artifact import Artifact, Attempt, artifact_key, open_artifact
from hdgan.core.json_documents import parse_object
from hdgan.core.parquet_tables import read_parquet
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import TilerConfig, semantic
from hdgan.core.slide_facts import OutlinesFile, outlines_identity
from hdgan.core.slides import SlideFile
from hdgan.core.store import Store
from hdgan.core.tar_shards import write_shard
from hdgan.core.well_formed import well_formed
from hdgan.tiler.compartments import parse_compartments
from hdgan.tiler.cut import Cutting, Tile, examine, plan_cutting
from hdgan.tiler.grid import Rect
from hdgan.tiler.outlines import read_outlines
from hdgan.tiler.pictures import Sampler, marked_thumbnail, png_bytes, sample_sheet, shrunk
from hdgan.tiler.slide import Slide, SlideOpener
from hdgan.tiler.sources import LocalSlide, described, identity

STAGE = "slide-tiles"
VERSION = STAGE_VERSIONS[STAGE]

# Fields of the tiler's section that decide on folds, not on tiles.
FOLD_FIELDS = frozenset({"holdout", "folds"})

THUMBNAIL_SIDE = 1024
SAMPLED_REJECTS = 16

_PLACE = [
    pa.field("x", pa.int64(), nullable=False),
    pa.field("y", pa.int64(), nullable=False),
    pa.field("width", pa.int64(), nullable=False),
    pa.field("height", pa.int64(), nullable=False),
]
_MEASURES = [
    pa.field("pen", pa.float32()),
    pa.field("focus", pa.float32()),
    pa.field("compartment", pa.float32()),
]
UNIT_INDEX_SCHEMA = pa.schema(
    [
        pa.field("tile", pa.string(), nullable=False),
        *_PLACE,
        pa.field("mpp", pa.float64(), nullable=False),
        pa.field("level", pa.int32(), nullable=False),
        pa.field("whitespace", pa.float32(), nullable=False),
        *_MEASURES,
        pa.field("shard", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        *_PLACE,
        pa.field("reason", pa.string(), nullable=False),
        pa.field("whitespace", pa.float32()),
        *_MEASURES,
    ]
)

Report = Callable[[int, int], None]
"""Called with (tiles examined, tiles in the grid); may raise to stop."""


@dataclass(frozen=True)
class Unit:
    """The tiles of one slide, cut now or found."""

    ref: SlideFile
    artifact: Artifact

    @property
    def key(self) -> str:
        return self.artifact.manifest.key

    def facts(self) -> dict[str, Any]:
        """`slide.json`."""
        with well_formed(self.artifact):
            facts = parse_object(self.artifact.read("slide.json"))
            tiles = facts["tiles"]
            counts = (tiles["examined"], tiles["accepted"], *tiles["rejected"].values())
            sizes = (*facts["dimensions"], *counts)
            if len(facts["dimensions"]) != 2 or any(type(one) is not int for one in sizes):
                raise ValueError("sizes and counts are whole numbers")
            float(facts["slideMpp"][0])
            bool(facts["upsampled"])
            return facts

    def index(self) -> pa.Table:
        """Accepted tiles, UNIT_INDEX_SCHEMA."""
        with well_formed(self.artifact):
            table = read_parquet(self.artifact.read("index.parquet"), UNIT_INDEX_SCHEMA.names)
            return table.cast(UNIT_INDEX_SCHEMA)


@dataclass(frozen=True)
class Task:
    """One slide to cut: all that its tiles depend on. Goes to other processes as it is."""

    ref: SlideFile
    config: TilerConfig
    assume_mpp: float | None = None
    mpp: tuple[float, float] | None = None
    """Micrometres per level-0 pixel (x, y), from `slides.metadata`."""
    outlines: OutlinesFile | None = None
    """Only where `config.compartments` needs them."""

    def semantic(self) -> dict[str, Any]:
        """What decides on the tiles beside the slide's bytes, without neutral values."""
        config = self.config
        stride = None if config.stride == config.tile_size else config.stride
        chosen = semantic(config.model_copy(update={"stride": stride}))
        chosen = {name: value for name, value in chosen.items() if name not in FOLD_FIELDS}
        if self.mpp is not None:
            chosen["slideMpp"] = list(self.mpp)
        elif self.assume_mpp is not None:
            chosen["assumeMpp"] = self.assume_mpp
        if self.outlines is not None:
            chosen["outlines"] = outlines_identity(self.outlines)
        return {**chosen, "name": self.ref.name}

    @property
    def key(self) -> str:
        """Key of the slide's unit artifact."""
        return artifact_key(STAGE, VERSION, self.semantic(), {"slide": identity(self.ref)})


def find_unit(store: Store, task: Task) -> Unit | None:
    """The slide's tiles if they have been cut before."""
    artifact = open_artifact(store, STAGE, task.key)
    return None if artifact is None else Unit(task.ref, artifact)


def make_unit(
    store: Store,
    task: Task,
    local: LocalSlide,
    *,
    scratch: Path,
    attempt: str,
    opener: SlideOpener,
    report: Report,
    check_stop: Callable[[], None] = lambda: None,
    threads: int = 1,
) -> Unit:
    """Cut a slide and commit its tiles. `scratch`: an empty folder for shards while they grow.

    check_stop: called often, from any thread; may raise.

    Raises SlideError where the slide is unusable; nothing is committed then.
    """
    output = Attempt(
        store,
        STAGE,
        task.key,
        stage_version=VERSION,
        attempt=attempt,
        config=task.semantic(),
        inputs={"slide": identity(task.ref)},
    )
    config = task.config
    compartments = None
    if config.compartments:
        compartments = parse_compartments(read_outlines(task.outlines), config.compartments)
    with opener(local.path) as slide:
        cutting = plan_cutting(
            slide,
            config,
            task.ref.name,
            mpp=task.mpp,
            assume_mpp=task.assume_mpp,
            compartments=compartments,
        )
        tiles = examine(cutting, threads=threads, check=check_stop)
        _fill(output, cutting, tiles, task, local, scratch, report)
    return Unit(task.ref, output.commit({"slide": task.ref.name}))


@dataclass
class _Kept:
    """What is noted of tiles as they pass."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    samples: Sampler = field(default_factory=Sampler)
    rejects: dict[str, Sampler] = field(default_factory=dict)


def _fill(
    output: Attempt,
    cutting: Cutting,
    tiles: Iterator[Tile],
    task: Task,
    local: LocalSlide,
    folder: Path,
    report: Report,
) -> None:
    report(0, len(cutting.grid))
    kept = _Kept()
    accepted = _accepted(tiles, len(cutting.grid), kept, report)
    for number in count():
        first = next(accepted, None)
        if first is None:
            break
        name = f"tiles-{number:05d}.tar"
        of_shard = chain([first], islice(accepted, task.config.shard_tiles - 1))
        write_shard(folder / name, _members(of_shard, name, cutting, kept))
        output.add_file(name, folder / name)
        (folder / name).unlink()
    output.add_bytes("index.parquet", parquet_bytes(kept.rows, UNIT_INDEX_SCHEMA))
    output.add_bytes("rejected.parquet", parquet_bytes(kept.rejected, REJECTED_SCHEMA))
    output.add_bytes("thumbnail.png", png_bytes(_thumbnail(cutting, kept)))
    output.add_bytes("samples.png", png_bytes(sample_sheet(kept.samples.chosen())))
    rejects = [image for _, one in sorted(kept.rejects.items()) for image in one.chosen()]
    output.add_bytes("rejects.png", png_bytes(sample_sheet(rejects)))
    facts = _facts(cutting, task, local, kept)
    output.add_bytes("slide.json", json.dumps(facts, indent=1, sort_keys=True).encode())


def _accepted(tiles: Iterator[Tile], places: int, kept: _Kept, report: Report) -> Iterator[Tile]:
    for done, tile in enumerate(tiles, start=1):
        report(done, places)
        if tile.reason is None:
            yield tile
            continue
        kept.rejected.append(
            {**_place(tile), "reason": tile.reason, "whitespace": tile.measures.whitespace}
            | _measures(tile)
        )
        if tile.image is not None:
            sampler = kept.rejects.setdefault(tile.reason, Sampler(SAMPLED_REJECTS))
            sampler.add(tile.image, tile.reason)


def _members(
    tiles: Iterator[Tile], shard: str, cutting: Cutting, kept: _Kept
) -> Iterator[tuple[str, bytes]]:
    """The shard's members; each tile leaves its index row and perhaps a sample behind."""
    for tile in tiles:
        kept.rows.append(
            {
                "tile": tile.id,
                **_place(tile),
                "mpp": tile.mpp,
                "level": tile.level,
                "whitespace": tile.measures.whitespace,
                **_measures(tile),
                "shard": shard,
                "digest": tile.digest,
            }
        )
        if tile.image is not None:
            kept.samples.add(tile.image)
        yield f"{tile.id}{cutting.encoding.suffix}", tile.data


def _place(tile: Tile) -> dict[str, Any]:
    rect = tile.rect
    return {"x": rect.x, "y": rect.y, "width": rect.width, "height": rect.height}


def _measures(tile: Tile) -> dict[str, Any]:
    measures = tile.measures
    return {
        "pen": measures.pen,
        "focus": measures.focus,
        "compartment": measures.compartment,
    }


def _thumbnail(cutting: Cutting, kept: _Kept) -> Any:
    rects = [Rect(row["x"], row["y"], row["width"], row["height"]) for row in kept.rows]
    view, tissue = cutting.view, cutting.tissue
    marked = marked_thumbnail(view.image, view.scale, rects, tissue)
    return shrunk(marked, THUMBNAIL_SIDE)


def _facts(cutting: Cutting, task: Task, local: LocalSlide, kept: _Kept) -> dict[str, Any]:
    slide, grid, tissue = cutting.slide, cutting.grid, cutting.tissue
    rejected = Counter(str(row["reason"]) for row in kept.rejected)
    return {
        **described(task.ref),
        "sha256": local.sha256,
        "vendor": slide.vendor,
        "objectivePower": slide.objective_power,
        "dimensions": list(slide.dimensions),
        "levels": [list(size) for size in slide.level_dimensions],
        "level": cutting.level,
        "slideMpp": list(grid.level0_mpp),
        "mppFrom": _mpp_source(slide, task),
        "white": list(cutting.view.white),
        "colour": _colour(slide, task.config),
        "tileMpp": list(grid.mpp),
        "tileSource": list(grid.source),
        "upsampled": min(grid.scale) < 1,
        "tissue": None if tissue is None else tissue.to_json(),
        "tiles": {
            "examined": len(grid),
            "accepted": len(kept.rows),
            "rejected": dict(sorted(rejected.items())),
        },
    }


def _mpp_source(slide: Slide, task: Task) -> str:
    if task.mpp is not None:
        return "metadata"
    return "slide" if slide.mpp is not None else "assumed"


def _colour(slide: Slide, config: TilerConfig) -> str:
    """What was done to colours."""
    if config.colour == "raw":
        return "raw"
    return "srgb" if slide.icc_profile is not None else "raw (no profile in the slide)"


def parquet_bytes(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as a parquet file, the same bytes for the same rows."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue()
