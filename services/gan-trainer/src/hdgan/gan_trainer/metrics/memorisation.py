"""Whether the generator repeats training tiles: nearest training tile against an honest yardstick.

Tiles of the same slides that were held out are near to training tiles, too, because they are of the
same tissue. A sample that is nearer to a training tile than nearly all held-out tiles are is
suspicious. This finds copies; it is no guarantee of privacy.

Distance is the root mean square difference of thumbnails, in grey levels: it is the same for a tile
and its copy in any orientation, and it costs little, so many tiles can be compared.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from hdgan.gan_trainer.metrics.nearest import nearest

QUANTILE = 0.01
THUMBNAIL = 16


class Thumbnails:
    """Images averaged down to 16 x 16 px, as vectors whose Euclidean distance is the root mean
    square difference in grey levels. A `FeatureExtractor`."""

    name = f"thumbnails of {THUMBNAIL} x {THUMBNAIL} px"
    digest = hashlib.sha256(b"thumbnails 16 area rms 1").hexdigest()
    dim = 3 * THUMBNAIL * THUMBNAIL
    side = THUMBNAIL

    def __call__(self, images_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [B, H, W, 3] -> float32 [B, 768]."""
        x = torch.from_numpy(np.ascontiguousarray(images_BHW3)).permute(0, 3, 1, 2).float()
        small = F.interpolate(x, size=(THUMBNAIL, THUMBNAIL), mode="area").flatten(1)
        return np.asarray((small / self.dim**0.5).numpy(), dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """Attributes:
    share: of the samples, how many are nearer to a training tile than `threshold`, 0 to 1; about
        0.01 is what held-out tiles themselves would give.
    threshold: the 1 % quantile of the distance of held-out tiles to their nearest training tile.
    nearest: median distance of samples to their nearest training tile, in grey levels.
    nearest_held_out: the same for held-out tiles.
    """

    share: float
    threshold: float
    nearest: float
    nearest_held_out: float


def orientations(images_BHW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each image in its eight flips and rotations: uint8 [8 * B, H, W, 3]."""
    turned = [np.rot90(images_BHW3, turns, (1, 2)) for turns in range(4)]
    return np.concatenate([*turned, *(images[:, :, ::-1] for images in turned)])


def memorisation(
    fake_MD: NDArray[np.float32],
    training_ND: NDArray[np.float32],
    held_out_KD: NDArray[np.float32],
) -> Memorisation:
    """Compare distances to the nearest training tile.

    Args:
        fake_MD: thumbnails of samples.
        training_ND: thumbnails of training tiles in all `orientations`.
        held_out_KD: thumbnails of held-out tiles of the same slides.
    """
    honest = nearest(held_out_KD, training_ND)
    found = nearest(fake_MD, training_ND)
    threshold = float(np.quantile(honest, QUANTILE))
    return Memorisation(
        float((found < threshold).mean()),
        threshold,
        float(np.median(found)),
        float(np.median(honest)),
    )
