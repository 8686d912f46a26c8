"""Candidates out: the pictures an expert is to label, with everything needed to do so."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hdgan.core.atomic_file import explain_os_error, writing
from hdgan.core.disk_space import require_space
from hdgan.core.errors import RequestError
from hdgan.core.run import ClassConfig
from hdgan.desk.candidates import Candidates
from hdgan.desk.pictures import Cell, encode_png, in_rows, open_rgb, sheet
from hdgan.desk.png_text import with_candidate_id
from hdgan.desk.splits import Split

CONTACT_SHEET = "contact-sheet.png"
CLASSES_FILE = "classes.json"
SPLIT_FILE = "split.csv"
GUIDE_FILE = "GUIDE.txt"

_SHEET_COLUMNS = 6
_SHEET_SIDE = 192  # 64 px candidates at three times their size; six of them fit a printed page.

_GUIDE = """\
What to label
=============

{count} generated images, {width} x {height} px, one PNG each: {splits}.
They are drawn by a generator, not cut from a slide. Label what you see.

Classes (index, name, colour):
{classes}

How
---
Any tool will do that can save one of:
  - QuPath: draw polygons or brush areas, set their class, export as GeoJSON
    (File > Export objects as GeoJSON), keep the image's name: <split>-<id>.geojson.
    Where shapes overlap, the class further down in the list above wins.
  - a PNG mask of the same size: 8-bit indexed or grey with the class index as value,
    or RGB with exactly the colours above (no anti-aliasing, no resizing).
Leave out what you cannot tell: unlabelled pixels (255, or black in RGB) neither train
nor score. To label a whole image, import with --background CLASS.

Every image carries its id ({digits} hexadecimal digits) in its name and inside the PNG. Keep
the id in the names of your files. The split is fixed: an image never moves from test to train.
Label the test images as carefully as the others: they alone measure the result.

Then
----
    hdgan annotations import RUNFILE FOLDER --author "your name"
Everything is checked first; nothing is imported when anything is wrong.
"""


def export_candidates(
    candidates: Candidates,
    assigned: Mapping[str, Split],
    classes: Sequence[ClassConfig],
    folder: Path,
) -> int:
    """Write the pictures in `assigned`, classes, splits, guide and contact sheet; returns how many.

    RequestError when the folder already holds pictures of other candidates, which would be labelled
    and then refused; StoreError when it cannot be written, NoSpace when its disk is too full.
    """
    wanted = {file_name(identity, split) for identity, split in assigned.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(
            path.name
            for path in folder.glob("*.png")
            if path.name not in wanted and path.name != CONTACT_SHEET
        )
        if others:
            raise RequestError(
                f"{folder}: holds other PNG files ({', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}): choose an empty folder"
            )
        sizes = {file_name(one, split): candidates.png_size(one) for one, split in assigned.items()}
        missing = [size for name, size in sizes.items() if not (folder / name).exists()]
        # And as much again for the overview.
        require_space(folder, 2 * sum(missing), "the export")
        _write(candidates, assigned, classes, folder)
    except OSError as error:
        raise explain_os_error(error, "write", error.filename or folder) from None
    return len(wanted)


def file_name(identity: str, split: Split) -> str:
    """Name of an exported picture."""
    return f"{split}-{identity}.png"


def _write(
    candidates: Candidates,
    assigned: Mapping[str, Split],
    classes: Sequence[ClassConfig],
    folder: Path,
) -> None:
    cells = []
    height = width = 0
    for identity, split in assigned.items():
        png = candidates.png(identity)
        _put(folder / file_name(identity, split), with_candidate_id(png, identity))
        rgb = open_rgb(png, f"candidate {identity}")
        height, width = rgb.shape[:2]
        cells.append(Cell(rgb, f"{split} {identity}"))
    _put(folder / CLASSES_FILE, classes_json(classes).encode())
    _put(folder / SPLIT_FILE, _split_csv(assigned).encode())
    contact = sheet(in_rows(cells, _SHEET_COLUMNS), _SHEET_SIDE)
    _put(folder / CONTACT_SHEET, encode_png(contact))
    counts: dict[str, int] = {}
    for split in assigned.values():
        counts[split] = counts.get(split, 0) + 1
    guide = _GUIDE.format(
        count=len(assigned),
        width=width,
        height=height,
        splits=", ".join(f"{number} {split}" for split, number in counts.items()),
        classes="\n".join(f"  {n}  {c.name}  {c.color}" for n, c in enumerate(classes)),
        digits=len(next(iter(assigned))),
    )
    _put(folder / GUIDE_FILE, guide.encode())


def _put(path: Path, data: bytes) -> None:
    """Whole or not at all: half a picture would be labelled, and then refused."""
    with writing(path, durable=False) as file:
        file.write(data)


def classes_json(classes: Sequence[ClassConfig]) -> str:
    """classes.json: a list of name and colour, index = value in masks."""
    entries = [{"name": entry.name, "color": entry.color} for entry in classes]
    return json.dumps(entries, indent=2) + "\n"


def _split_csv(assigned: Mapping[str, Split]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", "id", "split"])
    for identity, split in assigned.items():
        writer.writerow([file_name(identity, split), identity, split])
    return buffer.getvalue()
