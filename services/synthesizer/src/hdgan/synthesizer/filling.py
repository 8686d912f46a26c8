"""Fills a shard on scratch, saving its pairs now and then, and uploads it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from hdgan.core.stage import StageContext
from hdgan.core.tar_shards import read_shard, write_shard
from hdgan.synthesizer.calibration import AcceptanceRule, Measured
from hdgan.synthesizer.pair import PairMaker
from hdgan.synthesizer.shard import fill_shard
from hdgan.synthesizer.unfinished import Filling, UnfinishedWork


def shard_name(number: int) -> str:
    """What shard `number` is called, without its suffix."""
    return f"shard-{number:05d}"


@dataclasses.dataclass(frozen=True)
class Filler:
    """Fills shards by one rule.

    Attributes:
        images: the calibration draw the rule was made from; saved along.
        folder: on scratch; holds one shard and the pairs it is put together from.
        threads: where pairs are encoded.
    """

    ctx: StageContext
    maker: PairMaker
    rule: AcceptanceRule
    images: list[Measured]
    unfinished: UnfinishedWork
    folder: Path
    threads: Executor

    def fill(
        self, filling: Filling, size: int, drawn: int, progress: Callable[[int], None]
    ) -> tuple[dict[str, Any], Filling]:
        """Fill and upload the shard from where `filling` is; returns its record, and the saved
        chunks that nobody needs once the record is kept.

        Raises Stopped once told to, with what there is saved.

        Args:
            drawn: draws of this part before this shard.
            progress: called with the pairs the shard has.
        """
        filling, paths = self.unfinished.fetch(filling, self.folder)
        if filling.draws:
            self.ctx.log(f"taking over {filling.place.pairs} pairs of shard {filling.number}")
        while True:
            path = self.folder / f"{shard_name(filling.number)}-from-{filling.draws}.tar"
            draws, rows = self._chunk(path, filling, size, progress)
            if rows:
                paths.append(path)
            if filling.place.pairs + len(rows) == size:
                return self._finish(filling, paths, draws, [*filling.rows, *rows]), filling
            chunks = list(filling.chunks)
            if rows:
                chunks.append(self.unfinished.upload(path, filling.number, draws, rows))
            filling = dataclasses.replace(filling, draws=draws, chunks=chunks)
            self.unfinished.save(len(self.images) + drawn + draws, self.images, filling)
            self.ctx.check_stop()

    def _chunk(
        self, path: Path, filling: Filling, size: int, progress: Callable[[int], None]
    ) -> tuple[int, list[dict[str, Any]]]:
        """Write pairs to `path` until it is time to save or the shard is full.

        Returns the shard's draws so far and the rows of the new pairs.
        """
        rows: list[dict[str, Any]] = []
        place = filling.place

        def pause() -> bool:
            # However often it is time to save, every chunk gets further.
            return self.ctx.stop_requested or (self.unfinished.due and place != filling.place)

        def members() -> Iterator[tuple[str, bytes]]:
            nonlocal place
            outcomes = fill_shard(
                self.maker,
                filling.number,
                size,
                self.rule,
                filling.place,
                pause,
                self.threads,
                lambda reason: self.ctx.tally.rejected({reason: 1}),
            )
            for reached, pair in outcomes:
                if pair is not None:
                    yield from pair.members.items()
                    rows.append(pair.row)
                place = reached
                progress(place.pairs)

        write_shard(path, members())
        return place.draws, rows

    def _finish(
        self, filling: Filling, paths: list[Path], draws: int, rows: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Put the chunks together as one tar and upload it."""
        path = self.folder / f"{shard_name(filling.number)}.tar"
        if len(paths) == 1:
            os.replace(paths[0], path)  # the bytes of a shard do not tell how it came about
        else:
            write_shard(path, (member for chunk in paths for member in read_shard(chunk)))
        entry = self.ctx.output.add_file(path.name, path)
        for used in (path, *paths):
            used.unlink(missing_ok=True)
        return {
            "calibration": filling.calibration,
            "file": entry.model_dump(mode="json"),
            "draws": draws,
            "rows": rows,
        }


def to_fill(found: Filling | None, number: int, calibration: str) -> Filling:
    """The shard as it was saved, or, if that was another or made by another rule, an empty one."""
    if found is not None and (found.number, found.calibration) == (number, calibration):
        return found
    return Filling(number, calibration, 0, [])
