"""Tile shards on local disk, fetched ahead of their use, never more bytes than allowed.

One process of a machine (the owner) fetches and deletes; the others wait for files to appear.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdgan.core.artifact import Artifact
from hdgan.core.errors import HdganError, InternalError
from hdgan.core.tar_shards import shard_members

# Another process looks for a file that the owner fetches this often.
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Shard:
    """A tile shard in the store."""

    artifact: Artifact
    name: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.artifact.entry(self.name).size

    @property
    def file_name(self) -> str:
        """What it is called here: by content, so a file that is there is the right one."""
        return f"{self.artifact.entry(self.name).sha256}.tar"


class ShardCache:
    """Local copies of shards.

    Args:
        shards: all that may be asked for.
        folder: for this training alone; what else lies there is deleted.
        budget: most bytes on disk.
        owner: whether this process fetches and deletes.
        check_stop: called while waiting; raises to give up.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        folder: Path,
        budget: int,
        *,
        owner: bool,
        check_stop: Callable[[], None],
        timeout_seconds: float = 3600.0,
    ) -> None:
        self._shards = shards
        self._folder = folder
        self._budget = budget
        self._owner = owner
        self._check_stop = check_stop
        self._timeout = timeout_seconds
        self._members: dict[int, dict[str, tuple[int, int]]] = {}
        self._wanted: list[int] = []
        self._error: HdganError | OSError | None = None
        self._changed = threading.Condition()
        self._closing = False
        self.peak = 0
        """Most bytes that were on disk at once."""
        folder.mkdir(parents=True, exist_ok=True)
        if owner:
            known = {shard.file_name for shard in shards}
            for path in folder.iterdir():
                if path.name not in known:
                    path.unlink()
        self._thread = threading.Thread(target=self._fetch_wanted, daemon=True)
        if owner:
            self._thread.start()

    def want(self, shards: Sequence[int]) -> None:
        """Say which shards are needed next, most urgent first. All others may be deleted."""
        with self._changed:
            if list(shards) != self._wanted:
                self._wanted = list(shards)
                self._changed.notify_all()

    def read(self, shard: int, member: str) -> bytes | None:
        """Content of a member; None if the shard has none of that name. Waits for the shard."""
        path = self._path(shard)
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                with path.open("rb") as file:
                    members = self._members.get(shard)
                    if members is None:
                        members = self._members[shard] = shard_members(path)
                    place = members.get(member)
                    if place is None:
                        return None
                    return os.pread(file.fileno(), place[1], place[0])
            except FileNotFoundError:
                self._wait_for(shard, deadline)

    def close(self) -> None:
        """Stop fetching. Files stay, for the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._owner:
            self._thread.join()

    def _path(self, shard: int) -> Path:
        return self._folder / self._shards[shard].file_name

    def _wait_for(self, shard: int, deadline: float) -> None:
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._closing:
                raise InternalError("the tile stream was closed while a tile was read")
            self._changed.wait(_LOOK_SECONDS)
        if time.monotonic() > deadline:
            raise InternalError(
                f"shard {self._shards[shard].name} did not arrive in {self._timeout:g} s: the "
                "process of this machine that fetches it has stopped"
            )

    def _fetch_wanted(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._closing and self._next() is None:
                        self._changed.wait()
                    if self._closing:
                        return
                    shard = self._next()
                    assert shard is not None
                    self._make_room(self._shards[shard].size)
                chosen = self._shards[shard]
                chosen.artifact.fetch(chosen.name, self._path(shard))
                with self._changed:
                    self.peak = max(self.peak, self._used())
                    self._changed.notify_all()
        except (HdganError, OSError) as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> int | None:
        """The most urgent shard that is not here and fits beside the more urgent ones."""
        room = self._budget
        for shard in self._wanted:
            room -= self._shards[shard].size
            if room < 0:
                return None
            if not self._path(shard).exists():
                return shard
        return None

    def _make_room(self, size: int) -> None:
        """Delete the least urgent shards until `size` more bytes fit."""
        urgency = {shard: place for place, shard in enumerate(self._wanted)}
        here = [s for s in range(len(self._shards)) if self._path(s).exists()]
        here.sort(key=lambda shard: urgency.get(shard, len(urgency)))
        used = self._used()
        while here and used + size > self._budget:
            last = here.pop()
            used -= self._shards[last].size
            self._path(last).unlink()
            self._members.pop(last, None)

    def _used(self) -> int:
        return sum(s.size for i, s in enumerate(self._shards) if self._path(i).exists())
