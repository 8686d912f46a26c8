"""How a label file is known: by what is in it, whatever its name ends in."""

from __future__ import annotations

from hdgan.core.errors import RequestError
from hdgan.core.geojson import MAX_BYTES as MAX_JSON_BYTES
from hdgan.core.geojson import MAX_VALUES as MAX_JSON_VALUES
from hdgan.core.json_documents import JsonError, parse_json
from hdgan.desk import mask_files
from hdgan.desk.coco import is_coco, read_coco
from hdgan.desk.cvat import read_cvat
from hdgan.desk.drawing import Drawing, LabelFileError, Reading
from hdgan.desk.geojson import is_geojson, read_geojson
from hdgan.desk.label_studio import is_label_studio, read_label_studio
from hdgan.desk.png_chunks import SIGNATURE
from hdgan.desk.png_text import read_candidate_id

MAX_BYTES = max(mask_files.MAX_BYTES, MAX_JSON_BYTES)
READ = "PNG masks, GeoJSON (QuPath), COCO, CVAT for images 1.1 and Label Studio's JSON"

_OTHERS = {
    b"PK\x03\x04": "is a ZIP archive: unpack it and give the folder",
    b"\x1f\x8b": "is compressed (gzip): unpack it first",
    b"\xff\xd8\xff": "is a JPEG, which changes colours: save the mask as PNG",
    b"II*\0": "is a TIFF: save the mask as PNG",
    b"MM\0*": "is a TIFF: save the mask as PNG",
}


def read_labels(data: bytes) -> Reading:
    """What a file labels. LabelFileError when it cannot be used as a whole, or is nothing we
    read."""
    if data.startswith(SIGNATURE):
        try:
            return Reading([Drawing(candidate=read_candidate_id(data), png=data)])
        except RequestError as error:
            raise LabelFileError(str(error)) from None
    for beginning, reason in _OTHERS.items():
        if data.startswith(beginning):
            raise LabelFileError(reason)
    text = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return read_cvat(data)
    if not text.startswith((b"{", b"[")):
        raise LabelFileError(f"is none of what is read: {READ}")
    try:
        document = parse_json(data, max_bytes=MAX_JSON_BYTES, max_values=MAX_JSON_VALUES)
    except JsonError as error:
        raise LabelFileError(f"is not JSON ({error}): export it again") from None
    if is_geojson(document):
        return read_geojson(document)
    if is_coco(document):
        return read_coco(document)
    if is_label_studio(document):
        return read_label_studio(document)
    raise LabelFileError(f"is JSON, but none of what is read: {READ}")
