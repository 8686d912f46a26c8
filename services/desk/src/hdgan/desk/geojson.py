"""Labels as GeoJSON, as QuPath writes it: one picture to a file, or ids in the features.

Whatever has no area or no class is a problem, not a guess.
"""

from __future__ import annotations

from typing import Any

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.geojson import GeoJsonError, count_vertices, document_features, feature_shapes
from hdgan.desk.drawing import Area, Drawing, LabelFileError, Polygon, Reading
from hdgan.desk.label_files import is_untouched
from hdgan.desk.png_text import CANDIDATE_ID


def is_geojson(document: Any) -> bool:
    """Whether a JSON document is meant as GeoJSON."""
    if isinstance(document, list):
        return all(isinstance(one, dict) and one.get("type") == "Feature" for one in document)
    return isinstance(document, dict) and document.get("type") in ("FeatureCollection", "Feature")


def read_geojson(document: Any) -> Reading:
    """What it labels. LabelFileError when it is no GeoJSON at all or too large."""
    try:
        features, around = document_features(document)
        common = candidate_id(_properties(around), "the file")
        result = Reading(untouched=is_untouched(around, features))
        by_candidate: dict[str | None, Drawing] = {}
        vertices = 0
        for number, feature in enumerate(features, start=1):
            where = f"feature {number}"
            try:
                shapes = list(feature_shapes(feature, number))
                candidate = candidate_id(_properties(feature), where) or common
                if common is not None and candidate != common:
                    raise ValueError(
                        f"{where}: is of candidate {candidate}, but its file is of {common}: it "
                        "was copied from another picture; delete it, or draw it again"
                    )
            except ValueError as error:
                result.wrong.append(str(error))
                continue
            vertices = count_vertices(shapes, vertices)
            by_candidate.setdefault(candidate, Drawing(candidate)).areas.extend(
                Area(shape.class_name, where, Polygon(shape.rings)) for shape in shapes
            )
    except (GeoJsonError, ValueError) as error:
        raise LabelFileError(str(error)) from None
    if not features:
        by_candidate[common] = Drawing(common)
    result.drawings = list(by_candidate.values())
    return result


def candidate_id(holder: Any, where: str) -> str | None:
    """The id that a JSON object, or QuPath's metadata in it, gives for a candidate.

    ValueError if that cannot be one.
    """
    if not isinstance(holder, dict):
        return None
    for one in (holder, holder.get("metadata")):
        if isinstance(one, dict) and CANDIDATE_KEYWORD in one:
            value = one[CANDIDATE_KEYWORD]
            if not isinstance(value, str) or not CANDIDATE_ID.fullmatch(value):
                raise ValueError(
                    f"{where}: {CANDIDATE_KEYWORD} is {str(value)[:80]!r}, no candidate id"
                )
            return value
    return None


def _properties(thing: Any) -> Any:
    return thing.get("properties") if isinstance(thing, dict) else None
