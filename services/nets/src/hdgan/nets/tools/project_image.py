"""A projection as files: what was found, how it looks, and how far off it is."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from hdgan.nets.generator import to_uint8
from hdgan.nets.tools.generate import NOISE_PREFIX
from hdgan.nets.tools.pictures import Rgb, Target, encode_png, side_by_side
from hdgan.nets.tools.projection import DISTANCE, OnStep, Space, image_error, project
from hdgan.nets.tools.source import Networks

W_FILE = "w.npy"
LATENT_FILE = "projection.safetensors"
PICTURE_FILE = "projected.png"
COMPARISON_FILE = "comparison.png"
REPORT_FILE = "projection.json"
FILES = (W_FILE, LATENT_FILE, PICTURE_FILE, COMPARISON_FILE, REPORT_FILE)

_DISTANCE_NOTE = (
    "mean absolute difference per Laplacian-pyramid level, summed; not the LPIPS of StyleGAN2's "
    "appendix D"
)


def project_image(
    networks: Networks,
    target: Target,
    name: str,
    *,
    steps: int,
    seed: int,
    space: Space,
    label: str | None,
    label_number: int | None,
    on_step: OnStep | None = None,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Project and return the files by name, and what projection.json says.

    The report holds three errors: of the projected image; of the same w with the network's own
    noise, which is what w alone explains; and of the mean w, where the search began.
    """
    generator = networks.generator
    target_3HW = torch.from_numpy(target.rgb.copy()).permute(2, 0, 1).float() / 127.5 - 1.0
    target_3HW = target_3HW.to(next(generator.parameters()).device)
    found = project(
        generator,
        target_3HW,
        steps=steps,
        seed=seed,
        space=space,
        label=label_number,
        on_step=on_step,
    )
    with torch.no_grad():
        image = generator.synthesis(found.ws[None], found.noise)
        own_noise = generator.synthesis(found.ws[None], "constant")
        start = generator.synthesis(found.w_mean.expand_as(found.ws)[None], "constant")
    picture: Rgb = to_uint8(image)[0].cpu().numpy()
    report = {
        "generator": networks.digest,
        "source": networks.source,
        "resolution": generator.arch.resolution,
        "target": {
            "file": name,
            "sha256": target.sha256,
            "width": target.width,
            "height": target.height,
            "resized": target.resized,
        },
        "steps": steps,
        "seed": seed,
        "space": space,
        "label": label,
        "distance": {"name": DISTANCE, "meaning": _DISTANCE_NOTE},
        "errors": {
            "projected": _error(image, target_3HW),
            "sameWOwnNoise": _error(own_noise, target_3HW),
            "meanW": _error(start, target_3HW),
        },
        "distanceToMeanW": found.distance_to_mean,
        "spreadOfW": found.w_spread,
        "course": [{"step": step, "distance": value} for step, value in found.distances],
    }
    names = (NOISE_PREFIX + conv for conv in generator.arch.conv_names)
    tensors = {name: one[0, 0].cpu() for name, one in zip(names, found.noise, strict=True)}
    w = found.ws.cpu()
    # One entry only: safetensors writes several in an order that changes from run to run.
    about = {"generator": networks.digest}
    text = {"hdgan-generator": networks.digest, "hdgan-projection-of": target.sha256}
    files = {
        W_FILE: _npy(w),
        LATENT_FILE: save({"w": w, **tensors}, metadata=about),
        PICTURE_FILE: encode_png(picture, text),
        COMPARISON_FILE: encode_png(side_by_side(target.rgb, picture), text),
        REPORT_FILE: (json.dumps(report, indent=1) + "\n").encode(),
    }
    return files, report


def expected_size(networks: Networks) -> int:
    """Upper bound of the files' bytes, for a look at the disk before the work."""
    arch = networks.generator.arch
    noise = sum(height * width for height, width in networks.generator.synthesis.noise_shapes())
    pictures = 4 * 3 * arch.resolution**2
    return 8 * arch.num_ws * arch.latent_dim + 4 * noise + pictures + (1 << 16)


def saved_in(folder: Path) -> str:
    """Where to look, for people."""
    return f"{folder / COMPARISON_FILE} (target | projected), {folder / REPORT_FILE}"


def _error(image_B3HW: Tensor, target_3HW: Tensor) -> dict[str, float | None]:
    return dataclasses.asdict(image_error(image_B3HW[0], target_3HW))


def _npy(array: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array.numpy(), allow_pickle=False)
    return buffer.getvalue()
