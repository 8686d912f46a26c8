"""Folding is exact, members are independent, files round-trip and damaged ones are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hdgan.core.errors import DataError
from hdgan.nets.ensemble import (
    ClassLabel,
    EnsembleSpec,
    PixelEnsemble,
    fold,
    prior_correction,
)
from hdgan.nets.pyramid import FeatureMap, FeaturePlan

PLAN = FeaturePlan(8, (FeatureMap("b4.conv1", 4, 5), FeatureMap("b8.conv1", 8, 3)))


def spec(members: int = 3, hidden: tuple[int, ...] = (6, 4), dropout: float = 0.0) -> EnsembleSpec:
    stream = np.random.default_rng(0)
    return EnsembleSpec(
        plan=PLAN,
        blocks=2,
        dtype="float32",
        classes=(
            ClassLabel("a", "#ff0000"),
            ClassLabel("b", "#00ff00"),
            ClassLabel("c", "#0000ff"),
        ),
        hidden=hidden,
        members=members,
        dropout=dropout,
        mean=stream.normal(0, 3, 8),
        std=stream.uniform(0.1, 5, 8),
        log_prior_correction=prior_correction([10, 30, 60], [1, 1, 1]),
        generator="g" * 64,
    )


def trained(of: EnsembleSpec) -> PixelEnsemble:
    """An ensemble whose every parameter and statistic is away from its initial value."""
    ensemble = PixelEnsemble(of, seed=1)
    stream = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in ensemble.state_dict().items():
            noise = torch.rand(value.shape, generator=stream)
            value.add_(noise if "var" in name else noise - 0.5)
    return ensemble.eval()


def rows(count: int = 50) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(4)) * 3 + 1


def as_modules(ensemble: PixelEnsemble, member: int) -> nn.Sequential:
    """One member built from torch's own layers."""
    layers: list[nn.Module] = []
    for index, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data = weight[member].detach().T.clone()
        linear.bias.data = bias[member].detach().clone()
        layers.append(linear)
        if index < len(ensemble.spec.hidden):
            norm = nn.BatchNorm1d(weight.shape[2])
            norm.weight.data = ensemble.norm_weights[index][member].detach().clone()
            norm.bias.data = ensemble.norm_biases[index][member].detach().clone()
            norm.running_mean = ensemble.get_buffer(f"running_mean{index}")[member].clone()
            norm.running_var = ensemble.get_buffer(f"running_var{index}")[member].clone()
            layers += [nn.ReLU(), norm]
    return nn.Sequential(*layers)


def test_members_are_the_papers_network_built_from_torch_layers() -> None:
    ensemble = trained(spec())
    standard = (rows() - ensemble.get_buffer("mean")) * ensemble.get_buffer("inverse_std")
    logits = ensemble(rows())
    for member in range(3):
        expected = as_modules(ensemble, member).eval()(standard)
        expected = expected + ensemble.get_buffer("correction")
        torch.testing.assert_close(logits[member], expected, rtol=1e-5, atol=1e-5)


def test_a_training_step_is_the_papers_network_too() -> None:
    ensemble = trained(spec())
    modules = [as_modules(ensemble, member).train() for member in range(3)]
    x = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(8))
    logits = ensemble.train().train_logits(x, torch.Generator().manual_seed(0))
    for member, module in enumerate(modules):
        torch.testing.assert_close(logits[member], module(x[member]), rtol=1e-4, atol=1e-5)
        norm = module[2]
        assert isinstance(norm, nn.BatchNorm1d)
        running = ensemble.get_buffer("running_var0")[member]
        torch.testing.assert_close(running, norm.running_var)


@pytest.mark.parametrize("hidden", [(6, 4), (5,), ()])
def test_folding_is_exact(hidden: tuple[int, ...]) -> None:
    ensemble = trained(spec(hidden=hidden))
    folded = fold(ensemble)
    torch.testing.assert_close(folded.logits(rows()), ensemble(rows()), rtol=1e-5, atol=1e-5)


def test_a_constant_channel_says_nothing() -> None:
    of = spec()
    of.mean[2], of.std[2] = 4.0, 0.0
    folded = fold(trained(of))
    moved = rows()
    moved[:, 2] = 1000.0
    assert torch.equal(folded.logits(rows()), folded.logits(moved))


def test_dropout_zeroes_and_rescales_from_its_own_stream() -> None:
    ensemble = trained(spec(dropout=0.5)).train()
    x = torch.randn(3, 20, 8)
    first = ensemble.train_logits(x, torch.Generator().manual_seed(1))
    again = ensemble.train_logits(x, torch.Generator().manual_seed(1))
    other = ensemble.train_logits(x, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_members_start_does_not_depend_on_how_many_there_are() -> None:
    few, many = PixelEnsemble(spec(2), seed=9), PixelEnsemble(spec(5), seed=9)
    assert torch.equal(few.weights[0], many.weights[0][:2])
    assert not torch.equal(many.weights[0][0], many.weights[0][1])
    assert not torch.equal(few.weights[0], PixelEnsemble(spec(2), seed=10).weights[0])


def test_files_bring_back_the_same_predictions() -> None:
    ensemble = trained(spec())
    files = ensemble.dump()
    assert sorted(files) == ["ensemble.json", "ensemble.safetensors"]
    loaded = PixelEnsemble.load(files.__getitem__)
    assert torch.equal(loaded(rows()), ensemble(rows()))
    assert loaded.spec.to_json() == ensemble.spec.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"members": 4},
        {"mean": [0.0]},
        {"dtype": "int8"},
        {"kind": "other"},
        {"hidden": [6, 4, 2]},
        {"plan": {"resolution": 8, "maps": []}},
    ],
)
def test_files_that_do_not_fit_are_refused(change: Mapping[str, Any]) -> None:
    files = trained(spec()).dump()
    document = json.loads(files["ensemble.json"]) | change
    files["ensemble.json"] = json.dumps(document).encode()
    with pytest.raises(DataError, match=r"ensemble\.json"):
        PixelEnsemble.load(files.__getitem__)


def test_a_variance_below_zero_is_refused() -> None:
    ensemble = trained(spec())
    ensemble.get_buffer("running_var0")[0, 0] = -1.0
    with pytest.raises(DataError, match="running_var0 is negative"):
        PixelEnsemble.load(ensemble.dump().__getitem__)


def test_a_description_nested_too_deep_is_refused() -> None:
    files = trained(spec()).dump() | {"ensemble.json": b"[" * 200_000}
    with pytest.raises(DataError, match=r"ensemble\.json is not JSON"):
        PixelEnsemble.load(files.__getitem__)


def test_weights_that_are_no_safetensors_are_refused() -> None:
    files = trained(spec()).dump() | {"ensemble.safetensors": b"nonsense"}
    with pytest.raises(DataError, match=r"ensemble\.safetensors does not fit"):
        PixelEnsemble.load(files.__getitem__)


def test_prior_correction_is_the_log_ratio_of_priors() -> None:
    found = prior_correction([10, 30, 60], [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(found, np.log([0.3, 0.9, 1.8]))
