"""The figures of a classifier run as PNG bytes: segmentations, confusion matrix, reliability."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hdgan.classifier.evaluation import Prediction
from hdgan.core.masks import UNLABELLED
from hdgan.nets.shards import ImageFeatures

FIGURE2_ROWS = 6
UNLABELLED_RGB = (0, 0, 0)
PANEL_SIDE = 512  # pixels; a panel of Figure 2 is printed on about 200


@dataclass(frozen=True)
class Panels:
    """A row of Figure 2, made small: the picture's sides are at most `PANEL_SIDE`.

    `picture` uint8 [h, w, 3]; `truth`, `prediction` uint8 [h, w]; `uncertainty` float32 [h, w].
    """

    id: str
    picture: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32]


def panels(image: ImageFeatures, prediction: Prediction) -> Panels:
    """An image and its prediction as Figure 2 shows them; without uncertainty it is 0."""
    step = -(-max(image.labels.shape) // PANEL_SIDE)
    unsure = prediction.uncertainty
    truth, mask = (
        np.array(one[step // 2 :: step, step // 2 :: step])
        for one in (image.labels, prediction.mask)
    )
    return Panels(
        id=image.id,
        picture=block_means(image.picture, step).round().astype(np.uint8),
        truth=truth,
        prediction=mask,
        uncertainty=np.zeros(truth.shape, np.float32)
        if unsure is None
        else block_means(unsure, step),
    )


def block_means(array: npt.NDArray[Any], step: int) -> npt.NDArray[np.float32]:
    """Means of blocks of step x step pixels of an array [H, W, ...]; what is left over at the far
    edges is in no block."""
    height, width = array.shape[0] // step, array.shape[1] // step
    result = np.empty((height, width, *array.shape[2:]), dtype=np.float32)
    for row in range(height):
        block = array[row * step : (row + 1) * step, : width * step]
        result[row] = block.reshape(step, width, step, *array.shape[2:]).mean(axis=(0, 2))
    return result


def png(figure: Figure) -> bytes:
    """Encode a figure; no clock or version goes into the file."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def colourise(
    mask: npt.NDArray[np.uint8], colours: Sequence[tuple[int, int, int]]
) -> npt.NDArray[np.uint8]:
    """Mask uint8 [H, W] -> uint8 [H, W, 3]; unlabelled is black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[UNLABELLED] = UNLABELLED_RGB
    table[: len(colours)] = colours
    return table[mask]


def segmentations(
    images: Sequence[Panels],
    names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> bytes:
    """As the paper's Figure 2: image, truth, prediction, uncertainty; evenly chosen test images."""
    rows = min(FIGURE2_ROWS, len(images))
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, rows).round().astype(int)]
    figure = Figure(figsize=(8.2, 2.0 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False)
    titles = ("generated image", "expert labels", "prediction", "uncertainty")
    shown = None
    for line, image in zip(axes, chosen, strict=True):
        line[0].imshow(image.picture)
        line[1].imshow(colourise(image.truth, colours))
        line[2].imshow(colourise(image.prediction, colours))
        shown = line[3].imshow(image.uncertainty, vmin=0.0, vmax=1.0, cmap="magma")
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(image.id[:8], fontsize=7)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    assert shown is not None
    figure.colorbar(shown, ax=axes[:, 3].tolist(), shrink=0.8, label="Jensen-Shannon divergence")
    _class_legend(figure, names, colours)
    return png(figure)


def confusion_matrix(report: dict[str, Any]) -> bytes:
    """Rows sum to 1 (truth); pixel counts below the shares."""
    names = report["classes"]
    counts = np.asarray(report["confusion"], dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.6, 0.9 * len(names) + 1.8)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, vmin=0.0, vmax=1.0, cmap="Blues")
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("labelled")
    for row, column in np.ndindex(*counts.shape):
        axis.text(
            column,
            row,
            f"{shares[row, column]:.3f}\n{counts[row, column]:,} px",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[row, column] > 0.5 else "black",
        )
    return png(figure)


def reliability_diagram(report: dict[str, Any]) -> bytes:
    """Accuracy over confidence, 15 bins, with the share of pixels in each bin below."""
    figure = Figure(figsize=(4.2, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = report["reliability"]
    filled = [one for one in bins if one["pixels"]]
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    upper.plot(
        [one["confidence"] for one in filled], [one["accuracy"] for one in filled], marker="o"
    )
    upper.set_ylabel("accuracy")
    upper.set_title(f"expected calibration error {report['ece']:.4f}", fontsize=9)
    _pixel_shares(lower, bins)
    return png(figure)


def _pixel_shares(axis: Axes, bins: Sequence[dict[str, Any]]) -> None:
    total = max(sum(one["pixels"] for one in bins), 1)
    centres = [(one["from"] + one["to"]) / 2 for one in bins]
    axis.bar(centres, [one["pixels"] / total for one in bins], width=0.9 / len(bins))
    axis.set_xlabel("confidence")
    axis.set_ylabel("share of pixels")
    axis.set_xlim(0.0, 1.0)


def _class_legend(
    figure: Figure, names: Sequence[str], colours: Sequence[tuple[int, int, int]]
) -> None:
    handles = [
        Patch(color=(red / 255, green / 255, blue / 255), label=name)
        for name, (red, green, blue) in zip(names, colours, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), fontsize=8)
