"""The gan-trainer stage: tiles in, generator out."""

from __future__ import annotations

import json
import time
from typing import NoReturn

from hdgan.core.errors import InputMissing, RequestError, Stopped
from hdgan.core.initial_networks import FILES, networks_digest
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import GanTrainerConfig
from hdgan.core.stage import Stage, StageContext
from hdgan.core.store import open_store
from hdgan.gan_trainer.data import (
    TileSplit,
    TileStream,
    split_tiles,
    stain_labels,
    tile_labels,
)
from hdgan.gan_trainer.distribution import Processes
from hdgan.gan_trainer.grids import fakes_grid, grid_side, png_grid
from hdgan.gan_trainer.measuring import Measuring
from hdgan.gan_trainer.record import TrainingRecord
from hdgan.gan_trainer.start import training_processes
from hdgan.gan_trainer.state import (
    differences,
    holds_for,
    read_state,
    restore_state,
    save_state,
    snapshot_files,
)
from hdgan.gan_trainer.training import Training
from hdgan.gan_trainer.training_log import tick_images
from hdgan.nets import checkpoint

# Sample grids over the whole training, so that one can see where it stopped improving.
GRIDS = 10
# No more than 15 minutes of work are lost in a crash, which includes the time that saving takes.
SAVE_SECONDS = 10 * 60
# How often a process that waits for tiles looks whether it should stop.
TILE_WAIT_SECONDS = 0.5


def train(ctx: StageContext) -> None:
    """Train with all processes from the most advanced saved state (or from initFrom, or from
    nothing) to the end."""
    with training_processes(ctx) as processes:
        _train(ctx, processes)


def _train(ctx: StageContext, processes: Processes) -> None:
    config: GanTrainerConfig = ctx.config
    ctx.run_info["processes"] = processes.size
    split = split_tiles(ctx.input("tiles"), config.holdout_fold, config.batch)
    labels = stain_labels(split) if config.conditional == "stain" else ()
    label_pool = tile_labels(split, labels) if labels else None
    training = Training(
        config, _tile_size(ctx), processes=processes, labels=labels, label_pool=label_pool
    )
    total = int(config.kimg * 1000)
    record = TrainingRecord(tick_images(total))
    exact = _start(ctx, training, record)
    with _open_stream(ctx, split, training) as tiles:
        measuring = Measuring(ctx, split, training)
        saved_at, saved_time = training.images, time.monotonic()
        started, started_at = time.monotonic(), training.images

        def save() -> None:
            nonlocal saved_at, saved_time
            if processes.leads and saved_at != training.images:
                save_state(ctx.work, training, record, exact=exact)
            saved_at, saved_time = training.images, time.monotonic()

        def stop_now() -> NoReturn:
            save()
            raise Stopped(f"stopped at {training.images / 1000:g} kimg, state saved")

        def check_stop() -> None:
            """Stop in all processes at the same step, with the state saved."""
            (stop,) = processes.any(ctx.stop_requested)
            if stop:
                stop_now()

        while True:
            if _due(training.images, record.measured_at, config.metric_kimg * 1000):
                save()  # measuring may take long
                measuring.quick(record, check_stop)
            if training.images >= total:
                break
            waiting, began = True, time.monotonic()
            while waiting:
                ready = tiles.ready(training.images, training.samples, TILE_WAIT_SECONDS)
                late = processes.leads and time.monotonic() - saved_time >= SAVE_SECONDS
                stop, late, waiting = processes.any(ctx.stop_requested, late, not ready)
                if stop:
                    stop_now()
                if late or training.images - saved_at >= config.snapshot_kimg * 1000:
                    save()
            reals, rows = tiles.read(training.images, training.samples)
            tiles.prefetch(training.images + config.batch, training.samples)
            stepping = time.monotonic()
            measured = training.step(reals, None if label_pool is None else label_pool[rows])
            ctx.tally.step(time.monotonic() - stepping, waited=stepping - began)
            ctx.tally.images(training.images, training.skipped)
            ctx.tally.queued("tiles", tiles.decoded)
            _note(ctx, training, record, measured, total)

        elapsed = time.monotonic() - started
        ctx.run_info["imagesPerSecond"] = (training.images - started_at) / max(elapsed, 1e-9)
        ctx.run_info["bitExact"] = exact
        ctx.run_info["trainingTiles"] = len(split.train)
        ctx.run_info["holdoutTiles"] = len(split.holdout)
        save()
        evaluation = measuring.full(check_stop)
        if processes.leads:
            reals = tiles.some(grid_side(training.arch.resolution) ** 2, config.seed)
            _write(ctx, training, record, evaluation, png_grid(reals))
        tiles.discard()


