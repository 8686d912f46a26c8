"""A few scenarios of `make test-faults`, of different kinds and with different targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.__main__ import SKIPPED, in_process
from faults.scenarios import (
    FROM_NOTHING,
    FROM_NOTHING_EVERY,
    KINDS,
    TARGETS,
    Scenario,
    scenario,
)

CHOSEN = (2, 15, 21, 88, 118, 140, 145, 155)


def named(seed: int) -> str:
    one = scenario(seed)
    return f"{seed}-{one.kind}-{one.target}-{one.store}".replace(" ", "_")


@pytest.mark.parametrize("seed", CHOSEN, ids=named)
def test_the_run_ends_as_if_nothing_had_happened(seed: int, base: Path, tmp_path: Path) -> None:
    said, _ = in_process(scenario(seed), base, tmp_path)
    if said.startswith(SKIPPED):
        pytest.skip(said)
    assert said.startswith("ok"), said


def test_a_seed_always_means_the_same() -> None:
    assert [scenario(seed) for seed in range(200)] == [scenario(seed) for seed in range(200)]
    assert len({str(scenario(seed)) for seed in range(200)}) > 190


@pytest.mark.parametrize("first", [0, 1234])
def test_any_two_hundred_in_a_row_have_everything(first: int) -> None:
    planned = [scenario(seed) for seed in range(first, first + 200)]
    assert {one.kind for one in planned} == {*KINDS, FROM_NOTHING}
    assert sum(one.kind == FROM_NOTHING for one in planned) <= 200 // FROM_NOTHING_EVERY + 1

    def targets(*kinds: str) -> set[str]:
        return {one.target for one in planned if one.kind in kinds}

    assert targets("kill -9 at a moment", "kill -9 at an operation") == set(TARGETS)
    assert targets("kill -9 in commit") == set(TARGETS) - {"extractor"}
    assert targets("kill -9 the runner") == set(TARGETS) - {"annotations", "release"}
    assert {one.store for one in planned if one.kind.startswith("kill")} == {"file", "s3"}
    assert all(one.store == "s3" for one in planned if _through_the_proxy(one))


def _through_the_proxy(one: Scenario) -> bool:
    return one.proxy is not None
