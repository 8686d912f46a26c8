"""What IMAGES means: the images' names, as values of the chart."""

from __future__ import annotations

import re
from typing import Any

SERVICES = {
    "controller": "controller",
    "tiler": "tiler",
    "ganTrainer": "gan-trainer",
    "extractor": "extractor",
    "classifier": "classifier",
    "synthesizer": "synthesizer",
    "desk": "desk",
}
"""Keys of the chart's `images`, and the services' names in those of images."""
FORMS = (
    "IMAGES says where the images are: a pattern such as registry.example.org/hdgan-%s:0.1.0 "
    "(%s: controller, tiler, gan-trainer, ...), or short for that registry.example.org:0.1.0 or "
    "registry.example.org/hdgan:0.1.0"
)


class NotUnderstood(Exception):
    """IMAGES is no such thing."""


def template(text: str) -> str:
    """The pattern, with its %s, that IMAGES is short for. NotUnderstood."""
    text = text.strip()
    if not text or re.search(r"\s", text) or text.count("%") > 1:
        raise NotUnderstood(f"{text!r} is not understood. {FORMS}")
    if "%s" in text:
        if _tag(text) is None:
            raise NotUnderstood(f"{text!r} has no tag. {FORMS}")
        return text
    if "%" in text or _tag(text) is None:
        raise NotUnderstood(f"{text!r} has no tag. {FORMS}")
    place, _, tag = text.rpartition(":")
    place = place.removesuffix("/")
    if place.rpartition("/")[2] != "hdgan":
        place += "/hdgan"
    return f"{place}-%s:{tag}"


def image(pattern: str, service: str) -> str:
    """The image of a service: `gan-trainer`, for example."""
    return pattern.replace("%s", service)


def values(pattern: str) -> dict[str, Any]:
    """The chart's `images`. None is pulled that is on the node."""
    made = {}
    for key, service in SERVICES.items():
        place, _, tag = image(pattern, service).rpartition(":")
        registry, _, repository = place.rpartition("/")
        made[key] = {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}
        if registry:
            made[key]["registry"] = registry
    return made


def _tag(text: str) -> str | None:
    """What comes after the last colon, unless that is a registry's port and more."""
    _, colon, tag = text.rpartition(":")
    return tag if colon and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", tag) else None
