"""Labels as Label Studio exports them ("JSON"): tasks with people's brush strokes and polygons.

Of several people's work on one picture somebody has to choose; skipped work is left out.
"""

from __future__ import annotations

import re
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
from hdgan.desk.messages import shown_name
from hdgan.desk.rle_pack import Painted

MAX_TASKS = 100_000
MAX_SIDE = 1 << 20

_WORK = ("annotations", "completions")
"""Where a task keeps what people did; "completions" before version 1.0."""
_AREALESS = {
    "rectanglelabels",
    "ellipselabels",
    "keypointlabels",
    "rectangle",
    "ellipse",
    "keypoint",
    "bitmask",
    "bitmasklabels",
    "vectorlabels",
    "vector",
}
_LONG_HEX = re.compile(r"[0-9a-f]{16,}")


def is_label_studio(document: Any) -> bool:
    """Whether a JSON document is meant as an export of Label Studio, of any kind."""
    tasks = document if isinstance(document, list) else [document]
    return bool(tasks) and all(
        isinstance(task, dict)
        and any(key in task for key in (*_WORK, "annotation_id", "annotator"))
        for task in tasks
    )


def read_label_studio(document: Any) -> Reading:
    """What it labels. LabelFileError when it is another kind of export, or too large."""
    tasks = document if isinstance(document, list) else [document]
    if len(tasks) > MAX_TASKS:
        raise LabelFileError(f"has {len(tasks)} tasks, at most {MAX_TASKS} are read")
    result = Reading()
    vertices = 0
    for number, task in enumerate(tasks, start=1):
        if not isinstance(task.get("data"), dict) or not any(key in task for key in _WORK):
            raise LabelFileError(
                f'task {number} is not as Label Studio\'s export "JSON" has it (JSON-MIN lacks '
                'what is needed): export "JSON"'
            )
        where = f"task {number}"
        picture = _picture(task)
        if picture:
            where += f" ({shown_name(picture)})"
        try:
            drawing = Drawing(candidate=candidate_id(task["data"], where), picture=picture)
            regions = _regions(task, where, result)
        except ValueError as error:
            result.wrong.append(str(error))
            continue
        for place, region in enumerate(regions, start=1):
            try:
                area = _area(region, f"{where}, region {place}", drawing)
            except ValueError as error:
                result.wrong.append(str(error))
                continue
            if area is None:
                continue
            drawing.areas.append(area)
            if isinstance(area.form, Polygon):
                vertices += len(area.form.rings[0])
                if vertices > MAX_VERTICES:
                    raise LabelFileError(f"has more than {MAX_VERTICES} vertices: simplify shapes")
        result.drawings.append(drawing)
    return result


def _picture(task: dict[str, Any]) -> str:
    """The name or address of the picture: of the texts about it the one that holds an id."""
    texts = [
        value
        for value in (*task["data"].values(), task.get("file_upload"))
        if isinstance(value, str)
    ]
    return next((text for text in texts if _LONG_HEX.search(text)), texts[0] if texts else "")


def _regions(task: dict[str, Any], where: str, result: Reading) -> list[Any]:
    """What the one person who has labelled a task has drawn. ValueError if there are more."""
    if task.get("drafts"):
        result.notices.append(f"{where}: has a draft that nobody has submitted; it is left out")
    works = next(task[key] for key in _WORK if key in task)
    if not isinstance(works, list) or not all(isinstance(work, dict) for work in works):
        raise ValueError(f"{where}: its annotations are no list: export it again")
    done = []
    for work in works:
        if work.get("was_cancelled") or work.get("skipped"):
            continue
        drawn = work.get("result")
        if not isinstance(drawn, list):
            raise ValueError(f"{where}: an annotation has no list of results: export it again")
        if drawn:
            done.append(drawn)
    if len(done) > 1:
        raise ValueError(
            f"{where}: has the work of {len(done)} people; keep one of them in Label Studio and "
            "export again"
        )
    return done[0] if done else []


def _area(region: Any, where: str, drawing: Drawing) -> Area | None:
    """What a region covers; None for what is no region. ValueError says what is wrong."""
    value = region.get("value") if isinstance(region, dict) else None
    if not isinstance(value, dict):
        if isinstance(region, dict) and region.get("type") == "relation":
            return None
        raise ValueError(f"{where}: has no value: export it again")
    kind = region.get("type")
    if "rle" not in value and "points" not in value:
        if isinstance(kind, str) and kind in _AREALESS:
            raise ValueError(
                f"{where}: is of kind {kind}, which is not read; use the brush or polygons, or "
                "delete it"
            )
        return None  # an answer about the picture: choices, a text, a rating
    size = [region.get(name) for name in ("original_width", "original_height")]
    for side in size:
        if isinstance(side, bool) or not isinstance(side, int) or not 0 < side <= MAX_SIDE:
            raise ValueError(f"{where}: does not say how large the picture was: export it again")
    width, height = size
    if drawing.size not in (None, (width, height)):
        raise ValueError(f"{where}: is on a picture of another size than the region before")
    drawing.size = (width, height)
    if region.get("image_rotation"):
        raise ValueError(f"{where}: was drawn on the picture turned round: turn it back")
    form: Form
    if "rle" in value:
        form = _painted(value["rle"], where, height, width)
    else:
        form = _polygon(value, where, height, width)
    return Area(_class_name(value, where), where, form)


def _class_name(value: dict[str, Any], where: str) -> str:
    for key in ("brushlabels", "polygonlabels", "labels"):
        names = value.get(key)
        if isinstance(names, list) and names:
            if len(names) > 1:
                raise ValueError(f"{where}: has {len(names)} labels; keep one of them")
            if isinstance(names[0], str):
                return names[0]
    raise ValueError(f"{where}: has no label; set one in Label Studio, or delete it")


def _painted(packed: Any, where: str, height: int, width: int) -> Painted:
    try:
        if not isinstance(packed, list):
            raise TypeError
        return Painted(bytes(packed), height, width)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: its brush strokes are no list of bytes") from None


def _polygon(value: dict[str, Any], where: str, height: int, width: int) -> Polygon:
    points = value["points"]
    if value.get("closed") is False:
        raise ValueError(f"{where}: its polygon is not closed; close it, or delete it")
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise ValueError(f"{where}: its points are no list of pairs")
    # Percent of the picture's sides, of which 100 is the far edge of the last pixel.
    return Polygon((ring_of(points, where) * (width / 100, height / 100),))
