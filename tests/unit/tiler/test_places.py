"""How much of a mask lies in a rectangle, and blocks without what is not wanted."""

from __future__ import annotations

import numpy as np
import pytest

from hdgan.core.run import TilerConfig
from hdgan.tiler.cut import examine, plan_cutting
from hdgan.tiler.grid import Block, Rect
from hdgan.tiler.places import MaskSums, narrowed
from hdgan.tiler.verdict import Reason
from support.slides import ArraySlide
from support.stained import paint_slide


def test_touch_and_share_equal_what_counting_gives() -> None:
    random = np.random.default_rng(0)
    mask = random.random((20, 30)) < 0.02
    sums = MaskSums(mask, (4.0, 2.0))
    for _ in range(300):
        x, y = (int(one) for one in random.integers(0, (118, 38)))
        width, height = (int(one) for one in random.integers(1, (30, 20)))
        inside = mask[y // 2 : -(-(y + height) // 2), x // 4 : -(-(x + width) // 4)]
        rect = Rect(x, y, width, height)
        assert sums.touches(rect) == bool(inside.any())
        assert sums.share(rect) == pytest.approx(inside.mean())


def test_a_block_is_narrowed_to_what_is_wanted() -> None:
    tiles = tuple(Rect(10 * n, 0, 10, 10) for n in range(4))
    block = Block(Rect(0, 0, 40, 10), tiles)
    assert list(narrowed(block, [False] * 4)) == []
    (part,) = narrowed(block, [False, True, True, False])
    assert part == Block(Rect(10, 0, 20, 10), tiles[1:3])


def test_pen_over_tissue_is_rejected_as_pen_and_glass_in_a_dim_corner_as_nothing() -> None:
    slide = paint_slide("h&e", pens=("blue",), pen_on_tissue="black", unevenness=0.12)
    config = TilerConfig(tile_size=32, mpp=slide.um, max_whitespace=0.9)
    cutting = plan_cutting(ArraySlide(slide.picture, mpp=(slide.um, slide.um)), config, "t")
    reasons: dict[str, list[Reason | None]] = {}
    for tile in examine(cutting):
        rect = tile.rect
        place = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
        if slide.pen[place].mean() > 0.5:
            reasons.setdefault("inked", []).append(tile.reason)
        elif not slide.tissue[place].any() and not slide.pen[place].any():
            reasons.setdefault("bare", []).append(tile.reason)
        elif slide.tissue[place].mean() > 0.9 and not slide.pen[place].any():
            reasons.setdefault("tissue", []).append(tile.reason)
    assert len(reasons["inked"]) >= 5
    assert set(reasons["inked"]) == {"pen"}
    assert sum(reason is None for reason in reasons["bare"]) <= 0.02 * len(reasons["bare"])
    kept = sum(reason is None for reason in reasons["tissue"])
    assert kept >= 0.9 * len(reasons["tissue"])
