"""A registry of series that does not double their number."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric


class Registry(CollectorRegistry):
    """Without the times at which counters and histograms began (`_created`): nobody asks for them,
    and there would be one for each."""

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family
