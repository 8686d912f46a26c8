"""The documents of a QuPath project, as its public sources (0.4 to 0.6) read them."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from hdgan.core.errors import RequestError
from hdgan.core.run import ClassConfig
from hdgan.desk.qupath_project import (
    SCRIPTS,
    ProjectImage,
    classes_file,
    packed_rgb,
    project_file,
    script,
)

A, B, C = (ProjectImage(letter * 32, "train", 64, 48) for letter in "abc")
FOLDER = "file:///data/to%20label"


def project(images: list[ProjectImage], existing: bytes | None = None, now: int = 5) -> Any:
    return json.loads(project_file(images, 0.25, FOLDER, now, existing))


def test_a_project_says_everything_qupath_asks_for() -> None:
    document = project([A, B], now=1_700_000_000_000)
    assert document["version"] == "0.4.4"
    assert document["createTimestamp"] == document["modifyTimestamp"] == 1_700_000_000_000
    assert document["uri"] == "file:///data/to%20label/project.qpproj"
    assert document["lastID"] == 2
    first, second = document["images"]
    assert (first["entryID"], second["entryID"]) == (1, 2)
    assert first["imageName"] == f"train-{'a' * 32}.png"
    assert first["metadata"] == {"split": "train", "hdgan-candidate": "a" * 32}
    assert first["randomizedName"] != second["randomizedName"]
    builder = first["serverBuilder"]
    assert builder["builderType"] == "uri"
    assert builder["uri"] == f"file:///data/to%20label/train-{'a' * 32}.png"
    assert builder["args"] == []
    metadata = builder["metadata"]
    # What a server compares with its own, and refuses the image where it differs.
    assert (metadata["pixelType"], metadata["sizeZ"], metadata["sizeT"]) == ("UINT8", 1, 1)
    assert [channel["color"] for channel in metadata["channels"]] == [-65536, -16711936, -16776961]
    # What would be 0 without, and divided by.
    assert (metadata["preferredTileWidth"], metadata["preferredTileHeight"]) == (64, 48)
    assert metadata["levels"] == [{"downsample": 1.0, "width": 64, "height": 48}]
    calibration = metadata["pixelCalibration"]
    assert calibration["pixelHeight"] == {"value": 0.25, "unit": "\u00b5m"}


def test_colours_are_javas_signed_ints() -> None:
    for rgb in ((0, 0, 0), (255, 255, 255), (90, 40, 140)):
        assert struct.pack(">i", packed_rgb(rgb)) == bytes([255, *rgb])


def test_what_qupath_has_written_stays_and_what_is_missing_is_added() -> None:
    document = project([A])
    document["version"] = "0.6.0"
    document["images"][0]["serverBuilder"]["providerClassName"] = "a.reader"
    document["images"][0]["imageName"] = "renamed by a person"
    document["images"].append({"entryID": 9, "imageName": "their own"})
    document["lastID"] = 12
    existing = json.dumps(document).encode()
    assert project_file([A], 0.25, FOLDER, 6, existing) == existing
    after = project([A, C], existing, now=6)
    assert after["images"][:2] == document["images"]
    assert after["images"][2]["metadata"]["hdgan-candidate"] == C.identity
    assert after["images"][2]["entryID"] == after["lastID"] == 13
    assert (after["createTimestamp"], after["modifyTimestamp"]) == (5, 6)
    assert after["version"] == "0.6.0"


@pytest.mark.parametrize(
    "broken", [b"", b"[]", b"{}", b'{"images": 3}', b'{"images": [{}]}', b'{"images": [3]}']
)
def test_what_is_no_project_is_refused(broken: bytes) -> None:
    with pytest.raises(RequestError, match="is no QuPath project"):
        project_file([A], 0.25, FOLDER, 5, broken)


def test_classes_are_those_of_the_run_then_those_a_person_has_added() -> None:
    classes = [ClassConfig(name="glass", color="#ffffff"), ClassConfig(name="fat", color="#000000")]
    first = classes_file(classes)
    assert json.loads(first) == {
        "pathClasses": [{"name": "glass", "color": -1}, {"name": "fat", "color": -(1 << 24)}]
    }
    assert classes_file(classes, first) == first
    theirs = [{"name": "Ignore*", "color": -4934476}, {"name": "fat", "color": 7}]
    after = json.loads(classes_file(classes, json.dumps({"pathClasses": theirs}).encode()))
    assert after["pathClasses"] == [*json.loads(first)["pathClasses"], theirs[0]]
    for broken in (b"", b"[]", b'{"pathClasses": [4]}'):
        assert classes_file(classes, broken) == first


def test_the_scripts_use_what_the_project_and_the_import_agree_on() -> None:
    for name in SCRIPTS:
        text = script(name).decode()
        for word in ("'hdgan-candidate'", "'split'", "'labels'", "'.geojson'"):
            assert word in text
