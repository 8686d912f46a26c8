"""What a training has to show so far: its log, sample grids, KID over time, the best generator."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hdgan.core.json_documents import parse_object
from hdgan.gan_trainer.training_log import TrainingLog

_LOG = "training.jsonl"
_METRICS = "metrics.jsonl"
_BEST = "best-generator.safetensors"
_GRID_PREFIX = "grid-"


class TrainingRecord:
    """Collected while training; saved with the state, and part of the artifact in the end.

    Attributes:
        log: losses and ADA strength over time.
        grids: PNG by name.
        metrics: one record per measurement: `kimg`, `kid`, and what belongs to it.
        best: weights of the averaged generator with the lowest KID so far.
        best_record: its record.
        measured_at: images shown when metrics were last measured.
        drawn_at: images shown when a grid was last drawn.
    """

    def __init__(self, tick: int) -> None:
        self.log = TrainingLog(tick)
        self.grids: dict[str, bytes] = {}
        self.metrics: list[dict[str, float]] = []
        self.best: bytes | None = None
        self.best_record: dict[str, float] | None = None
        self.measured_at = 0
        self.drawn_at = 0

    def measured(
        self, images: int, values: Mapping[str, float], weights: Callable[[], bytes]
    ) -> None:
        """Add a measurement made at `images`; `weights` gives the generator it was made of."""
        record = {"kimg": images / 1000, **values}
        self.metrics.append(record)
        self.measured_at = images
        kid = values.get("kid")
        if kid is not None and (self.best_record is None or kid < self.best_record["kid"]):
            self.best, self.best_record = weights(), record

    def metrics_jsonl(self) -> bytes:
        """All measurements, one JSON object per line."""
        return "".join(json.dumps(record) + "\n" for record in self.metrics).encode()

    def files(self) -> dict[str, bytes]:
        """What is saved, by name."""
        found = {_LOG: self.log.to_jsonl(), _METRICS: self.metrics_jsonl()}
        found |= {f"{_GRID_PREFIX}{name}": data for name, data in self.grids.items()}
        return found if self.best is None else found | {_BEST: self.best}

    def meta(self) -> dict[str, Any]:
        """The small values that are saved with the files."""
        return {
            "log": self.log.state(),
            "grids": sorted(self.grids),
            "measuredAt": self.measured_at,
            "drawnAt": self.drawn_at,
        }

    def restore(self, files: Mapping[str, bytes], meta: Mapping[str, Any]) -> None:
        """Take what `files()` and `meta()` gave."""
        self.log.restore(files[_LOG], meta["log"])
        self.metrics = [parse_object(line, nan=True) for line in files[_METRICS].splitlines()]
        self.grids = {name: files[f"{_GRID_PREFIX}{name}"] for name in meta["grids"]}
        self.measured_at, self.drawn_at = int(meta["measuredAt"]), int(meta["drawnAt"])
        self.best = files.get(_BEST)
        measured = [record for record in self.metrics if "kid" in record]
        self.best_record = min(measured, key=lambda record: record["kid"], default=None)
