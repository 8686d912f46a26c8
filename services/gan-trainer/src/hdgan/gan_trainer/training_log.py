"""`training.jsonl`: means of what was measured, one record per tick. No clocks, so a resumed run
writes the same bytes as an undisturbed one."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from hdgan.core.json_documents import parse_object


def tick_images(total_images: int) -> int:
    """Images per record: about 200 records in all, never more often than every 250 images."""
    return max(250, total_images // 200)


class TrainingLog:
    """Collects measurements and closes a record every `tick` images."""

    def __init__(self, tick: int) -> None:
        self.tick = tick
        self.records: list[dict[str, float]] = []
        self._closed_at = 0
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._counts: defaultdict[str, int] = defaultdict(int)

    def add(self, measured: dict[str, float]) -> None:
        """Take one step's measurements; each name is averaged over the steps that have it."""
        for name, value in measured.items():
            self._sums[name] += value
            self._counts[name] += 1

    def close(self, images: int, *, last: bool = False, **state: float) -> dict[str, float] | None:
        """The next record if a tick has passed at `images`, else None. `state` is not averaged.

        With `last`, what was measured since the last tick becomes a record, however little.
        """
        if not self._sums or (images - self._closed_at < self.tick and not last):
            return None
        means = {name: self._sums[name] / self._counts[name] for name in sorted(self._sums)}
        record = {"kimg": images / 1000, **state, **means}
        self.records.append(record)
        self._closed_at = images
        self._sums.clear()
        self._counts.clear()
        return record

    def to_jsonl(self) -> bytes:
        """All records, one JSON object per line."""
        return "".join(json.dumps(record) + "\n" for record in self.records).encode()

    def state(self) -> dict[str, Any]:
        """What must be saved besides `to_jsonl()` to go on exactly."""
        return {
            "closedAt": self._closed_at,
            "sums": dict(self._sums),
            "counts": dict(self._counts),
        }

    def restore(self, jsonl: bytes, state: dict[str, Any]) -> None:
        """Take what `to_jsonl()` and `state()` gave."""
        self.records = [parse_object(line, nan=True) for line in jsonl.splitlines()]
        self._closed_at = int(state["closedAt"])
        self._sums = defaultdict(float, state["sums"])
        self._counts = defaultdict(int, state["counts"])
