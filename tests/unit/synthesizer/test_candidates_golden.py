"""What the candidates stage makes of a fixed generator: a change needs a new stage version.

If a test here fails after a change you meant, raise STAGE_VERSIONS["candidates"] in
hdgan.core.pipeline, so that nobody's old candidates pass for new ones, and update the values here.
Pixels go through float arithmetic whose last bit depends on the processor; so the exact part is
structure, identities and names, and latents and pixels are compared to a tolerance.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from hdgan.core.artifact import Artifact, Attempt, open_artifact
from hdgan.core.canonical import canonical_digest
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.request import InputRef, StageRequest
from hdgan.core.stage import run_stage
from hdgan.core.store import open_store
from hdgan.nets.checkpoint import weights_to_bytes
from hdgan.nets.generator import Generator
from hdgan.synthesizer.stage import CANDIDATES
from support.tiny_synthesizer import ARCH

GOLDEN_VERSION = 2
# Digest of candidates.json without the digests of the pictures.
GOLDEN_INDEX = "ad38e4087a3abf671ca1cae85e2dea3afe0c40b7dd3b6ae03951e0b1a709b209"
# The first three numbers of each w.
GOLDEN_W = [
    [-0.33011, 0.16656, -0.59463],
    [-0.08335, 1.20094, -0.35315],
    [-0.09966, 1.48238, -0.32662],
]
# Mean grey level (red, green, blue) of each picture's quarters: top left, top right, bottom left,
# bottom right.
GOLDEN_MEANS = [
    [
        [0.0, 115.08, 109.36],
        [29.61, 45.53, 124.27],
        [0.64, 183.77, 184.84],
        [18.27, 102.58, 129.61],
    ],
    [[0.0, 153.69, 8.53], [0.8, 113.47, 7.89], [3.95, 190.97, 1.31], [0.39, 130.59, 8.19]],
    [[0.14, 168.64, 5.47], [0.7, 142.56, 9.14], [3.88, 212.0, 0.47], [1.89, 156.53, 6.42]],
]


def golden_generator() -> Generator:
    """Weights from Philox by number: the same on every machine and with every torch."""
    generator = Generator(ARCH).eval().requires_grad_(False)
    for number, (name, tensor) in enumerate(sorted(generator.state_dict().items())):
        stream = np.random.Generator(np.random.Philox(key=number))
        drawn = torch.as_tensor(stream.standard_normal(tuple(tensor.shape)))
        if name.startswith("mapping.layers"):
            drawn = drawn / ARCH.mapping_lr_multiplier  # as initialised: else w hardly varies
        if name.endswith("noise_strength"):
            drawn = drawn * 0.2
        tensor.copy_(drawn)
    return generator


def make(folder: Path) -> Artifact:
    """Run the stage on the golden generator."""
    store = open_store(f"file://{folder / 'store'}")
    attempt = Attempt(store, "gan-trainer", "0" * 64)
    attempt.add_bytes("architecture.json", ARCH.to_json())
    attempt.add_bytes("generator.safetensors", weights_to_bytes(golden_generator()))
    made = attempt.commit({})
    reference = InputRef(stage="gan-trainer", key="0" * 64, content_digest=made.content_digest)
    request = StageRequest(
        run="golden",
        stage="candidates",
        service="synthesizer",
        config={"count": 3, "seed": 5},
        inputs={"generator": reference},
        key="1" * 64,
        stage_version=STAGE_VERSIONS["candidates"],
        store=store.uri,
        scratch=str(folder / "scratch"),
        device="cpu",
        threads=1,
    )
    path = folder / "request.json"
    path.write_text(request.model_dump_json(by_alias=True))
    out = io.StringIO()
    assert run_stage((CANDIDATES,), {"HDGAN_REQUEST": str(path)}, out) == 0, out.getvalue()
    artifact = open_artifact(store, "candidates", "1" * 64)
    assert artifact is not None
    return artifact


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make(tmp_path_factory.mktemp("golden"))


def test_the_golden_values_are_those_of_this_version() -> None:
    assert STAGE_VERSIONS["candidates"] == GOLDEN_VERSION


def test_files_and_index_are_the_golden_ones(candidates: Artifact) -> None:
    document = json.loads(candidates.read("candidates.json"))
    ids = [image["id"] for image in document["images"]]
    images = [f"images/{name}.png" for name in ids]
    assert candidates.names() == sorted(
        ["candidates.json", "latents.safetensors", "sheet.png", *images]
    )
    # Digests of pixels are the processor's business; all the rest is exact.
    for image in document["images"]:
        assert image.pop("sha256") == candidates.entry(f"images/{image['id']}.png").sha256
    assert canonical_digest(document) == GOLDEN_INDEX


def test_latents_are_the_golden_ones(candidates: Artifact) -> None:
    w = safetensors.numpy.load(candidates.read("latents.safetensors"))["w"]
    assert w.shape == (3, ARCH.num_ws, ARCH.latent_dim)
    assert w.dtype == np.float32
    assert np.array_equal(w, np.broadcast_to(w[:, :1], w.shape))
    assert np.allclose(w[:, 0, :3], GOLDEN_W, rtol=0, atol=1e-4)


def test_pictures_are_the_golden_ones(candidates: Artifact) -> None:
    document = json.loads(candidates.read("candidates.json"))
    for image, expected in zip(document["images"], GOLDEN_MEANS, strict=True):
        picture = Image.open(io.BytesIO(candidates.read(f"images/{image['id']}.png")))
        assert picture.info == {"hdgan-candidate": image["id"]}
        pixels = np.asarray(picture).astype(np.float64)
        quarters = pixels.reshape(2, 8, 2, 8, 3).mean(axis=(1, 3)).reshape(4, 3)
        assert np.allclose(quarters, expected, rtol=0, atol=0.5)


def test_a_second_run_makes_the_same_bytes(candidates: Artifact, tmp_path: Path) -> None:
    assert make(tmp_path).content_digest == candidates.content_digest
