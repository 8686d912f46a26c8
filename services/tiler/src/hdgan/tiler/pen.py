"""Pen marks: ink lies thick and even on the glass, over areas far larger than a cell.

Colour alone does not tell it from stains: trichrome's collagen is as blue as a marker and silver as
black. What tells it is that it is even. Sections are 2 to 5 um thick and made of nuclei, fibres and
membranes, so that over tens of micrometres their density varies by a quarter; a mark's by a tenth.
What is doubtful is tissue: tissue that is skipped is a worse loss than a mark that is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from hdgan.tiler.morphology import Bools, closed, grown, opened, parts
from hdgan.tiler.tissue import Colour, optical_density

Floats = NDArray[np.float32]

# At this resolution nuclei, fibres and silver-black membranes have blended with what is around.
UM_PER_PIXEL = 8.0

WIDE_UM = 100.0
"""Narrowest mark; pens draw lines of 300 um and more."""
WINDOW_UM = 40.0
"""Across which a mark is even."""
EVEN = 0.10
"""Largest standard deviation of a mark's density in such a window, as a share of its mean."""
BLACK = 0.75
"""Least density of black in every channel: 18 % of the light. A section seldom has it in the mean
over 8 um, silver included, because its black lines are 1 um thin."""
INK = 0.5
RED_INK = 0.8
"""Least density of a colour in the channel it absorbs most. More of red, which pools of blood have
with 0.4 to 0.7."""
PALE_GREEN = 0.25
"""The same of a clear green, which no stain has."""
LONE_BLUE = 0.9
"""Least density of blue ink in red, on a tile: trichrome's collagen has 0.6, its own slide being
unknown."""
BEYOND = 2.0
"""How many times denser than the slide's own stain of the same hue, its median, a part of a mark
has to be; the rest of it need only be even."""
NEAR = 8
"""How far around an even part, in times half of WIDE_UM, the same hue may be the same mark."""
SAME_PEN = 0.75
"""Share of a mark's density, its median, from which on what is even is of the same pen."""
COMMON = (0.05, 0.05, 0.15, 0.05)
"""Share of the tissue from which on a hue is the slide's own, for black, blue, green and red. More
of green, which is a stain's only in light green trichrome, and then much of the tissue's."""
OVER_TISSUE = 0.7
"""Share of a mark's density, its median, that it has to have where it is not even."""
GREEN = 2
"""Which of the inks no other stain resembles, so that it need not be even."""
BORDER = 0.2
"""Share of its density that ink has to have beside a mark."""


def ink_masks(density_HWC: Floats, strength: float = 1.0) -> tuple[Bools, Bools, Bools, Bools]:
    """Where the colour is that of black, blue, green and red ink, four masks [H, W].

    strength: of the ink, as a share of what it has to have where nothing else speaks for it.
    Density ratios of red, green and blue. Haematoxylin has 0.65 : 0.70 : 0.29, eosin 0.07 : 0.99 :
    0.11, Schiff's magenta 0.18 : 0.97 : 0.16 (Ruifrok and Johnston 2001, ImageJ), which none of the
    rules lets in: blue and green ink absorb clearly less green than red, red ink nearly as much
    blue as green and hardly any red. Methyl blue, 0.80 : 0.59 : 0.11, and ponceau, 0.10 : 0.74 :
    0.67, are within those of blue and red ink.
    """
    red, green, blue = (density_HWC[..., channel] for channel in range(3))
    least = np.minimum(np.minimum(red, green), blue)
    most = np.maximum(np.maximum(red, green), blue)
    black = (least > strength * BLACK) & (most - least < 0.35 * most)
    blue_ink = (red > strength * INK) & (green < 0.88 * red) & (blue < 0.85 * green)
    green_ink = (red > strength * INK) & (green < 0.7 * red) & (blue > green) & ~black
    green_ink |= (red > strength * PALE_GREEN) & (green < 0.45 * red) & (blue > 0.9 * green)
    red_ink = (green > strength * RED_INK) & (red < 0.35 * green) & (blue > 0.7 * green)
    return black, blue_ink & ~black, green_ink, red_ink


