"""Dense labelling equals labelling row by row; uncertainty is a divergence of probabilities."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hdgan.core.errors import InternalError
from hdgan.nets.architecture import Architecture
from hdgan.nets.cpu_labelling import cpu_logits_bands
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, PixelEnsemble, fold
from hdgan.nets.generator import Generator, to_uint8
from hdgan.nets.labelling import Labeller, band_rows, beliefs, label_dense, torch_logits_bands
from hdgan.nets.pyramid import FeatureMap, FeaturePlan, feature_plan, render, sample_rows

ARCH = Architecture(32, latent_dim=16, mapping_layers=2, channel_base=256, channel_max=24)


def ensemble(blocks: int, members: int = 4, dtype: str = "float16") -> PixelEnsemble:
    plan = feature_plan(ARCH, blocks)
    spec = EnsembleSpec(
        plan=plan,
        blocks=blocks,
        dtype=dtype,
        classes=tuple(ClassLabel(name, "#000000") for name in "abc"),
        hidden=(16, 8),
        members=members,
        dropout=0.0,
        mean=np.full(plan.channels, 0.2),
        std=np.full(plan.channels, 0.7),
        log_prior_correction=np.array([0.1, -0.3, 0.2]),
        generator="g" * 64,
    )
    made = PixelEnsemble(spec, seed=3)
    with torch.no_grad():
        made.weights[-1].mul_(6.0)  # certain enough that members disagree
    return made.eval()


def generator() -> Generator:
    torch.manual_seed(5)
    return Generator(ARCH).eval().requires_grad_(False)


def latents(network: Generator) -> torch.Tensor:
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    ws: torch.Tensor = network.mapping(z)
    return ws


def uncertainty(p_MKN: torch.Tensor) -> torch.Tensor:
    """Of members that are as sure as this: logits are their logarithms."""
    return beliefs(p_MKN.clamp_min(1e-30).log()).uncertainty


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
@pytest.mark.parametrize("budget", [1, 20_000, 2**26])
def test_dense_equals_row_wise(blocks: int, budget: int) -> None:
    network, made = generator(), ensemble(blocks)
    maps = render(network, latents(network), "constant", made.spec.plan, "float16").maps
    dense = label_dense(fold(made), maps, probabilities=True, budget=budget)
    rows = sample_rows(maps, torch.arange(32 * 32), 32)
    with torch.no_grad():
        p_MNK = made(rows).softmax(dim=2)
    mean = p_MNK.mean(dim=0)
    assert dense.probabilities is not None
    found = torch.from_numpy(dense.probabilities).reshape(3, -1).T
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)
    certain = mean.topk(2, dim=1).values.diff(dim=1).abs()[:, 0] > 1e-4
    expected = mean.argmax(dim=1)[certain].numpy()
    assert np.array_equal(dense.mask.reshape(-1)[certain.numpy()], expected)
    np.testing.assert_allclose(
        dense.uncertainty.reshape(-1), uncertainty(p_MNK.permute(0, 2, 1)).numpy(), atol=1e-4
    )
    entropy = -(mean * mean.log()).sum(dim=1) / math.log(3)
    np.testing.assert_allclose(dense.entropy.reshape(-1), entropy.numpy(), atol=1e-4)


def test_memory_maps_and_tensors_give_the_same_labels() -> None:
    network, made = generator(), ensemble(3)
    maps = render(network, latents(network), "constant", made.spec.plan, "float16").maps
    arrays = [one.numpy() for one in maps]
    for one in arrays:
        one.setflags(write=False)
    from_disk, direct = label_dense(fold(made), arrays), label_dense(fold(made), maps)
    assert np.array_equal(from_disk.mask, direct.mask)
    assert np.array_equal(from_disk.uncertainty, direct.uncertainty)


def test_bands_keep_to_their_budget() -> None:
    assert band_rows(4096, 1280, 64 * 2**20) == 3
    assert band_rows(64, 1280, 64 * 2**20) == 64
    assert band_rows(4096, 10**6, 1) == 1


def test_members_that_agree_are_not_uncertain() -> None:
    one = torch.tensor([[0.7, 0.2], [0.2, 0.3], [0.1, 0.5]])
    assert uncertainty(one.expand(5, -1, -1)).abs().max() < 1e-6


@pytest.mark.parametrize(("members", "classes"), [(2, 2), (2, 5), (3, 3), (6, 3)])
def test_members_as_different_as_can_be_are_wholly_uncertain(members: int, classes: int) -> None:
    chosen = torch.arange(members) % min(members, classes)
    p_MKN = F.one_hot(chosen, classes).float()[:, :, None]
    assert uncertainty(p_MKN).item() == pytest.approx(1.0)


def test_disagreement_is_of_probabilities_not_of_logits() -> None:
    p_MKN = torch.tensor([[[0.9], [0.1]], [[0.2], [0.8]]])

    def entropy(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    expected = (entropy(0.55) - (entropy(0.9) + entropy(0.2)) / 2) / math.log(2)
    assert uncertainty(p_MKN).item() == pytest.approx(expected, rel=1e-5)


def test_a_single_member_cannot_disagree() -> None:
    assert uncertainty(torch.tensor([[[0.5], [0.5]]])).item() == 0.0


def test_labelled_image_holds_the_picture_of_its_features() -> None:
    network, made = generator(), ensemble(2)
    ws = latents(network)
    labelled = Labeller(made).label(network, ws[0], "constant", probabilities=True)
    expected = to_uint8(network.synthesis(ws))[0].numpy()
    assert np.array_equal(labelled.image, expected)
    assert labelled.mask.shape == (32, 32)
    assert labelled.mask.dtype == np.uint8
    assert labelled.uncertainty.dtype == np.float32
    assert 0 <= labelled.uncertainty.min() <= labelled.uncertainty.max() <= 1
    assert labelled.image_uncertainty == pytest.approx(float(labelled.uncertainty.mean()))
    assert labelled.probabilities is not None
    np.testing.assert_allclose(labelled.probabilities.sum(axis=0), 1.0, rtol=1e-5)


def test_features_are_rounded_to_the_dtype_the_ensemble_was_trained_on() -> None:
    network, coarse, fine = generator(), ensemble(2, dtype="bfloat16"), ensemble(2, dtype="float32")
    ws = latents(network)
    rounded = Labeller(coarse).label(network, ws, "constant", probabilities=True)
    exact = Labeller(fine).label(network, ws, "constant", probabilities=True)
    assert rounded.probabilities is not None
    assert exact.probabilities is not None
    assert not np.array_equal(rounded.probabilities, exact.probabilities)


def test_maps_of_another_plan_are_refused() -> None:
    network = generator()
    maps = render(network, latents(network), "constant", feature_plan(ARCH, 1), "float16").maps
    with pytest.raises(InternalError, match="plan"):
        label_dense(fold(ensemble(2)), maps)


@settings(max_examples=40, deadline=None)
@given(
    side=st.integers(1, 70) | st.integers(126, 140),  # tiles are 64 rows and 128 columns
    shrink=st.lists(st.integers(1, 40), max_size=3),
    channels=st.lists(st.integers(1, 19), min_size=4, max_size=4),
    hidden=st.lists(st.integers(1, 37), min_size=1, max_size=3),
    members=st.integers(1, 3),
    classes=st.integers(2, 18),
    budget=st.integers(1, 200_000),
    seed=st.integers(0, 999),
)
def test_compiled_loops_equal_torch_for_any_plan_and_widths(
    side: int,
    shrink: list[int],
    channels: list[int],
    hidden: list[int],
    members: int,
    classes: int,
    budget: int,
    seed: int,
) -> None:
    sides = sorted({max(1, side // one) for one in shrink} | {side})
    plan = FeaturePlan(
        side, tuple(FeatureMap(f"m{s}", s, c) for s, c in zip(sides, channels, strict=False))
    )
    spec = EnsembleSpec(
        plan=plan,
        blocks=1,
        dtype="float32",
        classes=tuple(ClassLabel(f"c{i}", "#000000") for i in range(classes)),
        hidden=tuple(hidden),
        members=members,
        dropout=0.0,
        mean=np.full(plan.channels, 0.2),
        std=np.full(plan.channels, 0.7),
        log_prior_correction=np.zeros(classes),
        generator="g" * 64,
    )
    folded = fold(PixelEnsemble(spec, seed).eval())
    stream = torch.Generator().manual_seed(seed)
    maps = [
        torch.randn(m.resolution, m.resolution, m.channels, generator=stream) for m in plan.maps
    ]
    expected = torch.cat([band for _, band in torch_logits_bands(folded, maps, 2**24)], dim=2)
    bands = [(first, band.clone()) for first, band in cpu_logits_bands(folded, maps, budget)]
    assert [first for first, _ in bands] == np.cumsum(
        [0, *(b.shape[2] for _, b in bands[:-1])]
    ).tolist()
    torch.testing.assert_close(
        torch.cat([b for _, b in bands], dim=2), expected, rtol=1e-4, atol=1e-5
    )


def test_a_network_without_hidden_layers_labels_as_it_does_row_by_row() -> None:
    made = ensemble(2)
    linear = PixelEnsemble(replace(made.spec, hidden=()), seed=3).eval()
    stream = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(m.resolution, m.resolution, m.channels, generator=stream)
        for m in made.spec.plan.maps
    ]
    found = label_dense(fold(linear), maps, probabilities=True).probabilities
    with torch.no_grad():
        p_MNK = linear(sample_rows(maps, torch.arange(32 * 32), 32)).softmax(dim=2)
    expected = p_MNK.mean(dim=0).T.reshape(3, 32, 32).numpy()
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)


def test_a_feature_that_is_not_a_number_is_not_hidden() -> None:
    made = ensemble(1)
    maps = [torch.zeros(m.resolution, m.resolution, m.channels) for m in made.spec.plan.maps]
    maps[0][3, 4, 5] = math.nan
    logits = next(iter(cpu_logits_bands(fold(made), maps, 2**24)))[1]
    assert torch.isnan(logits[:, :, 3, 4]).all()
    assert torch.isfinite(logits[:, :, 20]).all()
