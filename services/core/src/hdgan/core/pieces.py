"""Finished pieces of shared work: where parts leave what they have done, and `commit` finds it.

A stage whose work is shared out cuts it into pieces that do not depend on how many parts there are:
shards of a dataset, slides to tile. Whoever finishes a piece uploads its files with the stage's
`Attempt` and keeps one small record of them here, under a name that is known beforehand:
`work/<stage>/<key>/pieces/<name>.json`. So a commit lists nothing, another number of parts takes
over what is there, and a part that is killed loses at most the piece it was at. A record of a piece
may be written twice; as pieces are pure functions of their name, either one is right.

The records go when the artifact has been committed, with all other work of its key.
"""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue, ValidationError

from hdgan.core.artifact import Attempt, FileEntry
from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.errors import InputMissing, InternalError, KeyMissing
from hdgan.core.json_documents import parse_json
from hdgan.core.store import Store, check_key

MAX_PIECE_BYTES = 256 << 20


class Pieces:
    """Records of the finished pieces of one artifact, shared by all attempts and parts."""

    def __init__(self, store: Store, stage: str, key: str) -> None:
        self._store = store
        self._folder = f"work/{stage}/{key}/pieces"

    def find(self, name: str) -> Any | None:
        """What was kept under a name; None if nothing is there, or nothing that verifies."""
        place = self._place(name)
        info = self._store.head(place)
        if info is None or info.size > MAX_PIECE_BYTES:
            return None
        try:
            document = parse_json(self._store.get(place), max_bytes=MAX_PIECE_BYTES)
            value = document["value"]
            return value if canonical_digest(value) == document["sha256"] else None
        except (KeyMissing, ValueError, TypeError, KeyError):
            return None  # gone or damaged: the piece is made again

    def keep(self, name: str, value: JsonValue) -> None:
        """Keep a record, over one that may be there. InternalError if it is too large."""
        self._store.put(self._place(name), self._document(name, value))

    def keep_first(self, name: str, value: JsonValue) -> Any:
        """Keep a record unless there is one that verifies; returns the one that is there now.

        For what all parts have to agree on: each may compute it, all go on with the first.
        """
        document = self._document(name, value)
        for _ in range(2):
            self._store.put_if_absent(self._place(name), document)
            found = self.find(name)
            if found is not None:
                return found
            self._store.delete(self._place(name))  # a damaged one is in the way
        raise InternalError(f"{self._store.url(self._place(name))} cannot be read back")

    def _place(self, name: str) -> str:
        return check_key(f"{self._folder}/{name}.json")

    def _document(self, name: str, value: JsonValue) -> bytes:
        data = canonical_json({"sha256": canonical_digest(value), "value": value})
        if len(data) > MAX_PIECE_BYTES:
            raise InternalError(
                f"the record of {name} has {len(data)} bytes, at most {MAX_PIECE_BYTES} are kept"
            )
        return data


def pieces_of_part(count: int, part: int, parts: int) -> range:
    """Numbers of the pieces that are one part's: every `parts`-th, so that sizes even out."""
    return range(part, count, parts)


def adopt_file(output: Attempt, entry: JsonValue) -> FileEntry | None:
    """Take a piece's uploaded file over into an attempt; None if it is not there (any more)."""
    try:
        found = FileEntry.model_validate(entry)
        output.adopt(found)
    except (InputMissing, ValidationError):
        return None
    return found


def missing_pieces(names: list[str], parts: int, what: str) -> InputMissing:
    """The error of a commit that lacks pieces.

    Args:
        names: the missing pieces, each with its part: `shard-00003.tar (part 3)`.
        what: pieces in words, such as `shards`.
    """
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return InputMissing(
        f"{len(names)} {what} are not finished or were removed: {shown}. Run their parts (of "
        f"{parts}) again, then commit"
    )
