"""A stand-in for the expert, so that the demo runs where there is none. This is NOT a pathologist.

It labels exported candidate images of H&E skin by a fixed rule about stain, written down below,
into whitespace, dermis (eosin-rich) and epidermis (haematoxylin-rich, keratin counted to it), and
writes the masks a person would hand to ``hdgan annotations import``. What a classifier learns from
these masks is this rule, not pathology. Nothing here is random: the same picture always gives the
same mask.

    python examples/standin_annotator.py EXPORT_DIR MASK_DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hdgan.core.masks import encode_mask
from hdgan.core.run import ClassConfig
from hdgan.desk.png_text import read_candidate_id, with_candidate_id

FloatArray = npt.NDArray[np.float64]
LabelArray = npt.NDArray[np.uint8]

WHITESPACE, DERMIS, EPIDERMIS = 0, 1, 2
CLASS_ORDER = ("whitespace", "dermis", "epidermis")

# Absorption of haematoxylin and eosin in red, green and blue: Ruifrok & Johnston 2001, normalised
# in use.
HAEMATOXYLIN = (0.65, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)

# All lengths are pixels of the demo's tiles (2 micrometres each); concentrations are in units of
# natural optical density along the stain's unit vector.

# Blank glass of the demo slide has a mean optical density of 0.05, pale loose collagen about 0.3.
WHITESPACE_DENSITY = 0.14
# Follows the cracks between collagen bundles only where they are wider than a few pixels.
WHITESPACE_SIGMA = 1.0
# A dermal nucleus is 3 to 5 px wide; this spreads it over several times its own area, so that
# scattered nuclei fall below the threshold and the packed ones of the epidermis do not.
STAIN_SIGMA = 3.0
# One dark nucleus (3 and more) must not outweigh the cytoplasm around it: capped near the
# haematoxylin of ordinary epidermis.
HAEMATOXYLIN_CAP = 1.4
# Smoothed and capped, dermis lies at 0.4 to 0.7 and epidermis at 0.9 to 1.4.
EPIDERMIS_HAEMATOXYLIN = 0.82
# Thick collagen is dark in both stains: epidermis must also hold this share of haematoxylin.
EPIDERMIS_SHARE = 0.66
# Loose keratin flakes are mostly gaps, so thin once smoothed, but their share of haematoxylin is as
# high as the epidermis' they come from (0.8 and more; dermis with its nuclei lies at 0.5 to 0.7).
KERATIN_HAEMATOXYLIN = 0.5
KERATIN_SHARE = 0.78
# Green marking ink takes more red than green light away, which neither stain does: it says nothing
# about its compartment and lends it no stain.
INK_RED_TO_GREEN = 1.0
# Compartments have smooth outlines: each pixel takes the class with the most weight around it.
VOTE_SIGMA = 2.0
# Anything smaller is a cell, a crack or a speck, not a compartment (about a 7 x 7 px square).
MIN_ISLAND_AREA = 48
# Taking an island away can strand another; nested more deeply than this does not happen in 64 px.
MAX_ISLAND_PASSES = 4

# Larger pictures are not demo tiles, and the plain Python flood fill would be slow on them.
MAX_SIDE = 1024


def gaussian_blur(plane: FloatArray, sigma: float) -> FloatArray:
    """Blur one plane [H, W] with a Gaussian of `sigma` px, mirrored at the borders."""
    radius = int(3 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    height, width = plane.shape
    padded = np.pad(plane, radius, mode="symmetric")
    rows = np.zeros((height, width + 2 * radius))
    for offset, weight in enumerate(taps):
        rows += weight * padded[offset : offset + height]
    result = np.zeros((height, width))
    for offset, weight in enumerate(taps):
        result += weight * rows[:, offset : offset + width]
    return result


def optical_density(rgb: npt.NDArray[np.uint8]) -> FloatArray:
    """Natural optical density [H, W, 3] of 8-bit RGB; one is added so that black stays finite."""
    return -np.log((rgb.astype(np.float64) + 1.0) / 256.0)


def stain_concentrations(density: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Haematoxylin and eosin [H, W] (never negative) of an optical density [H, W, 3].

    Colour deconvolution of Ruifrok & Johnston 2001; the third vector is orthogonal to both stains.
    """
    first = np.asarray(HAEMATOXYLIN) / np.linalg.norm(HAEMATOXYLIN)
    second = np.asarray(EOSIN) / np.linalg.norm(EOSIN)
    residual = np.cross(first, second)
    residual /= np.linalg.norm(residual)
    amounts = density @ np.linalg.inv(np.stack([first, second, residual]))
    return np.maximum(amounts[..., 0], 0.0), np.maximum(amounts[..., 1], 0.0)


def _blur_within(plane: FloatArray, inside: npt.NDArray[np.bool_], sigma: float) -> FloatArray:
    """Blur that takes values from `inside` only, so that glass does not dilute the tissue's rim."""
    weight = gaussian_blur(inside.astype(np.float64), sigma)
    return gaussian_blur(plane * inside, sigma) / np.maximum(weight, 1e-9)


def _vote(labels: LabelArray, sigma: float) -> LabelArray:
    """Each pixel takes the class with most Gaussian weight around it (ties: lower class)."""
    votes = [
        gaussian_blur((labels == k).astype(np.float64), sigma) for k in range(len(CLASS_ORDER))
    ]
    winner: LabelArray = np.argmax(np.stack(votes), axis=0).astype(np.uint8)
    return winner


