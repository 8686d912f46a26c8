"""Several processes, or pieces of a batch, compute what one process with the whole batch would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.errors import RequestError
from hdgan.gan_trainer import distribution
from hdgan.gan_trainer.batch_shares import discriminator_pieces, even_pieces
from hdgan.gan_trainer.local_ranks import place
from hdgan.gan_trainer.training import Training
from support.gan_training import SIDE, config, labelled, run, tensors, train_together

STEPS = 20


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = float((found[name].double() - tensor.double()).abs().max())
        assert error <= 1e-9, f"{name}: {error}"


@pytest.mark.parametrize(
    ("processes", "labels", "changes"),
    [
        (2, 0, {"batch": 8}),
        # Three processes cannot share eight groups of four evenly, and one of them gets no sample
        # for the path length; each works in pieces.
        (3, 2, {"batch": 16, "per_device_batch": 4, "path_length_batch_shrink": 8}),
    ],
)
def test_processes_together_equal_one_with_the_whole_batch(
    processes: int, labels: int, changes: dict[str, object], tmp_path: Path
) -> None:
    together = train_together(processes, STEPS, tmp_path, labels, **changes)
    alone = Training(
        config(**{**changes, "per_device_batch": None}),
        SIDE,
        dtype=torch.float64,
        **labelled(labels),
    )
    run(alone, STEPS)
    for one in together:
        assert_equal(one, tensors(alone))
    for other in together[1:]:
        # Not nearly but exactly the same weights in every process.
        assert all(torch.equal(other[name], tensor) for name, tensor in together[0].items())


LISTENERS = """
import os, sys
from pathlib import Path
from hdgan.gan_trainer.distribution import join

processes = join("cpu", 60.0)
assert processes.any(True) == (True,)
own = {os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.exists()}
for kind in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
        _, address, _, state, *rest = line.split()
        if state == "0A" and f"socket:[{rest[5]}]" in own:
            print(kind, address.partition(":")[0])
processes.any(True)
processes.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_processes_of_one_machine_are_reached_from_nowhere_else() -> None:
    placement = place(2, {})
    assert placement is not None
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LISTENERS],
            env={**os.environ, **placement.variables(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    loopback = "tcp 0100007F"
    assert [set(lines) for lines in said] == [{loopback}, {loopback}]


def test_pieces_and_recomputation_change_nothing() -> None:
    plain = Training(config(batch=8), SIDE, dtype=torch.float64)
    frugal = Training(
        config(batch=8, per_device_batch=4, recompute_resolutions=3), SIDE, dtype=torch.float64
    )
    run(plain, STEPS)
    run(frugal, STEPS)
    assert_equal(tensors(frugal), tensors(plain))


@given(
    group=st.integers(1, 8), groups=st.integers(1, 16), world=st.integers(1, 16), pieces=st.data()
)
def test_every_sample_is_dealt_once_and_groups_stay_together(
    group: int, groups: int, world: int, pieces: st.DataObject
) -> None:
    batch = group * groups
    most = pieces.draw(st.none() | st.integers(1, groups).map(lambda n: n * group))
    if world > groups:
        with pytest.raises(RequestError, match="cannot share a batch"):
            discriminator_pieces(batch, group, 0, world, most)
        return
    dealt = []
    for rank in range(world):
        for piece in discriminator_pieces(batch, group, rank, world, most):
            assert most is None or len(piece) <= most
            inside = len(piece) // group
            for first in range(inside):
                members = piece[first::inside]
                # The same images that are compared in the whole batch.
                assert members == [members[0] + m * groups for m in range(group)]
            dealt += piece
    assert sorted(dealt) == list(range(batch))


@given(count=st.integers(1, 64), world=st.integers(1, 9), most=st.none() | st.integers(1, 9))
def test_even_pieces_cover_all(count: int, world: int, most: int | None) -> None:
    dealt = [piece for rank in range(world) for piece in even_pieces(count, rank, world, most)]
    assert [sample for piece in dealt for sample in piece] == list(range(count))
    assert all(1 <= len(piece) <= (most or count) for piece in dealt)


def test_lack_of_memory_is_no_peers_fault() -> None:
    with pytest.raises(torch.OutOfMemoryError), distribution._bounded("a sum"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    lost = pytest.raises(distribution.PeerLost, match="a sum: another training process ended")
    with lost, distribution._bounded("a sum"):
        raise RuntimeError("Connection closed by peer")
