"""A tiny run up to its annotations, made directly: generator, candidates and masks in a store.

The masks are drawn by a rule on the candidates' own blurred brightness, so that a classifier has
something to learn.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from PIL import Image

from hdgan.core.artifact import Attempt, artifact_key, open_artifact
from hdgan.core.masks import encode_mask
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.request import InputRef
from hdgan.core.sections import ClassConfig
from hdgan.core.store import open_store
from hdgan.nets.architecture import Architecture
from hdgan.nets.checkpoint import weights_to_bytes
from hdgan.nets.generator import Generator, to_uint8
from hdgan.nets.latents import candidate_id, draw_noise, draw_z

ARCH = Architecture(16, latent_dim=8, mapping_layers=2, channel_base=128, channel_max=12)
CLASSES = (ClassConfig(name="dark", color="#203040"), ClassConfig(name="light", color="#e0d0c0"))
SPLITS = ("train", "train", "train", "train", "val", "val", "test", "test")

Files = dict[str, bytes]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class AnnotatedRun:
    """Where things are, and what a stage of the run is asked to do."""

    store: str
    scratch: Path
    inputs: Mapping[str, InputRef]
    ids: tuple[str, ...]
    classes: tuple[ClassConfig, ...] = CLASSES
    extractor: Mapping[str, Any] = field(default_factory=lambda: {"blocks": 3, "dtype": "float16"})

    @property
    def features_key(self) -> str:
        digests = {name: one.content_digest for name, one in self.inputs.items()}
        return artifact_key("extractor", 1, dict(self.extractor), digests)

    def request(self, stage: str, config: Mapping[str, Any], path: Path) -> dict[str, str]:
        """Write the stage's request to `path`; returns the environment to start it with."""
        digests = {name: one.content_digest for name, one in self.inputs.items()}
        key = self.features_key
        context: dict[str, Any] = {
            "classes": [{"name": one.name, "color": one.color} for one in self.classes],
            "mpp": 1.0,
        }
        if stage == "classifier":
            key = artifact_key(stage, 1, dict(config), digests)
            context |= {"extractor": dict(self.extractor), "featuresKey": self.features_key}
        request = {
            "run": "tiny",
            "stage": stage,
            "service": stage,
            "config": dict(config),
            "context": context,
            "inputs": {
                name: {"stage": one.stage, "key": one.key, "contentDigest": one.content_digest}
                for name, one in self.inputs.items()
            },
            "key": key,
            "stageVersion": STAGE_VERSIONS[stage],
            "store": self.store,
            "scratch": str(self.scratch),
            "device": "cpu",
            "threads": 1,  # the work is tiny: more threads only wait for each other
        }
        path.write_text(json.dumps(request))
        return {"HDGAN_REQUEST": str(path)}

    def with_annotations(self, masks: Mapping[str, Mask | bytes], **changes: Any) -> AnnotatedRun:
        """The same run with other annotations; `changes` replace fields of annotations.json."""
        reference = put_annotations(self, masks, **changes)
        return replace(self, inputs={**self.inputs, "annotations": reference})

    def with_candidates(self, change: Mapping[str, bytes]) -> AnnotatedRun:
        """The same run with some files of its candidates replaced, annotated as before."""
        store = open_store(self.store)
        before = open_artifact(store, "candidates", self.inputs["candidates"].key)
        assert before is not None
        files = {name: before.read(name) for name in before.names()} | dict(change)
        moved = replace(
            self, inputs={**self.inputs, "candidates": _put(self.store, "candidates", files)}
        )
        return moved.with_annotations(self.masks())

    def pictures(self) -> dict[str, npt.NDArray[np.uint8]]:
        artifact = open_artifact(
            open_store(self.store), "candidates", self.inputs["candidates"].key
        )
        assert artifact is not None
        return {
            name: np.asarray(Image.open(io.BytesIO(artifact.read(f"images/{name}.png"))))
            for name in self.ids
        }

    def masks(self) -> dict[str, Mask]:
        """Labels by brightness over the set, with one row left unlabelled."""
        bright = {
            name: smooth(picture.astype(np.float64).mean(axis=2))
            for name, picture in self.pictures().items()
        }
        threshold = np.median(np.stack(list(bright.values())))
        masks = {name: (one > threshold).astype(np.uint8) for name, one in bright.items()}
        for mask in masks.values():
            mask[3] = 255
        return masks


