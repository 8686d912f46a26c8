"""Masks written as other labelling tools write them, from the published forms of their files; none
of it is the code that reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]
Inside = npt.NDArray[np.bool_]


def runs(flat: Sequence[bool]) -> list[int]:
    """Lengths of the runs of outside, inside, outside and so on; the first may be 0."""
    found = [0] if len(flat) and flat[0] else []
    return found + [len(list(group)) for _, group in groupby(flat)]


def classes_in(mask: Mask) -> Iterator[tuple[int, Inside]]:
    """Each class of a mask and where it is."""
    for value in np.unique(mask):
        if value != 255:
            yield int(value), mask == value


def coco(picture: str, mask: Mask, names: Sequence[str], segmentation: Any) -> dict[str, Any]:
    """A COCO document; `segmentation` gives that of one class from where it is."""
    height, width = mask.shape
    annotations = [
        {
            "id": number,
            "image_id": 7,
            "category_id": value + 1,
            "segmentation": segmentation(inside),
            "bbox": [0, 0, width, height],
            "area": int(inside.sum()),
            "iscrowd": 0,
        }
        for number, (value, inside) in enumerate(classes_in(mask), start=1)
    ]
    return {
        "licenses": [],
        "info": {},
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(names)],
        "images": [{"id": 7, "file_name": picture, "width": width, "height": height}],
        "annotations": annotations,
    }


def coco_list(inside: Inside) -> dict[str, Any]:
    """Run lengths as a list: down the columns."""
    return {"size": list(inside.shape), "counts": runs(inside.T.ravel().tolist())}


def cvat(picture: str, mask: Mask, names: Sequence[str]) -> bytes:
    """A "CVAT for images 1.1" document with one mask for each class, in the box around it."""
    shapes = []
    for value, inside in classes_in(mask):
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        box = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        rle = ", ".join(str(run) for run in runs(box.ravel().tolist()))
        shapes.append(
            f'<mask label={quoteattr(names[value])} source="manual" occluded="0" rle="{rle}" '
            f'left="{columns[0]}" top="{rows[0]}" width="{box.shape[1]}" height="{box.shape[0]}" '
            f'z_order="0"><attribute name="a">b</attribute></mask>'
        )
    return cvat_file(picture, mask.shape, shapes)


def cvat_file(picture: str, shape: tuple[int, ...], shapes: Sequence[str]) -> bytes:
    """The document around the shapes of one picture."""
    height, width = shape
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        "<meta><task><id>1</id><labels><label><name>x</name></label></labels></task></meta>"
        f'<image id="0" name={quoteattr(picture)} width="{width}" height="{height}">'
        f"{''.join(shapes)}</image></annotations>"
    ).encode()


def label_studio(picture: str, results: Sequence[Any], **task: Any) -> list[Any]:
    """An export of one task with the work of one person."""
    annotation = {"id": 3, "completed_by": 1, "was_cancelled": False, "result": list(results)}
    data = {"image": f"/data/upload/1/0a1b2c3d-{picture}"}
    return [{"id": 1, "annotations": [annotation], "drafts": [], "data": data, **task}]


def brush(inside: Inside, name: str) -> dict[str, Any]:
    """A brush region, painted in some colour."""
    height, width = inside.shape
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[inside] = (200, 30, 30, 255)
    value = {"format": "rle", "rle": rle_pack(rgba.tobytes()), "brushlabels": [name]}
    return region(value, "brushlabels", width, height)


def region(value: Any, kind: str, width: int, height: int) -> dict[str, Any]:
    return {
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
        "id": "r1",
        "from_name": "brush",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
    }


def rle_pack(data: bytes, sizes: Sequence[int] = (3, 4, 8, 16)) -> list[int]:
    """Bytes in the form of `@thi.ng/rle-pack`: repeats of three and more packed, the rest as is."""
    bits = f"{len(data):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    groups = [(value, len(list(group))) for value, group in groupby(data)]
    literals: list[int] = []

    def head(repeated: bool, count: int) -> str:
        which = next(n for n, size in enumerate(sizes) if count <= 1 << size)
        return f"{int(repeated)}{which:02b}{count - 1:0{sizes[which]}b}"

    def flush() -> str:
        found = ""
        while literals:
            part = literals[: 1 << max(sizes)]
            del literals[: len(part)]
            found += head(False, len(part)) + "".join(f"{value:08b}" for value in part)
        return found

    parts = [bits]
    for value, count in groups:
        if count < 3:
            literals += [value] * count
            continue
        parts.append(flush())
        while count:
            taken = min(count, 1 << max(sizes))
            parts.append(head(True, taken) + f"{value:08b}")
            count -= taken
    parts.append(flush())
    bits = "".join(parts)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[n : n + 8], 2) for n in range(0, len(bits), 8)]


def as_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()
