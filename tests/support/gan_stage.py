"""The gan-trainer stage on small tiles of noise: its request, and running it in this process."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from hdgan.core.canonical import canonical_digest
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.request import InputRef, StageRequest
from hdgan.core.stage import run_stage
from hdgan.gan_trainer.stage import GAN_TRAINER
from support.stage_process import Finished
from support.tile_artifacts import TILER_KEY, Tiles

SIDE = 16


def gan_request(
    tiles: Tiles, scratch: Path, context: dict[str, Any] | None = None, **config: Any
) -> StageRequest:
    """A request to train on all `tiles` for a few steps; nothing is measured unless asked for."""
    settings = {
        "kimg": 0.048,
        "batch": 8,
        "channelBase": 64,
        "channelMax": 8,
        "latentDim": 8,
        "mappingLayers": 2,
        "holdoutFold": -1,
        "featureExtractor": "none",
        "metricKimg": 0.016,
        "metricSamples": 16,
        **config,
    }
    return StageRequest(
        run="test",
        stage="gan-trainer",
        service="gan_trainer",
        config=settings,
        context={"tileSize": SIDE, **(context or {})},
        inputs={
            "tiles": InputRef(
                stage="tiler",
                key=TILER_KEY,
                content_digest=tiles.artifact.content_digest,
            )
        },
        key=canonical_digest([str(scratch), {k: str(v) for k, v in settings.items()}]),
        stage_version=STAGE_VERSIONS["gan-trainer"],
        store=tiles.store.uri,
        scratch=str(scratch),
        threads=1,
    )


def run_here(request: StageRequest, folder: Path) -> Finished:
    """Run the stage in this process: quick, and open to monkeypatching."""
    path = folder / "request.json"
    path.write_text(request.model_dump_json(by_alias=True))
    out = io.StringIO()
    code = run_stage((GAN_TRAINER,), {"HDGAN_REQUEST": str(path)}, out)
    return Finished(code, [json.loads(line) for line in out.getvalue().splitlines()], "")
