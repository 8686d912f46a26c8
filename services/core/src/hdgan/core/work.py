"""Unfinished work of a stage: training state and the like, saved so that a crash costs little.

Each attempt writes under its own folder `work/<stage>/<key>/<attempt>/`; a start takes the most
advanced state that verifies, from any attempt. So correctness needs no lock. A listing that misses
a state costs time, never truth.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from hdgan.core.canonical import canonical_json
from hdgan.core.errors import (
    InputMissing,
    InternalError,
    KeyMissing,
    RequestError,
    StoreError,
    WrongContent,
)
from hdgan.core.json_documents import parse_model
from hdgan.core.store import Store, check_key

KEEP = 2
"""States an attempt keeps at least: the newest, and the one before in case that does not verify."""

MAX_STATE_BYTES = 64 << 20
_STATE = re.compile(r"/state-(\d{12})\.json$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _File(_Document):
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _State(_Document):
    step: Annotated[int, Field(ge=0)]
    folder: Annotated[str, Field(pattern=r"^data-[0-9]{12}-[0-9a-f]{32}$")]
    meta: dict[str, JsonValue]
    files: dict[str, _File]


class SavedState:
    """A saved state that verified when it was found, for reading."""

    def __init__(self, store: Store, attempt: str, folder: str, state: _State) -> None:
        self._store = store
        self._folder = folder
        self._files = state.files
        self.attempt = attempt
        """The attempt that saved it."""
        self.step = state.step
        """How far the work was."""
        self.meta: dict[str, Any] = dict(state.meta)
        """The small values that were saved with it."""

    def names(self) -> list[str]:
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        """A file's bytes, verified. InputMissing if it has gone or changed since it was found."""
        expected = self._expected(name)
        try:
            data = self._store.get(self._key(name))
        except KeyMissing:
            raise self._gone(name) from None
        if hashlib.sha256(data).hexdigest() != expected.sha256:
            raise self._gone(name)
        return data

    def fetch(self, name: str, dest: Path) -> Path:
        """Copy a file to `dest` (a file path), verified; returns `dest`."""
        expected = self._expected(name)
        try:
            self._store.get_to(self._key(name), dest, sha256=expected.sha256)
        except (KeyMissing, WrongContent):
            raise self._gone(name) from None
        return dest

    def verifies(self) -> bool:
        """Whether every file is there with the size and SHA-256 it was saved with."""
        for name, expected in self._files.items():
            info = self._store.head(self._key(name))
            if info is None or info.size != expected.size:
                return False
            try:
                if self._store.sha256(self._key(name)) != expected.sha256:
                    return False
            except KeyMissing:
                return False
        return True

    def _expected(self, name: str) -> _File:
        try:
            return self._files[name]
        except KeyError:
            raise InternalError(
                f"the state at step {self.step} has no file {name!r}; it has {self.names()}"
            ) from None

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _gone(self, name: str) -> InputMissing:
        return InputMissing(
            f"{self._store.url(self._key(name))} is missing or was changed: run it again, an"
            " older state will be taken"
        )


def saved_amount(store: Store, stage: str, key: str) -> int:
    """How much unfinished work of an artifact is listed, -1 for none: a number that grows whenever
    any attempt or part has saved more (the last steps of states, and finished pieces)."""
    steps: dict[str, int] = {}
    pieces = 0
    for place in store.list(f"work/{stage}/{key}"):
        folder, _, rest = place.removeprefix(f"work/{stage}/").partition("/")
        if folder != key and not folder.startswith(f"{key}-part-"):
            continue
        match = _STATE.search(place)
        if match and rest.count("/") == 1:
            steps[folder] = max(steps.get(folder, 0), int(match[1]) + 1)
        elif folder == key and rest.startswith("pieces/"):
            pieces += 1
    return sum(steps.values()) + pieces - 1


def _valid(key: str) -> bool:
    try:
        check_key(key)
    except StoreError:
        return False
    return True


