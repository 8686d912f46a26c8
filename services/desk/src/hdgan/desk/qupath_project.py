"""A QuPath project of exported pictures: the documents of its folder, as QuPath 0.4 to 0.6 read
them.

QuPath writes into these files, too: what it has put there stays when a project is brought up to
date. It knows a picture by an absolute URI; in a folder that was moved it finds them again beside
the project, from the `uri` the project had, and asks before it changes them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.errors import RequestError
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.core.run import ClassConfig
from hdgan.desk.export_layout import PROJECT_FILE, picture_name
from hdgan.desk.splits import Split

CLASSES_PLACE = "classifiers/classes.json"
SCRIPTS = ("start-here.groovy", "export-labels.groovy")

_VERSION = "0.4.4"
"""What the oldest QuPath that is meant would have written; newer ones read it."""
_MICROMETRE = "\u00b5m"
_MAX_TILE = 1024
_RGB_CHANNELS = (("Red", (255, 0, 0)), ("Green", (0, 255, 0)), ("Blue", (0, 0, 255)))


@dataclass(frozen=True)
class ProjectImage:
    """A picture of the project."""

    identity: str
    split: Split
    width: int
    height: int


def packed_rgb(rgb: tuple[int, int, int]) -> int:
    """A colour as Java packs it into a signed int of 32 bits: opaque alpha, red, green, blue."""
    red, green, blue = rgb
    return (0xFF << 24 | red << 16 | green << 8 | blue) - (1 << 32)


def project_file(
    images: Sequence[ProjectImage],
    mpp: float,
    folder_uri: str,
    now_ms: int,
    existing: bytes | None = None,
) -> bytes:
    """project.qpproj, with `images` that `existing` does not have yet appended to it.

    mpp         size of a pixel in micrometres
    folder_uri  file: URI of the folder, without a slash at its end
    now_ms      milliseconds since 1970
    existing    the file as it is; it comes back unchanged if nothing is missing
    Raises RequestError (without a file name) if that is no project.
    """
    if existing is None:
        document: dict[str, Any] = {
            "version": _VERSION,
            "createTimestamp": now_ms,
            "modifyTimestamp": now_ms,
            "uri": f"{folder_uri}/{PROJECT_FILE}",
            "lastID": 0,
            "images": [],
        }
    else:
        document = _read_project(existing)
    entries = document["images"]
    known = {_candidate(entry) for entry in entries}
    missing = [image for image in images if image.identity not in known]
    if existing is not None and not missing:
        return existing
    last = max([document.get("lastID", 0), *(entry["entryID"] for entry in entries)])
    for number, image in enumerate(missing, start=last + 1):
        entries.append(_entry(image, number, mpp, folder_uri))
    document["lastID"] = last + len(missing)
    document["modifyTimestamp"] = now_ms
    return _json(document)


def classes_file(classes: Sequence[ClassConfig], existing: bytes | None = None) -> bytes:
    """classifiers/classes.json: the classes in their order, then those a person has added."""
    entries = [{"name": entry.name, "color": packed_rgb(entry.rgb)} for entry in classes]
    if existing is None:
        return _json({"pathClasses": entries})
    try:
        before = parse_object(existing)["pathClasses"]
        names = {entry.name for entry in classes}
        added = [entry for entry in before if entry["name"] not in names]
    except (JsonError, KeyError, TypeError):
        return _json({"pathClasses": entries})
    return existing if before == entries + added else _json({"pathClasses": entries + added})


def script(name: str) -> bytes:
    """One of SCRIPTS."""
    return resources.files("hdgan.desk").joinpath(f"templates/qupath/{name}").read_bytes()


def _read_project(existing: bytes) -> dict[str, Any]:
    try:
        document = parse_object(existing)
        well = isinstance(document["images"], list) and all(
            isinstance(entry, dict) and isinstance(entry["entryID"], int)
            for entry in document["images"]
        )
        if not well or not isinstance(document.get("lastID", 0), int):
            raise ValueError("its images are not what they should be")
    except (JsonError, KeyError, ValueError) as error:
        raise RequestError(
            f"is no QuPath project ({error}): move it away, or export to another folder"
        ) from None
    return document


def _candidate(entry: Mapping[str, Any]) -> str | None:
    metadata = entry.get("metadata")
    value = metadata.get(CANDIDATE_KEYWORD) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else None


def _entry(image: ProjectImage, number: int, mpp: float, folder_uri: str) -> dict[str, Any]:
    name = picture_name(image.identity, image.split)
    size = {"value": mpp, "unit": _MICROMETRE}
    return {
        "serverBuilder": {
            "builderType": "uri",
            # No provider is named: QuPath takes the best it has, which differs between systems;
            # all of them decode a PNG to the same pixels.
            "uri": f"{folder_uri}/{name}",
            "args": [],
            "metadata": {
                "name": name,
                "width": image.width,
                "height": image.height,
                "sizeZ": 1,
                "sizeT": 1,
                "channelType": "DEFAULT",
                "isRGB": True,
                "pixelType": "UINT8",
                "levels": [{"downsample": 1.0, "width": image.width, "height": image.height}],
                "channels": [
                    {"name": channel, "color": packed_rgb(rgb)} for channel, rgb in _RGB_CHANNELS
                ],
                "pixelCalibration": {
                    "pixelWidth": size,
                    "pixelHeight": size,
                    "zSpacing": {"value": 1.0, "unit": "z-slice"},
                    "timeUnit": "SECONDS",
                    "timepoints": [],
                },
                "preferredTileWidth": min(image.width, _MAX_TILE),
                "preferredTileHeight": min(image.height, _MAX_TILE),
            },
        },
        "entryID": number,
        # What QuPath shows instead of the name where names are masked.
        "randomizedName": str(uuid.uuid5(uuid.NAMESPACE_OID, image.identity)),
        "imageName": name,
        "metadata": {"split": image.split, CANDIDATE_KEYWORD: image.identity},
    }


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
