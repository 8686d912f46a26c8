"""The ADA controller moves p toward the target, by the paper's amount, within its bounds."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hdgan.gan_trainer.ada import AdaController
from hdgan.gan_trainer.augment import augment, augment_set
from hdgan.gan_trainer.draws import Draws


def drive(controller: AdaController, sign: float, steps: int, batch: int = 32) -> None:
    for step in range(1, steps + 1):
        controller.observe(sign * batch, batch)
        controller.adjust(step)


def test_p_travels_from_zero_to_one_in_the_given_kimg() -> None:
    controller = AdaController(0.0, 0.6, 4, 500)
    drive(controller, 1.0, steps=500_000 // 32 // 2)
    assert controller.p == pytest.approx(0.5, abs=0.01)


def test_p_rises_when_d_overfits_and_falls_when_not() -> None:
    high, low = AdaController(0.5, 0.6, 4, 100), AdaController(0.5, 0.6, 4, 100)
    drive(high, 0.9, 100)
    drive(low, 0.2, 100)
    assert high.p > 0.5 > low.p
    assert high.p - 0.5 == pytest.approx(0.5 - low.p)


def test_p_stays_within_its_bounds() -> None:
    controller = AdaController(0.79, 0.6, 1, 0.1, max_p=0.8)
    drive(controller, 1.0, 10)
    assert controller.p == 0.8
    drive(controller, -1.0, 100)
    assert controller.p == 0.0


def test_feedback_loop_finds_the_p_whose_sign_is_the_target() -> None:
    """A toy discriminator whose r_t falls linearly with p: the fixed point is known."""
    controller = AdaController(0.0, 0.6, 4, 10)
    for step in range(1, 4000):
        controller.observe((1.0 - controller.p) * 32, 32)
        controller.adjust(step)
    assert controller.p == pytest.approx(0.4, abs=0.02)


def test_augmentation_brings_a_discriminator_that_learns_its_images_by_heart_to_the_target() -> (
    None
):
    """16 reals of noise against fresh fakes of the same noise: only by heart can D tell them."""
    batch, target = 16, 0.8
    generator = torch.Generator().manual_seed(0)
    reals = torch.randn((batch, 3, 8, 8), generator=generator)

    def play(kimg: float) -> tuple[float, float]:
        """p in the end and the mean r_t of the last 50 steps."""
        weight = torch.zeros(3 * 8 * 8, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=0.03)
        controller = AdaController(0.0, target, 4, kimg)
        signs = []
        for step in range(250):
            draws = Draws(0, step, range(batch))
            ops = augment_set("blit")
            real = augment(reals, ops, controller.p, draws.under("reals/")).flatten(1) @ weight
            fakes = draws.normal("fakes", 3, 8, 8)
            fake = augment(fakes, ops, controller.p, draws.under("fakes/")).flatten(1) @ weight
            loss = F.softplus(-real).mean() + F.softplus(fake).mean()
            (weight.grad,) = torch.autograd.grad(loss, weight)
            optimizer.step()
            signs.append(float(real.detach().sign().mean()))
            controller.observe(signs[-1] * batch, batch)
            controller.adjust(step + 1)
        return controller.p, sum(signs[-50:]) / 50

    without_p, without = play(kimg=1e12)
    with_p, with_ada = play(kimg=2.0)
    assert without_p < 1e-6
    assert without > 0.9
    assert 0.1 < with_p < 1
    assert abs(with_ada - target) < abs(without - target) / 2


def test_state_in_the_middle_of_an_interval_is_kept() -> None:
    whole, first = AdaController(0.2, 0.6, 4, 10), AdaController(0.2, 0.6, 4, 10)
    drive(whole, 0.7, 8)
    for step in range(1, 7):
        first.observe(0.7 * 32, 32)
        first.adjust(step)
    second = AdaController(0.0, 0.6, 4, 10)
    second.restore(first.state())
    for step in range(7, 9):
        second.observe(0.7 * 32, 32)
        second.adjust(step)
    assert second.p == whole.p