class WorkState:
    """Saves this attempt's state and finds the best one of all attempts."""

    def __init__(self, store: Store, stage: str, key: str, attempt: str) -> None:
        for part in (stage, key, attempt):
            if not _NAME.match(part):
                raise RequestError(f"{part!r} cannot name work: use letters, digits, - and _")
        self._store = store
        self._prefix = f"work/{stage}/{key}"
        self._attempt = attempt
        self._own: list[tuple[str, list[str]]] = []
        self.keep = KEEP
        """States this attempt keeps; older ones are deleted."""

    def save(self, step: int, files: Mapping[str, Path | bytes], meta: Mapping[str, Any]) -> None:
        """Save a state; it is visible only when all of it is written. Prunes our older ones.

        step   how far the work is, 0 to 10^12 - 1; the highest wins
        files  content (bytes, or the path of a file) by name
        meta   small JSON values
        """
        if not 0 <= step < 10**12:
            raise InternalError(f"step {step} of saved work is not from 0 to 10^12 - 1")
        base = f"{self._prefix}/{self._attempt}"
        # A fresh folder each time: saving a step again never touches files a state refers to.
        folder = f"data-{step:012d}-{uuid.uuid4().hex}"
        written: dict[str, _File] = {}
        keys: list[str] = []
        for name, content in files.items():
            key = check_key(f"{base}/{folder}/{name}")
            keys.append(key)
            written[name] = self._put(key, content)
        state = _State(step=step, folder=folder, meta=dict(meta), files=written)
        place = f"{base}/state-{step:012d}.json"
        self._store.put(place, canonical_json(state.model_dump(mode="json")))
        replaced = [old for known, old in self._own if known == place]
        self._own = [item for item in self._own if item[0] != place]
        self._own.append((place, keys))
        for old in replaced:
            self._delete(old)
        while len(self._own) > self.keep:
            oldest, its_files = self._own.pop(0)
            # First the state, then what it refers to: nobody finds a state without its files.
            self._delete([oldest, *its_files])

    def latest(self) -> SavedState | None:
        """The most advanced state that verifies, from any attempt; None if there is none."""
        for _, place in sorted(self._found(), reverse=True):
            state = self._load(place)
            if state is not None and state.verifies():
                return state
        return None

    def discard(self) -> None:
        """Delete what all attempts have saved: the artifact exists, nobody needs it any more."""
        self._own = []
        try:
            found = sorted(self._store.list(f"{self._prefix}/"))
        except StoreError:
            return
        # States before what they refer to.
        self._delete([key for key in found if _STATE.search(key)])
        self._delete([key for key in found if not _STATE.search(key)])

    def _found(self) -> Iterator[tuple[int, str]]:
        for key in self._store.list(f"{self._prefix}/"):
            match = _STATE.search(key)
            if match and key.count("/") == self._prefix.count("/") + 2:
                yield int(match[1]), key

    def _load(self, place: str) -> SavedState | None:
        """The state whose description is at `place`; None if it is gone or damaged."""
        folder = place.rpartition("/")[0]
        info = self._store.head(place)
        if info is None or info.size > MAX_STATE_BYTES:
            return None
        try:
            state = parse_model(_State, self._store.get(place))
            if not all(_valid(f"{folder}/{state.folder}/{name}") for name in state.files):
                return None
        except (KeyMissing, ValueError):
            return None  # deleted just now, or no state: as good as none
        return SavedState(self._store, folder.rpartition("/")[2], f"{folder}/{state.folder}", state)

    def _put(self, key: str, content: Path | bytes) -> _File:
        if isinstance(content, bytes):
            self._store.put(key, content)
            return _File(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        put = self._store.put_from(key, content)
        return _File(size=put.size, sha256=put.sha256)

    def _delete(self, keys: list[str]) -> None:
        """Best effort: what stays is garbage in our own folder, never wrong."""
        for key in keys:
            try:
                self._store.delete(key)
            except StoreError:
                return
