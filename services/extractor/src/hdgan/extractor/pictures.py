"""Is the picture rendered now the one the expert labelled?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hdgan.core.errors import RequestError
from hdgan.core.picture_files import PictureError, open_picture

# Rendering on another device moves pixels by rounding only; a grey level is 1/255.
MAX_MEAN_DIFFERENCE = 0.5
MAX_TAIL_DIFFERENCE = 2.0
TAIL_PERCENTILE = 99.9
BAND_ROWS = 64
MAX_PIXELS = 8192 * 8192


def decode_picture(png: bytes, side: int, source: str) -> npt.NDArray[np.uint8]:
    """An RGB PNG of exactly side x side as uint8 [H, W, 3]; `RequestError` for anything else."""
    try:
        with open_picture(png, max_pixels=MAX_PIXELS) as image:
            if image.size != (side, side) or image.mode != "RGB":
                raise RequestError(
                    f"{source} is {image.mode} of {image.size[0]} x {image.size[1]} px, not RGB of "
                    f"{side} x {side} px"
                )
            return np.asarray(image, dtype=np.uint8)
    except PictureError as error:
        raise RequestError(f"{source} is not a readable PNG: {error}") from error


def require_same_picture(
    rendered: npt.NDArray[np.uint8], stored: npt.NDArray[np.uint8], source: str
) -> None:
    """Refuse (`RequestError`) labels of a picture that the latent does not make any more.

    Limits: mean absolute difference 0.5 grey levels, 99.9th percentile 2.
    """
    counts = difference_counts(rendered, stored)
    mean = float(counts @ np.arange(256)) / int(counts.sum())
    tail = percentile(counts, TAIL_PERCENTILE)
    if mean > MAX_MEAN_DIFFERENCE or tail > MAX_TAIL_DIFFERENCE:
        raise RequestError(
            f"{source} is not what its latent renders now: mean difference {mean:.3g} grey levels "
            f"(at most {MAX_MEAN_DIFFERENCE}), {TAIL_PERCENTILE}th percentile {tail:.3g} (at most "
            f"{MAX_TAIL_DIFFERENCE:g}). The labels would lie on another picture: use the "
            "generator and candidates they were made for, or label again"
        )


def difference_counts(
    one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """How many values [H, W, 3] differ by 0, 1, ... 255 grey levels, int64 [256].

    In bands of rows: counting takes eight bytes for each value of a band.
    """
    counts = np.zeros(256, dtype=np.int64)
    for first in range(0, len(one), BAND_ROWS):
        a, b = one[first : first + BAND_ROWS], other[first : first + BAND_ROWS]
        counts += np.bincount((np.maximum(a, b) - np.minimum(a, b)).reshape(-1), minlength=256)
    return counts


def percentile(counts: npt.NDArray[np.int64], percent: float) -> float:
    """Percentile of values given by how often 0, 1, ... occur, interpolated between the two next
    to its place as `np.percentile` does it."""
    ends = np.cumsum(counts)
    place = (int(ends[-1]) - 1) * percent / 100
    below = int(place)
    low, high = np.searchsorted(ends, [below, min(below + 1, int(ends[-1]) - 1)], side="right")
    return float(low + (high - low) * (place - below))
