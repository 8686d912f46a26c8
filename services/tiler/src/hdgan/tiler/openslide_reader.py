"""Slides of the scanner formats that OpenSlide reads (SVS, NDPI, MRXS, SCN, BIF, VMS, ...)."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

import openslide
from PIL import Image

from hdgan.tiler.scale import Mpp, factors, plausible
from hdgan.tiler.slide import WHITE, SlideError

PLAIN_TIFF = "generic-tiff"
"""What OpenSlide calls a tiled TIFF of no scanner."""

# How far left and up a read may begin to meet a pixel of the level exactly.
MARGIN = 32
# Where the library has to interpolate, it leaves seams and the rim half transparent: at least so.
OPAQUE = 128


class OpenSlideSlide:
    """A slide read by OpenSlide, whose handle several threads may use at once."""

    def __init__(self, handle: openslide.OpenSlide) -> None:
        self._handle = handle
        self._properties = dict(handle.properties)

    def __enter__(self) -> OpenSlideSlide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.close()

    @property
    def vendor(self) -> str:
        return self._properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")

    @property
    def dimensions(self) -> tuple[int, int]:
        width, height = self._handle.dimensions
        return int(width), int(height)

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        return tuple((int(w), int(h)) for w, h in self._handle.level_dimensions)

    @property
    def downsamples(self) -> tuple[tuple[float, float], ...]:
        # Not the library's own: it takes the mean of both axes, which is off at the far rim.
        return tuple(factors(self.dimensions, size) for size in self.level_dimensions)

    @property
    def mpp(self) -> Mpp | None:
        return plausible(
            self._number(openslide.PROPERTY_NAME_MPP_X), self._number(openslide.PROPERTY_NAME_MPP_Y)
        )

    @property
    def objective_power(self) -> float | None:
        return self._number(openslide.PROPERTY_NAME_OBJECTIVE_POWER)

    @property
    def background(self) -> tuple[int, int, int]:
        text = self._properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "")
        try:
            red, green, blue = bytes.fromhex(text)
        except ValueError:
            return WHITE
        return red, green, blue

    @property
    def icc_profile(self) -> bytes | None:
        try:
            profile = self._handle.color_profile
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(f"has a colour profile that cannot be read ({error})") from error
        return None if profile is None else profile.tobytes()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        factor = float(self._handle.level_downsamples[level])
        (left, skip_x), (top, skip_y) = _corner(x, factor), _corner(y, factor)
        try:
            image = self._handle.read_region((left, top), level, (width + skip_x, height + skip_y))
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"cannot be read at level {level}, x {left}, y {top} ({error}); "
                "the file is damaged or was not copied completely"
            ) from error
        if skip_x or skip_y:
            image = image.crop((skip_x, skip_y, skip_x + width, skip_y + height))
        if not factor.is_integer():
            image.putalpha(image.getchannel("A").point(_SEAMS_CLOSED))
        return image

    def _number(self, name: str) -> float | None:
        try:
            value = float(self._properties[name])
        except (KeyError, ValueError):
            return None
        return value if math.isfinite(value) and value > 0 else None


_SEAMS_CLOSED = [255 if alpha >= OPAQUE else alpha for alpha in range(256)]


def _corner(position: int, factor: float) -> tuple[int, int]:
    """Where to begin a read, in level-0 pixels, and how many pixels of the level to skip then.

    The library takes whole level-0 pixels and interpolates where these fall between two pixels of
    the level. Within a few pixels there is a place where they hardly do.
    """
    if factor.is_integer():
        return position * int(factor), 0
    best = min(range(MARGIN), key=lambda skip: abs(_miss(position - skip, factor)))
    return _nearest(position - best, factor), best


def _nearest(position: int, factor: float) -> int:
    return math.floor(position * factor + 0.5)


def _miss(position: int, factor: float) -> float:
    return _nearest(position, factor) / factor - position


def open_with_openslide(path: Path) -> OpenSlideSlide | None:
    """The slide, or None where it is in no scanner's format. SlideError where it is damaged."""
    try:
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor is None or vendor == PLAIN_TIFF:
            return None
        return OpenSlideSlide(openslide.OpenSlide(path))
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        raise SlideError(
            f"is damaged or incomplete ({error}); compare its size with the original"
        ) from error
