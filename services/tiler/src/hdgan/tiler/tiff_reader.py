"""TIFF files of no scanner: OME-TIFF, pyramids in SubIFDs or pages, tiles or strips, plain or Big.

Only the structure is read by tifffile; pixels are decoded tile by tile as they are asked for, so
memory does not grow with the slide.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import tifffile
from PIL import Image

from hdgan.tiler.ome_xml import OmeImage, is_ome, parse_ome
from hdgan.tiler.pixels import Pixels, paste
from hdgan.tiler.scale import UM_PER_CENTIMETRE, UM_PER_INCH, Mpp, factors, plausible
from hdgan.tiler.segment_cache import SegmentCache
from hdgan.tiler.slide import WHITE, SlideError
from hdgan.tiler.tiff_level import TiffLevel, tiff_level
from hdgan.tiler.tiff_tags import check_tags

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Plain and Big TIFF in both byte orders."""

CACHE_BYTES = 64 << 20
# More pages than any pyramid with its label and overview has; a longer file is a stack.
MAX_PAGES = 64

TAG_ICC_PROFILE = 34675
TAG_X, TAG_Y, TAG_UNIT = 282, 283, 296
INCH, CENTIMETRE = 2, 3

# What tifffile has to say about a damaged file becomes a SlideError here, no line on stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffSlide:
    """A slide in a TIFF file. Several threads may read at once."""

    background = WHITE

    def __init__(
        self,
        path: Path,
        levels: Sequence[TiffLevel],
        *,
        vendor: str,
        mpp: Mpp | None,
        objective_power: float | None,
        icc_profile: bytes | None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.vendor = vendor
        self.mpp = mpp
        self.objective_power = objective_power
        self.icc_profile = icc_profile
        self._levels = tuple(levels)
        self._cache = SegmentCache(cache_bytes)
        self._file = os.open(path, os.O_RDONLY)

    def __enter__(self) -> TiffSlide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    @property
    def dimensions(self) -> tuple[int, int]:
        return self._levels[0].size

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        return tuple(level.size for level in self._levels)

    @property
    def downsamples(self) -> tuple[tuple[float, float], ...]:
        return tuple(factors(self.dimensions, level.size) for level in self._levels)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        source = self._levels[level]
        left, top = max(0, x), max(0, y)
        right, bottom = min(source.width, x + width), min(source.height, y + height)
        whole = (right - left, bottom - top) == (width, height)
        if whole and not source.has_alpha:
            picture = np.empty((height, width, 3), np.uint8)
        else:
            picture = np.zeros((height, width, 4), np.uint8)
        if left < right and top < bottom:
            wide, tall = source.piece
            for row in range(top // tall, (bottom - 1) // tall + 1):
                for column in range(left // wide, (right - 1) // wide + 1):
                    x0, y0 = column * wide, row * tall
                    x1, y1 = min(right, x0 + wide), min(bottom, y0 + tall)
                    piece = self._piece(level, column, row)
                    part = piece[max(top, y0) - y0 : y1 - y0, max(left, x0) - x0 : x1 - x0]
                    target = picture[max(top, y0) - y : y1 - y, max(left, x0) - x : x1 - x]
                    paste(target, part)
        return Image.fromarray(picture)

    def _piece(self, level: int, column: int, row: int) -> Pixels:
        return self._cache.get(
            (level, column, row), lambda: self._levels[level].decode(self._file, column, row)
        )


def open_tiff(path: Path, *, cache_bytes: int = CACHE_BYTES) -> TiffSlide:
    """Open a TIFF file of no scanner. Raises SlideError with a reason a person can act on."""
    size = path.stat().st_size
    check_tags(path)
    with _damage_explained():
        file = tifffile.TiffFile(path)
    with file:
        with _damage_explained():
            pages = _pages(file)
        description = pages[0].description if isinstance(pages[0].description, str) else ""
        ome = None
        if is_ome(description) and (images := parse_ome(description)):
            ome = _largest(images)
            _check_ome(ome, path.name)
            if ome.ifd >= len(pages):
                raise SlideError(
                    "has an OME description of pages that are missing; export it again"
                )
        with _damage_explained():
            first = max(pages, key=_area) if ome is None else pages[ome.ifd]
            levels = [tiff_level(first, size)]
            _check_size(ome, levels[0])
            if ome is None:
                _check_stack(pages, first)
            reduced = [*_below(first), *([] if ome else _reduced(pages))]
            for page in reduced:
                if _belongs(levels[0], page):
                    levels.append(tiff_level(page, size))
            levels.sort(key=lambda level: -level.width)
            for level in levels:
                level.page.init_decode()
            profile = first.tags.valueof(TAG_ICC_PROFILE)
            mpp = resolution_mpp(first)
        return TiffSlide(
            path,
            levels,
            vendor="generic-tiff" if ome is None else "ome-tiff",
            mpp=mpp if ome is None or ome.mpp is None else ome.mpp,
            objective_power=None if ome is None else ome.objective_power,
            icc_profile=profile if isinstance(profile, bytes) and profile else None,
            cache_bytes=cache_bytes,
        )


@contextlib.contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except SlideError:
        raise
    except Exception as error:
        # Any: tifffile raises whatever a damaged structure leads it to.
        raise SlideError(
            f"is a damaged or incomplete TIFF ({type(error).__name__}: {str(error)[:120]}); "
            "compare its size with the original and copy it again"
        ) from error


def _pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    pages: list[tifffile.TiffPage] = []
    while len(pages) < MAX_PAGES:
        try:
            page = file.pages[len(pages)]
        except IndexError:
            break
        if isinstance(page, tifffile.TiffPage):
            pages.append(page)
    if not pages:
        raise SlideError("is a TIFF without a picture; it was not written completely")
    return pages


def _below(page: tifffile.TiffPage) -> list[tifffile.TiffPage]:
    """The pictures in a page's SubIFDs."""
    if not page.subifds or page.pages is None:
        return []
    return [one for one in list(page.pages)[:MAX_PAGES] if isinstance(one, tifffile.TiffPage)]


def _reduced(pages: Sequence[tifffile.TiffPage]) -> list[tifffile.TiffPage]:
    """Pages that are levels; labels, overviews and thumbnails are stored in strips and unmarked."""
    return [page for page in pages if page.is_reduced or page.is_tiled]


def _belongs(full: TiffLevel, page: tifffile.TiffPage) -> bool:
    """Whether a page shows all of level 0 smaller, with pixels of the same kind."""
    width, height = int(page.imagewidth), int(page.imagelength)
    if not 0 < width < full.width or not 0 < height < full.height:
        return False
    same = (page.samplesperpixel, page.bitspersample, page.dtype)
    if same != (full.page.samplesperpixel, full.page.bitspersample, full.page.dtype):
        return False
    across, down = full.width / width, full.height / height
    # One pixel of the smaller picture is what rounding can make of either side.
    slack = across / width + down / height
    return abs(across - down) <= slack


def _area(page: tifffile.TiffPage) -> int:
    return int(page.imagewidth) * int(page.imagelength)


def _check_stack(pages: Sequence[tifffile.TiffPage], first: tifffile.TiffPage) -> None:
    size = (first.imagewidth, first.imagelength)
    same = sum((page.imagewidth, page.imagelength) == size for page in pages)
    if same > 1:
        raise SlideError(
            f"has {same} pages of the same size (focal planes, channels or several slides?); "
            "export one RGB page per file"
        )


def _largest(images: Sequence[OmeImage]) -> OmeImage:
    """The scan among label and overview."""
    return max(images, key=lambda image: image.width * image.height)


def _check_ome(image: OmeImage, name: str) -> None:
    if image.planes > 1:
        raise SlideError(
            f"has {image.planes} focal planes or time points; export one of them as 8-bit RGB"
        )
    if len(image.channels) > 1:
        raise SlideError(
            f"has {len(image.channels)} separate channels, as fluorescence has; if they are red, "
            "green and blue, export it again as RGB (raw2ometiff --rgb), else convert it to RGB"
        )
    if len(image.files) > 1:
        raise SlideError(
            f"is one of {len(image.files)} files of an OME-TIFF data set; export {name} as one file"
        )


def _check_size(ome: OmeImage | None, level: TiffLevel) -> None:
    if ome is not None and (ome.width, ome.height) != level.size:
        raise SlideError(
            f"has an OME description of {ome.width} x {ome.height} px and a picture of "
            f"{level.width} x {level.height}; export it again"
        )


def resolution_mpp(page: tifffile.TiffPage) -> Mpp | None:
    """Micrometres per pixel by a page's resolution tags, or None where these are no scale."""
    # Without the tag the standard takes the inch; whoever wrote no unit knew of no scale.
    unit = {INCH: UM_PER_INCH, CENTIMETRE: UM_PER_CENTIMETRE}.get(page.tags.valueof(TAG_UNIT))
    x, y = (_per_unit(page.tags.valueof(code)) for code in (TAG_X, TAG_Y))
    if unit is None or x is None or y is None:
        return None
    return plausible(unit / x, unit / y)


def _per_unit(value: object) -> float | None:
    match value:
        case (int(above), int(below)) if above > 0 and below > 0:
            return above / below
    return None
