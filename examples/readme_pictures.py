"""Makes the README's pictures from two runs: a finished one, and the training of skin-64.

python examples/readme_pictures.py demo/run.yaml examples/skin-64/run.yaml docs/images [STORE]

STORE is that of skin-64, if it was trained with --store.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hdgan.core.artifact import Artifact
from hdgan.core.tar_shards import read_shard
from hdgan.desk.charts import line_chart
from hdgan.desk.report_figures import evenly
from hdgan.desk.report_training import KID, kid_lines
from hdgan.desk.run_artifacts import open_run

ZOOM = 2
ROWS, COLUMNS = 4, 8
PAIRS = 10
TIMES = 6
GAP = 12

Rgb = npt.NDArray[np.uint8]


def reals_and_fakes(generator: Artifact, tile: int) -> Image.Image:
    """The first rows of reals.png above those of samples.png, which are not truncated."""
    parts = []
    for name in ("reals.png", "samples.png"):
        with Image.open(io.BytesIO(generator.read(name))) as picture:
            parts.append(np.asarray(picture.convert("RGB"))[: ROWS * tile, : COLUMNS * tile])
    gap = np.full((GAP, parts[0].shape[1], 3), 255, dtype=np.uint8)
    return _enlarged(np.concatenate([parts[0], gap, parts[1]]))


def over_training(generator: Artifact, tile: int) -> Image.Image:
    """A row of samples for each time, always of the same latents."""
    names = evenly(sorted(n for n in generator.names() if n.startswith("grids/")), TIMES)
    rows = []
    for name in names:
        with Image.open(io.BytesIO(generator.read(name))) as picture:
            rows.append(np.asarray(picture.convert("RGB"))[:tile, : COLUMNS * tile])
    return _enlarged(np.concatenate(rows))


def pairs(dataset: Artifact) -> Image.Image:
    """The first pairs of the first shard: image, mask and uncertainty below each other."""
    with tempfile.TemporaryDirectory() as folder:
        path = dataset.fetch("shard-00000.tar", Path(folder, "shard.tar"))
        members = list(islice(read_shard(path), 4 * PAIRS))
    rows: dict[str, list[Rgb]] = {".png": [], ".mask.png": [], ".uncertainty.png": []}
    for name, data in members:
        suffix = name[name.index(".") :]
        if suffix in rows:
            rows[suffix].append(_rgb(data, grey=suffix == ".uncertainty.png"))
    return _enlarged(np.concatenate([np.concatenate(row, axis=1) for row in rows.values()]))


def _rgb(data: bytes, *, grey: bool) -> Rgb:
    with Image.open(io.BytesIO(data)) as picture:
        if not grey:
            return np.asarray(picture.convert("RGB"))
        # 16 bits; white is the most uncertain that can be.
        values = np.asarray(picture, dtype=np.float64) / 65535
    return np.repeat(np.rint(values * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _enlarged(pixels: Rgb) -> Image.Image:
    image = Image.fromarray(pixels)
    size = (image.width * ZOOM, image.height * ZOOM)
    return image.resize(size, Image.Resampling.NEAREST)


def main(arguments: Sequence[str]) -> None:
    """Write all pictures."""
    run_file, training_file, folder = map(Path, arguments[:3])
    store = arguments[3] if len(arguments) > 3 else None
    run, training = open_run(run_file, None), open_run(training_file, store)
    folder.mkdir(parents=True, exist_ok=True)
    tile = run.run.spec.tiler.tile_size
    reals_and_fakes(run.artifacts["gan-trainer"], tile).save(folder / "reals-and-fakes.png")
    pairs(run.artifacts["dataset"]).save(folder / "pairs.png")
    trained = training.artifacts["gan-trainer"]
    tile = training.run.spec.tiler.tile_size
    over_training(trained, tile).save(folder / "training.png")
    curve = line_chart(kid_lines(trained), "kimg", y_label=KID)
    (folder / "kid.svg").write_bytes(curve)


if __name__ == "__main__":
    main(sys.argv[1:])
