"""Feature shards of 4096 px images: their bytes, and rows per second from more than fits memory.

Training draws random labelled pixels of all images. The plain way is a `Dataset` of single pixels
behind a `DataLoader`. Ours draws from a shuffle buffer that chunks of blocks are read into. Both
read the same files, dropped from the page cache before, each in a process whose memory, page cache
included, is capped at 1 GiB (if this process may make a control group; `capped` says whether). Ours
is timed once the buffer is full: from then on a row is read for each that is drawn.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, RandomSampler

from baselines.paper_features import PixelDataset
from figures import Figure, faster, smaller
from hdgan.classifier.labelled_pixels import labelled_pixels
from hdgan.classifier.sampling import RowPool
from hdgan.nets.shards import ImageFeatures, write_shard
from measuring import in_fresh_process, peak_memory
from memory_cap import join, memory_cap
from paper_scale import CLASSES, plan_at, random_ensemble, random_maps

SIDE = 4096
IMAGES = 5
DTYPE = "float16"
CAP = 2**30
SECONDS = 20.0
BATCH = 1024
POOL_BYTES = 2**28
START_SECONDS = 120.0


def feature_shards() -> tuple[list[Figure], dict[str, object]]:
    """Bytes of an image, and rows per second of both."""
    plan = plan_at(SIDE)
    labels = np.random.default_rng(0).integers(0, CLASSES, (SIDE // 64, SIDE // 64), dtype=np.uint8)
    labels_HW = labels.repeat(64, axis=0).repeat(64, axis=1)
    with tempfile.TemporaryDirectory(prefix="hdgan-bench-") as name:
        root = Path(name)
        for number in range(IMAGES):
            write_shard(
                root,
                f"image{number}",
                split="test",  # statistics are another matter
                plan=plan,
                dtype=DTYPE,
                classes=CLASSES,
                maps=random_maps(plan, DTYPE, number),
                labels=labels_HW,
                picture=np.zeros((SIDE, SIDE, 3), dtype=np.uint8),
            )
        maps = [root / "image0" / f"{one.name}.npy" for one in plan.maps]
        size = sum(one.stat().st_size for one in maps)
        with memory_cap(CAP) as group:
            wait = SECONDS + START_SECONDS
            _forget(root)
            plain = in_fresh_process(_plain_rows, root, group, seconds=wait)
            _forget(root)
            ours = in_fresh_process(_our_rows, root, group, seconds=wait)
    upsampled = SIDE**2 * plan.channels * 2
    figures = [smaller("shard, 4096 px, 16 bits", size / 1e9, upsampled / 1e9, "GB")]
    if plain is not None and ours is not None:
        name = "training rows under a 1 GiB cap"
        figures.append(faster(name, ours[0], plain[0], "rows/s", ours[1] / 1e6))
    return figures, {
        "images": IMAGES,
        "shardBytes": IMAGES * size,
        "capped": group is not None,
        "rowsPerSecond": {"ours": ours and ours[0], "plain": plain and plain[0]},
        "peakBytes": {"ours": ours and ours[1], "plain": plain and plain[1]},
    }


def _forget(root: Path) -> None:
    """Drop the files from the page cache."""
    for path in root.rglob("*.npy"):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _open(root: Path) -> list[ImageFeatures]:
    names = [one.name for one in plan_at(SIDE).maps]
    return [
        ImageFeatures(
            folder.name,
            "train",
            tuple(np.load(folder / f"{one}.npy", mmap_mode="r") for one in names),
            np.load(folder / "labels.npy", mmap_mode="r"),
            np.load(folder / "picture.npy", mmap_mode="r"),
        )
        for folder in sorted(root.iterdir())
    ]


def _plain_rows(root: Path, group: Path | None) -> tuple[float, int]:
    join(group)
    images = _open(root)
    dataset = PixelDataset([one.maps for one in images], [one.labels for one in images])  # type: ignore[misc]
    loader = DataLoader(dataset, BATCH, sampler=RandomSampler(dataset, replacement=True))
    rows = 0

    def read() -> None:
        nonlocal rows
        started = time.perf_counter()
        for vectors, _ in loader:
            rows += len(vectors)
            if time.perf_counter() - started > SECONDS:
                return

    memory = peak_memory(read)
    return rows / memory.seconds, memory.peak


def _our_rows(root: Path, group: Path | None) -> tuple[float, int]:
    join(group)
    images = _open(root)
    pixels = labelled_pixels([one.labels for one in images], CLASSES)
    ensemble = random_ensemble(plan_at(SIDE), 1, DTYPE)
    pool = RowPool(ensemble, images, pixels, seed=0, batch=BATCH, budget=POOL_BYTES)
    pool.draw(0)
    steps = 0

    def read() -> None:
        nonlocal steps
        started = time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            steps += 1
            pool.draw(steps)

    memory = peak_memory(read)
    pool.close()
    return steps * BATCH / memory.seconds, memory.peak