def pen_mask(density_HWC: Floats, um: float) -> Bools:
    """Where a picture of a whole slide shows ink, [H, W].

    density_HWC: optical density against the glass, at UM_PER_PIXEL or coarser; um: its micrometres
    per pixel. A hue that much of the tissue has, unevenly, is the slide's stain, and ink has to be
    denser than that.
    """
    total = density_HWC @ np.ones(3, np.float32)
    even = _evenness(total, um) < EVEN
    tissue = np.count_nonzero((total > 0.15) & ~even)
    wide = max(1, round(WIDE_UM / um / 2))
    found = np.zeros(total.shape, np.bool_)
    inks = zip(ink_masks(density_HWC), ink_masks(density_HWC, BORDER), COMMON, strict=True)
    for number, (coloured, pale, common) in enumerate(inks):
        core = _wide(coloured & even, wide)
        stained = coloured & ~even & ~grown(core, (NEAR * wide, NEAR * wide))
        own = np.count_nonzero(stained) > common * tissue
        if own:
            beyond = total > BEYOND * np.median(total[stained])
            sure = _wide(core & beyond, wide)
            if sure.any():
                # Other strokes of the same pen, perhaps paler ones.
                beyond |= total > SAME_PEN * np.median(total[sure])
                sure = _wide(core & beyond, wide)
            core = _touching(core, sure)
            coloured = coloured & beyond
        elif number == GREEN and not core.any():
            core = _wide(coloured, wide)
        if not core.any():
            continue
        near = grown(core, (NEAR * wide, NEAR * wide))
        # The borders of a mark are neither even nor as dense, and its ends are round.
        mark = grown(core, (2, 2)) | (grown(core, (wide, wide)) & coloured)
        # Over tissue it is as dense and not even; out of focus it fades over hundreds of
        # micrometres.
        dense = total > OVER_TISSUE * np.median(total[core])
        mark |= opened(((coloured & dense) | (pale & even)) & near, (1, 1))
        if not own:
            # Where the tissue is dense it is not of its own colour.
            mark |= closed(mark, (wide, wide)) & dense
        found |= mark
    return found


def pen_fraction(image: Image.Image, white: Colour, mpp: float) -> float:
    """The share of a tile that is ink, 0..1. mpp: micrometres per pixel of the RGB image.

    Looked at by itself: on a slide whose stain has the hue of an ink, only what is denser than a
    stain gets counts.
    """
    factor = max(1, min(round(UM_PER_PIXEL / mpp), min(image.size) // 8))
    small = image.reduce(factor) if factor > 1 else image
    density = optical_density(np.asarray(small), white)
    um = mpp * factor
    black, blue_ink, green_ink, red_ink = ink_masks(density)
    core = black | green_ink | red_ink | (blue_ink & (density[..., 0] > LONE_BLUE))
    if not core.any():  # the steps that follow only take away from it or fill its gaps
        return 0.0
    core &= _evenness(density.sum(axis=-1), um) < EVEN
    core = opened(closed(core, (1, 1)), (2, 2))
    if not core.any():
        return 0.0
    return float(grown(core, (1, 1)).mean())


def _touching(mask: Bools, seeds: Bools) -> Bools:
    """The connected parts of a mask that have seeds in them."""
    labels, sizes = parts(mask)
    has = np.bincount(labels[seeds & mask].reshape(-1), minlength=len(sizes)) > 0
    has[0] = False
    touched: Bools = has[labels]
    return touched


def _wide(mask: Bools, wide: int) -> Bools:
    return opened(closed(mask, (1, 1)), (wide, wide))


def _evenness(total_HW: Floats, um: float) -> Floats:
    """How much density scatters around its mean in windows of WINDOW_UM, as a share of that mean.

    Against the mean around each pixel, so that a mark's soft border, a slope, counts as even.
    """
    side = max(3, 2 * round(WINDOW_UM / um / 2) + 1)
    mean = ndimage.uniform_filter(total_HW, side, mode="nearest")
    scatter = ndimage.uniform_filter(np.square(total_HW - mean), side, mode="nearest")
    return np.asarray(np.sqrt(np.maximum(scatter, 0)) / np.maximum(mean, 0.05), np.float32)
