"""The GeoJSON of a picture before anybody has touched it: its id, and the shapes it has so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.run import ClassConfig
from hdgan.desk.outlines import Outline

UNTOUCHED = "hdgan-untouched"
"""Property of a file: the digest of its features as they were exported."""


def label_file(
    identity: str, picture: str, classes: Sequence[ClassConfig], parts: Sequence[Outline] = ()
) -> bytes:
    """GeoJSON of candidate `identity`, whose picture is the file `picture`.

    The id is a property of the file and of no shape: shapes are copied from one picture to another.
    """
    features = [_feature(part, classes[part.value]) for part in parts]
    document = {
        "type": "FeatureCollection",
        "properties": {
            CANDIDATE_KEYWORD: identity,
            "image": picture,
            "classes": [entry.name for entry in classes],
            UNTOUCHED: _digest(features),
        },
        "features": features,
    }
    return (json.dumps(document, separators=(",", ":")) + "\n").encode()


def is_untouched(around: Mapping[str, Any], features: Sequence[Any]) -> bool:
    """Whether the features of a file are those it was exported with.

    around  the document, as core.geojson.load_features gives it
    """
    properties = around.get("properties")
    recorded = properties.get(UNTOUCHED) if isinstance(properties, dict) else None
    return recorded is not None and recorded == _digest(features)


def _feature(part: Outline, entry: ClassConfig) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": part.rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": entry.name, "color": list(entry.rgb)},
        },
    }


def _digest(features: Sequence[Any]) -> str:
    text = json.dumps(features, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
