"""The drift stage: how far tiles are from what a generator makes that was not trained on them.

A run with `generator: pinned` goes on with an older generator. This compares its samples with the
tiles there are now by KID, as the generator was compared with held-out tiles when it was made, and
looks at the tiles of slides by themselves that have come since.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from hdgan.core.artifact import Artifact
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
    slides = index.column("slide").to_pylist()
    document: dict[str, Any] = {
        "tiles": len(index),
        "newTiles": len(new),
        "newSlides": len({slides[row] for row in new}),
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
    choose = np.random.Generator(np.random.Philox(key=config.seed))
    chosen = {
        "kid": choose.permutation(len(index))[:MAX_TILES].astype(np.int64),
        "kidOfNewTiles": choose.permutation(new)[:MAX_TILES],
    }
    stains = index.column("stain").to_pylist()
    known = {name: number for number, name in enumerate(generator.arch.labels)}
    labels = [known[stain] for stain in stains if stain in known]
    if known and not labels:
        return {"reason": "no tile is of a stain that the generator knows"}
    views = views_of(generator.arch.resolution)
    fakes = _samples(ctx, generator, labels, network, views)
    found: dict[str, Any] = {"samples": config.metric_samples}
    for name, rows in chosen.items():
        found[name] = {
            which: _kid(kid(_real(ctx, network, index, rows, which), fakes[which]))
            for which in (views if len(rows) >= MIN_IMAGES else ())
        }
    if not found["kid"]:
        found["reason"] = f"there are fewer than {MIN_IMAGES} tiles"
    elif len(new) and not found["kidOfNewTiles"]:
        found["reason"] = f"there are fewer than {MIN_IMAGES} new tiles"
    return found


def _samples(
    ctx: StageContext,
    generator: Generator,
    labels: list[int],
    network: FeatureExtractor,
    views: tuple[View, ...],
) -> dict[View, NDArray[np.float32]]:
    """Features of samples that are not truncated, labelled as frequently as tiles are: [n, dim]."""
    config: GanTrainerConfig = ctx.config
    arch = generator.arch
    at_once = max(1, _PIXELS_AT_ONCE // arch.resolution**2)
    parts: dict[View, list[NDArray[np.float32]]] = {which: [] for which in views}
    for first in range(0, config.metric_samples, at_once):
        last = min(first + at_once, config.metric_samples)
        draws = Draws(config.seed, 0, range(first, last), ctx.device, "drift/")
        z = draws.normal("z", arch.latent_dim).to(ctx.device)
        label = None
        if labels:
            label = torch.tensor(labels)[draws.integers("label", 0, len(labels))].to(ctx.device)
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


def new_rows(index: pa.Table, before: pa.Table | None) -> Rows:
    """Rows of tiles whose slide is not in the older index; none where there is no older one."""
    if before is None:
        return np.zeros(0, dtype=np.int64)
    known = set(before.column("slide").to_pylist())
    slides = index.column("slide").to_pylist()
    rows = [row for row, slide in enumerate(slides) if slide not in known]
    return np.asarray(rows, dtype=np.int64)


def _when_trained(generator: Artifact) -> Any:
    """KID by view in the generator's own evaluation; None if it was not measured."""
    if "evaluation.json" not in generator:
        return None
    try:
        return json.loads(generator.read("evaluation.json")).get("kid")
    except (ValueError, AttributeError):
        return None


def _kid(found: Kid | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)


DRIFT = Stage(name="drift", version=STAGE_VERSIONS["drift"], config=GanTrainerConfig, run=measure)
