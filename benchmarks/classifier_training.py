"""Training the ensemble: from maps, from rows in memory, ten members together and one by one.

Rows from maps come through the shuffle buffer, which reads in the background; rows in memory are
all labelled pixels of the same images. A loss curve from the buffer is compared with curves from
memory over several seeds, on features of a random generator whose pixels are labelled by their
colour: neighbours are alike there, as in real pictures, which is what a buffer could get wrong.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from figures import Figure, faster, smaller
from hdgan.classifier.labelled_pixels import LabelledPixels, labelled_pixels
from hdgan.classifier.sampling import RowPool
from hdgan.classifier.training import Training, TrainingSettings
from hdgan.nets.architecture import Architecture
from hdgan.nets.ensemble import PixelEnsemble
from hdgan.nets.generator import Generator
from hdgan.nets.moments import labelled_moments, merge_moments
from hdgan.nets.pyramid import feature_plan, render
from hdgan.nets.shards import ImageFeatures
from paper_scale import CLASSES, MEMBERS, plan_at, random_ensemble, random_maps

SIDE = 1024
IMAGES = 4
LABELLED = 0.06  # share of pixels, so that all rows fit memory
BATCH = 1024
STEPS = 40
REPEATS = 3
SMALL_POOL = 160 * 2**20
LARGE_POOL = 2**40

LOSS_SIDE = 256
LOSS_SEEDS = 4
LOSS_STEPS = 100
LOSS_POOL = 24 * 2**20


def classifier_training() -> tuple[list[Figure], dict[str, object]]:
    """Rows per second from maps and memory; seconds of ten members; the loss curves' distance."""
    images, pixels = _random_images()
    rates: dict[str, list[float]] = {"maps": [], "memory": []}
    runs = {
        "maps": _steps(images, pixels, MEMBERS, SMALL_POOL),
        "memory": _steps(images, pixels, MEMBERS, LARGE_POOL),
    }
    for _ in range(REPEATS):
        for name, (training, first) in runs.items():
            started = time.perf_counter()
            for step in range(first, first + STEPS):
                training.step(step)
            rates[name].append(STEPS * BATCH / (time.perf_counter() - started))
            runs[name] = (training, first + STEPS)
    for training, _ in runs.values():
        training.pool.close()
    maps, memory = (statistics.median(one) for one in rates.values())
    together = min(_seconds(images, pixels, MEMBERS, 1) for _ in range(2))
    apart = min(_seconds(images, pixels, 1, MEMBERS) for _ in range(2))
    distance, spread = _loss_curves()
    figures = [
        faster("classifier training from maps, ten members", maps, memory, "rows/s"),
        smaller("ten members, loading and 40 steps", together, apart, "s"),
        Figure("loss from the buffer off the mean from memory, in seed deviations", distance, "sd"),
    ]
    return figures, {
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "rowsPerSecond": {"maps": round(maps, 1), "memory": round(memory, 1)},
        "tenMembersSeconds": {"together": round(together, 2), "apart": round(apart, 2)},
        "lossSeeds": LOSS_SEEDS,
        "lossDeviationBetweenSeeds": spread,
        "lossDistanceInDeviations": round(distance, 3),
    }


def _random_images() -> tuple[list[ImageFeatures], LabelledPixels]:
    plan = plan_at(SIDE)
    stream = np.random.default_rng(0)
    images = []
    for number in range(IMAGES):
        labels = stream.integers(0, CLASSES, (SIDE, SIDE), dtype=np.uint8)
        labels[stream.random((SIDE, SIDE)) > LABELLED] = 255
        maps = tuple(random_maps(plan, "float16", number))
        images.append(ImageFeatures(str(number), "train", maps, labels, np.empty(0, np.uint8)))
    return images, labelled_pixels([one.labels for one in images], CLASSES)


def _training(
    ensemble: PixelEnsemble,
    images: list[ImageFeatures],
    pixels: LabelledPixels,
    budget: int,
    seed: int = 0,
) -> Training:
    pool = RowPool(ensemble, images, pixels, seed=seed, batch=BATCH, budget=budget)
    settings = TrainingSettings("adam", 1e-3, BATCH, 10, 3, seed)
    return Training(ensemble, pool, settings, epoch_pixels=sum(pixels.counts), validate=None)


def _steps(
    images: list[ImageFeatures], pixels: LabelledPixels, members: int, budget: int
) -> tuple[Training, int]:
    """A training whose pool is filled, and the number of its next step."""
    ensemble = random_ensemble(plan_at(SIDE), members, "float16")
    training = _training(ensemble, images, pixels, budget)
    training.step(0)
    return training, 1


def _seconds(
    images: list[ImageFeatures], pixels: LabelledPixels, members: int, times: int
) -> float:
    """Of `times` trainings from their first read on."""
    started = time.perf_counter()
    for _ in range(times):
        training, first = _steps(images, pixels, members, SMALL_POOL)
        for step in range(first, STEPS):
            training.step(step)
        training.pool.close()
    return time.perf_counter() - started


def _loss_curves() -> tuple[float, float]:
    """How far the mean curve from the buffer lies from that from memory, in standard deviations
    of a curve between seeds (mean over steps), and that deviation in nats."""
    images, pixels, ensembles = _coloured_images()
    curves = {
        budget: np.array(
            [_losses(ensembles[s], images, pixels, budget, s) for s in range(LOSS_SEEDS)]
        )
        for budget in (LOSS_POOL, LARGE_POOL)
    }
    spread = curves[LARGE_POOL].std(axis=0, ddof=1).mean()
    gap = (curves[LOSS_POOL].mean(axis=0) - curves[LARGE_POOL].mean(axis=0)).mean()
    return float(abs(gap) / spread), float(spread)


def _losses(
    ensemble: PixelEnsemble,
    images: list[ImageFeatures],
    pixels: LabelledPixels,
    budget: int,
    seed: int,
) -> list[float]:
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    training = _training(ensemble, images, pixels, budget, seed)
    losses = [training.step(step) for step in range(LOSS_STEPS)]
    training.pool.close()
    ensemble.load_state_dict(before)
    return losses


def _coloured_images() -> tuple[list[ImageFeatures], LabelledPixels, list[PixelEnsemble]]:
    torch.manual_seed(0)
    arch = Architecture(
        LOSS_SIDE, latent_dim=64, mapping_layers=2, channel_base=4096, channel_max=64
    )
    generator = Generator(arch).eval().requires_grad_(False)
    plan = feature_plan(arch, 5)
    images = []
    for number in range(IMAGES):
        made = render(generator, generator.mapping(torch.randn(1, 64)), "constant", plan, "float16")
        grey = torch.from_numpy(made.image.astype(np.float32)).mean(dim=2)[None, None]
        blurred = F.avg_pool2d(grey, 9, 1, 4, count_include_pad=False)[0, 0]
        edges = torch.quantile(blurred, torch.tensor([0.4, 0.8]))
        labels = torch.bucketize(blurred, edges).to(torch.uint8).numpy()
        images.append(ImageFeatures(str(number), "train", made.maps, labels, made.image))
    everywhere = np.ones((LOSS_SIDE, LOSS_SIDE), dtype=np.bool_)
    moments = merge_moments(
        (labelled_moments(one.maps, everywhere) for one in images), plan.channels
    )
    ensembles = []
    for seed in range(LOSS_SEEDS):
        spec = random_ensemble(plan, 2, "float16").spec
        fields = {**vars(spec), "mean": moments.mean, "std": moments.std}
        ensembles.append(PixelEnsemble(type(spec)(**fields), seed))
    return images, labelled_pixels([one.labels for one in images], CLASSES), ensembles
