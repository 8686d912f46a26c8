"""What is known about a slide beside its pixels; its case (patient) is never guessed, because folds
are made of cases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from hdgan.core.errors import RequestError
from hdgan.core.run import SlidesConfig
from hdgan.core.slide_facts import SlideFacts as Told

SHOWN = 10


@dataclass(frozen=True)
class SlideFacts:
    """Facts of a slide; all but the case may be unknown (None)."""

    case: str
    stain: str | None = None
    centre: str | None = None
    diagnosis: str | None = None


def slide_facts(
    names: Iterable[str], config: SlidesConfig, told: Mapping[str, Told] | None = None
) -> dict[str, SlideFacts]:
    """Facts of every slide, by name. RequestError (64) if one has no case, saying what to set.

    told: rows of `slides.metadata`; a case there goes before the file name's.
    """
    facts: dict[str, SlideFacts] = {}
    unknown: list[str] = []
    for name in names:
        row = (told or {}).get(name) or Told()
        case = row.case or _case_in(name, config)
        if case is None:
            unknown.append(name)
        else:
            facts[name] = SlideFacts(case, row.stain, row.centre, row.diagnosis)
    if unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        tried = [
            f"slides.metadata {config.metadata} has none"
            if config.metadata
            else "slides.metadata is not set",
            f"slides.casePattern {config.case_pattern!r} does not match"
            if config.case_pattern
            else "slides.casePattern is not set",
        ]
        raise RequestError(
            f"no case (patient) is known for {len(unknown)} of the slides: "
            f"{', '.join(unknown[:SHOWN])}{more}. {' and '.join(tried)}: give a table with the "
            "columns slide and case, or a regular expression with a group named case, such as "
            "^(?P<case>[^_]+), or set slides.assumeSlideIsCase: true if every slide is of another "
            "patient"
        )
    return facts


def _case_in(name: str, config: SlidesConfig) -> str | None:
    if config.case_pattern:
        match = re.search(config.case_pattern, PurePosixPath(name).name)
        if match and match["case"]:
            return str(match["case"])
    return str(PurePosixPath(name).with_suffix("")) if config.assume_slide_is_case else None
