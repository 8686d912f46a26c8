"""How long attempts at an artifact, and parts of it, have worked: noted down as they go, so that
whoever finishes it can say what it took in all.

`work/<stage>/<key>/spent/<attempt>.json` is written every ten minutes and when an attempt ends
without the artifact; it goes with all other unfinished work. For people and their budgets alone: a
note that is missing or makes no sense is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hdgan.core.bounded_reading import read_object
from hdgan.core.canonical import canonical_json
from hdgan.core.elapsed import Moment
from hdgan.core.errors import StoreError
from hdgan.core.gates import finite
from hdgan.core.json_documents import parse_object
from hdgan.core.store import Store

NOTE_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 3600.0
"""How long a store that did not take a note is left alone."""
MAX_NOTE_BYTES: Final = 4096
MOST_NOTES: Final = 10_000


@dataclass(frozen=True)
class Spent:
    """Of several attempts and parts, each by itself whether or not they worked at one time."""

    attempts: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    """Seconds times processes, each of which has a device of its own."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.attempts + other.attempts,
            self.seconds + other.seconds,
            self.device_seconds + other.device_seconds,
        )

    def document(self) -> dict[str, float]:
        """As it is written in `run-info.json`."""
        return {
            "attempts": self.attempts,
            "seconds": round(self.seconds, 3),
            "deviceSeconds": round(self.device_seconds, 3),
        }


def read_spent(value: Any) -> Spent:
    """Out of such a document, of any form: nothing was spent where it makes no sense."""
    if not isinstance(value, Mapping):
        return Spent()
    attempts = value.get("attempts")
    seconds, devices = finite(value.get("seconds")), finite(value.get("deviceSeconds"))
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 0:
        return Spent()
    if seconds is None or devices is None or min(seconds, devices) < 0:
        return Spent()
    return Spent(attempts, seconds, devices)


class SpentTime:
    """Notes of one attempt at an artifact, and those of the others."""

    def __init__(self, store: Store, stage: str, key: str, attempt: str) -> None:
        self._store = store
        self._folder = f"work/{stage}/{key}/spent"
        self._attempt = attempt
        self._asked = Moment()
        self._wait = NOTE_SECONDS
        self.noted = False
        """Whether there may be notes of this attempt or of others."""

    def is_due(self) -> bool:
        """Whether a note has to be written by now."""
        return self._asked.seconds_ago() >= self._wait

    def note(self, seconds: float, processes: int) -> None:
        """Write how long this attempt has worked, over what it wrote before. Best effort."""
        self._asked, self._wait, self.noted = Moment(), NOTE_SECONDS, True
        spent = Spent(1, seconds, seconds * processes)
        try:
            self._store.put(self._place(self._attempt), canonical_json(spent.document()))
        except StoreError:
            self._wait = RETRY_SECONDS

    def others(self) -> Spent:
        """What all other attempts and parts have noted. Best effort, and never raises."""
        found = Spent()
        try:
            for number, place in enumerate(self._store.list(f"{self._folder}/")):
                self.noted = True
                if number < MOST_NOTES and place != self._place(self._attempt):
                    found += self._read(place)
        except StoreError:
            pass
        return found

    def _read(self, place: str) -> Spent:
        try:
            return read_spent(parse_object(read_object(self._store, place, MAX_NOTE_BYTES)))
        except (StoreError, ValueError):
            return Spent()

    def _place(self, attempt: str) -> str:
        return f"{self._folder}/{attempt}.json"
