"""The drift stage: how far tiles are from what a generator makes that was not trained on them.

A run with `generator: pinned` goes on with an older generator. This compares its samples with the
tiles there are now by KID, as the generator was compared with held-out tiles when it was made, and
looks at the tiles of slides by themselves that have come since.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from hdgan.core.artifact import Artifact
from hdgan.core.json_documents import parse_object
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import GanTrainerConfig
from hdgan.core.stage import Stage, StageContext
from hdgan.core.tiles import load_index
from hdgan.gan_trainer.draws import Draws
from hdgan.gan_trainer.metrics.kid import Kid, kid
from hdgan.gan_trainer.metrics.real_features import tile_features
from hdgan.gan_trainer.metrics.views import View, view, views_of
from hdgan.nets.checkpoint import load_generator
from hdgan.nets.generator import Generator, to_uint8
from hdgan.nets.image_features import FeatureExtractor, open_extractor

MAX_TILES = 10_000
"""Tiles that are compared at most, of all and of the new ones: more do not change KID."""
MIN_IMAGES = 16
_PIXELS_AT_ONCE = 32 * 64 * 64

Rows = NDArray[np.int64]


def measure(ctx: StageContext) -> None:
    """Write drift.json: KID of all tiles and of the new slides' tiles against samples, beside what
    the generator had against held-out tiles. What cannot be measured is null, with the reason."""
    config: GanTrainerConfig = ctx.config
    generator = ctx.input("generator")
    index = load_index(ctx.input("tiles"))
    old = load_index(ctx.input("before")) if "before" in ctx.request.inputs else None
    new = new_rows(index, old)
    document: dict[str, Any] = {
        "tiles": len(index),
        "newTiles": len(new),
        "newSlides": len(index.column("slide").take(pa.array(new)).unique()),
        "kid": {},
        "kidOfNewTiles": {},
        "kidWhenTrained": _when_trained(generator),
    }
    if config.feature_extractor == "none":
        document["reason"] = "ganTrainer.featureExtractor is none: nothing is compared"
    else:
        network = open_extractor(
            config.feature_extractor, ctx.device, ctx.scratch / "feature-extractors"
        )
        document |= _compare(ctx, network, index, new)
        document["extractor"] = {"name": network.name, "digest": network.digest}
    ctx.output.add_bytes("drift.json", (json.dumps(document, indent=2) + "\n").encode())


def _compare(
    ctx: StageContext, network: FeatureExtractor, index: pa.Table, new: Rows
) -> dict[str, Any]:
    config: GanTrainerConfig = ctx.config
    generator = load_generator(ctx.input("generator").read, ctx.device)
    views = views_of(generator.arch.resolution)
    labels = labels_of(index, generator.arch.labels)
    choose = np.random.Generator(np.random.Philox(key=config.seed))
    found: dict[str, Any] = {"samples": config.metric_samples, "kid": {}, "kidOfNewTiles": {}}
    fakes: dict[View, NDArray[np.float32]] | None = None
    for name, rows in (("kid", np.arange(len(index), dtype=np.int64)), ("kidOfNewTiles", new)):
        # What the generator has never seen the like of is no measure of how it has aged.
        rows = rows if labels is None else rows[labels[rows] >= 0]
        rows = choose.permutation(rows)[:MAX_TILES]
        if len(rows) < MIN_IMAGES:
            continue
        if fakes is None or labels is not None:
            fakes = _samples(ctx, generator, None if labels is None else labels[rows], network)
        found[name] = {
            which: _kid(kid(_real(ctx, network, index, rows, which), fakes[which]))
            for which in views
        }
    if not found["kid"]:
        found["reason"] = f"there are fewer than {MIN_IMAGES} tiles that can be compared"
    elif len(new) and not found["kidOfNewTiles"]:
        found["reason"] = f"there are fewer than {MIN_IMAGES} new tiles that can be compared"
    return found


def _samples(
    ctx: StageContext, generator: Generator, labels: Rows | None, network: FeatureExtractor
) -> dict[View, NDArray[np.float32]]:
    """Features of samples that are not truncated, by view: [n, dim]. labels: of the tiles they are
    compared with; samples have them as frequently."""
    config: GanTrainerConfig = ctx.config
    arch = generator.arch
    views = views_of(arch.resolution)
    pool = None if labels is None else torch.from_numpy(labels)
    at_once = max(1, _PIXELS_AT_ONCE // arch.resolution**2)
    parts: dict[View, list[NDArray[np.float32]]] = {which: [] for which in views}
    for first in range(0, config.metric_samples, at_once):
        last = min(first + at_once, config.metric_samples)
        draws = Draws(config.seed, 0, range(first, last), ctx.device, "drift/")
        z = draws.normal("z", arch.latent_dim).to(ctx.device)
        label = None
        if pool is not None:
            label = pool[draws.integers("label", 0, len(pool))].to(ctx.device)
        with torch.no_grad():
            images = np.asarray(to_uint8(generator(z, label_B=label)).cpu().numpy())
        for which in views:
            shown = view(images, which, network.side, config.seed, first)
            parts[which].append(network(shown))
        ctx.progress(last, config.metric_samples, "images")
        ctx.check_stop()
    return {which: np.concatenate(found) for which, found in parts.items()}


def _real(
    ctx: StageContext, network: FeatureExtractor, index: pa.Table, rows: Rows, which: View
) -> NDArray[np.float32]:
    config: GanTrainerConfig = ctx.config
    return tile_features(
        ctx.store,
        ctx.pins,
        ctx.input("tiles"),
        index,
        rows,
        network,
        which,
        seed=config.seed,
        turned=False,
        scratch=ctx.scratch,
        attempt=ctx.attempt,
        check=ctx.check_stop,
    )


def labels_of(index: pa.Table, names: Sequence[str]) -> Rows | None:
    """Label number of each tile's stain, -1 where the generator does not know it; None for a
    generator that is not conditional."""
    if not names:
        return None
    found = pc.index_in(index.column("stain"), value_set=pa.array(list(names)))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)


def new_rows(index: pa.Table, before: pa.Table | None) -> Rows:
    """Rows of tiles whose slide is not in the older index; none where there is no older one."""
    if before is None:
        return np.zeros(0, dtype=np.int64)
    known = before.column("slide").unique()
    new = pc.invert(pc.is_in(index.column("slide"), value_set=known))
    return np.flatnonzero(new.to_numpy()).astype(np.int64)


def _when_trained(generator: Artifact) -> Any:
    """KID by view in the generator's own evaluation; None if it was not measured."""
    if "evaluation.json" not in generator:
        return None
    try:
        return parse_object(generator.read("evaluation.json"), nan=True).get("kid")
    except ValueError:
        return None


def _kid(found: Kid | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)


DRIFT = Stage(name="drift", version=STAGE_VERSIONS["drift"], config=GanTrainerConfig, run=measure)
