"""Which patient (case) a slide belongs to; folds are made of cases, so this is never guessed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from hdgan.core.errors import RequestError
from hdgan.core.run import SlidesConfig

SHOWN = 10


@dataclass(frozen=True)
class SlideFacts:
    """What is known about a slide beside its pixels; stain and centre may be unknown (None)."""

    case: str
    stain: str | None = None
    centre: str | None = None


def slide_facts(names: Iterable[str], config: SlidesConfig) -> dict[str, SlideFacts]:
    """Case of every slide, by name. RequestError (64) if any has none, saying what to set."""
    facts: dict[str, SlideFacts] = {}
    unknown: list[str] = []
    for name in names:
        case = _case_of(name, config)
        if case is None:
            unknown.append(name)
        else:
            facts[name] = SlideFacts(case)
    if unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        why = (
            f"slides.casePattern {config.case_pattern!r} does not match"
            if config.case_pattern
            else "slides.casePattern is not set"
        )
        raise RequestError(
            f"no case (patient) is known for {len(unknown)} of the slides: "
            f"{', '.join(unknown[:SHOWN])}{more}. {why}: set a regular expression with a group "
            "named case, such as ^(?P<case>[^_]+), or slides.assumeSlideIsCase: true if every "
            "slide is of another patient"
        )
    return facts


def _case_of(name: str, config: SlidesConfig) -> str | None:
    if config.case_pattern:
        match = re.search(config.case_pattern, PurePosixPath(name).name)
        if match and match["case"]:
            return str(match["case"])
    return str(PurePosixPath(name).with_suffix("")) if config.assume_slide_is_case else None
