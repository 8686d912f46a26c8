"""The dataset stage: image + mask + uncertainty shards, index, classes and card."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hdgan.core.artifact import open_artifact
from hdgan.core.canonical import canonical_digest
from hdgan.core.classes import request_classes
from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.core.pieces import Pieces, adopt_file, missing_pieces, pieces_of_part
from hdgan.core.run import ClassConfig, SynthesizerConfig
from hdgan.core.stage import StageContext
from hdgan.core.well_formed import well_formed
from hdgan.nets.checkpoint import load_generator
from hdgan.nets.ensemble import PixelEnsemble
from hdgan.nets.labelling import Labeller
from hdgan.synthesizer.calibration import (
    Measured,
    calibration_document,
    needs_calibration,
    rule_from,
)
from hdgan.synthesizer.card import dataset_card
from hdgan.synthesizer.filling import Filler, shard_name, to_fill
from hdgan.synthesizer.index import classes_document, index_table
from hdgan.synthesizer.pair import PairMaker
from hdgan.synthesizer.quotas import check_quotas
from hdgan.synthesizer.sampling import Sampler
from hdgan.synthesizer.shard import shard_sizes
from hdgan.synthesizer.smoothing import radius_in_pixels
from hdgan.synthesizer.unfinished import Unfinished, UnfinishedWork

CALIBRATION = "calibration"
ENCODERS = 3  # threads; one for each picture of a pair
STALE_SECONDS = 86_400


def make_dataset(ctx: StageContext) -> None:
    """Fix the acceptance rule from the calibration draw, fill this part's shards, merge all.

    Part p of N makes the shards k with k % N == p; whoever commits merges what all have made.
    """
    config: SynthesizerConfig = ctx.config
    classes = request_classes(ctx.value("classes"))
    check_quotas(config.quotas, classes)
    pieces = Pieces(ctx.store, ctx.request.stage, ctx.request.key)
    sizes = shard_sizes(config.count, config.shard_size)
    if not ctx.request.commit:
        _work(ctx, classes, pieces, sizes)
    if ctx.committing:
        _merge(ctx, classes, pieces, len(sizes))
    else:
        ctx.work.discard()  # all that counts is in the pieces now


def _work(
    ctx: StageContext, classes: Sequence[ClassConfig], pieces: Pieces, sizes: list[int]
) -> None:
    """Make this part's shards that are not there yet."""
    config: SynthesizerConfig = ctx.config
    mine = pieces_of_part(len(sizes), ctx.part, ctx.parts)
    if not mine:
        return
    unfinished = UnfinishedWork(ctx)
    saved = unfinished.find()
    maker = _maker(ctx, classes)
    images = _calibration(ctx, maker, pieces, unfinished, saved)
    rule = rule_from(images, config)
    ctx.log(
        f"keeping images with mean uncertainty <= {rule.max_uncertainty:.4g}; "
        f"{rule.expected_acceptance:.1%} of all are expected to be kept"
    )
    digest = _digest(images)
    drawn, pairs = 0, 0
    total = sum(sizes[number] for number in mine)
    with _scratch(ctx) as folder, ThreadPoolExecutor(ENCODERS, "encode") as threads:
        filler = Filler(ctx, maker, rule, images, unfinished, folder, threads)
        for number in mine:
            done = _finished(ctx, pieces, number, digest)
            if done is None:
                if unfinished.due:
                    unfinished.save(len(images) + drawn, images, None)
                    ctx.check_stop()
                filling = to_fill(saved.filling, number, digest)
                progress = partial(_report, ctx, pairs, total)
                done, filled = filler.fill(filling, sizes[number], drawn, progress)
                pieces.keep(shard_name(number), done)
                unfinished.forget(filled)
            drawn += int(done["draws"])
            pairs += sizes[number]
            ctx.progress(pairs, total, "pairs")


def _report(ctx: StageContext, before: int, total: int, pairs: int) -> None:
    """Say how many of this part's pairs there are."""
    ctx.progress(before + pairs, total, "pairs")


def _finished(ctx: StageContext, pieces: Pieces, number: int, calibration: str) -> Any | None:
    """The record of a shard that exists and was made by the rule of this calibration, or None."""
    record = pieces.find(shard_name(number))
    if not isinstance(record, dict) or record.get("calibration") != calibration:
        return None
    if not _is_row_list(record.get("rows")) or not isinstance(record.get("draws"), int):
        return None
    return record if adopt_file(ctx.output, record.get("file")) is not None else None


def _work_of(ctx: StageContext) -> str:
    return f"work/{ctx.request.stage}/{ctx.request.key} in {ctx.store.uri}"


def _is_row_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _scores(ctx: StageContext) -> dict[str, Any]:
    ensemble = ctx.input("ensemble")
    try:
        return parse_object(ensemble.read("scores.json"))
    except JsonError as error:
        raise InputMissing(f"{ensemble.uri('scores.json')} is not JSON: {error}") from error


