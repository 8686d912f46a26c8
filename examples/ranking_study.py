"""What ranking the candidates is worth: macro Dice by number of labelled images.

python examples/ranking_study.py [--out docs] [--work demo/ranking-study] [--seeds 5] [--threads 1]

The generator of examples/skin-64 draws candidates, the stand-in's rule labels whichever is chosen,
and pixel classifiers are trained on 4, 8, ... 36 of them: chosen at random, by `ranking` alone, and
in rounds of four, each chosen by what the ensemble of the round before is unsure of (`reranking`).
All are scored on one test set, drawn at random from another seed. Writes ranking.json and, from
that, images/ranking.svg; what is in the work folder already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from hdgan.classifier.evaluation import validation_dice
from hdgan.classifier.labelled_pixels import labelled_pixels
from hdgan.classifier.sampling import RowPool
from hdgan.classifier.scores import class_scores, confusion
from hdgan.classifier.training import Training, TrainingSettings
from hdgan.core.run import ClassConfig, ClassifierConfig, load_run
from hdgan.desk.choosing import Ranking, choose
from hdgan.nets.checkpoint import load_discriminator, load_generator
from hdgan.nets.ensemble import (
    ClassLabel,
    EnsembleSpec,
    FoldedEnsemble,
    PixelEnsemble,
    fold,
    prior_correction,
)
from hdgan.nets.labelling import label_dense
from hdgan.nets.moments import Moments, labelled_moments, merge_moments
from hdgan.nets.pyramid import feature_plan, render
from hdgan.nets.shards import ImageFeatures
from hdgan.synthesizer.looks import NOTHING, Look
from hdgan.synthesizer.ranking import seen_of
from hdgan.synthesizer.sampling import Sampler
from hdgan.synthesizer.textures import (
    REFERENCE_IMAGES,
    grid_positions,
    grid_vectors,
    learn_textures,
)
from standin_annotator import label_stains

EXAMPLES = Path(__file__).parent
GENERATOR = EXAMPLES / "skin-64"
BLOCKS, DTYPE, PSI = 5, "float16", 0.7
POOL, TEST, VAL = 200, 60, 4
COUNTS = tuple(range(4, 37, 4))
TEST_SEED = 1_000_000
STRATEGIES = {
    "random": "chosen at random",
    "ranked": "ranked before any label",
    "rounds": "ranked again after every four",
}
Curves = dict[str, list[list[float | None]]]
CONFIG = ClassifierConfig(members=5, epoch_pixels=32_768)


@dataclass(frozen=True)
class Picture:
    """A candidate with its features, its labels and what a ranking sees of it."""

    features: ImageFeatures
    look: Look

    @cached_property
    def moments(self) -> Moments:
        everywhere = np.ones(self.features.labels.shape, dtype=bool)
        return labelled_moments(self.features.maps, everywhere)


class Study:
    """Draws, labels, chooses, trains and scores."""

    def __init__(self, classes: Sequence[ClassConfig]) -> None:
        def read(name: str) -> bytes:
            return (GENERATOR / name).read_bytes()

        self._generator = load_generator(read)
        self._discriminator = load_discriminator(read).eval()
        self._plan = feature_plan(self._generator.arch, BLOCKS)
        self._classes = tuple(ClassLabel(one.name, one.color) for one in classes)
        held_out = self.draw(TEST_SEED, TEST + VAL)
        self._test, self._val = held_out[:TEST], held_out[TEST:]

    @torch.no_grad()
    def draw(self, seed: int, count: int) -> list[Picture]:
        """The first candidates of a seed."""
        sampler = Sampler(self._generator, "0" * 64, "candidates", seed, PSI, "constant")
        found = []
        for index in range(count):
            sample = sampler.sample(index)
            rendered = render(self._generator, sample.ws, sample.noise, self._plan, DTYPE)
            image = torch.from_numpy(rendered.image).permute(2, 0, 1)[None].float() / 127.5 - 1
            look = Look(
                grid_vectors(rendered.maps, self._plan.resolution),
                float(rendered.image.mean(axis=2).std()),
                float(self._discriminator(image)),
                NOTHING,
                float("nan"),
            )
            labels = label_stains(rendered.image)
            features = ImageFeatures(
                str(index), "train", tuple(rendered.maps), labels, rendered.image
            )
            found.append(Picture(features, look))
        return found

    def train(self, chosen: Sequence[Picture], seed: int) -> FoldedEnsemble:
        """An ensemble as the classifier stage trains it, with fewer steps."""
        pixels = labelled_pixels([one.features.labels for one in chosen], len(self._classes))
        moments = merge_moments([one.moments for one in chosen], self._plan.channels)
        spec = EnsembleSpec(
            plan=self._plan,
            blocks=BLOCKS,
            dtype=DTYPE,
            classes=self._classes,
            hidden=tuple(CONFIG.hidden),
            members=CONFIG.members,
            dropout=CONFIG.training.dropout,
            mean=moments.mean,
            std=moments.std,
            log_prior_correction=prior_correction(
                pixels.counts, [1 / len(self._classes)] * len(self._classes)
            ),
            generator="0" * 64,
        )
        ensemble = PixelEnsemble(spec, seed)
        pool = RowPool(
            ensemble,
            [one.features for one in chosen],
            pixels,
            seed=seed,
            batch=CONFIG.training.batch,
            device="cpu",
        )
        settings = TrainingSettings(
            optimizer=CONFIG.training.optimizer,
            learning_rate=CONFIG.training.learning_rate,
            batch=CONFIG.training.batch,
            epochs=CONFIG.training.epochs,
            patience=CONFIG.patience,
            seed=seed,
        )
        val = [one.features for one in self._val]
        training = Training(
            ensemble,
            pool,
            settings,
            epoch_pixels=min(sum(pixels.counts), CONFIG.training.epoch_pixels or 0),
            validate=lambda folded: validation_dice(folded, val),
        )
        training.run()
        pool.close()
        return fold(training.ensemble.eval())

    def score(self, folded: FoldedEnsemble) -> float:
        """Macro Dice on the test set."""
        classes = len(self._classes)
        matrix = np.zeros((classes, classes), dtype=np.int64)
        for one in self._test:
            mask = label_dense(folded, one.features.maps).mask
            matrix += confusion(one.features.labels, mask, classes)
        return float(np.nanmean(class_scores(matrix).dice))

    def curve(self, strategy: str, pool: Sequence[Picture], seed: int) -> list[float | None]:
        """Macro Dice at every number of labelled images; None where a class is in none of them: the
        classifier stage refuses to learn from such labels."""
        scores: list[float | None] = []
        chosen: list[int] = []
        folded: FoldedEnsemble | None = None
        for count in COUNTS:
            chosen += self._choose(strategy, pool, chosen, count - len(chosen), folded)
            pictures = [pool[number] for number in chosen]
            labels = np.concatenate([one.features.labels for one in pictures])
            learnable = len(np.unique(labels)) == len(self._classes)
            folded = self.train(pictures, seed) if learnable else None
            scores.append(None if folded is None else self.score(folded))
        return scores

    def _choose(
        self,
        strategy: str,
        pool: Sequence[Picture],
        chosen: Sequence[int],
        count: int,
        folded: FoldedEnsemble | None,
    ) -> list[int]:
        if strategy == "random":
            return list(range(len(chosen), len(chosen) + count))
        ranking = rank(pool, folded if strategy == "rounds" else None)
        return [int(one) for one in choose(ranking, [str(one) for one in chosen], (), count)]


def rank(pool: Sequence[Picture], folded: FoldedEnsemble | None) -> Ranking:
    """The table that a ranking stage would write."""
    looks = [one.look for one in pool]
    textures = learn_textures(np.concatenate([one.vectors for one in looks[:REFERENCE_IMAGES]]))
    if folded is not None:
        looks = [_with_opinion(one, folded) for one in pool]
    seen = [seen_of(one, textures) for one in looks]

    def column(name: str) -> npt.NDArray[np.float64]:
        return np.stack([np.asarray(getattr(one, name), dtype=np.float64) for one in seen])

    return Ranking(
        ids=tuple(one.features.id for one in pool),
        textures=column("textures"),
        place=column("place"),
        contrast=column("contrast"),
        realism=column("realism"),
        uncertainty=None if folded is None else column("uncertainty"),
        unsure=None if folded is None else column("unsure"),
    )


def _with_opinion(one: Picture, folded: FoldedEnsemble) -> Look:
    dense = label_dense(folded, one.features.maps)
    on_grid = dense.uncertainty.reshape(-1)[grid_positions(dense.mask.shape[0])]
    return replace(one.look, unsure=on_grid, uncertainty=dense.image_uncertainty)


def measure(study: Study, seeds: int, work: Path, say: Callable[[str], None]) -> Curves:
    """Curves by strategy, one for each seed."""
    work.mkdir(parents=True, exist_ok=True)
    curves: Curves = {name: [] for name in STRATEGIES}
    for seed in range(seeds):
        pool: list[Picture] | None = None
        for name, found in curves.items():
            path = work / f"{name}-{seed}.json"
            if not path.exists():
                pool = pool or study.draw(seed, POOL)
                path.write_text(json.dumps(study.curve(name, pool, seed)))
            found.append(json.loads(path.read_text()))
            say(
                f"seed {seed}, {name}: "
                + " ".join("-" if one is None else f"{one:.3f}" for one in found[-1])
            )
    return curves


def plot(curves: Curves, path: Path) -> None:
    """Mean and standard error over the seeds in which every class was among the images."""
    mpl.rcParams["svg.hashsalt"] = "hdgan"
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, colour, marker in zip(
        curves, ("#8a8f98", "#2b6cb0", "#b7472a"), ("o", "s", "^"), strict=True
    ):
        values = np.asarray(curves[name], dtype=np.float64)
        counted = np.isfinite(values).sum(axis=0)
        error = np.nanstd(values, axis=0, ddof=1) / np.sqrt(counted)
        axes.errorbar(
            COUNTS,
            np.nanmean(values, axis=0),
            error,
            label=STRATEGIES[name],
            color=colour,
            marker=marker,
            markersize=4,
            capsize=2,
        )
    axes.set_xlabel("labelled images to train on")
    axes.set_ylabel("macro Dice on the test images")
    axes.set_xticks(COUNTS)
    axes.set_ylim(0.88, 0.96)  # four images are far below, and say little: see the text
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--work", type=Path, default=Path("demo/ranking-study"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    study = Study(load_run(EXAMPLES / "demo.yaml").spec.annotations.classes)
    curves = measure(
        study,
        options.seeds,
        options.work,
        lambda text: print(text, flush=True),
    )
    document = {
        "counts": COUNTS,
        "pool": POOL,
        "test": TEST,
        "val": VAL,
        "members": CONFIG.members,
        "epochPixels": CONFIG.epoch_pixels,
        "macroDice": curves,
    }
    (options.out / "ranking.json").write_text(json.dumps(document, indent=1) + "\n")
    plot(curves, options.out / "images" / "ranking.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
