"""Labels as COCO's JSON for instances: many pictures in one file, areas as polygons or run lengths.

Boxes and crowds do not say which pixels are meant: they are problems, not guesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hdgan.desk.drawing import (
    MAX_VERTICES,
    Area,
    Drawing,
    Form,
    LabelFileError,
    Polygon,
    Reading,
    ring_of,
)
from hdgan.desk.geojson import candidate_id
from hdgan.desk.run_lengths import RunLengths, listed_counts, packed_counts

MAX_ENTRIES = 200_000
MAX_SIDE = 1 << 20


def is_coco(document: Any) -> bool:
    """Whether a JSON document is meant as COCO."""
    return isinstance(document, dict) and {"images", "annotations"} <= document.keys()


def read_coco(document: dict[str, Any]) -> Reading:
    """What it labels. LabelFileError when its parts are not what COCO has, or too many."""
    result = Reading()
    images = _entries(document, "images")
    annotations = _entries(document, "annotations")
    names: dict[int, str] = {}
    for number, category in enumerate(_entries(document, "categories"), start=1):
        name = category.get("name")
        if not isinstance(name, str) or not name:
            raise LabelFileError(f"category {number}: has no name: export the file again")
        if names.setdefault(_id(category, f"category {number}"), name) != name:
            raise LabelFileError(f"category {number}: has the id of another: export it again")
    drawings: dict[int, Drawing] = {}
    for number, image in enumerate(images, start=1):
        where = f"image {number}"
        try:
            picture = image.get("file_name")
            drawing = Drawing(
                candidate=candidate_id(image, where),
                picture=picture if isinstance(picture, str) else "",
                size=(_side(image, "width", where), _side(image, "height", where)),
            )
        except ValueError as error:
            raise LabelFileError(str(error)) from None
        if drawings.setdefault(_id(image, where), drawing) is not drawing:
            raise LabelFileError(f"{where}: has the id of another: export the file again")
    vertices = 0
    for number, annotation in enumerate(annotations, start=1):
        where = f"annotation {number}"
        drawing_of = drawings.get(_id(annotation, where, "image_id"))
        category_id = _id(annotation, where, "category_id")
        try:
            if drawing_of is None:
                raise ValueError(
                    f"{where}: is of image {annotation['image_id']}, which is not in"
                    " the file: export it again"
                )
            if category_id not in names:
                raise ValueError(
                    f"{where}: has category {category_id}, which is not in the file:"
                    " export it with its categories"
                )
            forms = list(_forms(annotation, where))
        except ValueError as error:
            result.wrong.append(str(error))
            continue
        vertices += sum(len(form.rings[0]) for form in forms if isinstance(form, Polygon))
        if vertices > MAX_VERTICES:
            raise LabelFileError(f"has more than {MAX_VERTICES} vertices: simplify its shapes")
        drawing_of.areas.extend(Area(names[category_id], where, form) for form in forms)
    result.drawings = list(drawings.values())
    return result


def _forms(annotation: dict[str, Any], where: str) -> Iterator[Form]:
    """What one annotation covers. ValueError says what is wrong."""
    if annotation.get("iscrowd") not in (None, 0):
        raise ValueError(
            f"{where}: is marked iscrowd, which says that a group of things is somewhere in it and "
            'not that these pixels are (CVAT marks brushed masks so: export "CVAT for images '
            '1.1"); set iscrowd to 0 if these very pixels are meant'
        )
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        yield _run_lengths(segmentation, where)
        return
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(
            f"{where}: has a box only, which does not say which pixels are meant; draw a polygon "
            "or a mask, or delete it"
        )
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError(f"{where}: a polygon is not a list of x, y, x, y and so on")
        yield Polygon((ring_of(zip(polygon[::2], polygon[1::2], strict=True), where),))


def _run_lengths(segmentation: dict[str, Any], where: str) -> RunLengths:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError(f"{where}: its run lengths have no size: export it again")
    height, width = (_whole(value, f"{where}: its size") for value in size)
    try:
        if isinstance(counts, str):
            found = packed_counts(counts)
        elif isinstance(counts, list):
            found = listed_counts(counts)
        else:
            raise ValueError("its segmentation has no counts: export it again")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return RunLengths(found, height, width, columns_first=True, whole=True)


def _entries(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise LabelFileError(f"has no list of {name}, which COCO has: export it again")
    if len(found) > MAX_ENTRIES:
        raise LabelFileError(f"has {len(found)} {name}, at most {MAX_ENTRIES} are read")
    return found


def _id(entry: dict[str, Any], where: str, name: str = "id") -> int:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise LabelFileError(f"{where}: its {name} is {str(value)[:40]!r}, which is no number")
    return value


def _side(image: dict[str, Any], name: str, where: str) -> int:
    return _whole(image.get(name), f"{where}: its {name}")


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_SIDE:
        raise ValueError(f"{what} is {str(value)[:40]!r}, which is no number of pixels")
    return value
