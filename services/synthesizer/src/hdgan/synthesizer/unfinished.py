"""The work of a part that is not finished: calibration images so far, and the pairs of a shard that
is being filled.

Pairs are saved in chunks, each uploaded once, so that saving costs what is new and not what is
there. The state names the chunks; one that is lost costs the pairs from it on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hdgan.core.errors import KeyMissing, StoreError, WrongContent
from hdgan.core.json_documents import parse_object, reason
from hdgan.core.stage import StageContext
from hdgan.synthesizer.calibration import Measured
from hdgan.synthesizer.shard import Place

# Seconds between two saves: what a kill can cost, besides the sample being made.
SAVE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive pairs of a shard as a small tar in the store."""

    key: str
    size: int
    sha256: str
    draws: int
    """Draws of the shard up to the end of this chunk."""
    rows: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Filling:
    """A shard that is being filled: how far it is, and where its pairs are.

    `draws` may be beyond the last chunk's: the draws after its last pair gave none.
    """

    number: int
    calibration: str
    """Digest of the calibration whose rule was used."""
    draws: int
    chunks: list[Chunk]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for chunk in self.chunks for row in chunk.rows]

    @property
    def place(self) -> Place:
        return Place(self.draws, len(self.rows))


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """What a start takes over from the state saved last."""

    images: list[Measured]
    filling: Filling | None


class UnfinishedWork:
    """Saves and finds the unfinished work of this part."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx = ctx
        self._last = time.monotonic()
        self._written = 0

    @property
    def due(self) -> bool:
        """Whether it is time to save: told to stop, or long enough after the last time."""
        return self._ctx.stop_requested or time.monotonic() - self._last >= SAVE_SECONDS

    def find(self) -> Unfinished:
        """What was saved last, by any attempt at this part."""
        saved = self._ctx.work.latest()
        if saved is None:
            return Unfinished([], None)
        try:
            state = parse_object(saved.read("unfinished.json"), nan=True)
            filling = TypeAdapter(Filling | None).validate_python(state["filling"])
            return Unfinished([Measured.from_json(one) for one in state["images"]], filling)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._ctx.log(
                f"unfinished work of attempt {saved.attempt} is not what this version saves "
                f"({reason(error)}): beginning anew",
                level="warning",
            )
            return Unfinished([], None)

    def save(self, step: int, images: list[Measured], filling: Filling | None) -> None:
        """Save how far the work is; `step` grows with every draw."""
        state = {
            "images": [one.to_json() for one in images],
            "filling": None if filling is None else dataclasses.asdict(filling),
        }
        self._ctx.work.save(step, {"unfinished.json": json.dumps(state).encode()}, {})
        self._last = time.monotonic()

    def upload(self, path: Path, number: int, draws: int, rows: list[dict[str, Any]]) -> Chunk:
        """Put a chunk's tar into the store."""
        request = self._ctx.request
        folder = f"work/{request.stage}/{request.key}/{self._ctx.attempt}"
        key = f"{folder}/pairs-{number:05d}-{self._written:05d}.tar"
        self._written += 1
        put = self._ctx.store.put_from(key, path)
        return Chunk(key, put.size, put.sha256, draws, rows)

    def fetch(self, filling: Filling, folder: Path) -> tuple[Filling, list[Path]]:
        """Bring a shard's chunks to this machine; ends before the first that does not verify."""
        paths: list[Path] = []
        for number, chunk in enumerate(filling.chunks):
            path = folder / f"saved-{number:05d}.tar"
            try:
                self._ctx.store.get_to(chunk.key, path, sha256=chunk.sha256)
                whole = True
            except (KeyMissing, WrongContent):
                whole = False
            if not whole:
                self._ctx.log(f"saved pairs are lost: {chunk.key}", level="warning")
                kept = filling.chunks[:number]
                draws = kept[-1].draws if kept else 0
                return dataclasses.replace(filling, draws=draws, chunks=kept), paths
            paths.append(path)
        return filling, paths

    def forget(self, filling: Filling) -> None:
        """Delete the chunks of a shard that is finished. Best effort: they go with the key's work
        in any case."""
        with contextlib.suppress(StoreError):
            for chunk in filling.chunks:
                self._ctx.store.delete(chunk.key)
