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
from support.gan_training import SIDE, config, labelled, run, tensors, tiles


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


def recorded(training: Training, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The gradient of each phase of the next step; no weight changes."""
    found: dict[str, torch.Tensor] = {}

    def keep(what: str, optimizer: object, gradients: FlatGradients) -> bool:
        found[what] = gradients.flat.clone()
        return False

    monkeypatch.setattr(training, "_apply", keep)
    run(training, 1)
    return found


def flat(loss: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    """Gradient of `loss`, in the order of FlatGradients."""
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    parts = []
    for gradient, parameter in zip(gradients, parameters, strict=True):
        part = torch.zeros_like(parameter) if gradient is None else gradient
        # Channels-last parameters lie in memory in that order.
        parts.append(part.permute(0, 2, 3, 1).reshape(-1) if part.dim() == 4 else part.reshape(-1))
    return torch.cat(parts)


def test_every_loss_enters_with_its_weight_over_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradients of one step, in pieces, against losses written out for the batch at once."""
    settings = config(
        batch=8,
        per_device_batch=4,
        augment="noaug",
        mirror=False,
        style_mixing=0.0,
        r1_gamma=3.0,
        path_length_weight=5.0,
    )
    training = Training(settings, SIDE, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in training.generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
        training.path_mean.fill_(0.7)
    found = recorded(training, monkeypatch)
    training.steps = 0  # the same draws again
    generator, discriminator = training.generator, training.discriminator

    def fakes(purpose: str, samples: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        draws = training._draws(samples, purpose)
        ws = generator.mapping(draws.normal("z", 2, 8)[:, 0].double())
        return ws, generator.synthesis(ws, training._draw_noise(draws))

    def softplus(x: torch.Tensor) -> torch.Tensor:
        return torch.log(1 + torch.exp(x))

    # Whole groups: sample i is compared with i + 2, i + 4 and i + 6.
    everything = list(range(8))
    _, images = fakes("g", everything)
    expected = flat(softplus(-discriminator(images)).mean(), generator)
    torch.testing.assert_close(found["generator"], expected, rtol=1e-9, atol=1e-12)

    reals = torch.from_numpy(tiles()[:8]).permute(0, 3, 1, 2).double() / 127.5 - 1
    with torch.no_grad():
        _, images = fakes("d", everything)
    loss = softplus(discriminator(images)).mean() + softplus(-discriminator(reals)).mean()
    expected = flat(loss, discriminator)
    torch.testing.assert_close(found["discriminator"], expected, rtol=1e-9, atol=1e-12)

    reals.requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(reals).sum(), reals, create_graph=True)
    # gamma / 2 E|grad|^2 (Mescheder et al. 2018, equation 9), once in r1Interval steps.
    penalty = 3.0 / 2 * slope.square().sum(dim=(1, 2, 3)).mean() * settings.r1_interval
    expected = flat(penalty, discriminator)
    torch.testing.assert_close(found["R1"], expected, rtol=1e-9, atol=1e-12)

    ws, images = fakes("pl", everything[:4])  # half of the batch
    draws = training._draws(everything[:4], "pl")
    y = draws.normal_on_device("y", 3, SIDE, SIDE).double() / SIDE
    (slope,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()
    penalty = 5.0 * (lengths - 0.7).square().mean() * settings.path_length_interval
    expected = flat(penalty, generator)
    torch.testing.assert_close(found["path length"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("part", ["r1_penalty", "path_lengths"])
def test_a_penalty_that_stays_nan_ends_the_training(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(config(r1_interval=3, path_length_interval=2), SIDE)
    plain = getattr(losses, part)
    monkeypatch.setattr(losses, part, lambda *args: plain(*args) * float("nan"))
    with pytest.raises(DataError, match="10 updates in a row"):
        run(training, 31)
    assert training.skipped == MAX_SKIPPED_IN_A_ROW


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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"channel_max": 4}, r"channels per resolution .* is \{4: 4, .* there"),
        ({"mapping_lr_multiplier": 1.0}, "mappingLrMultiplier is 1.0 there, 0.01 here"),
        ({"conv_clamp": 256.0}, "convClamp is 256.0 there, None here"),
    ],
)
def test_networks_of_another_architecture_are_refused_by_what_differs(
    changes: dict[str, object], says: str
) -> None:
    training = Training(config(), SIDE)
    other = Training(config(**changes), SIDE)
    with pytest.raises(RequestError, match=rf"initFrom.*another architecture.*{says}"):
        training.initialise_from(other.generator, other.discriminator)


def test_labels_mean_the_same_after_transfer_unless_nobody_named_them() -> None:
    mine = Training(config(), SIDE, **labelled(2))
    pool = np.zeros(4, dtype=np.int64)
    other = Training(config(), SIDE, labels=("IHC", "Masson"), label_pool=pool)
    with pytest.raises(RequestError, match="conditional is"):
        mine.initialise_from(other.generator, other.discriminator)
    converted = Training(config(), SIDE, labels=("label 0", "label 1"), label_pool=pool)
    mine.initialise_from(converted.generator, converted.discriminator)
    # A width that the maximum hides is no difference.
    wider = Training(config(channel_base=128), SIDE)
    Training(config(channel_base=256), SIDE).initialise_from(wider.generator, wider.discriminator)


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
