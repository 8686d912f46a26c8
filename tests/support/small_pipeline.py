"""A run of every stage on a small cut of a real slide, by the `hdgan` command a person types."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from hdgan.desk.png_text import read_candidate_id, with_candidate_id

HDGAN = Path(sys.executable).with_name("hdgan")
SIDE = 32
CLASSES = ("whitespace", "dermis", "epidermis")
COLORS = ("#f2f2f2", "#e377c2", "#5e3c99")

DOCUMENT: dict[str, Any] = {
    "apiVersion": "hdgan.io/v1alpha1",
    "kind": "DatasetRun",
    "metadata": {"name": "cut"},
    "spec": {
        "slides": {"uri": "slides", "assumeSlideIsCase": True},
        "tiler": {
            "tileSize": SIDE,
            "mpp": 2.0,
            "stride": 8,
            "maxWhitespace": 0.7,
            "holdout": "spatial",
        },
        "ganTrainer": {
            "kimg": 0.2,
            "snapshotKimg": 0.04,
            "batch": 8,
            "channelBase": 512,
            "channelMax": 16,
            "latentDim": 16,
            "mappingLayers": 2,
            "metricKimg": 0.1,
            "metricSamples": 16,
        },
        # More work than a pipeline this small needs (candidates, classifier steps, calibration
        # images), so that a test can stop each stage while it is still at work.
        "candidates": {"count": 100},
        "annotations": {
            "classes": [
                {"name": name, "color": color} for name, color in zip(CLASSES, COLORS, strict=True)
            ],
            "train": 3,
            "val": 1,
            "test": 2,
        },
        "extractor": {"blocks": 4},
        "classifier": {"members": 2, "hidden": [32, 16], "batch": 64, "epochs": 6},
        "synthesizer": {"count": 6, "shardSize": 4, "calibration": 40},
        "resources": {"device": "cpu", "threads": 1, "graceSeconds": 20},
    },
}


@dataclass(frozen=True)
class Typed:
    """A command that was typed and what came of it."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class SmallPipeline:
    """Where a run lives; `typed` holds the commands that made it, by name."""

    folder: Path
    typed: dict[str, Typed] = field(default_factory=dict)

    @property
    def run_file(self) -> Path:
        return self.folder / "run.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def hdgan(self, *arguments: str | Path) -> Typed:
        """Run the real command in the run's folder."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("HDGAN_", "JOB_"))}
        ended = subprocess.run(
            [HDGAN, *map(str, arguments)],
            cwd=self.folder,
            env=inherited,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        return Typed(ended.returncode, ended.stdout, ended.stderr)

    def manifests(self) -> dict[str, bytes]:
        """Bytes of every manifest in the store, by its place."""
        return {
            path.relative_to(self.store).as_posix(): path.read_bytes()
            for path in sorted(self.store.glob("artifacts/*/*/manifest.json"))
        }

    def files(self) -> set[str]:
        """Names of all files in the store."""
        return {
            path.relative_to(self.store).as_posix()
            for path in self.store.rglob("*")
            if path.is_file()
        }


def write_run_file(path: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """The run file, with fields of some sections changed."""
    document = copy.deepcopy(DOCUMENT)
    for section, values in (changes or {}).items():
        document["spec"].setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(document))
    return path


def pattern() -> NDArray[np.uint8]:
    """Labels uint8 [SIDE, SIDE] with all three classes and one unlabelled column.

    A generator this small shows no tissue that a rule could label: the pattern is the same on
    every image, and what a classifier can learn from it is the position.
    """
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = np.where(y < SIDE // 3, 0, np.where(x + y < SIDE, 1, 2)).astype(np.uint8)
    mask[:, SIDE // 2] = 255
    return mask


def write_masks(pictures: Path, masks: Path) -> list[Path]:
    """A grey PNG of the pattern for every exported picture, under the picture's name and with its
    id inside."""
    masks.mkdir()
    written = []
    for split in ("train", "val", "test"):
        for picture in sorted(pictures.glob(f"{split}-*.png")):
            path = masks / picture.name
            Image.fromarray(pattern()).save(path)
            candidate = read_candidate_id(picture.read_bytes())
            assert candidate is not None
            path.write_bytes(with_candidate_id(path.read_bytes(), candidate))
            written.append(path)
    return written


def run_everything(
    folder: Path, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> SmallPipeline:
    """From `folder/slides` to a dataset in `folder/dataset`, stopping at nothing that fails."""
    run = SmallPipeline(folder)
    write_run_file(run.run_file, changes)
    run.typed["first run"] = run.hdgan("run", "run.yaml")
    run.typed["export"] = run.hdgan("annotations", "export", "run.yaml", "pictures")
    write_masks(folder / "pictures", folder / "masks")
    run.typed["import"] = run.hdgan("annotations", "import", "run.yaml", "masks")
    run.typed["second run"] = run.hdgan("run", "run.yaml", "--dataset", "dataset")
    return run
