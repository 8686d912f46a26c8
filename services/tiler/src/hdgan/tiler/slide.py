"""What the tiler needs of a slide, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from PIL import Image

WHITE = (255, 255, 255)


class SlideError(Exception):
    """One slide cannot be used; the message is the reason that is shown for it."""


class Slide(AbstractContextManager["Slide"], Protocol):
    """A pyramid of levels over one scanned area.

    Level 0 is the scan itself; level k is level 0 seen `downsamples[k]` times smaller in x and y.
    Several threads may read at once; closing waits for nobody, so close after the last read.
    """

    @property
    def vendor(self) -> str:
        """The format's short name, for example "aperio"."""

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0 in pixels, as stored: no orientation is applied."""

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
        """A rectangle given in pixels of `level`: RGBA, outside the slide transparent, or RGB where
        all of it was scanned.

        Raises SlideError where the file cannot be decoded.
        """


SlideOpener = Callable[[Path], Slide]