def smooth(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over 3 x 3 pixels, edges repeated."""
    padded = np.pad(image, 1, mode="edge")
    height, width = image.shape
    total = np.zeros_like(image)
    for dy in range(3):
        for dx in range(3):
            total += padded[dy : dy + height, dx : dx + width]
    return total / 9


def make_run(folder: Path, *, noise: str = "constant") -> AnnotatedRun:
    """Generator, eight candidates and their annotations, split 4 / 2 / 2."""
    store = f"file://{folder / 'store'}"
    torch.manual_seed(11)
    generator = Generator(ARCH).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.2)
    generator_ref = _put(
        store,
        "gan-trainer",
        {
            "architecture.json": ARCH.to_json(),
            "generator.safetensors": weights_to_bytes(generator),
        },
    )
    digest = generator_ref.content_digest
    ids = tuple(candidate_id(digest, "candidates", 0, index) for index in range(len(SPLITS)))
    files: Files = {}
    ws = []
    for index, name in enumerate(ids):
        w = generator.mapping(torch.from_numpy(draw_z(0, "candidates", index, 8))[None], 0.7)
        drawn = draw_noise(0, "candidates", index, generator.synthesis.noise_shapes())
        tensors = [torch.from_numpy(one) for one in drawn]
        image = generator.synthesis(w, "constant" if noise == "constant" else tensors)
        files[f"images/{name}.png"] = png(to_uint8(image)[0].numpy())
        ws.append(w[0].contiguous().numpy())
    files["latents.safetensors"] = safetensors.numpy.save({"w": np.stack(ws)})
    files["candidates.json"] = json.dumps(
        {
            "generator": digest,
            "stream": "candidates",
            "seed": 0,
            "psi": 0.7,
            "noise": noise,
            "images": [
                {
                    "id": name,
                    "index": index,
                    "sha256": hashlib.sha256(files[f"images/{name}.png"]).hexdigest(),
                }
                for index, name in enumerate(ids)
            ],
        }
    ).encode()
    candidates_ref = _put(store, "candidates", files)
    inputs = {"generator": generator_ref, "candidates": candidates_ref}
    run = AnnotatedRun(store, folder / "scratch", inputs, ids)
    return run.with_annotations(run.masks())


def put_annotations(
    run: AnnotatedRun, masks: Mapping[str, Mask | bytes], **changes: Any
) -> InputRef:
    """Commit annotations of a run's candidates."""
    files: Files = {}
    for name, mask in masks.items():
        data = mask if isinstance(mask, bytes) else encode_mask(mask, run.classes)
        files[f"masks/{name}.png"] = data
    document = {
        "candidates": run.inputs["candidates"].content_digest,
        "generator": run.inputs["generator"].content_digest,
        "classes": [{"name": one.name, "color": one.color} for one in run.classes],
        "images": [
            {
                "id": name,
                "split": SPLITS[run.ids.index(name)],
                "sha256": hashlib.sha256(files[f"masks/{name}.png"]).hexdigest(),
            }
            for name in run.ids
            if name in masks
        ],
        "background": None,
    } | changes
    files["annotations.json"] = json.dumps(document).encode()
    return _put(run.store, "annotations", files)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def _put(store: str, stage: str, files: Mapping[str, bytes]) -> InputRef:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    key = artifact_key(stage, 1, {}, digests)
    attempt = Attempt(open_store(store), stage, key)
    for name, data in files.items():
        attempt.add_bytes(name, data)
    artifact = attempt.commit({})
    return InputRef(stage=stage, key=key, content_digest=artifact.content_digest)