def _islands(labels: LabelArray) -> npt.NDArray[np.int64]:
    """Number the 4-connected areas of equal class: int64 [H, W], 0 and up in reading order."""
    height, width = labels.shape
    numbers = np.full(labels.shape, -1, dtype=np.int64)
    count = 0
    for start in np.ndindex(height, width):
        if numbers[start] >= 0:
            continue
        label = labels[start]
        numbers[start] = count
        stack = [start]
        while stack:
            y, x = stack.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= near[0] < height and 0 <= near[1] < width
                if inside and numbers[near] < 0 and labels[near] == label:
                    numbers[near] = count
                    stack.append(near)
        count += 1
    return numbers


def remove_islands(labels: LabelArray, min_area: int) -> LabelArray:
    """Give areas smaller than `min_area` px to the class that has most weight around them."""
    result = labels.copy()
    for _ in range(MAX_ISLAND_PASSES):
        numbers = _islands(result)
        areas = np.bincount(numbers.ravel())
        small = areas[numbers] < min_area
        if not small.any() or small.all():
            break
        votes = np.stack(
            [
                gaussian_blur(((result == k) & ~small).astype(np.float64), VOTE_SIGMA)
                for k in range(len(CLASS_ORDER))
            ]
        )
        # One class for a whole island: split between its neighbours it would leave new crumbs.
        for number in np.unique(numbers[small]):
            island = numbers == number
            result[island] = np.argmax(votes[:, island].sum(axis=1))
    return result


def label_stains(rgb: npt.NDArray[np.uint8]) -> LabelArray:
    """Label map (uint8 [H, W], positions in CLASS_ORDER) of an H&E picture (uint8 [H, W, 3])."""
    density = optical_density(rgb)
    haematoxylin, eosin = stain_concentrations(density)
    tissue = gaussian_blur(density.mean(axis=2), WHITESPACE_SIGMA) >= WHITESPACE_DENSITY
    capped = np.minimum(haematoxylin, HAEMATOXYLIN_CAP)
    stained = tissue & (density[..., 0] <= INK_RED_TO_GREEN * density[..., 1])
    nuclear = _blur_within(capped, stained, STAIN_SIGMA)
    pink = _blur_within(eosin, stained, STAIN_SIGMA)
    share = nuclear / np.maximum(nuclear + pink, 1e-9)
    epidermis = (nuclear >= EPIDERMIS_HAEMATOXYLIN) & (share >= EPIDERMIS_SHARE)
    epidermis |= (nuclear >= KERATIN_HAEMATOXYLIN) & (share >= KERATIN_SHARE)
    labels = np.full(tissue.shape, DERMIS, dtype=np.uint8)
    labels[epidermis] = EPIDERMIS
    labels[~tissue] = WHITESPACE
    return remove_islands(_vote(labels, VOTE_SIGMA), MIN_ISLAND_AREA)


def read_classes(export_dir: Path) -> list[ClassConfig]:
    """The classes of an export, which must be the three this rule knows, in its order."""
    path = export_dir / "classes.json"
    if not path.is_file():
        raise SystemExit(f"{path}: not found; give the folder `hdgan annotations export` wrote")
    classes = [ClassConfig.model_validate(entry) for entry in json.loads(path.read_text("utf-8"))]
    names = tuple(entry.name for entry in classes)
    if names != CLASS_ORDER:
        raise SystemExit(
            f"{path}: classes are {', '.join(names)}; the stand-in only knows the rule for "
            f"{', '.join(CLASS_ORDER)}, in this order: label other classes by hand"
        )
    return classes


def annotate(export_dir: Path, mask_dir: Path) -> list[float]:
    """Label every exported candidate; returns the share of pixels per class over all of them."""
    classes = read_classes(export_dir)
    mask_dir.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(len(classes), dtype=np.int64)
    for path in sorted(export_dir.glob("*.png")):
        candidate = read_candidate_id(path.read_bytes())
        if candidate is None:
            continue  # A picture that is none of ours.
        with Image.open(path) as picture:
            if max(picture.size) > MAX_SIDE:
                raise SystemExit(f"{path}: {picture.size} px is larger than {MAX_SIDE} px a side")
            labels = label_stains(np.asarray(picture.convert("RGB")))
        pixels += np.bincount(labels.ravel(), minlength=len(classes))
        mask = with_candidate_id(encode_mask(labels, classes), candidate)
        (mask_dir / f"{candidate}.png").write_bytes(mask)
    if not pixels.any():
        raise SystemExit(f"{export_dir}: holds no exported candidate PNG")
    return [float(share) for share in pixels / pixels.sum()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the stand-in."""
    parser = argparse.ArgumentParser(
        description="Label exported candidates by a stain rule. A stand-in, NOT a pathologist."
    )
    parser.add_argument("export_dir", type=Path, help="folder of `hdgan annotations export`")
    parser.add_argument("mask_dir", type=Path, help="where the masks go")
    options = parser.parse_args(arguments)
    shares = annotate(options.export_dir, options.mask_dir)
    parts = ", ".join(f"{n} {100 * s:.1f} %" for n, s in zip(CLASS_ORDER, shares, strict=True))
    sys.stdout.write(f"stand-in annotator (a stain rule, NOT a pathologist): {parts}\n")


if __name__ == "__main__":
    main()
