"""What one Job does."""

from __future__ import annotations

from dataclasses import dataclass

from hdgan.controller.facts import Kind


@dataclass(frozen=True)
class Unit:
    """A stage, all of it, its parts, or what merges them.

    stage: name of a node of the graph; key: of its artifact (features: of the cache).
    """

    stage: str
    key: str
    kind: Kind
    parts: int = 1
    features_key: str | None = None
    """Key of the features a classifier reads."""
