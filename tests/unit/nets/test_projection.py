"""Projection finds the w of an image the generator made, and reports its error truly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.core.errors import RequestError
from hdgan.nets.tools import projection
from hdgan.nets.tools.pictures import open_target
from support.trained_networks import call, write_networks


def test_an_image_of_the_generator_is_found_again(tmp_path: Path) -> None:
    write_networks(tmp_path / "g")
    call("generate", tmp_path / "g", tmp_path / "made", "--seeds", "7", "--psi", "1")
    image = tmp_path / "made/seed0007.png"
    arguments = ("project", tmp_path / "g", image)
    assert "mean w" in call(*arguments, tmp_path / "out", "--steps", "500")
    report = json.loads((tmp_path / "out/projection.json").read_bytes())
    errors = report["errors"]
    assert errors["projected"]["rmse"] < 0.25 * errors["meanW"]["rmse"]
    # Not by hiding the picture in the noise: w alone explains most of it.
    assert errors["sameWOwnNoise"]["rmse"] < 0.5 * errors["meanW"]["rmse"]

    with Image.open(image) as target, Image.open(tmp_path / "out/projected.png") as projected:
        both = np.stack([np.asarray(target), np.asarray(projected)]).astype(float)
    rmse = math.sqrt(((both[0] - both[1]) ** 2).mean())
    assert errors["projected"]["rmse"] == pytest.approx(rmse, rel=1e-6)
    assert errors["projected"]["psnr"] == pytest.approx(20 * math.log10(255 / rmse), rel=1e-6)

    # What was saved makes the projected picture, noise included.
    latent = tmp_path / "out/projection.safetensors"
    call("generate", tmp_path / "g", tmp_path / "again", "--latent", latent)
    with Image.open(tmp_path / "again/projection.png") as again:
        assert np.array_equal(np.asarray(again), both[1])
    w = np.load(tmp_path / "out/w.npy")
    assert w.shape == (6, 8)
    assert np.ptp(w, axis=0).max() == 0


def test_equal_seeds_give_equal_files_and_w_plus_its_own_w_per_layer(tmp_path: Path) -> None:
    write_networks(tmp_path / "g")
    call("generate", tmp_path / "g", tmp_path / "made", "--seeds", "7")
    base = ("project", tmp_path / "g", tmp_path / "made/seed0007.png")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        call(*base, tmp_path / name, "--steps", "5", "--space", "w+", "--seed", str(seed))
    files = [(tmp_path / n / "projection.safetensors").read_bytes() for n in ("a", "b", "c")]
    assert files[0] == files[1] != files[2]
    report = [(tmp_path / name / "projection.json").read_bytes() for name in ("a", "b")]
    assert report[0] == report[1]
    assert np.ptp(np.load(tmp_path / "a/w.npy"), axis=0).min() > 0


def test_noise_correlation_is_the_formula_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((side, side)) for side in (4, 8, 32)]
    expected = 0.0
    for one in maps:
        while True:
            side = len(one)
            for dx, dy in ((1, 0), (0, 1)):
                products = [
                    one[y, x] * one[(y - dy) % side, (x - dx) % side]
                    for y in range(side)
                    for x in range(side)
                ]
                expected += (sum(products) / side**2) ** 2
            if side <= 8:
                break
            blocks = one.reshape(side // 2, 2, side // 2, 2)
            one = blocks.mean(axis=(1, 3)) * 2
    given = [torch.from_numpy(one)[None, None] for one in maps]
    assert float(projection.noise_correlation(given)) == pytest.approx(expected, rel=1e-12)


def test_gradients_of_distance_and_noise_correlation() -> None:
    torch.manual_seed(0)
    a = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    b = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    n = torch.randn(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: projection.pyramid_distance(x, b), (a,))
    assert torch.autograd.gradcheck(lambda x: projection.noise_correlation([x]), (n,))

    assert float(projection.pyramid_distance(b, b)) == 0


def test_schedules_are_those_of_the_paper() -> None:
    assert [projection.learning_rate(t) for t in (0.025, 0.05, 0.5, 0.75)] == pytest.approx(
        [0.05, 0.1, 0.1, 0.1]
    )
    assert projection.learning_rate(0.875) == pytest.approx(0.05)
    assert projection.learning_rate(1.0) == pytest.approx(0.0)
    scales = [projection.w_noise_scale(t) for t in (0.0, 0.375, 0.75, 0.9)]
    assert scales == pytest.approx([0.05, 0.0125, 0.0, 0.0])


def test_targets_that_do_not_fit_are_refused_with_what_to_do(tmp_path: Path) -> None:
    def saved(mode: str, width: int, height: int) -> Path:
        Image.new(mode, (width, height)).save(tmp_path / "x.png")
        return tmp_path / "x.png"

    with pytest.raises(RequestError, match=r"32 x 32 px but .* 16 x 16 px.*--resize"):
        open_target(saved("RGB", 32, 32), 16, resize=False)
    assert open_target(saved("RGB", 32, 32), 16, resize=True).resized
    with pytest.raises(RequestError, match="cut a square"):
        open_target(saved("RGB", 16, 8), 16, resize=True)
    with pytest.raises(RequestError, match="mode RGBA, not RGB"):
        open_target(saved("RGBA", 16, 16), 16, resize=True)
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(RequestError, match="cannot be read as a picture"):
        open_target(tmp_path / "x.png", 16, resize=True)
