"""A sheet of what an import understood, for the person to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hdgan.core.masks import decode_mask
from hdgan.core.run import ClassConfig
from hdgan.desk.candidates import Candidates
from hdgan.desk.pictures import Cell, colour_mask, encode_png, in_rows, integer_zoom, outline, sheet
from hdgan.desk.splits import Split
from hdgan.desk.understanding import Labelled

_SIDE = 192
_IMAGES_PER_ROW = 3


def preview(
    candidates: Candidates,
    classes: Sequence[ClassConfig],
    images: Sequence[Labelled],
    splits: Mapping[str, Split],
) -> bytes:
    """PNG of what was understood: each picture outlined in the class colours, beside its mask."""
    cells: list[Cell] = []
    for image in images:
        mask = decode_mask(image.png, classes=len(classes), source=image.source)
        picture = outline(candidates.rgb(image.candidate), mask, classes)
        title = f"{splits[image.candidate]} {image.candidate}"
        cells.append(Cell(integer_zoom(picture, _SIDE), title))
        colours = integer_zoom(colour_mask(mask, classes), _SIDE)
        cells.append(Cell(colours, f"{100 * image.share:.0f} % labelled"))
    return encode_png(sheet(in_rows(cells, 2 * _IMAGES_PER_ROW), _SIDE))
