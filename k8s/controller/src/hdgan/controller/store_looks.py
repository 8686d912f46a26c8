"""What the series of runs and datasets need from stores, read now and then in threads of their own:
a store that does not answer holds up nobody, and what was read of it before stays."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from hdgan.controller.log_context import about_store
from hdgan.controller.run_looks import KnownRun, Place
from hdgan.core.errors import HdganError
from hdgan.core.request import InputRef
from hdgan.core.store import Store
from hdgan.core.telemetry.run_measures import KnownMeasures, Measures
from hdgan.core.telemetry.run_releases import Latest, dataset_looks, read_latest
from hdgan.core.telemetry.run_series import DatasetLook

logger = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 60.0
"""How often each store is looked at."""


class _StoreLook:
    """What is known of one store."""

    def __init__(self) -> None:
        self.reachable: bool | None = None
        """None: nobody has looked yet."""
        self.releases: Mapping[str, Latest] = {}
        self.measures = KnownMeasures()
        self.under_way = threading.Lock()


class StoreLooks:
    """What is known of all stores."""

    def __init__(
        self,
        places: Iterable[Place],
        store: Callable[[Place], Store],
        forget: Callable[[Place], None],
    ) -> None:
        """store: opens it, or gives the one that is open; forget: has it opened anew next time."""
        self._store = store
        self._forget = forget
        self._looks = {place: _StoreLook() for place in places}
        self._stopped = threading.Event()

    def refresh(self, runs: Iterable[KnownRun]) -> None:
        """Begin to look at every store that is not being looked at. runs: those that have
        series."""
        wanted: dict[Place, set[InputRef]] = {}
        for run in runs:
            wanted.setdefault(run.place, set()).update(run.artifacts.values())
        for place, look in self._looks.items():
            if look.under_way.acquire(blocking=False):
                threading.Thread(
                    target=self._look,
                    args=(place, look, wanted.get(place, set())),
                    name=f"series-{place[0]}-{place[1]}",
                    daemon=True,
                ).start()

    def stop(self) -> None:
        """Look at nothing more."""
        self._stopped.set()

    def of(self, run: KnownRun) -> dict[str, Measures]:
        """What is known of a run's artifacts, by stage."""
        look = self._looks.get(run.place)
        return {} if look is None else look.measures.of(run.artifacts)

    def datasets(self) -> list[DatasetLook]:
        """All datasets that have releases."""
        return [
            one
            for (namespace, store), look in self._looks.items()
            for one in dataset_looks(namespace, store, look.releases)
        ]

    def reachable(self) -> dict[Place, bool]:
        """Whether each store answered when it was last looked at."""
        known = ((place, look.reachable) for place, look in self._looks.items())
        return {place: answered for place, answered in known if answered is not None}

    def _look(self, place: Place, look: _StoreLook, wanted: set[InputRef]) -> None:
        try:
            store = self._store(place)
            look.releases = read_latest(store, look.releases)
            look.measures.read(store, wanted, self._stopped.is_set)
            look.reachable = True
        except HdganError as error:
            look.reachable = False
            self._forget(place)
            if not self._stopped.is_set():
                logger.warning("looking for series: %s", error, extra=about_store(place))
        except Exception:  # a bug met at one store must not end its series for good
            look.reachable = False
            logger.exception("looking for series", extra=about_store(place))
        finally:
            look.under_way.release()
