"""Samples are pure functions of (seed, stream, index), noise included."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hdgan.core.sections import Noise
from hdgan.nets.generator import Generator, to_uint8
from hdgan.nets.latents import candidate_id, draw_acceptance
from hdgan.synthesizer.sampling import Sampler
from support.tiny_synthesizer import ARCH, DIGEST, sampler


def pixels(source: Sampler, index: int) -> NDArray[np.uint8]:
    sample = source.sample(index)
    with torch.no_grad():
        return to_uint8(source.generator.synthesis(sample.ws, sample.noise))[0].numpy()


@pytest.mark.parametrize("noise", ["constant", "perSample"])
def test_pixels_do_not_depend_on_what_came_before(noise: Noise) -> None:
    busy = sampler(noise=noise)
    for index in (9, 0, 4):
        pixels(busy, index)
    torch.rand(3)
    assert np.array_equal(pixels(busy, 4), pixels(sampler(noise=noise), 4))


def test_noise_per_sample_differs_between_images_only() -> None:
    source = sampler(noise="perSample")
    first, again, other = source.sample(1), source.sample(1), source.sample(2)
    shapes = source.generator.synthesis.noise_shapes()
    assert isinstance(first.noise, list)
    assert isinstance(again.noise, list)
    assert isinstance(other.noise, list)
    assert [tuple(one.shape) for one in first.noise] == [(1, 1, h, w) for h, w in shapes]
    assert all(map(torch.equal, first.noise, again.noise))
    assert not any(map(torch.equal, first.noise, other.noise))


def test_noise_per_sample_changes_the_picture_but_not_w() -> None:
    constant, drawn = sampler(), sampler(noise="perSample")
    assert torch.equal(constant.sample(3).ws, drawn.sample(3).ws)
    assert constant.sample(3).noise == "constant"
    assert not np.array_equal(pixels(constant, 3), pixels(drawn, 3))


def test_truncation_pulls_w_to_its_mean() -> None:
    full, half, none = (sampler(psi=psi).sample(0).ws for psi in (1.0, 0.5, 0.0))
    average = sampler().generator.mapping.w_avg
    assert torch.equal(none, average.expand_as(none))
    assert torch.allclose(half, average + 0.5 * (full - average), atol=1e-6)


def test_a_sample_knows_who_it_is() -> None:
    sample = sampler("calibration", seed=5).sample(7)
    assert sample.id == candidate_id(DIGEST, "calibration", 5, 7)
    assert sample.index == 7
    assert sample.ws.shape == (1, ARCH.num_ws, ARCH.latent_dim)
    assert sample.ws.is_contiguous()


def test_streams_and_seeds_draw_other_latents() -> None:
    drawn = [sampler("dataset"), sampler("calibration"), sampler("dataset", seed=1)]
    ws = [source.sample(0).ws for source in drawn]
    assert not torch.equal(ws[0], ws[1])
    assert not torch.equal(ws[0], ws[2])


def test_conditional_generators_are_asked_for_every_label_in_turn_by_chance() -> None:
    torch.manual_seed(0)
    arch = dataclasses.replace(ARCH, labels=("HE", "PAS", "trichrome"))
    generator = Generator(arch).requires_grad_(False)
    generator.mapping.w_avg.normal_()
    source = Sampler(generator, DIGEST, "dataset", 0, 0.0, "constant")
    samples = [source.sample(index) for index in range(60)]
    counts = [sum(one.label == name for one in samples) for name in arch.labels]
    assert min(counts) > 8
    for one in samples:
        # Wholly truncated: the mean w of its label.
        assert one.label is not None
        expected = generator.mapping.w_avg[arch.labels.index(one.label)]
        torch.testing.assert_close(one.ws[0, 0], expected)


def test_acceptance_is_drawn_evenly_and_apart_from_other_seeds_streams_and_samples() -> None:
    drawn = np.array([draw_acceptance(3, "dataset", (5 << 32) + i) for i in range(2000)])
    assert drawn[7] == draw_acceptance(3, "dataset", (5 << 32) + 7)
    assert 0 <= drawn.min() < drawn.max() < 1
    assert abs(np.mean(drawn < 0.3) - 0.3) < 0.04
    others = [draw_acceptance(4, "dataset", 5 << 32), draw_acceptance(3, "calibration", 5 << 32)]
    assert len({drawn[0], drawn[1], *others}) == 4
