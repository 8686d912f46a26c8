"""Opens a slide file: finds out by its content who can read it."""

from __future__ import annotations

from pathlib import Path

from hdgan.core.slides import PICTURE_SUFFIXES, is_multi_file
from hdgan.tiler.openslide_reader import open_with_openslide
from hdgan.tiler.picture_reader import JPEG_MAGIC, PNG_MAGIC, open_picture
from hdgan.tiler.slide import Slide, SlideError
from hdgan.tiler.tiff_reader import MAGIC as TIFF_MAGIC
from hdgan.tiler.tiff_reader import open_tiff


def open_slide(path: Path) -> Slide:
    """Open a slide file for reading.

    Scanners' formats are read by OpenSlide, other TIFF files by tifffile (OpenSlide would turn 16
    bits into 8 and not see what OME-TIFF says), PNG and JPEG by Pillow. Raises SlideError with a
    reason a person can act on: missing, empty, unknown format, damaged, not RGB.
    """
    try:
        if path.stat().st_size == 0:
            raise SlideError("the file is empty (0 bytes); copy it again")
        with path.open("rb") as file:
            beginning = file.read(64)
        scanned = open_with_openslide(path)
        if scanned is not None:
            return scanned
        if is_multi_file(path.name):
            # Not looked at any further: an MRXS's own file is a JPEG thumbnail.
            raise SlideError(
                f"is no {path.suffix} slide or lacks some of its other files, which have to lie "
                "beside it under their own names; copy them all again"
            )
        if beginning.startswith(TIFF_MAGIC):
            return open_tiff(path)
        if beginning.startswith((PNG_MAGIC, JPEG_MAGIC)):
            _check_name(path, "PNG" if beginning.startswith(PNG_MAGIC) else "JPEG")
            return open_picture(path, beginning)
    except OSError as error:
        raise SlideError(f"cannot be opened: {error.strerror or error}") from error
    raise SlideError(_unknown(beginning))


def _check_name(path: Path, kind: str) -> None:
    """A picture under a slide's name is a mistake: a thumbnail, or an export of a corner."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise SlideError(
            f"is a {kind} picture, not a {path.suffix} slide: get the scanner's file, or name it "
            f".{kind.lower()} if this picture is meant"
        )


def _unknown(beginning: bytes) -> str:
    if not beginning.strip(b"\0"):
        return "begins with zeros: it was not copied completely; copy it again"
    return (
        "is in no format OpenSlide reads (SVS, NDPI, MRXS, SCN, BIF, VMS, ...), no TIFF, OME-TIFF, "
        "PNG or JPEG, or its beginning is damaged"
    )
