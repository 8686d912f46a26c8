"""A whole training step, its state, and what interrupts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.core.errors import DataError, HdganError, RequestError
from hdgan.core.store import open_store
from hdgan.core.work import WorkState
from hdgan.gan_trainer import losses
from hdgan.gan_trainer.gradients import FlatGradients
from hdgan.gan_trainer.record import TrainingRecord
from hdgan.gan_trainer.state import differences, holds_for, read_state, restore_state, save_state
from hdgan.gan_trainer.training import MAX_SKIPPED_IN_A_ROW, Training, _adam
from hdgan.gan_trainer.training_log import TrainingLog
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.generator import Generator
from support.gan_training import SIDE, config, labelled, run, tensors


def saved_and_restored(training: Training, folder: Path, into: Training) -> None:
    """Through the store, as between two processes."""
    work = WorkState(open_store(folder.as_uri()), "gan-trainer", "a" * 64, "first")
    save_state(work, training, TrainingRecord(250), exact=True)
    saved = WorkState(open_store(folder.as_uri()), "gan-trainer", "a" * 64, "second").latest()
    assert saved is not None
    restore_state(*read_state(saved), into, TrainingRecord(250))


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bfloat16"}, {"batch": 8, "per_device_batch": 4}, {"labels": 3}],
    ids=["float32", "bfloat16", "accumulating", "conditional"],
)
@pytest.mark.parametrize("stop_at", [1, 4])
def test_resumed_run_equals_an_undisturbed_one_to_the_bit(
    stop_at: int, changes: dict[str, object], tmp_path: Path
) -> None:
    settings = {name: value for name, value in changes.items() if name != "labels"}
    more = labelled(int(str(changes.get("labels", 0))))
    whole = Training(config(**settings), SIDE, **more)
    run(whole, 7)
    first = Training(config(**settings), SIDE, **more)
    run(first, stop_at)
    second = Training(config(**settings), SIDE, **more)
    saved_and_restored(first, tmp_path, second)
    run(second, 7 - stop_at)
    expected, found = tensors(whole), tensors(second)
    assert expected.keys() == found.keys()
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert different == []
    assert second.counters() == whole.counters()


def test_a_state_of_other_networks_is_refused(tmp_path: Path) -> None:
    other = Training(config(channel_max=4), SIDE)
    with pytest.raises(HdganError, match="does not fit"):
        saved_and_restored(Training(config(), SIDE), tmp_path, other)


def test_what_bits_depend_on_is_named_when_it_changed() -> None:
    before = holds_for(Training(config(), SIDE))
    assert differences(before, before) == []
    (said,) = differences({**before, "processes": 3}, before)
    assert said == "processes was 3, is 1"


def test_every_part_learns() -> None:
    training = Training(config(), SIDE)
    before = tensors(training)
    run(training, 3)
    after = tensors(training)
    unchanged = [
        name
        for name in before
        if torch.equal(before[name], after[name]) and not name.endswith("noise_const")
    ]
    # ADA looks every fourth step.
    assert unchanged == ["ada_p"]


def test_ema_is_the_average_with_ramped_half_life() -> None:
    settings = config(ema_kimg=10.0, ema_rampup=0.05)
    training = Training(settings, SIDE)
    run(training, 2)
    name = "synthesis.blocks.b16.conv1.conv.weight"
    ema_before = dict(training.ema.named_parameters())[name].clone()
    run(training, 1)
    shown = 3 * 4
    beta = 0.5 ** (4 / (shown * 0.05))
    current = dict(training.generator.named_parameters())[name]
    expected = beta * ema_before + (1 - beta) * current
    torch.testing.assert_close(dict(training.ema.named_parameters())[name], expected)


def test_lazy_regularisation_rescales_adam() -> None:
    gradients = FlatGradients(torch.nn.Linear(2, 2))
    group = _adam(gradients, config(learning_rate=0.01), 16).param_groups[0]
    c = 16 / 17
    assert group["lr"] == pytest.approx(0.01 * c)
    assert group["betas"] == pytest.approx((0.0, 0.99**c))


def test_discriminator_learns_to_tell_reals_from_a_frozen_start() -> None:
    training = Training(config(augment="noaug", learning_rate=0.01), SIDE)
    grey = np.full((4, SIDE, SIDE, 3), 200, dtype=np.uint8)
    for _ in range(60):
        measured = training.step(grey)
    assert np.isfinite(list(measured.values())).all()
    with torch.no_grad():
        image = training.ema(torch.randn(8, 8))
    # A generator shown nothing but one grey image makes about that grey.
    assert abs(float(image.mean()) - (200 / 127.5 - 1)) < 0.25


def test_a_step_with_nan_is_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(config(), SIDE)
    run(training, 1)
    before = tensors(training)
    with monkeypatch.context() as patch:
        patch.setattr(losses, "generator_loss", lambda logits: logits * float("nan"))
        patch.setattr(losses, "real_loss", lambda logits: logits / 0.0 - logits / 0.0)
        assert run(training, 1)["skipped"] == 2
    after = tensors(training)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # Nothing of the two bad updates is left; the average goes on averaging the same weights.
    assert all(name.startswith("ema.") for name in changed)
    assert training.skipped == 2
    assert "skipped" not in run(training, MAX_SKIPPED_IN_A_ROW)
    assert all(bool(t.isfinite().all()) for t in tensors(training).values())


def test_divergence_is_an_error_that_says_what_to_do() -> None:
    training = Training(config(), SIDE)
    with torch.no_grad():
        training.discriminator.out.weight.fill_(float("nan"))
    run(training, MAX_SKIPPED_IN_A_ROW - 1)
    with pytest.raises(DataError, match=r"diverged.*not finite.*learningRate"):
        run(training, 1)


def test_frozen_parts_stay_as_they_were() -> None:
    training = Training(config(init_from="/somewhere", freeze_d=1, freeze_mapping=True), SIDE)
    before = tensors(training)
    run(training, 4)  # ADA moves at the fourth
    after = tensors(training)
    unchanged = {
        name
        for name in before
        if torch.equal(before[name], after[name]) and "noise_const" not in name
    }
    frozen = ("generator.mapping.layers", "discriminator.from_rgb", "discriminator.blocks.b16")
    assert unchanged == {
        name for name in before if name.startswith((*frozen, "ema.mapping.layers"))
    }


def test_conditional_networks_average_w_for_each_label() -> None:
    training = Training(config(w_avg_beta=0.0), SIDE, **labelled(2))
    run(training, 2)
    w_avg = training.generator.mapping.w_avg
    assert w_avg.shape == (2, 8)
    assert not torch.allclose(w_avg[0], w_avg[1])


def test_weights_of_another_architecture_are_refused() -> None:
    training = Training(config(), SIDE)
    other = Training(config(channel_max=4), SIDE)
    with pytest.raises(RequestError, match=r"initFrom.*another architecture"):
        training.initialise_from(other.generator, other.discriminator)


def test_fine_tuning_keeps_the_average_near_the_weights_it_started_from() -> None:
    source = Training(config(seed=5), SIDE)
    training = Training(config(), SIDE)
    training.initialise_from(source.generator, source.discriminator)
    name = "synthesis.blocks.b16.conv1.conv.weight"
    start = dict(training.ema.named_parameters())[name].clone()
    run(training, 1)
    beta = 0.5 ** (4 / 10_000)
    current = dict(training.generator.named_parameters())[name]
    expected = beta * start + (1 - beta) * current
    torch.testing.assert_close(dict(training.ema.named_parameters())[name], expected)
    resumed = Training(config(), SIDE)
    resumed.restore_optimizers(training.optimizer_tensors(), training.counters())
    assert resumed.fine_tuning


def test_initialising_takes_weights_for_all_three_networks() -> None:
    source = Training(config(seed=5), SIDE)
    training = Training(config(), SIDE)
    training.initialise_from(source.generator, source.discriminator)
    for mine, theirs in (
        (training.generator, source.generator),
        (training.discriminator, source.discriminator),
        (training.ema, source.generator),
    ):
        assert isinstance(mine, Generator | Discriminator)
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], tensor)


def test_log_means_and_resume(tmp_path: Path) -> None:
    log = TrainingLog(100)
    log.add({"lossG": 1.0})
    log.add({"lossG": 3.0, "r1": 5.0})
    assert log.close(99) is None
    assert log.close(100, adaP=0.5) == {"kimg": 0.1, "adaP": 0.5, "lossG": 2.0, "r1": 5.0}
    assert log.close(150, last=True) is None  # nothing was measured since
    log.add({"lossG": 7.0})
    restored = TrainingLog(100)
    restored.restore(log.to_jsonl(), log.state())
    for one in (log, restored):
        one.add({"lossG": 9.0})
        assert one.close(150, last=True) == {"kimg": 0.15, "lossG": 8.0}
    assert restored.to_jsonl() == log.to_jsonl()
