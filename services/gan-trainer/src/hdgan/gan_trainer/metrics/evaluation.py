"""The evaluation of a generator from features: pure, given all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdgan.gan_trainer.metrics.fid import MIN_IMAGES, fid
from hdgan.gan_trainer.metrics.kid import Kid, kid
from hdgan.gan_trainer.metrics.memorisation import memorisation
from hdgan.gan_trainer.metrics.precision_recall import NEIGHBOURS, precision_recall

Features = NDArray[np.float32]
MIN_HELD_OUT = 16

NO_GUARANTEE = (
    "share of samples nearer to a training tile, in any of its 8 flips and rotations, than the 1 % "
    "quantile of that distance for held-out tiles (root mean square of thumbnails, grey levels); "
    "finds copies, is no guarantee of privacy"
)


@dataclasses.dataclass(frozen=True)
class Compared:
    """Feature vectors of the images that are compared, all by one extractor in one view.

    Attributes:
        held_out: held-out tiles: [n, dim].
        training: training tiles: [m, dim]; for memorisation in eight orientations: [8 * m, dim].
        fake: samples: [k, dim].
    """

    held_out: Features
    training: Features
    fake: Features


def quick(held_out: Features, fake: Features) -> dict[str, float]:
    """KID against the held-out tiles, as measured while training. Empty when there are too few."""
    found = kid(held_out, fake)
    if found is None:
        return {}
    return {
        "kid": found.mean,
        "kidStandardError": found.standard_error,
        "kidSamples": found.fake,
        "kidHeldOutTiles": found.real,
    }


def full(views: dict[str, Compared], thumbnails: Compared) -> dict[str, Any]:
    """Everything that is measured in the end, as JSON values; what cannot be measured is null with
    a reason beside it.

    Args:
        views: by name of the view; `whole` is always there.
        thumbnails: for memorisation.
    """
    whole = views["whole"]
    document: dict[str, Any] = {
        "kid": {name: _kid(kid(one.held_out, one.fake)) for name, one in views.items()},
        # Half of the training tiles, compared like samples: no generator is expected to be better.
        "floor": {
            name: _kid(kid(one.held_out, one.training[: len(one.training) // 2]))
            for name, one in views.items()
        },
        "samples": len(whole.fake),
        "heldOutTiles": len(whole.held_out),
        "trainingTiles": len(whole.training),
        "fid": None,
        "precision": None,
        "recall": None,
        "memorisation": None,
    }
    if len(whole.held_out) < MIN_HELD_OUT:
        why = f"fewer than {MIN_HELD_OUT} tiles are held out: nothing to compare with"
        return document | {"reason": why}
    if min(len(whole.held_out), len(whole.fake)) >= MIN_IMAGES:
        document["fid"] = fid(whole.held_out, whole.fake)
    else:
        document["fidReason"] = f"FID needs {MIN_IMAGES} images of each kind to mean anything"
    # As many of each: the radius of a neighbourhood depends on how many there are.
    equal = min(len(whole.held_out), len(whole.fake))
    precision, recall = precision_recall(whole.held_out[:equal], whole.fake[:equal])
    found = memorisation(thumbnails.fake, thumbnails.training, thumbnails.held_out)
    return document | {
        "precision": precision,
        "recall": recall,
        "neighbours": NEIGHBOURS,
        "memorisation": {
            **dataclasses.asdict(found),
            "trainingTiles": len(thumbnails.training) // 8,
            "note": NO_GUARANTEE,
        },
    }


def _kid(found: Kid | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)
