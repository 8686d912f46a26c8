"""The unit of reuse: the tiles of one slide as an artifact of its own (`slide-tiles`).

Its key depends on that slide and on how it is cut, on nothing else: another slide in the run, a
case's name or the folds never cut it again.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hdgan.core.artifact import Artifact, Attempt, artifact_key, open_artifact
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import TilerConfig, semantic
from hdgan.core.slides import SlideFile
from hdgan.core.store import Store
from hdgan.core.tar_shards import write_shard
from hdgan.tiler.cut import Overview, Tile, examine, overview, slide_grid, tile_prefix
from hdgan.tiler.grid import Grid, Rect
from hdgan.tiler.pictures import Sampler, marked_thumbnail, png_bytes, sample_sheet
from hdgan.tiler.slide import Slide, SlideOpener
from hdgan.tiler.sources import LocalSlide, described, identity, local_slide

STAGE = "slide-tiles"
VERSION = STAGE_VERSIONS[STAGE]

# Fields of the tiler's section that decide on folds, not on tiles.
FOLD_FIELDS = frozenset({"holdout", "folds"})

UNIT_INDEX_SCHEMA = pa.schema(
    [
        pa.field("tile", pa.string(), nullable=False),
        pa.field("x", pa.int64(), nullable=False),
        pa.field("y", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("mpp", pa.float64(), nullable=False),
        pa.field("whitespace", pa.float32(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
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
        facts: dict[str, Any] = json.loads(self.artifact.read("slide.json"))
        return facts

    def index(self) -> pa.Table:
        """Accepted tiles, UNIT_INDEX_SCHEMA."""
        return pq.read_table(io.BytesIO(self.artifact.read("index.parquet")))


def unit_config(ref: SlideFile, config: TilerConfig, assume_mpp: float | None) -> dict[str, Any]:
    """What decides on a slide's tiles beside its bytes, without neutral values."""
    stride = None if config.stride == config.tile_size else config.stride
    chosen = semantic(config.model_copy(update={"stride": stride}))
    chosen = {name: value for name, value in chosen.items() if name not in FOLD_FIELDS}
    if assume_mpp is not None:
        chosen["assumeMpp"] = assume_mpp
    return {**chosen, "name": ref.name}


def unit_key(ref: SlideFile, config: TilerConfig, assume_mpp: float | None) -> str:
    """Key of a slide's unit artifact."""
    return artifact_key(
        STAGE, VERSION, unit_config(ref, config, assume_mpp), {"slide": identity(ref)}
    )


def find_unit(
    store: Store, ref: SlideFile, config: TilerConfig, assume_mpp: float | None
) -> Unit | None:
    """The slide's tiles if they have been cut before."""
    artifact = open_artifact(store, STAGE, unit_key(ref, config, assume_mpp))
    return None if artifact is None else Unit(ref, artifact)


def make_unit(
    store: Store,
    ref: SlideFile,
    config: TilerConfig,
    assume_mpp: float | None,
    *,
    scratch: Path,
    attempt: str,
    opener: SlideOpener,
    report: Report,
) -> Unit:
    """Cut a slide and commit its tiles. `scratch` is used and left empty, whatever happens.

    Raises SlideError where the slide is unusable; nothing is committed then.
    """
    key = unit_key(ref, config, assume_mpp)
    output = Attempt(
        store,
        STAGE,
        key,
        stage_version=VERSION,
        attempt=attempt,
        config=unit_config(ref, config, assume_mpp),
        inputs={"slide": identity(ref)},
    )
    folder = scratch / key
    # What a killed attempt left is of no use: shards are only whole at their end.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with local_slide(ref, folder) as local, opener(local.path) as slide:
            _fill(output, slide, ref, local, config, assume_mpp, folder, report)
        return Unit(ref, output.commit({"slide": ref.name}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(
    output: Attempt,
    slide: Slide,
    ref: SlideFile,
    local: LocalSlide,
    config: TilerConfig,
    assume_mpp: float | None,
    folder: Path,
    report: Report,
) -> None:
    grid = slide_grid(slide, config, assume_mpp=assume_mpp)
    view = overview(slide)
    report(0, len(grid))
    rows: list[dict[str, Any]] = []
    sampler = Sampler()
    accepted = _accepted(slide, grid, view, ref, config, report)
    for number in count():
        first = next(accepted, None)
        if first is None:
            break
        name = f"tiles-{number:05d}.tar"
        tiles = chain([first], islice(accepted, config.shard_tiles - 1))
        write_shard(folder / name, _members(tiles, name, rows, sampler))
        output.add_file(name, folder / name)
        (folder / name).unlink()
    rects = [Rect(row["x"], row["y"], row["width"], row["height"]) for row in rows]
    output.add_bytes("index.parquet", parquet_bytes(rows, UNIT_INDEX_SCHEMA))
    output.add_bytes("thumbnail.png", png_bytes(marked_thumbnail(view.image, view.scale, rects)))
    output.add_bytes("samples.png", png_bytes(sample_sheet(sampler.chosen())))
    facts = _facts(slide, grid, view, ref, local, len(rows), assumed=slide.mpp is None)
    output.add_bytes("slide.json", json.dumps(facts, indent=1, sort_keys=True).encode())


def _accepted(
    slide: Slide, grid: Grid, view: Overview, ref: SlideFile, config: TilerConfig, report: Report
) -> Iterator[Tile]:
    tiles = examine(slide, grid, view.white, tile_prefix(ref.name))
    for done, tile in enumerate(tiles, start=1):
        report(done, len(grid))
        if tile.whitespace <= config.max_whitespace:
            yield tile


def _members(
    tiles: Iterator[Tile], shard: str, rows: list[dict[str, Any]], sampler: Sampler
) -> Iterator[tuple[str, bytes]]:
    """The shard's members; each tile leaves its index row and perhaps a sample behind."""
    for tile in tiles:
        rows.append(
            {
                "tile": tile.id,
                "x": tile.rect.x,
                "y": tile.rect.y,
                "width": tile.rect.width,
                "height": tile.rect.height,
                "mpp": tile.mpp,
                "whitespace": tile.whitespace,
                "shard": shard,
                "digest": tile.digest,
            }
        )
        sampler.add(tile.image)
        yield f"{tile.id}.png", tile.png


def _facts(
    slide: Slide,
    grid: Grid,
    view: Overview,
    ref: SlideFile,
    local: LocalSlide,
    accepted: int,
    *,
    assumed: bool,
) -> dict[str, Any]:
    return {
        **described(ref),
        "sha256": local.sha256,
        "vendor": slide.vendor,
        "objectivePower": slide.objective_power,
        "dimensions": list(slide.dimensions),
        "levels": [list(size) for size in slide.level_dimensions],
        "slideMpp": [
            grid.mpp[0] * grid.tile_size / grid.source[0],
            grid.mpp[1] * grid.tile_size / grid.source[1],
        ],
        "mppAssumed": assumed,
        "white": list(view.white),
        "tileMpp": list(grid.mpp),
        "tileSource": list(grid.source),
        "upsampled": min(grid.scale) < 1,
        "tiles": {"examined": len(grid), "accepted": accepted, "whitespace": len(grid) - accepted},
    }


def parquet_bytes(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as a parquet file, the same bytes for the same rows."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue()
