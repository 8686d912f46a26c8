"""Pins: which artifacts a run relies on, written down before it looks whether they exist.

`pins/<run>/<purpose>-<digest>.json` lists artifacts by stage and key. `hdgan gc` leaves alone what
a pin names until the pin is old, by the store's clock. Because a run writes its pin first and looks
second, and gc removes first and reads the pins again second, one of the two always sees the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from hdgan.core.bounded_reading import read_object
from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.elapsed import Moment
from hdgan.core.errors import KeyMissing, StoreError
from hdgan.core.json_documents import parse_model
from hdgan.core.overlapping import AT_ONCE, overlapping
from hdgan.core.request import Hex64, Name
from hdgan.core.store import Store

PREFIX: Final = "pins/"
RENEW_SECONDS: Final = 43200.0
"""Age at which a pin that is still needed is written anew."""
RETRY_SECONDS: Final = 3600.0
MUST_SECONDS: Final = 2 * 86400.0
"""Age at which a pin has to be written anew. `hdgan gc` believes them for three days at least."""
MAX_PIN_BYTES: Final = 64 << 20
_PLACE = re.compile(r"^pins/([a-z0-9-]{1,63})/(use|annotation)-[0-9a-f]{64}\.json$")

Purpose = Literal["use", "annotation"]
"""use: a run works with it. annotation: it waits for a person's labels, which may take long."""

Place = tuple[str, str]
"""Stage and key of an artifact."""


class PinnedArtifact(BaseModel):
    """An artifact, whether it exists or not."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    stage: Name
    key: Hex64


class Pin(BaseModel):
    """What a pin's file says."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    run: Name
    purpose: Purpose
    artifacts: Annotated[list[PinnedArtifact], Field(max_length=1_000_000)]


@dataclass(frozen=True)
class FoundPin:
    """A pin in the store; `written` by the store's clock. `pin` is None if it cannot be read."""

    place: str
    purpose: Purpose
    written: datetime
    pin: Pin | None


class Pins:
    """Writes the pins of one run, each twice a day at most."""

    def __init__(self, store: Store, run: str) -> None:
        self.store = store
        self._run = run
        self._written: dict[tuple[Purpose, tuple[Place, ...]], Moment] = {}
        self._failed: Moment | None = None

    def add(self, artifacts: Iterable[Place], purpose: Purpose = "use") -> None:
        """Pin artifacts, before their manifests are looked for. StoreError if that fails."""
        wanted = tuple(sorted(set(artifacts)))
        known = self._written.get((purpose, wanted))
        if wanted and (known is None or known.seconds_ago() >= RENEW_SECONDS):
            self._write(purpose, wanted)

    def renew(self) -> None:
        """Write those anew that have become old; cheap, to be called while the work goes on.

        A store that does not answer is asked again an hour later: pins are good for days.
        StoreError only when they have become too old for that.
        """
        if self._failed is not None and self._failed.seconds_ago() < RETRY_SECONDS:
            return
        self._failed = None
        for (purpose, wanted), written in list(self._written.items()):
            age = written.seconds_ago()
            if age < RENEW_SECONDS:
                continue
            try:
                self._write(purpose, wanted)
            except StoreError:
                if age >= MUST_SECONDS:
                    raise
                self._failed = Moment()
                return

    def _write(self, purpose: Purpose, wanted: tuple[Place, ...]) -> None:
        artifacts = [PinnedArtifact(stage=stage, key=key) for stage, key in wanted]
        document = Pin(run=self._run, purpose=purpose, artifacts=artifacts).model_dump(mode="json")
        place = f"{PREFIX}{self._run}/{purpose}-{canonical_digest(document)}.json"
        started = Moment()  # the store's clock starts no earlier
        self.store.put(place, canonical_json(document))
        self._written[purpose, wanted] = started


def find_pins(store: Store, known: Mapping[str, Pin], at_once: int = AT_ONCE) -> Iterator[FoundPin]:
    """All pins in the store. What is not named like one is passed over.

    known    pins that have been read before, by their place: they never change
    at_once  requests under way at a time
    """

    def find(match: re.Match[str]) -> FoundPin | None:
        place = match[0]
        info = store.head(place)
        if info is None:
            return None
        purpose: Purpose = "use" if match[2] == "use" else "annotation"
        try:
            pin = known.get(place) or _read(store, place, match[1])
        except KeyMissing:
            return None  # removed just now
        return FoundPin(place, purpose, info.modified, pin)

    named = filter(None, map(_PLACE.match, store.list(PREFIX)))
    yield from filter(None, overlapping(find, named, at_once))


def is_pin(place: str) -> bool:
    """Whether an object is named like a pin."""
    return _PLACE.match(place) is not None


def _read(store: Store, place: str, run: str) -> Pin | None:
    try:
        pin = parse_model(Pin, read_object(store, place, MAX_PIN_BYTES))
    except ValueError:
        return None
    return pin if pin.run == run else None
