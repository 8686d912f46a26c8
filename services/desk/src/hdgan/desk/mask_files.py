"""PNG masks as people's tools write them, turned into class indices or refused with the reason.

Accepted: 8-bit (or smaller) indexed PNGs, whose palette decides when it shows the class colours;
RGB and RGBA PNGs in exactly the class colours; 8-bit grey PNGs whose values are class indices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from hdgan.core.errors import HdganError
from hdgan.core.masks import MAX_SIDE, UNLABELLED
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.run import ClassConfig
from hdgan.desk.png_chunks import has_all_pixels

MAX_BYTES = 128 << 20
_SHOWN = 4

PAINTED_ON = 0.25
"""Share of the picture's own pixels from which a mask in strange colours was painted on it."""
NEARLY = 2
"""Grey levels."""

Mask = npt.NDArray[np.uint8]


class MaskError(HdganError):
    """The file is no usable mask; the message says why and what to do."""

    exit_code = 64


def read_mask(
    data: bytes,
    classes: Sequence[ClassConfig],
    height: int,
    width: int,
    picture_HW3: npt.NDArray[np.uint8] | None = None,
) -> Mask:
    """Class indices uint8 [H, W] of a PNG mask, 255 where unlabelled. Raises MaskError.

    picture_HW3  the picture that is labelled, to know a mask that was painted on it
    """
    if len(data) > MAX_BYTES:
        raise MaskError(f"has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        with open_picture(data, max_pixels=MAX_SIDE**2) as picture:
            # Checked before anything is decoded, so a huge or hostile file costs nothing.
            if picture.size != (width, height):
                raise MaskError(
                    f"is {picture.width} x {picture.height} px, but its candidate is {width} x "
                    f"{height} px: label at the exported size, do not resize"
                )
            if not has_all_pixels(data):
                raise MaskError("ends before its last row of pixels: save it again")
            picture.load()
            return _interpret(picture, classes, picture_HW3)
    except (PictureError, ValueError) as error:
        raise MaskError(f"cannot be read as a PNG ({error}): save it again") from None


def _interpret(
    picture: Image.Image, classes: Sequence[ClassConfig], labelled_HW3: Mask | None
) -> Mask:
    if picture.mode == "P":
        return _indexed(picture, classes)
    if picture.mode == "L":
        return _indices(np.array(picture, dtype=np.uint8), classes)
    if picture.mode in ("RGB", "RGBA"):
        return _coloured(picture, classes, labelled_HW3)
    raise MaskError(f"is a PNG of kind {picture.mode}: save it as 8-bit indexed, 8-bit grey or RGB")


def _indexed(picture: Image.Image, classes: Sequence[ClassConfig]) -> Mask:
    """By palette colour if all colours in use are class colours, by index if it is a grey ramp.

    Editors reorder palettes when they save; the colours a person saw are what was meant.
    """
    indices = np.array(picture, dtype=np.uint8)
    flat = picture.getpalette("RGB") or []
    palette = [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]
    used = [int(value) for value in np.flatnonzero(np.bincount(indices.ravel(), minlength=256))]
    by_colour = _colour_table(classes)
    table = np.full(256, UNLABELLED, dtype=np.uint8)
    strange = []
    for value in used:
        colour = palette[value] if value < len(palette) else None
        if colour is not None and colour in by_colour:
            table[value] = by_colour[colour]
        elif value != UNLABELLED:  # 255 is unlabelled in any colour.
            strange.append((value, colour))
    if not strange:
        return table[indices]
    if all(colour is None or colour == (value, value, value) for value, colour in strange):
        return _indices(indices, classes)
    shown = ", ".join(
        f"{value} (no colour)" if colour is None else f"{value} ({_hex(colour)})"
        for value, colour in strange[:_SHOWN]
    )
    raise MaskError(
        f"uses palette entries that are no class colour: {shown}; classes are {_legend(classes)}"
    )


def _indices(indices: Mask, classes: Sequence[ClassConfig]) -> Mask:
    counts = np.bincount(indices.ravel(), minlength=256)
    strange = [v for v in np.flatnonzero(counts).tolist() if len(classes) <= v != UNLABELLED]
    if strange:
        shown = ", ".join(f"{v} ({counts[v]} px)" for v in strange[:_SHOWN])
        raise MaskError(
            f"has values that are no class: {shown}; allowed are 0 to {len(classes) - 1} "
            f"({_legend(classes)}) and {UNLABELLED} for unlabelled"
        )
    return indices


def _coloured(
    picture: Image.Image, classes: Sequence[ClassConfig], labelled_HW3: Mask | None
) -> Mask:
    pixels = np.array(picture, dtype=np.uint8)
    rgb = pixels[..., :3].astype(np.int64)
    packed = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
    clear = np.zeros(packed.shape, dtype=bool)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3]
        if not np.isin(alpha, (0, 255)).all():
            raise MaskError("is partly transparent: save it without soft edges (anti-aliasing)")
        clear = alpha == 0
    mask = np.full(packed.shape, UNLABELLED, dtype=np.uint8)
    known = clear.copy()
    for (red, green, blue), value in _colour_table(classes).items():
        here = (packed == ((red << 16) | (green << 8) | blue)) & ~clear
        mask[here] = value
        known |= here
    if not known.all():
        if labelled_HW3 is not None:
            kept = _share_of_picture(pixels[..., :3], labelled_HW3)
            if kept >= PAINTED_ON:
                raise MaskError(
                    f"is the picture itself with something painted on it ({100 * kept:.0f} % of "
                    "its pixels are still the picture's): save the labels alone, without the "
                    "picture below them"
                )
        colours, counts = np.unique(packed[~known], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:_SHOWN]
        shown = ", ".join(f"#{int(colours[i]):06x} ({counts[i]} px)" for i in most)
        y, x = np.argwhere(~known)[0]
        raise MaskError(
            f"has {len(colours)} colours that are no class, first at x={x}, y={y}: {shown}; "
            f"classes are {_legend(classes)}. Turn anti-aliasing and colour profiles off"
        )
    return mask


def _share_of_picture(pixels_HW3: Mask, picture_HW3: Mask) -> float:
    """The share of pixels that are the picture's, or nearly: an editor may round."""
    apart = np.abs(pixels_HW3.astype(np.int16) - picture_HW3.astype(np.int16)).max(axis=2)
    return float((apart <= NEARLY).mean())


def _colour_table(classes: Sequence[ClassConfig]) -> dict[tuple[int, int, int], int]:
    """Colour to class index; black is unlabelled unless a class is black."""
    table = {(0, 0, 0): UNLABELLED}
    table.update({entry.rgb: index for index, entry in enumerate(classes)})
    return table


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _legend(classes: Sequence[ClassConfig]) -> str:
    return ", ".join(f"{n} {c.name} {c.color}" for n, c in enumerate(classes))