def _maker(ctx: StageContext, classes: Sequence[ClassConfig]) -> PairMaker:
    """Makes pairs of the dataset's stream."""
    config: SynthesizerConfig = ctx.config
    artifact = ctx.input("generator")
    ensemble = PixelEnsemble.load(ctx.input("ensemble").read)
    if ensemble.spec.generator != artifact.content_digest:
        raise RequestError(
            f"the ensemble was trained on features of generator {ensemble.spec.generator[:12]}, "
            f"this request's generator is {artifact.content_digest[:12]}: run extractor and "
            "classifier again"
        )
    mpp = ctx.value("mpp")
    if not isinstance(mpp, int | float):
        raise RequestError(f"request.context.mpp must be a number, got {mpp!r}")
    radius = config.smoothing_radius
    sampler = Sampler(
        load_generator(artifact.read, ctx.device, ensemble.spec.precision),
        artifact.content_digest,
        "dataset",
        config.seed,
        config.psi,
        config.noise,
    )
    return PairMaker(
        sampler,
        Labeller(ensemble, ctx.device),
        classes,
        float(mpp),
        ignore_above=config.ignore_above,
        smoothing_px=None if radius is None else radius_in_pixels(radius, float(mpp)),
    )


def _calibration(
    ctx: StageContext,
    maker: PairMaker,
    pieces: Pieces,
    unfinished: UnfinishedWork,
    saved: Unfinished,
) -> list[Measured]:
    """The calibration draw: the one kept first by any part, made here if there is none yet."""
    config: SynthesizerConfig = ctx.config
    if not needs_calibration(config):
        return []
    kept = pieces.find(CALIBRATION)
    if kept is None:
        images = list(saved.images)
        if images:
            ctx.log(f"taking over {len(images)} calibration images")
        drawing = dataclasses.replace(
            maker, sampler=dataclasses.replace(maker.sampler, stream="calibration")
        )
        for index in range(len(images), config.calibration):
            if unfinished.due:
                unfinished.save(index, images, None)
                ctx.check_stop()
            images.append(drawing.label(index).measured)
            ctx.progress(index + 1, config.calibration, "calibration images")
        # All parts go on with the same draw, should machines differ in a last bit.
        kept = pieces.keep_first(CALIBRATION, [one.to_json() for one in images])
    else:
        ctx.log(f"taking over {len(kept)} calibration images")
    return _measured(ctx, kept)


def _measured(ctx: StageContext, kept: Any) -> list[Measured]:
    """The calibration draw that a part has kept."""
    with well_formed(_work_of(ctx)):
        return [Measured.from_json(one) for one in kept]


def _digest(images: Sequence[Measured]) -> str:
    return canonical_digest([one.to_json() for one in images])


@contextmanager
def _scratch(ctx: StageContext) -> Iterator[Path]:
    """A folder of this attempt's own on scratch; it goes in the end."""
    place = ctx.scratch / "dataset" / ctx.request.key[:16]
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        # Of an attempt that was killed: a live one writes to its folder more often than that.
        if time.time() - old.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"part-{ctx.part:05d}-", dir=place) as folder:
        yield Path(folder)


def _merge(ctx: StageContext, classes: Sequence[ClassConfig], pieces: Pieces, shards: int) -> None:
    """Put together what the parts have made: index, classes, calibration and card.

    InputMissing if a part has not finished.
    """
    config: SynthesizerConfig = ctx.config
    images = _measured(ctx, pieces.find(CALIBRATION) or [])
    digest = _digest(images)
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for number in range(shards):
        record = _finished(ctx, pieces, number, digest)
        if record is None:
            missing.append(f"{shard_name(number)} (part {number % ctx.parts})")
        else:
            name = record["file"]["name"]
            rows += [row | {"shard": name} for row in record["rows"]]
    if missing:
        if open_artifact(ctx.store, ctx.request.stage, ctx.request.key) is not None:
            return  # another commit was faster, and has cleared the pieces away
        raise missing_pieces(missing, ctx.parts, "shards")
    rule = rule_from(images, config)
    output = ctx.output
    with well_formed(_work_of(ctx)):
        index = index_table(rows, classes)
    output.add_bytes("index.parquet", index)
    output.add_bytes("classes.json", classes_document(classes))
    output.add_bytes("calibration.json", calibration_document(rule, images, classes, config))
    scores = _scores(ctx)
    generator = ctx.input("generator").content_digest
    ensemble = ctx.input("ensemble").content_digest
    with well_formed(ctx.input("ensemble")):
        card = dataset_card(config, classes, rule, rows, scores, generator, ensemble)
    output.add_bytes("README.md", card.encode())
    ctx.commit()
    ctx.work.discard()
