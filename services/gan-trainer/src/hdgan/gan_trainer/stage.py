"""The gan-trainer stage: tiles in, generator out."""

from __future__ import annotations

import time

from hdgan.core.errors import InputMissing, RequestError, Stopped
from hdgan.core.initial_networks import networks_digest
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import GanTrainerConfig
from hdgan.core.stage import Stage, StageContext
from hdgan.core.store import open_store
from hdgan.gan_trainer.grids import fakes_grid, reals_grid
from hdgan.gan_trainer.state import load_state, save_state
from hdgan.gan_trainer.tiles import open_tiles, split_tiles
from hdgan.gan_trainer.training import Training
from hdgan.gan_trainer.training_log import TrainingLog, tick_images
from hdgan.nets import checkpoint

# Sample grids over the whole training, so that one can see where it stopped improving.
GRIDS = 10


def train(ctx: StageContext) -> None:
    """Train from the most advanced saved state (or from initFrom, or from nothing) to the end."""
    config: GanTrainerConfig = ctx.config
    resolution = _tile_size(ctx)
    split = split_tiles(ctx.input("tiles"), config.holdout_fold, config.batch)

    def decoded(done: int, total: int) -> None:
        # Decoding very many tiles outlasts the grace; nothing of it would be saved anyway.
        ctx.check_stop()
        ctx.progress(done, total, "tiles")

    tiles = open_tiles(
        ctx.store,
        split,
        resolution,
        ctx.scratch / "tiles",
        require_space=ctx.require_scratch,
        progress=decoded,
    )
    ctx.check_stop()
    total = int(config.kimg * 1000)
    training = Training(config, resolution, ctx.device)
    log, grids = TrainingLog(tick_images(total)), dict[str, bytes]()
    saved = ctx.work.latest()
    if saved is not None:
        load_state(saved, training, log, grids)
        ctx.log(f"resumed at {training.images / 1000:g} kimg")
    else:
        _initialise(ctx, training)
        grids[_grid_name(0)] = fakes_grid(training.ema, config.seed)

    saved_at = training.images
    started, started_at = time.monotonic(), training.images
    grid_interval = max(config.batch, total // GRIDS)
    while training.images < total:
        measured = training.step(tiles[training.batch_indices(len(tiles))])
        log.add(measured)
        last = training.images >= total
        record = log.close(training.images, last=last, adaP=training.ada.p)
        if record is not None:
            ctx.metric(**record)
        if training.images // grid_interval > (training.images - config.batch) // grid_interval:
            grids[_grid_name(training.images)] = fakes_grid(training.ema, config.seed)
        ctx.progress(training.images / 1000, total / 1000, "kimg")
        due = training.images - saved_at >= config.snapshot_kimg * 1000
        if due or ctx.stop_requested:
            save_state(ctx.work, training, log, grids)
            saved_at = training.images
        if ctx.stop_requested:
            raise Stopped(f"stopped at {training.images / 1000:g} kimg, state saved")

    elapsed = time.monotonic() - started
    ctx.run_info["imagesPerSecond"] = (training.images - started_at) / max(elapsed, 1e-9)
    ctx.run_info["trainingTiles"] = len(split.train)
    ctx.run_info["holdoutTiles"] = len(split.holdout)
    _write(ctx, training, log, grids, reals_grid(tiles, config.seed))


def _tile_size(ctx: StageContext) -> int:
    value = ctx.value("tileSize")
    if not isinstance(value, int):
        raise RequestError(f"request.context.tileSize must be an integer, got {value!r}")
    return value


def _initialise(ctx: StageContext, training: Training) -> None:
    uri = ctx.request.context.get("initFrom")
    if uri is None:
        return
    if networks_digest(str(uri)) != ctx.value("initDigest"):
        raise InputMissing(
            f"ganTrainer.initFrom: the networks in {uri} changed since the run started: "
            "run the same command again"
        )
    source = open_store(str(uri))
    try:
        generator = checkpoint.load_generator(source.get)
        discriminator = checkpoint.load_discriminator(source.get)
    except RequestError as error:
        raise RequestError(f"ganTrainer.initFrom: {uri}: {error}") from error
    training.initialise_from(generator, discriminator)
    ctx.log(f"fine-tuning from {uri}")


def _grid_name(images: int) -> str:
    return f"fakes-{images:09d}.png"


def _write(
    ctx: StageContext,
    training: Training,
    log: TrainingLog,
    grids: dict[str, bytes],
    reals: bytes,
) -> None:
    out = ctx.output
    out.add_bytes(checkpoint.ARCHITECTURE, training.arch.to_json())
    out.add_bytes(checkpoint.GENERATOR, checkpoint.weights_to_bytes(training.ema))
    out.add_bytes(checkpoint.GENERATOR_RAW, checkpoint.weights_to_bytes(training.generator))
    out.add_bytes(checkpoint.DISCRIMINATOR, checkpoint.weights_to_bytes(training.discriminator))
    out.add_bytes("training.jsonl", log.to_jsonl())
    out.add_bytes("reals.png", reals)
    out.add_bytes("samples.png", fakes_grid(training.ema, training.config.seed))
    for name, data in grids.items():
        out.add_bytes(f"grids/{name}", data)


GAN_TRAINER = Stage(
    name="gan-trainer",
    version=STAGE_VERSIONS["gan-trainer"],
    config=GanTrainerConfig,
    run=train,
)

__all__ = ["GAN_TRAINER", "train"]
