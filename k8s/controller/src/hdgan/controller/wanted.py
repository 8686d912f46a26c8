"""What the pods of a run ask for: the run's own words, else the installation's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hdgan.controller.settings import Settings, StageName, StagePodConfig
from hdgan.core.report_request import STAGE as REPORT
from hdgan.core.resources import PodConfig, ScratchConfig, SharedPodConfig
from hdgan.core.run import DatasetRun

STAGE_NAMES: Final[Mapping[str, StageName]] = {
    "tiler": "tiler",
    "gan-trainer": "ganTrainer",
    "drift": "candidates",
    "candidates": "candidates",
    "ranking": "candidates",
    "reranking": "candidates",
    "extractor": "extractor",
    "classifier": "classifier",
    "dataset": "dataset",
    REPORT: "report",
}
"""Whose `pods` count for a node of the graph."""


@dataclass(frozen=True)
class Wanted:
    """What the pods of a stage ask for: the run's own words, else the installation's."""

    run: PodConfig
    installation: StagePodConfig

    def get(self, name: str) -> Any:
        value = getattr(self.run, name, None)
        return getattr(self.installation, name, None) if value is None else value


def wanted(run: DatasetRun, stage: str, settings: Settings) -> Wanted:
    """What the pods of a stage (a node of the graph) ask for."""
    own: dict[StageName, PodConfig] = {
        "tiler": run.spec.resources.pods.tiler,
        "ganTrainer": run.spec.resources.pods.gan_trainer,
        "candidates": run.spec.resources.pods.candidates,
        "extractor": run.spec.resources.pods.extractor,
        "classifier": run.spec.resources.pods.classifier,
        "dataset": run.spec.resources.pods.dataset,
        "report": PodConfig(),  # no run says anything of it
    }
    name = STAGE_NAMES[stage]
    return Wanted(own[name], settings.pods.get(name, StagePodConfig()))


def parts_of(run: DatasetRun, stage: str, settings: Settings) -> int:
    """Pods that share a stage's work."""
    pods = wanted(run, stage, settings)
    own = pods.run.parts if isinstance(pods.run, SharedPodConfig) else None
    return pods.installation.parts if own is None else own


def nodes_of(run: DatasetRun, stage: str) -> int:
    """Machines that work on a stage together."""
    pods = run.spec.resources.pods.gan_trainer
    return pods.nodes or 1 if stage == "gan-trainer" else 1


def scratch_of(run: DatasetRun, settings: Settings) -> ScratchConfig:
    """Where the run's pods keep what may be lost."""
    return run.spec.resources.scratch or settings.scratch


_FACTORS: Final[Mapping[str, float]] = {
    "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def threads(cpu: str) -> int:
    """Whole cores of a quantity, at least one."""
    digits = cpu.rstrip("mkKMGTi")
    return max(1, math.floor(float(digits) * _FACTORS[cpu[len(digits) :]]))
