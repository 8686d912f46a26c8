"""Is it the picture that was labelled: counted in bands, judged as numpy would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.core.errors import RequestError
from hdgan.extractor.pictures import (
    BAND_ROWS,
    difference_counts,
    percentile,
    require_same_picture,
)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 3 * BAND_ROWS),
    most=st.sampled_from([0, 1, 3, 255]),
    percent=st.sampled_from([0.0, 50.0, 99.0, 99.9, 100.0]),
)
def test_counts_and_percentile_are_those_of_the_differences(
    seed: int, height: int, most: int, percent: float
) -> None:
    stream = np.random.default_rng(seed)
    one, other = (stream.integers(0, most + 1, (height, 5, 3), dtype=np.uint8) for _ in range(2))
    difference = np.abs(one.astype(np.int16) - other)
    counts = difference_counts(one, other)
    assert counts.tolist() == np.bincount(difference.reshape(-1), minlength=256).tolist()
    expected = float(np.percentile(difference, percent))
    assert percentile(counts, percent) == pytest.approx(expected, abs=1e-9)


def test_a_small_patch_is_found_by_the_tail_and_a_wide_one_by_the_mean() -> None:
    picture = np.full((200, 100, 3), 100, dtype=np.uint8)
    patch, everywhere = picture.copy(), picture.copy()
    patch[150:160, :10] = 90  # 0.5 % of the values
    everywhere[:] = 99
    for other, share in ((patch, "percentile 10 "), (everywhere, "difference 1 ")):
        with pytest.raises(RequestError, match=share):
            require_same_picture(picture, other, "picture x")
    near = picture.copy()
    near[:, ::3] = 102
    near[0, 0] = 255
    near[:, ::3][: len(near) // 2] = 100
    require_same_picture(picture, near, "picture x")
