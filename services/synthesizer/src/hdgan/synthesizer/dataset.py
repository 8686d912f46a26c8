"""The dataset stage: image + mask + uncertainty shards, index, classes and card."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from hdgan.core.artifact import FileEntry
from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.run import ClassConfig, SynthesizerConfig
from hdgan.core.stage import StageContext
from hdgan.core.tar_shards import write_shard
from hdgan.nets.checkpoint import load_generator
from hdgan.nets.ensemble import PixelEnsemble
from hdgan.nets.labelling import Labeller
from hdgan.synthesizer.calibration import AcceptanceRule, rule_from, to_json
from hdgan.synthesizer.card import dataset_card
from hdgan.synthesizer.sampling import Sampler
from hdgan.synthesizer.shard import PairMaker, fill_shard, shard_sizes

# Calibration images between two saves: what a kill can cost.
SAVE_EVERY = 25


def make_dataset(ctx: StageContext) -> None:
    """Fix the acceptance rule from the calibration draw, then fill shard after shard.

    The saved state holds the calibration so far and the finished shards; whole shards are taken
    over.
    """
    config: SynthesizerConfig = ctx.config
    classes = TypeAdapter(list[ClassConfig]).validate_python(ctx.value("classes"))
    ensemble = _ensemble(ctx)
    known, done = _resume(ctx)
    if config.drop_most_uncertain > 0 and len(known) < config.calibration:
        _calibrate(ctx, _maker(ctx, ensemble, classes, "calibration"), known)
    uncertainties = np.asarray(known, dtype=np.float64)
    rule = rule_from(uncertainties, config.drop_most_uncertain)
    ctx.log(f"keeping images with mean uncertainty <= {rule.max_uncertainty:.4g}")

    maker = _maker(ctx, ensemble, classes, "dataset")
    sizes = shard_sizes(config.count, config.shard_size)
    for number in range(len(done), len(sizes)):
        done.append(_make_shard(ctx, maker, number, sizes, rule))
        _save(ctx, known, done)
    _write_index(ctx, classes, rule, uncertainties, done)


def _ensemble(ctx: StageContext) -> PixelEnsemble:
    ensemble = PixelEnsemble.load(ctx.input("ensemble").read)
    generator = ctx.input("generator").content_digest
    if ensemble.spec.generator != generator:
        raise RequestError(
            f"the ensemble was trained on features of generator {ensemble.spec.generator[:12]}, "
            f"this request's generator is {generator[:12]}: run extractor and classifier again"
        )
    return ensemble


def _maker(
    ctx: StageContext, ensemble: PixelEnsemble, classes: list[ClassConfig], stream: Any
) -> PairMaker:
    config: SynthesizerConfig = ctx.config
    artifact = ctx.input("generator")
    generator = load_generator(artifact.read, ctx.device)
    sampler = Sampler(
        generator, artifact.content_digest, stream, config.seed, config.psi, config.noise
    )
    mpp = ctx.value("mpp")
    if not isinstance(mpp, int | float):
        raise RequestError(f"request.context.mpp must be a number, got {mpp!r}")
    return PairMaker(sampler, Labeller(ensemble, ctx.device), classes, float(mpp))


def _calibrate(ctx: StageContext, maker: PairMaker, known: list[float]) -> None:
    """Append mean uncertainties of images of the calibration stream to those that are known."""
    config: SynthesizerConfig = ctx.config
    saved = len(known)
    for index in range(len(known), config.calibration):
        # Otherwise a machine that is taken away often would never get through a long calibration.
        if ctx.stop_requested or index - saved >= SAVE_EVERY:
            _save(ctx, known, [])
            saved = index
        known.append(maker.uncertainty(index))
        ctx.progress(index + 1, config.calibration, "calibration images")
    _save(ctx, known, [])


def _make_shard(
    ctx: StageContext, maker: PairMaker, number: int, sizes: list[int], rule: AcceptanceRule
) -> dict[str, Any]:
    """Fill and upload one shard; returns its file entry and index rows as JSON values."""
    rows: list[dict[str, Any]] = []
    before = sum(sizes[:number])

    def members() -> Iterator[tuple[str, bytes]]:
        for pair in fill_shard(maker, number, sizes[number], rule, ctx.check_stop):
            rows.append(pair.row)
            ctx.progress(before + len(rows), sum(sizes), "pairs")
            # A fixed order; WebDataset wants the files of one id side by side.
            yield from sorted(pair.members.items())

    path = _scratch(ctx) / f"shard-{number:05d}.tar"
    try:
        write_shard(path, members())
        entry = ctx.output.add_file(path.name, path)
    finally:
        path.unlink(missing_ok=True)
    for row in rows:
        row["shard"] = entry.name
    return {"file": entry.model_dump(mode="json"), "rows": rows}


def _scratch(ctx: StageContext) -> Path:
    folder = ctx.scratch / "dataset" / ctx.request.key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save(ctx: StageContext, uncertainties: list[float], done: list[dict[str, Any]]) -> None:
    """Save calibration images and shards so far, then stop if that was asked for."""
    state = {"uncertainties": uncertainties, "shards": done}
    step = len(uncertainties) + len(done)
    ctx.work.save(step, {"shards.json": json.dumps(state).encode()}, {})
    ctx.check_stop()


def _resume(ctx: StageContext) -> tuple[list[float], list[dict[str, Any]]]:
    saved = ctx.work.latest()
    if saved is None:
        return [], []
    state = json.loads(saved.read("shards.json"))
    done: list[dict[str, Any]] = []
    for shard in state["shards"]:
        entry = FileEntry.model_validate(shard["file"])
        try:
            ctx.output.adopt(entry)
        except InputMissing as error:
            ctx.log(f"making the shards from {entry.name} on again: {error}", level="warning")
            break
        done.append(shard)
    known = [float(value) for value in state["uncertainties"]]
    ctx.log(f"taking over {len(known)} calibration images and {len(done)} finished shards")
    return known, done


def _write_index(
    ctx: StageContext,
    classes: list[ClassConfig],
    rule: AcceptanceRule,
    uncertainties: NDArray[np.float64],
    done: list[dict[str, Any]],
) -> None:
    config: SynthesizerConfig = ctx.config
    rows = [row for shard in done for row in shard["rows"]]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    ctx.output.add_bytes("index.parquet", buffer.getvalue())
    document = {
        "classes": [
            {"index": i, "name": one.name, "color": one.color} for i, one in enumerate(classes)
        ]
    }
    ctx.output.add_bytes("classes.json", (json.dumps(document, indent=1) + "\n").encode())
    settings = {
        "dropMostUncertain": config.drop_most_uncertain,
        "seed": config.seed,
        "psi": config.psi,
        "images": len(uncertainties),
    }
    ctx.output.add_bytes("calibration.json", to_json(rule, uncertainties, settings))
    scores = json.loads(ctx.input("ensemble").read("scores.json"))
    generator = ctx.input("generator").content_digest
    ensemble = ctx.input("ensemble").content_digest
    card = dataset_card(config, classes, rule, rows, scores, generator, ensemble)
    ctx.output.add_bytes("README.md", card.encode())
