"""One sample as a labelled pair: pixels first, then, if it is kept, the bytes of its files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdgan.core.masks import UNLABELLED
from hdgan.core.sections import ClassConfig
from hdgan.nets.labelling import Labeller
from hdgan.synthesizer.calibration import Measured
from hdgan.synthesizer.pictures import (
    DATASET_PNG,
    encode_classes,
    encode_rgb,
    encode_uncertainty,
    quantise_uncertainty,
)
from hdgan.synthesizer.sampling import Sample, Sampler
from hdgan.synthesizer.smoothing import smooth_mask


@dataclasses.dataclass(frozen=True)
class Pair:
    """One kept pair: its files by name, and its row of index.parquet without the shard."""

    members: dict[str, bytes]
    row: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A labelled sample before it is encoded.

    Attributes:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W], class indices and 255.
        levels: uint16 [H, W], uncertainty; 65535 is 1.0.
    """

    sample: Sample
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    levels: NDArray[np.uint16]
    measured: Measured


@dataclasses.dataclass(frozen=True)
class PairMaker:
    """Labels samples and describes them.

    Attributes:
        mpp: micrometres per pixel.
        ignore_above: uncertainty above which a pixel is 255 in the mask; None: no pixel is.
        smoothing_px: radius of contour smoothing in pixels; None: none.
    """

    sampler: Sampler
    labeller: Labeller
    classes: Sequence[ClassConfig]
    mpp: float
    ignore_above: float | None = None
    smoothing_px: float | None = None

    def label(self, index: int) -> Pixels:
        """The pixels of sample `index`, its mask smoothed first and then freed of unsure pixels.

        In this order 255 marks exactly the pixels whose stored uncertainty is above the limit, and
        a pixel that is ignored still has its vote in the contour of its neighbours.
        """
        sample = self.sampler.sample(index)
        labelled = self.labeller.label(self.sampler.generator, sample.ws, sample.noise)
        levels_HW = quantise_uncertainty(labelled.uncertainty)
        mask_HW = labelled.mask
        if self.smoothing_px is not None:
            mask_HW = smooth_mask(mask_HW, len(self.classes), self.smoothing_px)
        if self.ignore_above is not None:
            mask_HW = mask_HW.copy()
            mask_HW[levels_HW > self.ignore_above * 65535] = UNLABELLED
        counts = np.bincount(mask_HW.ravel(), minlength=256)
        measured = Measured(
            labelled.image_uncertainty,
            {one.name: int(n) / mask_HW.size for one, n in zip(self.classes, counts, strict=False)},
            int(counts[UNLABELLED]) / mask_HW.size,
        )
        return Pixels(sample, labelled.image, mask_HW, levels_HW, measured)

    def encode(self, pixels: Pixels, probability: float, threads: Executor) -> Encoding:
        """Start to encode a kept sample; `probability` is that with which its like are kept."""
        return Encoding(
            self._described(pixels, probability),
            self._row(pixels, probability),
            threads.submit(encode_rgb, pixels.image, pixels.sample.id, DATASET_PNG),
            threads.submit(encode_classes, pixels.mask, self.classes),
            threads.submit(encode_uncertainty, pixels.levels),
        )

    def _row(self, pixels: Pixels, probability: float) -> dict[str, Any]:
        height, width = pixels.mask.shape
        return {
            "id": pixels.sample.id,
            "index": pixels.sample.index,
            "width": width,
            "height": height,
            "mpp": self.mpp,
            "uncertainty": pixels.measured.uncertainty,
            "acceptance_probability": probability,
            "ignored": pixels.measured.ignored,
            **{f"fraction_{name}": f for name, f in pixels.measured.fractions.items()},
        }

    def _described(self, pixels: Pixels, probability: float) -> dict[str, Any]:
        """The pair's JSON: everything needed to make it again."""
        sample = pixels.sample
        return {
            "id": sample.id,
            "generator": self.sampler.generator_digest,
            "stream": self.sampler.stream,
            "seed": self.sampler.seed,
            "index": sample.index,
            "psi": self.sampler.psi,
            "noise": self.sampler.noise,
            "w": [float(v) for v in sample.ws[0, 0].cpu()],
            "label": sample.label,
            "mpp": self.mpp,
            "scores": pixels.measured.to_json(),
            "acceptanceProbability": probability,
        }


@dataclasses.dataclass(frozen=True)
class Encoding:
    """A pair on its way into bytes, in other threads."""

    described: dict[str, Any]
    row: dict[str, Any]
    image: Future[bytes]
    mask: Future[bytes]
    uncertainty: Future[bytes]

    def pair(self) -> Pair:
        """Wait for the bytes."""
        name = self.row["id"]
        # The order in the shard. WebDataset wants the files of one id side by side.
        members = {
            f"{name}.json": (json.dumps(self.described) + "\n").encode(),
            f"{name}.mask.png": self.mask.result(),
            f"{name}.png": self.image.result(),
            f"{name}.uncertainty.png": self.uncertainty.result(),
        }
        digests = {
            f"{kind}_sha256": hashlib.sha256(members[name + suffix]).hexdigest()
            for kind, suffix in (
                ("image", ".png"),
                ("mask", ".mask.png"),
                ("uncertainty", ".uncertainty.png"),
            )
        }
        return Pair(members, self.row | digests)
