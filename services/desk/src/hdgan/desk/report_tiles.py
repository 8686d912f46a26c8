"""Slides and tiles of the report: what became of every slide, and how the folds are made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hdgan.core.artifact import Artifact
from hdgan.desk import report_figures
from hdgan.desk.candidates import read_json
from hdgan.desk.report_text import number

SLIDES_SHOWN = 200
"""Of each list: a page with thousands of rows is not read."""

SET_ASIDE = "setAside"

REJECTED = {
    "noTissue": "no tissue",
    "compartment": "too little of the compartments",
    "whitespace": "whitespace",
    "pen": "pen",
    "blurred": "blurred",
}


@dataclass(frozen=True)
class Slide:
    """One slide of the tiler's list."""

    name: str
    case: str
    size: str
    mpp: str
    accepted: int
    rejected: dict[str, int]
    sha256: str
    set_aside: bool
    reason: str
    """Why it was set aside; empty for the others."""


@dataclass(frozen=True)
class Fold:
    """What one fold has; stains and centres in words, empty where none is known."""

    number: int
    tiles: int
    cases: int
    stains: str
    centres: str


def slides(document: Mapping[str, Any]) -> list[Slide]:
    """The slides of slides.json, good and set aside."""
    found = []
    for entry in document.get("slides", []):
        tiles = entry.get("tiles", {})
        rejected = tiles.get("rejected", {})
        dimensions = entry.get("dimensions")
        mpp = entry.get("slideMpp")
        found.append(
            Slide(
                name=str(entry.get("name", "")),
                case=str(entry.get("case", "")),
                size=" x ".join(str(side) for side in dimensions) if dimensions else "–",
                mpp=number(mpp[0]) if mpp else "–",
                accepted=int(tiles.get("accepted", 0)),
                rejected={str(key): int(count) for key, count in rejected.items()},
                sha256=str(entry.get("sha256") or ""),
                set_aside=entry.get("status") == SET_ASIDE,
                reason=str(entry.get("reason") or ""),
            )
        )
    return found


def folds(document: Mapping[str, Any]) -> list[Fold]:
    """The folds of slides.json; none where it does not say how they are made up."""
    return [
        Fold(
            number=int(one["fold"]),
            tiles=int(one["tiles"]),
            cases=int(one["cases"]),
            stains=_known(one["tilesByStain"]),
            centres=_known(one["tilesByCentre"]),
        )
        for one in document.get("balance", [])
    ]


def _known(tiles: Mapping[str, int]) -> str:
    if set(tiles) <= {"unknown"}:
        return ""
    return ", ".join(f"{name} {count}" for name, count in tiles.items())


def in_words(rejected: Mapping[str, int]) -> str:
    """Places that gave no tile, by reason."""
    known = [f"{rejected[key]:,} {words}" for key, words in REJECTED.items() if rejected.get(key)]
    other = [f"{count:,} {key}" for key, count in rejected.items() if key not in REJECTED]
    return ", ".join(known + other) or "none"


@dataclass(frozen=True)
class RejectRow:
    """One reason for which places of the grid gave no tile."""

    reason: str
    places: int
    share: float
    """Of all places that were looked at."""


def reject_rows(found: Sequence[Slide]) -> list[RejectRow]:
    """Reasons over all slides, the most frequent first."""
    rejected = sum((Counter(one.rejected) for one in found), Counter[str]())
    places = sum(one.accepted for one in found) + sum(rejected.values())
    return [
        RejectRow(REJECTED.get(reason, reason), count, count / max(places, 1))
        for reason, count in sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    ]


def tiles_section(artifact: Artifact) -> dict[str, Any]:
    """What the page shows of the tiler's artifact."""
    document = read_json(artifact, "slides.json")
    found = slides(document)
    aside = [one for one in found if one.set_aside]
    used = [one for one in found if not one.set_aside]
    accepted = sum(one.accepted for one in found)
    cases = len({one.case for one in used if one.case})
    return {
        "count": len(found),
        "cases": cases,
        "slides": used[:SLIDES_SHOWN],
        "used": len(used),
        "aside": aside[:SLIDES_SHOWN],
        "aside_count": len(aside),
        "without_tiles": sum(1 for one in used if not one.accepted),
        "accepted": accepted,
        "rejects": reject_rows(found),
        "rejected": in_words(sum((Counter(one.rejected) for one in found), Counter[str]())),
        "holdout": str(document.get("holdout", "")),
        "folds": folds(document),
        "per_fold": list(document.get("tilesPerFold", [])),
        "contact": report_figures.file_picture(
            artifact,
            "contact.png",
            "sample of the accepted tiles",
            f"A sample of the {accepted:,} accepted tiles, by slide.",
        ),
        "reject_sheet": report_figures.file_picture(
            artifact,
            "rejects.png",
            "sample of the places that gave no tile",
            "A sample of the places that gave no tile, each with the reason.",
        ),
        "in_words": in_words,
    }
