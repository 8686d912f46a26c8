"""What a stage tells of itself while it works, beside its events. Nothing, if nobody looks on."""

from __future__ import annotations

from collections.abc import Mapping

from hdgan.core.progress import Progress


class StageTally:
    """Takes what a stage counts and measures, and drops it. `StageSeries` shows it instead."""

    def progress(self, progress: Progress) -> None:
        """How far the work at hand is."""

    def measured(self, values: Mapping[str, float]) -> None:
        """Measures by name, as `StageContext.metric` reports them."""

    def step(self, seconds: float, waited: float) -> None:
        """A training step has taken so long, after waiting so long for its tiles."""

    def images(self, shown: int, skipped: int) -> None:
        """Images shown in all, and updates left out in all, by earlier attempts too."""

    def rejected(self, counts: Mapping[str, int]) -> None:
        """So many more were left out, by reason. Reasons come from a list in the code."""

    def queued(self, queue: str, depth: int) -> None:
        """So many wait in a queue between two steps."""
