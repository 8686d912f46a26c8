"""Pictures of the report as data URIs: enlarged by whole numbers, or reduced to fit the page."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hdgan.core.artifact import Artifact
from hdgan.core.dataset_pairs import MAX_MEMBER_BYTES
from hdgan.core.errors import DataError
from hdgan.core.masks import decode_mask
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.run import ClassConfig
from hdgan.core.tar_shards import read_shard
from hdgan.desk.candidates import Candidates
from hdgan.desk.pictures import (
    MAX_PIXELS,
    Cell,
    Rgb,
    colour_mask,
    encode_png,
    in_rows,
    open_rgb,
    outline,
    sheet,
)

MAX_SHEET_PIXELS = 200_000_000
"""Contact sheets of large tiles are larger than a tile; beyond this they are damaged."""

PAGE_PX = 1280
"""Widest a picture is stored; the page shows 1040 px of it, more on a dense screen."""
CELL_PX = 192  # 64 px images three times as large.
_GRID_PX = 512


@dataclass(frozen=True)
class Picture:
    """An image of the page."""

    uri: str
    alt: str
    caption: str = ""
    pixelated: bool = False
    """Enlarge without smoothing: every pixel of a small image is to be seen."""


def png_uri(data: bytes) -> str:
    """PNG bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def svg_picture(data: bytes, alt: str, caption: str = "") -> Picture:
    """SVG bytes as a picture."""
    uri = "data:image/svg+xml;base64," + base64.b64encode(data).decode("ascii")
    return Picture(uri, alt, caption)


def rgb_picture(rgb: Rgb, alt: str, caption: str = "", pixelated: bool = False) -> Picture:
    """Pixels as a picture, reduced when wider than the page."""
    return Picture(png_uri(encode_png(_reduce(rgb, PAGE_PX))), alt, caption, pixelated)


def file_picture(
    artifact: Artifact, name: str, alt: str, caption: str = "", pixelated: bool = False
) -> Picture | None:
    """A picture file of an artifact; None if the artifact has none of that name."""
    if name not in artifact:
        return None
    rgb = open_rgb(artifact.read(name), artifact.uri(name), MAX_SHEET_PIXELS)
    return rgb_picture(rgb, alt, caption, pixelated)


def _reduce(rgb: Rgb, side: int) -> Rgb:
    height, width = rgb.shape[:2]
    if width <= side:
        return rgb
    size = (side, max(1, round(height * side / width)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))


def sample_corner(rgb: Rgb, tile: int, images: int) -> Rgb:
    """The top left `images` x `images` tiles of a sample grid, about 512 px wide."""
    side = min(tile * images, rgb.shape[0], rgb.shape[1])
    corner = rgb[:side, :side]
    if side > _GRID_PX:
        return _reduce(corner, _GRID_PX)
    zoom = _GRID_PX // side
    return corner.repeat(zoom, axis=0).repeat(zoom, axis=1)


def evenly(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of the names, evenly spread, with the first and the last."""
    if len(names) <= count:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, count).round().astype(int)]


def labelled_sheet(
    candidates: Candidates,
    annotations: Artifact,
    images: Sequence[tuple[str, str]],
    classes: Sequence[ClassConfig],
) -> Picture:
    """Labelled candidates (id, split) beside their masks."""
    cells: list[Cell] = []
    for identity, split in images:
        mask = decode_mask(annotations.read(f"masks/{identity}.png"), classes=len(classes))
        cells.append(Cell(candidates.rgb(identity), f"{split} {identity[:12]}"))
        cells.append(Cell(colour_mask(mask, classes)))
    rgb = sheet(in_rows(cells, 6), CELL_PX)
    return rgb_picture(rgb, "labelled candidates beside their masks")


def truth_beside_prediction(
    candidates: Candidates,
    annotations: Artifact,
    classifier: Artifact,
    identities: Sequence[str],
    classes: Sequence[ClassConfig],
) -> Picture | None:
    """Figure 2 of the paper from masks: image, label, prediction, and where they differ."""
    rows: list[list[Cell]] = []
    for identity in identities:
        name = f"predictions/{identity}.png"
        if name not in classifier:
            continue
        truth = decode_mask(annotations.read(f"masks/{identity}.png"), classes=len(classes))
        guess = decode_mask(classifier.read(name), classes=len(classes), shape=truth.shape)
        picture = candidates.rgb(identity)
        rows.append(
            [
                Cell(picture, identity[:12]),
                Cell(colour_mask(truth, classes), "label"),
                Cell(colour_mask(guess, classes), "prediction"),
                Cell(differences(truth, guess), "wrong (red), unlabelled (grey)"),
            ]
        )
    if not rows:
        return None
    return rgb_picture(sheet(rows, CELL_PX), "test images, labels, predictions and differences")


def differences(truth: npt.NDArray[np.uint8], guess: npt.NDArray[np.uint8]) -> Rgb:
    """White where right, red where wrong, grey where nobody labelled."""
    rgb = np.full((*truth.shape, 3), 255, dtype=np.uint8)
    rgb[truth != guess] = (205, 32, 44)
    rgb[truth == 255] = (150, 150, 150)
    return rgb


def dataset_sheet(dataset: Artifact, classes: Sequence[ClassConfig], pairs: int) -> Picture | None:
    """The first pairs of the first shard: image, mask, outlines, uncertainty."""
    shards = [name for name in dataset.names() if name.endswith(".tar")]
    if not shards:
        return None
    with tempfile.TemporaryDirectory(prefix="hdgan-report-") as folder:
        path = dataset.fetch(shards[0], Path(folder) / "shard.tar")
        found = _first_pairs(path, pairs)
    cells: list[Cell] = []
    for identity, files in found.items():
        mask = decode_mask(files["mask.png"], classes=len(classes))
        picture = open_rgb(files["png"], identity)
        cells.append(Cell(picture, identity[:12]))
        cells.append(Cell(colour_mask(mask, classes), "mask"))
        cells.append(Cell(outline(picture, mask, classes), "outlined"))
        if "uncertainty.png" in files:
            shown = _uncertainty_rgb(files["uncertainty.png"], identity)
            cells.append(Cell(shown, "uncertainty"))
    if not cells:
        return None
    per_pair = len(cells) // len(found)
    columns = max(1, 8 // per_pair) * per_pair
    return rgb_picture(sheet(in_rows(cells, columns), 128), "generated images with their masks")


def _first_pairs(path: Path, pairs: int) -> dict[str, dict[str, bytes]]:
    """Members of the first `pairs` whole ids of a shard, by id and kind."""
    found: dict[str, dict[str, bytes]] = {}
    for name, data in read_shard(path, max_member=MAX_MEMBER_BYTES):
        identity, _, kind = name.partition(".")
        if identity not in found and len(found) == pairs:
            break
        found.setdefault(identity, {})[kind] = data
    return {i: files for i, files in found.items() if "png" in files and "mask.png" in files}


def _uncertainty_rgb(data: bytes, identity: str) -> Rgb:
    """A 16-bit uncertainty PNG as grey, brighter where less certain; 0.5 and more is white."""
    try:
        with open_picture(data, max_pixels=MAX_PIXELS) as picture:
            if picture.mode not in ("I;16", "I", "L"):
                raise PictureError(f"it is of mode {picture.mode}")
            values = np.asarray(picture, dtype=np.float64)
    except PictureError as error:
        raise DataError(f"uncertainty of {identity}: cannot be read: {error}") from None
    scaled = np.clip(values / 65535 * 2, 0, 1) * 255
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)
