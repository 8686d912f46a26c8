"""Measures the averaged generator against held-out tiles, while training and in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hdgan.core.stage import StageContext
from hdgan.gan_trainer.data import TileSplit
from hdgan.gan_trainer.draws import Draws
from hdgan.gan_trainer.metrics.evaluation import Compared, Features, full, quick
from hdgan.gan_trainer.metrics.memorisation import Thumbnails
from hdgan.gan_trainer.metrics.real_features import tile_features
from hdgan.gan_trainer.metrics.views import View, view, views_of
from hdgan.gan_trainer.record import TrainingRecord
from hdgan.gan_trainer.training import Training
from hdgan.nets.checkpoint import weights_to_bytes
from hdgan.nets.generator import to_uint8
from hdgan.nets.image_features import FeatureExtractor, open_extractor

# Real tiles that are compared with at most: more do not change KID, and cost time and space.
MAX_HELD_OUT = 10_000
MAX_TRAINING = 2_000
# Copies are looked for among more of them: a thumbnail costs little but the reading of the tile.
MAX_THUMBNAILS = 10_000
# Samples that are made at once, at 64 px; fewer of larger ones.
_PIXELS_AT_ONCE = 32 * 64 * 64

Check = Callable[[], None]
Look = tuple[FeatureExtractor, View]


class Measuring:
    """What is needed to measure: opened at the first use, none of it if nothing is to be measured.

    All processes make samples; the leading one compares them.
    """

    def __init__(self, ctx: StageContext, split: TileSplit, training: Training) -> None:
        self._ctx, self._split, self._training = ctx, split, training
        self._network: FeatureExtractor | None = None
        self._real: dict[tuple[str, View, str], Features] = {}

    @property
    def wanted(self) -> bool:
        """Whether the run asks for measures."""
        return bool(self._training.config.feature_extractor != "none")

    def quick(self, record: TrainingRecord, check_stop: Check) -> None:
        """Measure KID now and put it on record."""
        if not self.wanted:
            return
        training = self._training
        network = self._extractor()
        self._ready([(network, "whole", "held-out")], check_stop)
        (fake,) = self._fakes([(network, "whole")], check_stop)
        if training.processes.leads:
            values = quick(self._real[network.digest, "whole", "held-out"], fake)
            record.measured(training.images, values, lambda: weights_to_bytes(training.ema))
            best = record.best_record
            self._ctx.metric(**values, **({} if best is None else {"bestKid": best["kid"]}))
        record.measured_at = training.images

    def full(self, check_stop: Check) -> dict[str, Any] | None:
        """Measure everything: the content of evaluation.json; None if nothing is measured, and in
        all processes but the leading one."""
        if not self.wanted:
            return None
        network, thumbnails = self._extractor(), Thumbnails()
        views = views_of(self._training.arch.resolution)
        looks: list[Look] = [(network, which) for which in views] + [(thumbnails, "whole")]
        kinds = ("held-out", "training")
        self._ready(
            [(extractor, which, kind) for extractor, which in looks for kind in kinds], check_stop
        )
        fakes = self._fakes(looks, check_stop)
        if not self._training.processes.leads:
            return None
        compared = [
            Compared(
                self._real[extractor.digest, which, "held-out"],
                self._real[extractor.digest, which, "training"],
                fake,
            )
            for (extractor, which), fake in zip(looks, fakes, strict=True)
        ]
        document = full(dict(zip(views, compared, strict=False)), compared[-1])
        return document | {
            "extractor": {"name": network.name, "digest": network.digest},
            "psi": 1.0,
            "kimg": self._training.images / 1000,
            "holdout": str(self._ctx.request.context.get("holdout", "")),
        }

    def _fakes(self, looks: list[Look], check_stop: Check) -> list[Features]:
        """Features of the samples: [samples, dim] for each look at them."""
        training, processes = self._training, self._training.processes
        count, device = training.config.metric_samples, training.device
        found = [torch.zeros((count, extractor.dim), device=device) for extractor, _ in looks]
        at_once = max(1, _PIXELS_AT_ONCE // training.arch.resolution**2)
        for start in range(0, count, at_once * processes.size):
            first = start + processes.rank * at_once
            last = min(first + at_once, count)
            if first < last:
                images = self._samples(first, last)
                for features, (extractor, which) in zip(found, looks, strict=True):
                    part = view(images, which, extractor.side, training.config.seed, first)
                    features[first:last] = torch.from_numpy(extractor(part)).to(device)
            check_stop()
        # Each process has filled its own rows; the others are zero.
        return [processes.sum_(features).cpu().numpy() for features in found]

    @torch.no_grad()
    def _samples(self, first: int, last: int) -> NDArray[np.uint8]:
        """Samples `first` to `last` - 1, the same at every measurement, not truncated."""
        training = self._training
        draws = Draws(training.config.seed, 0, range(first, last), training.device, "metric/")
        z = draws.normal("z", training.arch.latent_dim).to(training.device)
        label = training.draw_labels(draws)
        images = to_uint8(training.ema(z, label_B=label))
        return np.asarray(images.cpu().numpy())

    def _extractor(self) -> FeatureExtractor:
        if self._network is None:
            self._network = open_extractor(
                self._training.config.feature_extractor,
                self._training.device,
                self._ctx.scratch / "feature-extractors",
            )
        return self._network

    def _ready(self, wanted: list[tuple[FeatureExtractor, View, str]], check_stop: Check) -> None:
        """Features of real tiles: the leading process gets them while the others wait."""
        missing = [w for w in wanted if (w[0].digest, *w[1:]) not in self._real]

        def fetch_all(beat: Check) -> None:
            for extractor, which, kind in missing:
                self._fetch(extractor, which, kind, beat)

        if missing and self._training.processes.led(fetch_all, lambda: self._ctx.stop_requested):
            check_stop()
        if not self._training.processes.leads:
            nothing = np.zeros((0, 0), dtype=np.float32)
            self._real |= {(extractor.digest, v, kind): nothing for extractor, v, kind in missing}

    def _fetch(self, extractor: FeatureExtractor, which: View, kind: str, check: Check) -> None:
        seed = self._training.config.seed
        copies = isinstance(extractor, Thumbnails)
        rows, most = self._split.holdout, MAX_HELD_OUT
        if kind == "training":
            rows, most = self._split.train, MAX_THUMBNAILS if copies else MAX_TRAINING
        choose = np.random.Generator(np.random.Philox(key=seed))
        self._real[extractor.digest, which, kind] = tile_features(
            self._ctx.store,
            self._ctx.pins,
            self._ctx.input("tiles"),
            self._split.index,
            choose.permutation(rows)[:most],
            extractor,
            which,
            seed=seed,
            turned=copies and kind == "training",
            scratch=self._ctx.scratch,
            attempt=self._ctx.attempt,
            check=check,
        )
