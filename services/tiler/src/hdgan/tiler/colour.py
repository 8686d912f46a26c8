"""Colours as the scanner stored them, or converted to sRGB by the profile embedded in the slide."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageCms

from hdgan.tiler.slide import SlideError

Convert = Callable[[Image.Image], Image.Image]
"""RGB in, RGB of the same size out. Made for one thread."""

MAX_PROFILE_BYTES = 16 << 20


def unchanged(image: Image.Image) -> Image.Image:
    """`tiler.colour: raw`."""
    return image


def srgb_converter(profile: bytes) -> Convert:
    """Conversion by an ICC profile, relative colorimetric with black point compensation, so that
    the profile's white becomes white. SlideError where the profile cannot be used.
    """
    try:
        if len(profile) > MAX_PROFILE_BYTES:
            raise ValueError(f"it has {len(profile)} bytes")
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise SlideError(
            f"has a colour profile that cannot be used ({error}); set tiler.colour: raw"
        ) from error

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        return image if converted is None else converted

    return convert
