"""Small runs for tests: a run document, its file, and a folder that looks like slides."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from hdgan.core.run import DatasetRun, parse_run, resolve

CLASSES: list[dict[str, Any]] = [
    {"name": "glass", "color": "#ffffff"},
    {"name": "dermis", "color": "#f4a6c0"},
    {"name": "epidermis", "color": "#7e3f98"},
]

DOCUMENT: dict[str, Any] = {
    "apiVersion": "hdgan.io/v1alpha1",
    "kind": "DatasetRun",
    "metadata": {"name": "small"},
    "spec": {
        "slides": {"uri": "slides", "assumeMpp": 0.5},
        "tiler": {"tileSize": 64, "mpp": 1.0, "holdout": "spatial"},
        "ganTrainer": {"kimg": 1, "batch": 8},
        "candidates": {"count": 6},
        "annotations": {"classes": CLASSES, "train": 1, "val": 1, "test": 1},
        "synthesizer": {"count": 4, "shardSize": 2},
        "resources": {"device": "cpu", "threads": 1, "graceSeconds": 10},
    },
}


def changed(path: str, value: Any, document: dict[str, Any] = DOCUMENT) -> dict[str, Any]:
    """A copy of the document with one value changed, e.g. `changed("spec.tiler.mpp", 2.0)`."""
    result = copy.deepcopy(document)
    *parents, last = path.split(".")
    target = result
    for name in parents:
        target = target.setdefault(name, {})
    target[last] = value
    return result


def small_run(path: str | None = None, value: Any = None) -> DatasetRun:
    """The resolved small run, with one value changed."""
    return resolve(parse_run(DOCUMENT if path is None else changed(path, value)))


def write_run(folder: Path, document: dict[str, Any] = DOCUMENT) -> Path:
    """A run file with a slides folder beside it; the slide is a stand-in of a few bytes."""
    slides = folder / "slides"
    if not slides.exists():
        slides.mkdir(parents=True)
        (slides / "one.svs").write_bytes(b"not really a slide")
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
