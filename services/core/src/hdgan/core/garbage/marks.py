"""Marks: since when something is known to be garbage, by the store's own clock."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.garbage.judging import Garbage, is_ours
from hdgan.core.overlapping import overlapping
from hdgan.core.store import Store

PREFIX: Final = "gc/marks/"


def mark_name(one: Garbage) -> str:
    """Where the mark of a piece of garbage lies."""
    return f"{PREFIX}{one.kind}-{canonical_digest([one.kind, one.place])}.json"


def mark(store: Store, one: Garbage) -> None:
    """Mark it; one that is marked keeps its time."""
    document = {"kind": one.kind, "place": one.place, "why": one.why}
    store.put_if_absent(mark_name(one), canonical_json(document))


def unmark(store: Store, one: Garbage) -> None:
    store.delete(mark_name(one))


def find_marks(store: Store, at_once: int) -> dict[str, datetime]:
    """When each mark was made, by its name."""
    names = [name for name in store.list(PREFIX) if is_ours(name)]
    infos = overlapping(store.head, names, at_once)
    return {
        name: info.modified for name, info in zip(names, infos, strict=True) if info is not None
    }
