"""One shard of a dataset: a pure function of (generator, ensemble, seed, shard number, rule)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hdgan.core.errors import DataError
from hdgan.core.masks import encode_mask
from hdgan.core.run import ClassConfig
from hdgan.nets.labelling import Labeller
from hdgan.synthesizer.calibration import AcceptanceRule
from hdgan.synthesizer.pictures import encode_rgb, encode_uncertainty
from hdgan.synthesizer.sampling import SHARD_SPAN, Sample, Sampler

# A shard that needs this many times the draws the calibration predicts will never fill: the
# calibration no longer describes the generator.
MAX_DRAWS_FACTOR = 20


@dataclasses.dataclass(frozen=True)
class Pair:
    """One accepted pair: the members of its tar entry group and its row of index.parquet."""

    members: dict[str, bytes]
    row: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PairMaker:
    """Labels samples and encodes what is kept."""

    sampler: Sampler
    labeller: Labeller
    classes: list[ClassConfig]
    mpp: float

    def uncertainty(self, index: int) -> float:
        """Mean uncertainty of sample `index`, in [0, 1]."""
        sample = self.sampler.sample(index)
        labelled = self.labeller.label(self.sampler.generator, sample.ws, sample.noise)
        return labelled.image_uncertainty

    def pair(self, index: int, rule: AcceptanceRule) -> Pair | None:
        """The pair of sample `index`, or None when the rule drops it."""
        sample = self.sampler.sample(index)
        labelled = self.labeller.label(self.sampler.generator, sample.ws, sample.noise)
        if not rule.accepts(labelled.image_uncertainty):
            return None
        counts = np.bincount(labelled.mask.ravel(), minlength=len(self.classes))
        fractions = {
            one.name: float(n / labelled.mask.size)
            for one, n in zip(self.classes, counts, strict=True)
        }
        image = encode_rgb(labelled.image, sample.id)
        mask = encode_mask(labelled.mask, self.classes)
        height, width = labelled.mask.shape
        described = self._describe(sample, labelled.image_uncertainty, fractions)
        return Pair(
            members={
                f"{sample.id}.png": image,
                f"{sample.id}.mask.png": mask,
                f"{sample.id}.uncertainty.png": encode_uncertainty(labelled.uncertainty),
                f"{sample.id}.json": (json.dumps(described) + "\n").encode(),
            },
            row={
                "id": sample.id,
                "index": sample.index,
                "width": width,
                "height": height,
                "mpp": self.mpp,
                "uncertainty": labelled.image_uncertainty,
                "image_sha256": hashlib.sha256(image).hexdigest(),
                "mask_sha256": hashlib.sha256(mask).hexdigest(),
                **{f"fraction_{name}": value for name, value in fractions.items()},
            },
        )

    def _describe(
        self, sample: Sample, uncertainty: float, fractions: dict[str, float]
    ) -> dict[str, Any]:
        """The pair's JSON: everything needed to make it again."""
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
            "scores": {"uncertainty": uncertainty, "fractions": fractions},
            "acceptanceProbability": 1.0,
        }


def fill_shard(
    maker: PairMaker,
    number: int,
    size: int,
    rule: AcceptanceRule,
    before_each: Callable[[], None],
) -> Iterator[Pair]:
    """Accepted pairs of shard `number`, in order of its own sub-stream, until there are `size`.

    Args:
        before_each: called before every draw; may raise to stop.

    Raises:
        DataError: hardly any image passes the rule.
    """
    limit = int(MAX_DRAWS_FACTOR * (size + 10) / max(rule.expected_acceptance, 1e-3))
    accepted = 0
    for draw in range(limit):
        before_each()
        pair = maker.pair(number * SHARD_SPAN + draw, rule)
        if pair is None:
            continue
        accepted += 1
        yield pair
        if accepted == size:
            return
    raise DataError(
        f"shard {number}: only {accepted} of {limit} images are below the uncertainty threshold "
        f"{rule.max_uncertainty:g} (calibration predicted {rule.expected_acceptance:.0%}): raise "
        "synthesizer.calibration, or lower synthesizer.dropMostUncertain"
    )


def shard_sizes(count: int, shard_size: int) -> list[int]:
    """Pairs in each shard: all full but possibly the last."""
    full, rest = divmod(count, shard_size)
    return [shard_size] * full + ([rest] if rest else [])
