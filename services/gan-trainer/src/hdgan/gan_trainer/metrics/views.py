"""What of an image is shown to the feature extractor.

The extractor sees images of about 224 px. A larger one is looked at in two ways: `whole`, resized,
which shows layout, and `crops`, one crop at native resolution, which shows texture.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

View = Literal["whole", "crops"]
LARGE = 256


def views_of(side: int) -> tuple[View, ...]:
    """The views of images of this side in pixels."""
    return ("whole", "crops") if side > LARGE else ("whole",)


def view(
    images_BHW3: NDArray[np.uint8], which: View, crop: int, seed: int, first: int
) -> NDArray[np.uint8]:
    """The images as `which` shows them.

    Args:
        crop: side of a crop in pixels; at most that of the images.
        seed, first: the crop's place is a pure function of the seed and the image's number, which
            is `first` for the first one.
    """
    if which == "whole":
        return images_BHW3
    height, width = images_BHW3.shape[1:3]
    crop = min(crop, height, width)
    cropped = np.empty((len(images_BHW3), crop, crop, 3), dtype=np.uint8)
    for number, image in enumerate(images_BHW3):
        key = np.array([seed, first + number], dtype=np.uint64)
        place = np.random.Generator(np.random.Philox(key=key))
        y, x = place.integers(height - crop + 1), place.integers(width - crop + 1)
        cropped[number] = image[y : y + crop, x : x + crop]
    return cropped
