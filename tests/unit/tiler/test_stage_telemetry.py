"""What the tiler tells of itself while it works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from hdgan.core.telemetry import store_requests
from hdgan.core.telemetry.stage_tally import StageTally
from support.tiling import Tiling


class Told(StageTally):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self.depths: list[tuple[str, int]] = []

    def rejected(self, counts: Mapping[str, int]) -> None:
        self.left_out.update(counts)

    def queued(self, queue: str, depth: int) -> None:
        self.depths.append((queue, depth))


class Heard:
    """Counts requests to stores."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.written = 0

    def request(self, operation: str, outcome: store_requests.Outcome, seconds: float) -> None:
        self.operations[operation] += 1

    def retry(self) -> None: ...

    def transferred(self, direction: Literal["read", "written"], size: int) -> None:
        self.written += size if direction == "written" else 0


@pytest.fixture
def tiling(tmp_path: Path) -> Tiling:
    tiling = Tiling(tmp_path)
    for number, name in enumerate(["a_1.tif", "b_1.tif", "c_1.tif"]):
        tiling.add(name, seed=number)
    return tiling


def test_why_tiles_are_left_out_and_which_slides_wait(
    tiling: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    monkeypatch.setattr("hdgan.core.stage.StageTally", lambda: told)
    assert tiling.run() == 0, tiling.events
    assert told.left_out == Counter(tiling.document["rejected"])
    assert told.left_out.total() > 0
    assert told.depths == [("slides", left) for left in (3, 2, 1, 0)]


def test_what_other_processes_ask_of_the_store_is_counted_here(tiling: Tiling) -> None:
    heard = Heard()
    store_requests.listen(heard)
    try:
        assert tiling.run(threads=2) == 0, tiling.events
    finally:
        store_requests.listen(None)
    shards = [path.stat().st_size for path in Path(tiling.store.root).rglob("*.tar")]  # type: ignore[attr-defined]
    assert heard.operations["put_from"] >= len(shards) == 3
    assert heard.written > sum(shards)
