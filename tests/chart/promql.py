"""What a PromQL expression asks for: enough of its grammar to compare it with the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from hdgan.core.telemetry.catalogue import BY_SERIES

OF_TARGETS: Final = frozenset(
    {"job", "instance", "namespace", "pod", "hdgan_io_run", "hdgan_io_stage", "le"}
)
"""Labels that Prometheus adds, and the one of buckets."""
OF_ALERTS: Final = frozenset({"alertname", "alertstate", "severity"})
SELECTOR: Final = re.compile(r"\b(hdgan_\w+|up|ALERTS)\s*(?:\{([^}]*)\})?(?!\w)")
MATCHER: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"((?:[^\"\\]|\\.)*)\"")
GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
LEGEND: Final = re.compile(r"\{\{\s*\$?(?:labels\.)?(\w+)\s*\}\}")


def selectors(expr: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Series and matchers of each selector. Names in strings and label lists are none."""
    bare = GROUPING.sub("()", expr)
    for found in SELECTOR.finditer(bare):
        inside_string = bare[: found.start()].count('"') % 2 == 1
        if not inside_string and found[1] not in OF_TARGETS:
            yield found[1], dict(MATCHER.findall(found[2] or ""))


def problems(expr: str, legend: str = "") -> list[str]:
    """Series that are not in the catalogue, and labels that they do not have."""
    wrong, known = [], set(OF_TARGETS)
    for name, matchers in selectors(expr):
        if name == "up":
            labels = set(OF_TARGETS)
        elif name == "ALERTS":
            labels = set(OF_ALERTS).union(*(one.labels for one in BY_SERIES.values()))
        elif name in BY_SERIES:
            labels = set(OF_TARGETS).union(BY_SERIES[name].labels)
        else:
            wrong.append(f"there is no series {name}")
            continue
        known |= labels
        wrong += [f"{name} has no label {label}" for label in matchers if label not in labels]
    used = [label.strip() for found in GROUPING.finditer(expr) for label in found[1].split(",")]
    used += LEGEND.findall(legend)
    return wrong + [f"none has a label {label}" for label in used if label and label not in known]
