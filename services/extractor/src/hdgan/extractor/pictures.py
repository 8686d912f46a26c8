"""Is the picture rendered now the one the expert labelled?"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from hdgan.core.errors import RequestError

# Rendering on another device moves pixels by rounding only; a grey level is 1/255.
MAX_MEAN_DIFFERENCE = 0.5
MAX_TAIL_DIFFERENCE = 2.0
TAIL_PERCENTILE = 99.9


def decode_picture(png: bytes, side: int, source: str) -> npt.NDArray[np.uint8]:
    """An RGB PNG of exactly side x side as uint8 [H, W, 3]; `RequestError` for anything else."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.size != (side, side) or image.mode != "RGB":
                raise RequestError(
                    f"{source} is {image.mode} of {image.size[0]} x {image.size[1]} px, not RGB of "
                    f"{side} x {side} px"
                )
            return np.asarray(image, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"{source} is not a readable PNG: {error}") from error


def require_same_picture(
    rendered: npt.NDArray[np.uint8], stored: npt.NDArray[np.uint8], source: str
) -> None:
    """Refuse (`RequestError`) labels of a picture that the latent does not make any more.

    Limits: mean absolute difference 0.5 grey levels, 99.9th percentile 2.
    """
    difference = np.abs(rendered.astype(np.int16) - stored.astype(np.int16))
    mean = float(difference.mean())
    tail = float(np.percentile(difference, TAIL_PERCENTILE))
    if mean > MAX_MEAN_DIFFERENCE or tail > MAX_TAIL_DIFFERENCE:
        raise RequestError(
            f"{source} is not what its latent renders now: mean difference {mean:.3g} grey levels "
            f"(at most {MAX_MEAN_DIFFERENCE}), {TAIL_PERCENTILE}th percentile {tail:.3g} (at most "
            f"{MAX_TAIL_DIFFERENCE:g}). The labels would lie on another picture: use the "
            "generator and candidates they were made for, or label again"
        )
