"""Requests of the dataset stage on tiny networks, and ways to run them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hdgan.core.artifact import Artifact, Attempt, open_artifact
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.request import InputRef, StageRequest
from hdgan.core.stage import run_stage
from hdgan.core.store import Store, open_store
from hdgan.nets.checkpoint import weights_to_bytes
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, PixelEnsemble
from hdgan.nets.generator import Generator
from hdgan.nets.pyramid import feature_plan
from hdgan.synthesizer.stage import DATASET
from support.tiny_synthesizer import ARCH, CLASSES, tiny_generator

KEY = "d" * 64


def tiny_ensemble(generator: str) -> PixelEnsemble:
    """Random members that are certain enough to disagree."""
    plan = feature_plan(ARCH, 2)
    spec = EnsembleSpec(
        plan=plan,
        blocks=2,
        dtype="float16",
        classes=tuple(ClassLabel(one.name, one.color) for one in CLASSES),
        hidden=(8, 4),
        members=3,
        dropout=0.0,
        mean=np.zeros(plan.channels),
        std=np.ones(plan.channels),
        log_prior_correction=np.zeros(len(CLASSES)),
        generator=generator,
    )
    made = PixelEnsemble(spec, seed=3)
    with torch.no_grad():
        made.weights[-1].mul_(6.0)
    return made.eval()


@dataclass(frozen=True)
class DatasetStage:
    """A store with a generator and an ensemble, and a scratch folder."""

    folder: Path
    store: Store
    inputs: dict[str, InputRef]

    def request(self, **changes: Any) -> StageRequest:
        """A request for a dataset of 3 shards; `config` is what differs from the defaults."""
        values: dict[str, Any] = {
            "run": "tiny",
            "stage": "dataset",
            "service": "synthesizer",
            "config": {},
            "context": {
                "classes": [{"name": c.name, "color": c.color} for c in CLASSES],
                "mpp": 2.0,
            },
            "inputs": self.inputs,
            "key": KEY,
            "stage_version": STAGE_VERSIONS["dataset"],
            "store": self.store.uri,
            "scratch": str(self.folder / "scratch"),
            "device": "cpu",
            "threads": 1,
        } | changes
        config = {"count": 20, "shardSize": 8, "calibration": 20} | values["config"]
        return StageRequest(**(values | {"config": config}))

    def run(self, request: StageRequest, part: int | None = None) -> tuple[int, str]:
        """Run it in this process; returns exit code and what it printed."""
        path = self.folder / "request.json"
        path.write_text(request.model_dump_json(by_alias=True))
        out = io.StringIO()
        environ = {"HDGAN_REQUEST": str(path)}
        if part is not None:
            environ["JOB_COMPLETION_INDEX"] = str(part)
        return run_stage((DATASET,), environ, out), out.getvalue()

    def artifact(self) -> Artifact | None:
        return open_artifact(self.store, "dataset", KEY)

    def made(self, **changes: Any) -> Artifact:
        """The artifact of one process that does everything."""
        code, out = self.run(self.request(**changes))
        assert code == 0, out
        found = self.artifact()
        assert found is not None
        return found


def dataset_stage(folder: Path, generator: Generator | None = None) -> DatasetStage:
    """Commit the inputs into a store in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store((folder / "store").as_uri())
    attempt = Attempt(store, "gan-trainer", "a" * 64)
    attempt.add_bytes("architecture.json", ARCH.to_json())
    network = generator or tiny_generator()
    attempt.add_bytes("generator.safetensors", weights_to_bytes(network))
    made = attempt.commit({})
    inputs = {
        "generator": InputRef(stage="gan-trainer", key="a" * 64, content_digest=made.content_digest)
    }
    attempt = Attempt(store, "classifier", "b" * 64)
    for name, data in tiny_ensemble(made.content_digest).dump().items():
        attempt.add_bytes(name, data)
    scores = {"test": {"dice": {"macro": 0.9, "perClass": {one.name: 0.9 for one in CLASSES}}}}
    attempt.add_bytes("scores.json", json.dumps(scores).encode())
    made = attempt.commit({})
    inputs["ensemble"] = InputRef(
        stage="classifier", key="b" * 64, content_digest=made.content_digest
    )
    return DatasetStage(folder, store, inputs)
