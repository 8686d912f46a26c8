"""Labels as CVAT exports them: "CVAT for images 1.1", one XML file with many pictures.

A shape that was put on a layer of its own (z_order) lies on top, as the person saw it; within a
layer the class decides, as in every other format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, XMLParser

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
from hdgan.desk.messages import shown_name
from hdgan.desk.run_lengths import RunLengths, listed_counts

MAX_BYTES = 64 << 20
MAX_DEPTH = 32
MAX_ELEMENTS = 1_000_000
MAX_ATTRIBUTES = 3_000_000
"""Each name takes some hundred bytes while it is read."""
MAX_RUNS = 20_000_000
"""Run lengths of one file."""

_AREALESS = {
    "box": "a box",
    "ellipse": "an ellipse",
    "polyline": "a line",
    "points": "points",
    "cuboid": "a cuboid",
    "skeleton": "a skeleton",
}
_WHOLE = re.compile(r"-?[0-9]{1,9}")


def read_cvat(data: bytes) -> Reading:
    """What it labels. LabelFileError when it is no such export, or too large."""
    if len(data) > MAX_BYTES:
        raise LabelFileError(f"has {len(data)} bytes, at most {MAX_BYTES} are read")
    if data.count(b"=") > MAX_ATTRIBUTES:
        raise LabelFileError(f"has more than {MAX_ATTRIBUTES} attributes: export fewer pictures")
    result = Reading()
    try:
        # Without entities or document types: neither is in such a file. No tree is built, and
        # nothing is fed in small pieces: older versions of expat begin an attribute anew with each.
        parser = XMLParser(target=_Reader(result), forbid_dtd=True)
        parser.feed(data)
        parser.close()
    except DefusedXmlException:
        raise LabelFileError(
            "declares entities or a document type, which no export has: export it from CVAT again"
        ) from None
    except (ParseError, ValueError, LookupError) as error:
        raise LabelFileError(f"is not XML ({str(error)[:200]}): export it again") from None
    return result


class _Reader:
    """Takes the elements in the order of the file, as the parser comes to them."""

    def __init__(self, result: Reading) -> None:
        self.result = result
        self.image: Drawing | None = None
        self.shapes = 0
        self.vertices = 0
        self.runs = 0
        self.depth = 0
        self.elements = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        if self.depth > MAX_DEPTH or self.elements > MAX_ELEMENTS:
            raise LabelFileError("is nested too deeply or has too many elements")
        self._read(self.depth, tag, attributes)

    def end(self, tag: str) -> None:
        self.depth -= 1

    def data(self, text: str) -> None:
        """Texts say nothing that is read; without this the parser would come line by line."""

    def _read(self, depth: int, tag: str, attributes: Mapping[str, str]) -> None:
        if depth == 1 and tag != "annotations":
            raise LabelFileError(f'is XML with <{tag[:40]}>, not a "CVAT for images 1.1" export')
        if depth == 2:
            self.image = None
            if tag == "track":
                raise LabelFileError(
                    'is a "CVAT for video" export: export "CVAT for images 1.1" instead'
                )
            if tag == "image":
                self.image = _image(attributes)
                self.shapes = 0
                self.result.drawings.append(self.image)
        elif depth == 3 and self.image is not None and tag in ("polygon", "mask", *_AREALESS):
            self.shapes += 1
            where = f"picture {shown_name(self.image.picture or '')}, {tag} {self.shapes}"
            try:
                self.image.areas.append(self._area(tag, attributes, where))
            except ValueError as error:
                self.result.wrong.append(str(error))

    def _area(self, tag: str, attributes: Mapping[str, str], where: str) -> Area:
        name = attributes.get("label")
        if not name:
            raise ValueError(f"{where}: has no label; set one in CVAT, or delete it")
        if tag in _AREALESS:
            raise ValueError(
                f"{where}: is {_AREALESS[tag]}, which does not say which pixels are meant; draw a "
                "polygon or a mask, or delete it"
            )
        layer = _whole(attributes.get("z_order", "0"), f"{where}: its z_order")
        form = (
            self._polygon(attributes, where) if tag == "polygon" else self._mask(attributes, where)
        )
        return Area(name, where, form, layer)

    def _polygon(self, attributes: Mapping[str, str], where: str) -> Form:
        text = attributes.get("points", "")
        self.vertices += text.count(";") + 1
        if self.vertices > MAX_VERTICES:
            raise LabelFileError(f"has more than {MAX_VERTICES} vertices: simplify its shapes")
        points = []
        for pair in text.split(";"):
            parts = pair.split(",")
            if len(parts) != 2:
                raise ValueError(f"{where}: the point {pair[:40]!r} is not x,y")
            points.append([_number(part, where) for part in parts])
        return Polygon((ring_of(points, where),))

    def _mask(self, attributes: Mapping[str, str], where: str) -> Form:
        text = attributes.get("rle", "")
        self.runs += text.count(",") + 1
        if self.runs > MAX_RUNS:
            raise LabelFileError(f"has more than {MAX_RUNS} run lengths: export fewer pictures")
        counts = [_whole(part.strip(), f"{where}: a run length") for part in text.split(",")]
        left, top, width, height = (
            _whole(attributes.get(side, ""), f"{where}: its {side}")
            for side in ("left", "top", "width", "height")
        )
        if width < 1 or height < 1:
            raise ValueError(f"{where}: has {width} x {height} pixels; delete it")
        try:
            return RunLengths(listed_counts(counts), height, width, left, top)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _image(attributes: Mapping[str, str]) -> Drawing:
    picture = attributes.get("name", "")
    try:
        width, height = (
            _whole(attributes.get(side, ""), f"picture {shown_name(picture)}: its {side}")
            for side in ("width", "height")
        )
    except ValueError as error:
        raise LabelFileError(f"{error}: export it again") from None
    return Drawing(picture=picture[:1000], size=(width, height))


def _whole(text: str, what: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{what} is {text[:40]!r}, which is no whole number")
    return int(text)


def _number(text: str, where: str) -> Any:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: a coordinate is {text[:40]!r}, not a number") from None
