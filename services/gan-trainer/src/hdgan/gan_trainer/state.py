"""Saves and restores a training in the run's work area.

Two different things (nanoGPT, EDM): the *snapshot* is the networks, in the files that `initFrom`
and `hdgan generate` read; the *training state* beside it is optimizers, counters and the record so
far, for this run alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save

from hdgan.core.errors import HdganError
from hdgan.core.work import SavedState, WorkState
from hdgan.gan_trainer.record import TrainingRecord
from hdgan.gan_trainer.training import Training
from hdgan.nets import checkpoint
from hdgan.nets.tensor_files import read_tensors

_OPTIMIZERS = "optimizers.safetensors"


def snapshot_files(training: Training) -> dict[str, bytes]:
    """The networks as files: architecture, averaged generator, generator, discriminator."""
    return {
        checkpoint.ARCHITECTURE: training.arch.to_json(),
        checkpoint.GENERATOR: checkpoint.weights_to_bytes(training.ema),
        checkpoint.GENERATOR_RAW: checkpoint.weights_to_bytes(training.generator),
        checkpoint.DISCRIMINATOR: checkpoint.weights_to_bytes(training.discriminator),
    }


def holds_for(training: Training) -> dict[str, Any]:
    """What has to be the same for a resumed run to give the same bits as an undisturbed one."""
    return {
        "threads": torch.get_num_threads(),
        "processes": training.processes.size,
        "perDeviceBatch": training.config.per_device_batch,
        "recomputeResolutions": training.config.recompute_resolutions,
        "torch": torch.__version__,
        "device": _device_name(training.device),
    }


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what differs between the machine a state was saved on and this one."""
    return [
        f"{name} was {saved.get(name)}, is {value}"
        for name, value in now.items()
        if saved.get(name) != value
    ]


def save_state(work: WorkState, training: Training, record: TrainingRecord, *, exact: bool) -> None:
    """Save; visible in the store only when complete.

    `exact`: whether all of it so far was computed under the same `holds_for`.
    """
    files = snapshot_files(training)
    files[_OPTIMIZERS] = save(training.optimizer_tensors())
    meta = {
        "counters": training.counters(),
        "record": record.meta(),
        "holdsFor": holds_for(training),
        "exact": exact,
    }
    work.save(training.images, {**files, **record.files()}, meta)


def read_state(saved: SavedState) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files and small values of a saved state."""
    return {name: saved.read(name) for name in saved.names()}, saved.meta


def restore_state(
    files: Mapping[str, bytes],
    meta: Mapping[str, Any],
    training: Training,
    record: TrainingRecord,
) -> None:
    """Fill `training` and `record` from what `read_state` gave."""
    try:
        for name, module in (
            (checkpoint.GENERATOR, training.ema),
            (checkpoint.GENERATOR_RAW, training.generator),
            (checkpoint.DISCRIMINATOR, training.discriminator),
        ):
            checkpoint.load_weights(module, files[name], name)
        training.restore_optimizers(read_tensors(files[_OPTIMIZERS]), meta["counters"])
        record.restore(files, meta["record"])
    except torch.OutOfMemoryError:
        raise  # a RuntimeError, too, and says nothing about the state
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RuntimeError,
        HdganError,
    ) as error:
        raise HdganError(
            f"the saved training state does not fit this run's networks ({error}): this is a bug, "
            "please report it with the run file"
        ) from error


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