def _due(images: int, before: int, interval: float) -> bool:
    """Whether a multiple of `interval` images was passed since `before`; 0 is never."""
    return bool(interval) and int(images // interval) > int(before // interval)


def _note(
    ctx: StageContext,
    training: Training,
    record: TrainingRecord,
    measured: dict[str, float],
    total: int,
) -> None:
    """Keep and report what a step measured; draw a grid when one is due."""
    if not training.processes.leads:
        return
    record.log.add(measured)
    line = record.log.close(training.images, last=training.images >= total, adaP=training.ada.p)
    if line is not None:
        ctx.metric(**line, skippedUpdates=training.skipped)
    if _due(training.images, record.drawn_at, max(training.config.batch, total // GRIDS)):
        name = f"fakes-{training.images:09d}.png"
        record.grids[name] = fakes_grid(training.ema, training.config.seed)
        record.drawn_at = training.images
    ctx.progress(training.images / 1000, total / 1000, "kimg")


def _tile_size(ctx: StageContext) -> int:
    value = ctx.value("tileSize")
    if not isinstance(value, int):
        raise RequestError(f"request.context.tileSize must be an integer, got {value!r}")
    return value


def _open_stream(ctx: StageContext, split: TileSplit, training: Training) -> TileStream:
    gigabytes = ctx.request.context.get("tileCacheGigabytes")
    return TileStream(
        ctx.store,
        split,
        training.arch.resolution,
        ctx.scratch / f"gan-trainer-{ctx.request.key[:32]}",
        seed=training.config.seed,
        batch=training.config.batch,
        cache_bytes=None if gigabytes is None else int(float(str(gigabytes)) * 1e9),
        workers=max(1, min(8, ctx.threads)),
        owner=training.processes.local_rank == 0,
        check_stop=ctx.check_stop,
    )


def _start(ctx: StageContext, training: Training, record: TrainingRecord) -> bool:
    """Take the most advanced state, or initFrom, or nothing. Returns whether all of the training
    so far was computed under conditions equal to the present ones: then it ends with the same bits
    as without interruptions. On GPUs nothing is claimed: some of their sums have no fixed order."""
    processes = training.processes
    reproducible = training.device.type == "cpu"
    ctx.work.keep = training.config.keep_snapshots
    saved = ctx.work.latest() if processes.leads else None
    files, meta = read_state(saved) if saved is not None else (None, None)
    files, meta = processes.share_files(files), processes.share_json(meta)
    if files is None:
        _initialise(ctx, training)
        if processes.leads:
            record.grids["fakes-000000000.png"] = fakes_grid(training.ema, training.config.seed)
        return reproducible
    restore_state(files, meta, training, record)
    changed = differences(meta["holdsFor"], holds_for(training))
    ctx.log(f"resumed at {training.images / 1000:g} kimg")
    if changed:
        ctx.log(
            f"the state was saved under other conditions ({'; '.join(changed)}): training goes on, "
            "but not with the same bits as without the interruption",
            level="warning",
        )
    return reproducible and bool(meta["exact"]) and not changed


def _initialise(ctx: StageContext, training: Training) -> None:
    uri = ctx.request.context.get("initFrom")
    if uri is None:
        return
    files: dict[str, bytes] | None = None
    if training.processes.leads:
        if networks_digest(str(uri)) != ctx.value("initDigest"):
            raise InputMissing(
                f"ganTrainer.initFrom: the networks in {uri} changed since the run started: "
                "run the same command again"
            )
        source = open_store(str(uri))
        files = {name: source.get(name) for name in FILES}
    files = training.processes.share_files(files)
    assert files is not None
    try:
        generator = checkpoint.load_generator(files.__getitem__)
        discriminator = checkpoint.load_discriminator(files.__getitem__)
    except RequestError as error:
        raise RequestError(f"ganTrainer.initFrom: {uri}: {error}") from error
    training.initialise_from(generator, discriminator)
    ctx.log(f"fine-tuning from {uri}")


def _write(
    ctx: StageContext,
    training: Training,
    record: TrainingRecord,
    evaluation: dict[str, object] | None,
    reals: bytes,
) -> None:
    out = ctx.output
    tiles = ctx.request.inputs["tiles"]
    # A run finds its generator by way of its tiles, whose pixels it needs no more.
    out.need(tiles.stage, tiles.key, alone=True)
    for name, data in snapshot_files(training).items():
        out.add_bytes(name, data)
    out.add_bytes("training.jsonl", record.log.to_jsonl())
    out.add_bytes("reals.png", reals)
    out.add_bytes("samples.png", fakes_grid(training.ema, training.config.seed))
    for name, data in record.grids.items():
        out.add_bytes(f"grids/{name}", data)
    if record.metrics:
        out.add_bytes("metrics.jsonl", record.metrics_jsonl())
    if evaluation is not None:
        out.add_bytes("evaluation.json", (json.dumps(evaluation, indent=2) + "\n").encode())
    if record.best is not None:
        out.add_bytes(f"best/{checkpoint.ARCHITECTURE}", training.arch.to_json())
        out.add_bytes(f"best/{checkpoint.GENERATOR}", record.best)
        out.add_bytes("best/record.json", (json.dumps(record.best_record) + "\n").encode())


GAN_TRAINER = Stage(
    name="gan-trainer",
    version=STAGE_VERSIONS["gan-trainer"],
    config=GanTrainerConfig,
    run=train,
    ranks=True,
)

__all__ = ["GAN_TRAINER", "train"]
