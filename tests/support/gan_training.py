"""A tiny StyleGAN2-ADA training, in this process or in several; run as a script it is one of them:

RANK=0 WORLD_SIZE=2 ... python gan_training.py OUT STEPS '{"batch": 8}'
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from hdgan.core.run import GanTrainerConfig
from hdgan.gan_trainer.distribution import join
from hdgan.gan_trainer.training import Training

SIDE = 16


def config(**changes: object) -> GanTrainerConfig:
    """Every regulariser and the augmentations on, at sizes a test can afford."""
    values: dict[str, object] = {
        "kimg": 1.0,
        "batch": 4,
        "channel_base": 64,
        "channel_max": 8,
        "latent_dim": 8,
        "mapping_layers": 2,
        "r1_interval": 3,
        "path_length_interval": 2,
        "augment": "ada",
        "augment_p": 0.5,
        "augment_set": "bgc",
        "mirror": True,
        **changes,
    }
    return GanTrainerConfig.model_validate(values)


def tiles() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE, 3), dtype=np.uint8)


def run(training: Training, steps: int) -> dict[str, float]:
    """Steps on `tiles()`; returns what the last one measured."""
    data = tiles()
    measured: dict[str, float] = {}
    for _ in range(steps):
        rows = (training.images + training.samples) % len(data)
        labels = rows % len(training.arch.labels) if training.arch.labels else None
        measured = training.step(data[rows], labels)
    return measured


def tensors(training: Training) -> dict[str, torch.Tensor]:
    """Everything that training changes, by name."""
    found = training.optimizer_tensors()
    for prefix, module in (
        ("generator", training.generator),
        ("discriminator", training.discriminator),
        ("ema", training.ema),
    ):
        found |= {f"{prefix}.{n}": t.detach().clone() for n, t in module.state_dict().items()}
    found["ada_p"] = torch.tensor(training.ada.p, dtype=torch.float64)
    return found


def labelled(count: int) -> dict[str, Any]:
    """Arguments that make a training conditional on `count` labels."""
    if not count:
        return {}
    names = tuple(f"stain {i}" for i in range(count))
    return {"labels": names, "label_pool": np.arange(20, dtype=np.int64) % count}


def train_together(
    processes: int, steps: int, folder: Path, labels: int = 0, **changes: object
) -> list[dict[str, torch.Tensor]]:
    """Train in float64 in several processes; returns what each of them ended with."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                str(folder / f"rank-{rank}.safetensors"),
                str(steps),
                str(labels),
                json.dumps(changes),
            ],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(processes)
    ]
    assert [process.wait(300) for process in started] == [0] * processes
    return [load_file(folder / f"rank-{rank}.safetensors") for rank in range(processes)]


def main() -> None:
    out, steps, labels, changes = sys.argv[1:]
    processes = join("cpu", 60)
    training = Training(
        config(**json.loads(changes)),
        SIDE,
        processes=processes,
        dtype=torch.float64,
        **labelled(int(labels)),
    )
    run(training, int(steps))
    save_file({n: t.contiguous() for n, t in tensors(training).items()}, out)
    processes.close()


if __name__ == "__main__":
    main()
