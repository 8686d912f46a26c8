"""Amplifies frequency bands of an image at random (Karras et al. 2020b, appendix B.3)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hdgan.gan_trainer.augment.parameters import Parameters
from hdgan.nets.sending import sent

BANDS = 4
# Expected power of natural images in the bands, which falls with frequency as 1/f.
EXPECTED_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)

# Low-pass filter of the orthogonal Daubechies wavelet with 2 vanishing moments ("sym2").
_SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)


def band_filters() -> NDArray[np.float64]:
    """Zero-phase filters of the bands [0, pi/8], [pi/8, pi/4], [pi/4, pi/2], [pi/2, pi].

    With the half-band filter P(z) = H(z) H(1/z) / 2, for which P(z) + P(-z) = 1, the bands are
    P(z) P(z^2) P(z^4), P(z) P(z^2) P(-z^4), P(z) P(-z^2) and P(-z), which add up to 1 exactly.

    Returns float64 [4, taps], centred.
    """
    low = np.convolve(_SYM2, _SYM2[::-1]) / 2
    # P(-z): every odd power changes its sign. The centre is power 0.
    high = low * (-1.0) ** np.abs(np.arange(len(low)) - len(low) // 2)
    bands = [high]
    passed = low
    for level in (1, 2):
        bands.append(np.convolve(passed, _spread(high, 2**level)))
        passed = np.convolve(passed, _spread(low, 2**level))
    bands.append(passed)
    taps = len(passed)
    return np.stack([np.pad(band, (taps - len(band)) // 2) for band in reversed(bands)])


def _spread(taps: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """The filter of z^factor: zeros between the taps."""
    result = np.zeros(factor * (len(taps) - 1) + 1)
    result[::factor] = taps
    return result


def band_gains(given: Parameters) -> Tensor:
    """Gain of each band, float64 [B, 4]: each band is amplified by 2**N(0, 1) with probability p,
    and all are scaled back so that the expected power stays what it was."""
    power = torch.tensor(EXPECTED_POWER, dtype=torch.float64)
    gains = torch.ones((given.batch, BANDS), dtype=torch.float64)
    for band in range(BANDS):
        name = f"filter-{band}"
        amplified = torch.ones_like(gains)
        amplified[:, band] = given.where(name, torch.exp2(given.normal(name)), 1.0)
        gains = gains * amplified / (amplified.square() @ power).sqrt()[:, None]
    return gains


def filter_bands(images_B3HW: Tensor, gains_B4: Tensor) -> Tensor:
    """Apply the gains, along rows and columns; borders reflect."""
    batch, channels, height, width = images_B3HW.shape
    taps_BT = gains_B4 @ torch.from_numpy(band_filters())
    taps = sent(taps_BT, images_B3HW.device, images_B3HW.dtype)
    size = taps.shape[1]
    kernel = taps.repeat_interleave(channels, dim=0)
    x = images_B3HW.reshape(1, batch * channels, height, width)
    groups = batch * channels
    x = F.conv2d(_extend(x, 2, size // 2), kernel.reshape(groups, 1, size, 1), groups=groups)
    x = F.conv2d(_extend(x, 3, size // 2), kernel.reshape(groups, 1, 1, size), groups=groups)
    return x.reshape(images_B3HW.shape)


def _extend(x: Tensor, axis: int, margin: int) -> Tensor:
    """Reflect `margin` pixels on both sides of an axis; the margin may be longer than the image."""
    size = x.shape[axis]
    positions = torch.arange(-margin, size + margin, device=x.device)
    period = 2 * (size - 1)
    positions = positions.remainder(period)
    return x.index_select(axis, torch.minimum(positions, period - positions))
