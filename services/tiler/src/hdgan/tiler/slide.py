"""What the tiler needs of a slide, whatever its format, and the reader for OpenSlide's formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

import openslide
from PIL import Image

WHITE = (255, 255, 255)


class SlideError(Exception):
    """One slide cannot be used; the message is the reason that is shown for it."""


class Slide(AbstractContextManager["Slide"], Protocol):
    """A pyramid of RGBA levels over one scanned area.

    Level 0 is the scan itself; level k is level 0 seen `downsamples[k]` times smaller in x and y.
    """

    @property
    def vendor(self) -> str:
        """The format's short name, for example "aperio"."""

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0 in pixels."""

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of every level in its own pixels, level 0 first."""

    @property
    def downsamples(self) -> tuple[tuple[float, float], ...]:
        """Level-0 pixels per pixel of each level, (x, y); (1.0, 1.0) first, never falling."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Micrometres per level-0 pixel, (x, y), or None where the file does not say."""

    @property
    def objective_power(self) -> float | None:
        """Nominal magnification of the objective, or None; informative, never used for scale."""

    @property
    def background(self) -> tuple[int, int, int]:
        """The colour the format asks transparent regions to be shown on."""

    @property
    def icc_profile(self) -> bytes | None:
        """The embedded colour profile, or None."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        """RGBA of a rectangle given in pixels of `level`; outside the slide is transparent.

        Raises SlideError where the file cannot be decoded.
        """


class OpenSlideSlide:
    """A slide read by OpenSlide (SVS, NDPI, MRXS, SCN, generic tiled TIFF, ...)."""

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
        # OpenSlide places a level by one factor for both axes; another one would shift the picture.
        return tuple((float(d), float(d)) for d in self._handle.level_downsamples)

    @property
    def mpp(self) -> tuple[float, float] | None:
        x = self._number(openslide.PROPERTY_NAME_MPP_X)
        y = self._number(openslide.PROPERTY_NAME_MPP_Y)
        return None if x is None or y is None else (x, y)

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
        profile = self._handle.color_profile
        return None if profile is None else profile.tobytes()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        factor = self._handle.level_downsamples[level]
        # The library takes the corner in whole level-0 pixels; exact wherever the factor is whole.
        corner = (math.floor(x * factor + 0.5), math.floor(y * factor + 0.5))
        try:
            return self._handle.read_region(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"cannot be read at level {level}, x {corner[0]}, y {corner[1]} ({error}); "
                "the file is damaged or was not copied completely"
            ) from error

    def _number(self, name: str) -> float | None:
        try:
            value = float(self._properties[name])
        except (KeyError, ValueError):
            return None
        return value if math.isfinite(value) and value > 0 else None


def open_slide(path: Path) -> OpenSlideSlide:
    """Open a slide file for reading.

    Raises SlideError with a reason a person can act on: missing, empty, unknown format, damaged.
    """
    try:
        if path.stat().st_size == 0:
            raise SlideError("the file is empty (0 bytes); copy it again")
    except OSError as error:
        raise SlideError(f"cannot be opened: {error.strerror or error}") from error
    try:
        return OpenSlideSlide(openslide.OpenSlide(path))
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SlideError(
            "is in no format OpenSlide reads (SVS, NDPI, MRXS, SCN, tiled TIFF, ...), "
            "or its beginning is damaged"
        ) from error
    except openslide.OpenSlideError as error:
        raise SlideError(
            f"is damaged or incomplete ({error}); compare its size with the original"
        ) from error


SlideOpener = Callable[[Path], Slide]
