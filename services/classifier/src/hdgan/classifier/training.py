"""Training an ensemble: one readable loop, all members in step, state that resumes bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from hdgan.classifier.sampling import DROPOUT_STREAM, NOISE_STREAM, RowPool
from hdgan.core.errors import DataError
from hdgan.nets.ensemble import FoldedEnsemble, PixelEnsemble, fold
from hdgan.nets.tensor_files import read_tensors

STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; see `ClassifierConfig` for units and defaults. `epochs` is the most allowed."""

    optimizer: str
    learning_rate: float
    batch: int
    epochs: int
    patience: int
    seed: int
    label_smoothing: float = 0.0
    feature_noise: float = 0.0


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean loss over its steps (nats), macro Dice on val (None without val images)."""

    epoch: int
    loss: float
    val_macro_dice: float | None


@dataclass
class TrainingState:
    """Counters of a run; the tensors live in ensemble, optimizer and `best`."""

    step: int = 0
    loss_sum: float = 0.0
    best_epoch: int = -1
    best_score: float = -1.0
    history: list[EpochRecord] = field(default_factory=list)
    finished: bool = False


class Training:
    """An ensemble being trained. `run` ends when it is trained or when asked to stop."""

    def __init__(
        self,
        ensemble: PixelEnsemble,
        pool: RowPool,
        settings: TrainingSettings,
        *,
        epoch_pixels: int,
        validate: Callable[[FoldedEnsemble], float] | None,
    ) -> None:
        """`epoch_pixels`: what an epoch draws for each member.

        `validate` gives the macro Dice on the validation images; None trains all epochs and keeps
        the last.
        """
        self.ensemble = ensemble
        self.settings = settings
        self.state = TrainingState()
        self.steps_per_epoch = max(1, round(epoch_pixels / settings.batch))
        self.steps = self.steps_per_epoch * settings.epochs
        self.pool = pool
        self._validate = validate
        self._optimizer = make_optimizer(ensemble, settings)
        self._best: dict[str, torch.Tensor] = {}
        self._device = ensemble.weights[0].device

    def run(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        on_step: Callable[[int, int], None] = lambda step, steps: None,
        on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    ) -> bool:
        """Train on; True when finished (the best epoch's weights are then in `ensemble`).

        False when `stop` said so: the state can be saved and resumed to the same end.
        """
        while not self.state.finished:
            if stop():
                return False
            self.state.loss_sum += self.step(self.state.step)
            self.state.step += 1
            on_step(self.state.step, self.steps)
            if self.state.step % self.steps_per_epoch == 0:
                on_epoch(self._end_epoch())
        return True

    def step(self, step: int) -> float:
        """Step number `step` of the run; returns its mean loss in nats."""
        settings = self.settings
        self.ensemble.train()
        batch = self.pool.draw(step)
        x_MBC = batch.rows
        if settings.feature_noise > 0:
            stream = self._stream(NOISE_STREAM, step)
            noise = torch.empty_like(x_MBC).normal_(generator=stream)
            x_MBC = x_MBC.add_(noise, alpha=settings.feature_noise)
        logits_MBK = self.ensemble.train_logits(x_MBC, self._stream(DROPOUT_STREAM, step))
        members, rows, classes = logits_MBK.shape
        loss = nn.functional.cross_entropy(
            logits_MBK.reshape(-1, classes),
            batch.labels.reshape(-1),
            reduction="sum",
            label_smoothing=settings.label_smoothing,
        )
        # Sum over members, mean over rows: each member's gradient is that of training it alone.
        self._optimizer.zero_grad(set_to_none=True)
        (loss / rows).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        value = float(loss.detach()) / (rows * members)
        if not np.isfinite(value):
            raise DataError(
                f"classifier training diverged at step {step} (loss {value}): lower "
                "spec.classifier.learningRate"
            )
        return value

    def _end_epoch(self) -> EpochRecord:
        state, settings = self.state, self.settings
        epoch = len(state.history)
        score = None if self._validate is None else self._validate(fold(self.ensemble.eval()))
        record = EpochRecord(epoch, state.loss_sum / self.steps_per_epoch, score)
        state.history.append(record)
        state.loss_sum = 0.0
        if score is None or score > state.best_score:
            state.best_epoch = epoch
            state.best_score = -1.0 if score is None else score
            self._best = {
                name: value.detach().clone() for name, value in self.ensemble.state_dict().items()
            }
        patient = epoch - state.best_epoch < settings.patience
        state.finished = epoch + 1 >= settings.epochs or not patient
        if state.finished:
            self.ensemble.load_state_dict(self._best)
            self.ensemble.eval()
        return record

    def _stream(self, purpose: int, step: int) -> torch.Generator:
        sequence = np.random.SeedSequence([purpose, self.settings.seed, step])
        seed = int(sequence.generate_state(1, np.uint64)[0]) >> 1
        return torch.Generator(self._device).manual_seed(seed)

    def save(self) -> tuple[bytes, dict[str, Any]]:
        """Everything a resumed run needs: tensors as safetensors bytes, counters as JSON.

        Random streams need no saving: they are functions of (seed, step).
        """
        tensors = {f"model.{name}": value for name, value in self.ensemble.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for index, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        packed = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return safetensors.torch.save(packed), asdict(self.state)

    def restore(self, tensors: bytes, counters: Mapping[str, Any]) -> None:
        """Continue where `save` was called, in this or another process."""
        state = dict(counters)
        state["history"] = [EpochRecord(**record) for record in state["history"]]
        groups: dict[str, dict[str, torch.Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, value in read_tensors(tensors).items():
            group, rest = name.split(".", 1)
            groups[group][rest] = value
        self.ensemble.load_state_dict(groups["model"])
        self._best = {name: value.to(self._device) for name, value in groups["best"].items()}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in groups["optimizer"].items():
            index, rest = name.split(".", 1)
            moments.setdefault(int(index), {})[rest] = value
        whole = self._optimizer.state_dict()
        self._optimizer.load_state_dict({"state": moments, "param_groups": whole["param_groups"]})
        self.state = TrainingState(**state)


def make_optimizer(ensemble: PixelEnsemble, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam with its usual constants, or plain SGD (as published)."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(ensemble.parameters(), lr=settings.learning_rate)
    return torch.optim.SGD(ensemble.parameters(), lr=settings.learning_rate)
