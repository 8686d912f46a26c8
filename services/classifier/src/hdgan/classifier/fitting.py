"""Fitting the models of a run one after the other, with state that survives a kill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch

from hdgan.classifier.evaluation import validation_dice
from hdgan.classifier.labelled_pixels import LabelledPixels
from hdgan.classifier.sampling import RowPool
from hdgan.classifier.training import EpochRecord, Training, TrainingSettings
from hdgan.core.errors import Stopped
from hdgan.core.run import ClassConfig, ClassifierConfig
from hdgan.core.stage import StageContext
from hdgan.core.well_formed import well_formed
from hdgan.core.work import SavedState
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, PixelEnsemble, prior_correction
from hdgan.nets.precision import Precision
from hdgan.nets.shards import FeatureSet
from hdgan.nets.tensor_files import read_tensors

SAVE_SECONDS = 60.0
STEPS_PER_MODEL = 1_000_000_000  # saved states are ordered by model, then by step
CURRENT_FILE = "current.safetensors"


@dataclass(frozen=True)
class Model:
    """Something to fit: a name and the pixels' vectors it sees."""

    name: str
    features: FeatureSet


@dataclass(frozen=True)
class Fitted:
    """A fitted ensemble and how it got there."""

    name: str
    ensemble: PixelEnsemble
    history: tuple[EpochRecord, ...]
    best_epoch: int


class Fitter:
    """Fits models with one configuration; saves on request, on a stop and every minute."""

    def __init__(
        self,
        ctx: StageContext,
        config: ClassifierConfig,
        classes: Sequence[ClassConfig],
        *,
        generator: str,
        blocks: int,
        precision: Precision,
        pixels: LabelledPixels,
    ) -> None:
        """`pixels`: of the training images; all models see the same."""
        self._ctx = ctx
        self._config = config
        self._classes = tuple(ClassLabel(one.name, one.color) for one in classes)
        self._generator = generator
        self._blocks = blocks
        self._precision = precision
        self._pixels = pixels

    def fit_all(self, models: Sequence[Model]) -> list[Fitted]:
        """Fit every model; models and steps that a saved state holds are not done again."""
        saved = self._ctx.work.latest()
        fitted: list[Fitted] = []
        for number, model in enumerate(models):
            ensemble = self._new_ensemble(model.features)
            finished = None
            if saved is not None:
                with well_formed(_named(saved)):
                    finished = saved.meta["finished"].get(model.name)
                    if finished is not None:
                        fitted.append(_restore_fitted(saved, model.name, ensemble, finished))
            if finished is not None:
                continue
            training = self._training(model, ensemble)
            if saved is not None and saved.meta.get("current") == model.name:
                with well_formed(_named(saved)):
                    training.restore(saved.read(CURRENT_FILE), saved.meta["counters"])
                self._ctx.log(f"{model.name}: going on from step {training.state.step}")
            fitted.append(self._fit(number, model, training, fitted))
        return fitted

    def _fit(
        self, number: int, model: Model, training: Training, before: Sequence[Fitted]
    ) -> Fitted:
        ctx = self._ctx
        last_save = time.monotonic()

        def save(done: Sequence[Fitted], current: str | None) -> None:
            files, meta = _finished_state(done)
            meta["current"] = current
            step = (number + 1) * STEPS_PER_MODEL
            if current is not None:
                files[CURRENT_FILE], meta["counters"] = training.save()
                step = number * STEPS_PER_MODEL + training.state.step
            ctx.work.save(step, dict(files), meta)

        def save_if_due() -> None:
            nonlocal last_save
            if time.monotonic() - last_save > SAVE_SECONDS:
                save(before, model.name)
                last_save = time.monotonic()

        def on_step(step: int, steps: int) -> None:
            ctx.progress(step, steps, f"steps ({model.name})")
            if step % training.steps_per_epoch:  # else the epoch has not been ended yet
                save_if_due()

        def on_epoch(record: EpochRecord) -> None:
            values = {"loss": record.loss}
            if record.val_macro_dice is not None:
                values["val_macro_dice"] = record.val_macro_dice
            if model.name == "features":
                ctx.metric(epoch=record.epoch, **values)
            save_if_due()

        finished = training.run(stop=lambda: ctx.stop_requested, on_step=on_step, on_epoch=on_epoch)
        training.pool.close()
        if not finished:
            save(before, model.name)
            raise Stopped(
                f"stopped while training {model.name} at step {training.state.step}, state saved"
            )
        ctx.progress(training.state.step, training.state.step, f"steps ({model.name})")
        state = training.state
        done = Fitted(model.name, training.ensemble, tuple(state.history), state.best_epoch)
        save([*before, done], None)
        return done

    def _new_ensemble(self, features: FeatureSet) -> PixelEnsemble:
        config = self._config
        evenly = [1.0 / len(self._classes)] * len(self._classes)
        spec = EnsembleSpec(
            plan=features.plan,
            blocks=self._blocks,
            dtype=features.dtype,
            classes=self._classes,
            hidden=tuple(config.hidden),
            members=config.members,
            dropout=config.training.dropout,
            mean=features.mean,
            std=features.std,
            log_prior_correction=prior_correction(self._pixels.counts, evenly),
            generator=self._generator,
            precision=self._precision,
        )
        return PixelEnsemble(spec, config.seed).to(self._ctx.device)

    def _training(self, model: Model, ensemble: PixelEnsemble) -> Training:
        config, features = self._config, model.features
        chosen = config.training
        settings = TrainingSettings(
            optimizer=chosen.optimizer,
            learning_rate=chosen.learning_rate,
            batch=chosen.batch,
            epochs=chosen.epochs,
            patience=config.patience,
            seed=config.seed,
            label_smoothing=config.label_smoothing,
            feature_noise=config.feature_noise,
        )
        pool = RowPool(
            ensemble,
            features.split("train"),
            self._pixels,
            seed=config.seed,
            batch=chosen.batch,
            device=self._ctx.device,
        )
        held_out = features.split("val")
        device = self._ctx.device
        if not held_out:
            self._ctx.log("no image of split val: training ends after all epochs", level="warning")
        labelled = sum(self._pixels.counts)
        return Training(
            ensemble,
            pool,
            settings,
            epoch_pixels=min(labelled, chosen.epoch_pixels or labelled),
            validate=(lambda folded: validation_dice(folded.to(device), held_out))
            if held_out
            else None,
        )


def _named(saved: SavedState) -> str:
    return f"the state of the training saved at step {saved.step} by attempt {saved.attempt}"


def _finished_state(done: Sequence[Fitted]) -> tuple[dict[str, bytes], dict[str, Any]]:
    files, finished = {}, {}
    for one in done:
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in one.ensemble.state_dict().items()
        }
        files[f"{one.name}.safetensors"] = safetensors.torch.save(tensors)
        finished[one.name] = {
            "history": [asdict(record) for record in one.history],
            "bestEpoch": one.best_epoch,
        }
    return files, {"finished": finished}


def _restore_fitted(
    saved: SavedState, name: str, ensemble: PixelEnsemble, finished: dict[str, Any]
) -> Fitted:
    ensemble.load_state_dict(read_tensors(saved.read(f"{name}.safetensors")))
    history = tuple(EpochRecord(**record) for record in finished["history"])
    return Fitted(name, ensemble.eval(), history, int(finished["bestEpoch"]))
