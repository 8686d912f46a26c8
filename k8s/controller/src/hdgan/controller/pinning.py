"""Keeps what runs need from being collected for as long as they are not over: also while they are
suspended, queue for a device or wait for a person, when nothing looks at their store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from hdgan.controller.log_context import about_store
from hdgan.controller.status import FINAL, RunStatus
from hdgan.core.errors import HdganError
from hdgan.core.pins import Pins, Place, Purpose
from hdgan.core.pipeline import CHOSEN_FROM
from hdgan.core.store import Store

logger = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 3600.0
"""How often all runs are gone through; each pin is written twice a day."""

StorePlace = tuple[str, str]
"""Namespace and name of a store."""
Run = tuple[str, str]
"""Namespace and name."""


def needed_by(status: RunStatus) -> list[tuple[list[Place], Purpose]]:
    """What a run at this status needs, or will look for next; nothing once it is over."""
    if status.phase in FINAL:
        return []
    external = status.pinned.external() if status.pinned is not None else None
    places = [(one.stage, one.key) for one in ([] if external is None else external.references())]
    places += [(one.name, one.key) for one in status.stages if one.key is not None]
    needed: list[tuple[list[Place], Purpose]] = [([place], "use") for place in places]
    if status.phase == "AwaitingAnnotation":
        waiting = [place for place in places if place[0] in CHOSEN_FROM]
        needed.append((waiting, "annotation"))
    return needed


class PinKeeper:
    """Writes pins of many runs."""

    def __init__(self, store: Callable[[StorePlace], Store]) -> None:
        self._store = store
        self._pins: dict[Run, Pins] = {}

    def keep(self, runs: Iterable[tuple[Run, StorePlace, RunStatus]]) -> None:
        """Pin what these runs need, if their pins are due; all others are forgotten. A store that
        fails is told in the log, and asked again the next time."""
        seen: set[Run] = set()
        failed: set[StorePlace] = set()
        for run, place, status in runs:
            needed = needed_by(status)
            if not needed:
                continue
            seen.add(run)
            if place in failed:
                continue
            try:
                store = self._store(place)
                pins = self._pins.get(run)
                if pins is None or pins.store is not store:
                    pins = self._pins[run] = Pins(store, run[1])
                for artifacts, purpose in needed:
                    pins.add(artifacts, purpose)
            except HdganError as error:
                failed.add(place)
                logger.warning("writing pins: %s", error, extra=about_store(place))
        self._forget_all_but(seen)

    def _forget_all_but(self, runs: Collection[Run]) -> None:
        for run in self._pins.keys() - set(runs):
            del self._pins[run]
