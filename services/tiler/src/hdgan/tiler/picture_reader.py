"""PNG and JPEG pictures as slides of one level: regions somebody has cut out of a slide."""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from hdgan.tiler.pixels import Pixels, paste
from hdgan.tiler.scale import UM_PER_INCH, Mpp, plausible
from hdgan.tiler.slide import WHITE, SlideError
from hdgan.tiler.tiff_level import MAX_PIECE_PIXELS

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

# What Pillow raises for damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
)


class PictureSlide:
    """A picture, decoded whole at the first read. Several threads may read at once."""

    background = WHITE
    objective_power: float | None = None
    downsamples = ((1.0, 1.0),)

    def __init__(self, image: Image.Image, vendor: str) -> None:
        self.vendor = vendor
        self.dimensions = image.size
        self.level_dimensions = (image.size,)
        self.mpp = _mpp(image)
        profile = image.info.get("icc_profile")
        self.icc_profile = profile if isinstance(profile, bytes) and profile else None
        self._image = image
        self._pixels: Pixels | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> PictureSlide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._image.close()
        self._pixels = None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        if level != 0:
            raise IndexError(f"a picture has one level, not level {level}")
        pixels = self._decoded()
        left, top = max(0, x), max(0, y)
        right, bottom = (
            min(self.dimensions[0], x + width),
            min(self.dimensions[1], y + height),
        )
        part = pixels[top : max(top, bottom), left : max(left, right)]
        if part.shape[:2] == (height, width):
            return Image.fromarray(np.ascontiguousarray(part))
        picture = np.zeros((height, width, 4), np.uint8)
        if part.size:
            paste(picture[top - y : bottom - y, left - x : right - x], part)
        return Image.fromarray(picture)

    def _decoded(self) -> Pixels:
        """uint8 [height, width, 3] RGB, or 4 with alpha."""
        with self._lock:
            if self._pixels is None:
                try:
                    self._image.load()
                    clear = "A" in self._image.mode or "transparency" in self._image.info
                    self._pixels = np.asarray(self._image.convert("RGBA" if clear else "RGB"))
                except _DAMAGE as error:
                    raise SlideError(
                        f"cannot be decoded ({error}); the file is damaged or was not copied "
                        "completely: copy it again"
                    ) from error
                self._image.close()
            return self._pixels


def open_picture(path: Path, beginning: bytes) -> PictureSlide:
    """Open a PNG or JPEG file that begins with these bytes. SlideError where it cannot be used."""
    # The classes themselves: Image.open() warns of large pictures before their size can be asked.
    kind: type[PngImagePlugin.PngImageFile] | type[JpegImagePlugin.JpegImageFile]
    kind = (
        PngImagePlugin.PngImageFile
        if beginning.startswith(PNG_MAGIC)
        else JpegImagePlugin.JpegImageFile
    )
    try:
        image = kind(path)
    except _DAMAGE as error:
        raise SlideError(f"is a damaged or incomplete picture ({error}); copy it again") from error
    try:
        _check(image, beginning)
        return PictureSlide(image, "png" if kind is PngImagePlugin.PngImageFile else "jpeg")
    except SlideError:
        image.close()
        raise


def _check(image: Image.Image, beginning: bytes) -> None:
    width, height = image.size
    if width <= 0 or height <= 0:
        raise SlideError("is a picture without pixels; it is damaged")
    if width * height > MAX_PIECE_PIXELS:
        raise SlideError(
            f"is a picture of {width} x {height} px, which can be read only whole; more than "
            f"{MAX_PIECE_PIXELS} px are not: save it as a tiled TIFF"
        )
    # Pillow silently halves deeper PNG samples; their depth is byte 24 of the file.
    deep = beginning.startswith(PNG_MAGIC) and beginning[24:25] == b"\x10"
    if deep or image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        what = "16-bit samples" if deep else f"pixels of kind {image.mode}"
        raise SlideError(
            f"is a picture with {what}; only 8-bit RGB or grey ones can be cut: "
            "convert it to 8-bit RGB"
        )


def _mpp(image: Image.Image) -> Mpp | None:
    """By the file's density, which is a scale only where it is a microscope's."""
    match image.info.get("dpi"):
        case (x, y):
            x, y = float(x), float(y)
            return plausible(UM_PER_INCH / x, UM_PER_INCH / y) if x > 0 and y > 0 else None
    return None
