"""The folder of an export, written again and again without undoing what a person did in it.

A file is replaced only where it is, byte for byte, what some export has put there. Which that was
is kept in a file of the folder, written before anything it tells of.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from hdgan.core.atomic_file import writing
from hdgan.core.errors import RequestError
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.desk.export_layout import STATE_FILE

_MAX_STATE = 64 << 20


@dataclass
class ExportFolder:
    """A folder and what exports have written to it."""

    path: Path
    candidates: str
    """Content digest of the candidates it shows."""
    written: dict[str, list[str]] = field(default_factory=dict)
    """Digests of what was put at a place, of every export so far."""
    kept: list[str] = field(default_factory=list)
    """Places that were to be written, where now something else is."""
    fresh: bool = True
    """Whether no export has been here before."""

    @classmethod
    def open(cls, path: Path, candidates: str) -> ExportFolder:
        """The folder at `path`, made if needed. RequestError if it shows other candidates."""
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, candidates)
        try:
            data = (path / STATE_FILE).read_bytes()
        except FileNotFoundError:
            return folder
        try:
            document = parse_object(data, max_bytes=_MAX_STATE)
            shown = str(document["candidates"])
            written = {str(k): [str(one) for one in v] for k, v in document["written"].items()}
        except (JsonError, KeyError, TypeError, AttributeError):
            raise RequestError(
                f"{path / STATE_FILE}: is damaged: choose an empty folder, and import from this one"
            ) from None
        if shown != candidates:
            raise RequestError(
                f"{path}: holds an export of other candidates (of another run, or of a generator "
                "trained anew), and labels belong to one generator: choose an empty folder"
            )
        return cls(path, candidates, written, fresh=False)

    def read(self, place: str) -> bytes | None:
        """What is at a place, None if nothing is."""
        try:
            return (self.path / place).read_bytes()
        except FileNotFoundError:
            return None

    def untouched(self, place: str) -> bool:
        """Whether at a place is nothing, or what an export has put there."""
        data = self.read(place)
        return data is None or _digest(data) in self.written.get(place, [])

    def put(self, place: str, data: bytes) -> None:
        """Write a file whole, unless a person has changed what is there: then it is `kept`."""
        there = self.read(place)
        if there == data:
            return
        if there is not None and _digest(there) not in self.written.get(place, []):
            self.kept.append(place)
            return
        self.replace(place, data)

    def replace(self, place: str, data: bytes) -> None:
        """Write a file whole, whatever is there."""
        digest = _digest(data)
        known = self.written.setdefault(place, [])
        if digest not in known:
            known.append(digest)
            self.save()
        self._write(place, data)

    def put_new(self, place: str, data: bytes) -> None:
        """Write a file whole if there is none; any other than `data` is `kept`.

        For what is the same in every export, so that nobody needs to remember it.
        """
        there = self.read(place)
        if there is None:
            self._write(place, data)
        elif there != data:
            self.kept.append(place)

    def save(self) -> None:
        """Write down what this folder shows and what was written to it."""
        document = {"candidates": self.candidates, "written": self.written}
        self._write(STATE_FILE, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    def _write(self, place: str, data: bytes) -> None:
        # Whole or not at all: half a picture would be labelled, and then refused.
        with writing(self.path / place, durable=False) as file:
            file.write(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
