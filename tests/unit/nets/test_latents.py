"""Latents are pure functions of (seed, stream, index)."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hdgan.nets.latents import candidate_id, draw_noise, draw_z


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**48))
def test_any_order_gives_the_same_sample(seed: int, index: int) -> None:
    first = draw_z(seed, "dataset", index, 16)
    draw_z(seed, "dataset", index + 1, 16)
    assert np.array_equal(first, draw_z(seed, "dataset", index, 16))
    # A longer latent begins with the shorter one: nothing else was consumed in between.
    assert np.array_equal(first, draw_z(seed, "dataset", index, 64)[:16])


def test_streams_seeds_and_indices_are_disjoint() -> None:
    drawn = [
        draw_z(seed, stream, index, 8).tobytes()
        for seed in (0, 1)
        for stream in ("candidates", "dataset", "calibration")
        for index in (0, 1, 1 << 32, (1 << 32) + 1)
    ]
    assert len(set(drawn)) == len(drawn)


def test_z_is_standard_normal() -> None:
    z = np.concatenate([draw_z(3, "candidates", i, 64) for i in range(500)])
    assert z.dtype == np.float32
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.03


def test_golden_values_never_change() -> None:
    """These numbers are part of every dataset's identity. The id is SHA-256 by hand:
    printf '["aa","dataset",1,2]' | sha256sum | cut -c1-32
    """
    assert candidate_id("aa", "dataset", 1, 2) == "cf688c7b782a752218202d0372da34da"
    golden = np.array(
        [-0.5439234375953674, -0.40222659707069397, 0.23117054998874664], dtype=np.float32
    )
    assert np.array_equal(draw_z(1, "candidates", 2, 3), golden)


def test_noise_has_the_asked_shapes_and_is_not_z() -> None:
    noise = draw_noise(0, "dataset", 5, [(4, 4), (8, 8)])
    assert [n.shape for n in noise] == [(1, 1, 4, 4), (1, 1, 8, 8)]
    assert not np.array_equal(noise[0].ravel()[:8], draw_z(0, "dataset", 5, 8))
