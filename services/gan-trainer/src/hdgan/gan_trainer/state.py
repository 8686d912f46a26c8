"""Training state in the run's work area: everything needed to go on, apart from the snapshot.

Two different things (nanoGPT, EDM): the *snapshot* is weights for others to use, the *training
state* is weights, optimizers, counters and the log so far, for this run alone.
"""

from __future__ import annotations

from safetensors.torch import load, save

from hdgan.core.errors import HdganError
from hdgan.core.work import SavedState, WorkState
from hdgan.gan_trainer.training import Training
from hdgan.gan_trainer.training_log import TrainingLog

_TENSORS = "state.safetensors"
_LOG = "training.jsonl"
_GRID_PREFIX = "grid-"


def save_state(
    work: WorkState, training: Training, log: TrainingLog, grids: dict[str, bytes]
) -> None:
    """Save; visible in the store only when complete."""
    files: dict[str, bytes] = {
        _TENSORS: save(training.tensors()),
        _LOG: log.to_jsonl(),
        **{f"{_GRID_PREFIX}{name}": data for name, data in grids.items()},
    }
    meta = {"counters": training.counters(), "log": log.state(), "grids": sorted(grids)}
    work.save(training.images, files, meta)


def load_state(
    saved: SavedState, training: Training, log: TrainingLog, grids: dict[str, bytes]
) -> None:
    """Fill `training`, `log` and `grids` from a saved state."""
    try:
        training.restore(load(saved.read(_TENSORS)), saved.meta["counters"])
    except (KeyError, RuntimeError) as error:
        raise HdganError(
            f"the saved training state at {saved.step} images does not fit this run's networks "
            f"({error}): this is a bug, please report it with the run file"
        ) from error
    log.restore(saved.read(_LOG), saved.meta["log"])
    grids.update({name: saved.read(f"{_GRID_PREFIX}{name}") for name in saved.meta["grids"]})
