"""The ADA controller moves p toward the target, by the paper's amount, within its bounds."""

from __future__ import annotations

import pytest

from hdgan.gan_trainer.ada import AdaController


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
