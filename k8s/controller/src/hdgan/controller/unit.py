"""What one Job does."""

from __future__ import annotations

from dataclasses import dataclass

from hdgan.controller.facts import Kind
from hdgan.controller.names import place_key


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
    store: str | None = None
    """Name of the run's store; None: the default one."""

    @property
    def place(self) -> str:
        """What stands for the key in names and labels."""
        return place_key(self.key, self.store)

    @property
    def features_place(self) -> str:
        """The same for the features it makes or reads."""
        return place_key(self.features_key or self.key, self.store)
