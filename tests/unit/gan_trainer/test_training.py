"""A whole training step, its state, and what interrupts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from hdgan.core.errors import DataError, RequestError
from hdgan.core.run import GanTrainerConfig
from hdgan.gan_trainer.randomness import sample_indices
from hdgan.gan_trainer.training import Training, _adam
from hdgan.gan_trainer.training_log import TrainingLog
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.generator import Generator

SIDE = 16


def config(**changes: object) -> GanTrainerConfig:
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


def run(training: Training, steps: int) -> None:
    data = tiles()
    for _ in range(steps):
        training.step(data[training.batch_indices(len(data))])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_at", [1, 4])
def test_resumed_run_equals_an_undisturbed_one_to_the_bit(stop_at: int, precision: str) -> None:
    whole = Training(config(precision=precision), SIDE)
    run(whole, 7)
    first = Training(config(precision=precision), SIDE)
    run(first, stop_at)
    saved, counters = save(first.tensors()), first.counters()
    second = Training(config(precision=precision), SIDE)
    second.restore(load(saved), counters)
    run(second, 7 - stop_at)
    expected, found = whole.tensors(), second.tensors()
    assert expected.keys() == found.keys()
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert different == []
    assert second.counters() == whole.counters()


def test_every_part_learns() -> None:
    training = Training(config(), SIDE)
    before = training.tensors()
    run(training, 3)
    after = training.tensors()
    unchanged = [
        name
        for name in before
        if torch.equal(before[name], after[name]) and not name.endswith("noise_const")
    ]
    assert unchanged == []


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
    module = torch.nn.Linear(2, 2)
    group = _adam(module, config(learning_rate=0.01), 16).param_groups[0]
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


def test_divergence_is_an_error_that_says_what_to_do() -> None:
    training = Training(config(), SIDE)
    with torch.no_grad():
        training.discriminator.out.weight.fill_(float("nan"))
    with pytest.raises(DataError, match=r"not finite.*learningRate"):
        run(training, 1)


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
    resumed.restore(training.tensors(), training.counters())
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


def test_every_tile_is_seen_once_per_epoch_in_a_fresh_order() -> None:
    first, second = sample_indices(0, 0, 10, 10), sample_indices(0, 10, 10, 10)
    assert sorted(first) == sorted(second) == list(range(10))
    assert not np.array_equal(first, second)
    across = sample_indices(0, 7, 6, 10)
    assert np.array_equal(across, np.concatenate([first[7:], second[:3]]))


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
