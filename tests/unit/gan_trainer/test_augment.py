"""Each augmentation against an independent computation."""

from __future__ import annotations

import colorsys
import dataclasses
import math

import numpy as np
import pytest
import torch

from hdgan.core.errors import RequestError
from hdgan.gan_trainer import augment as aug
from hdgan.gan_trainer.augment import resampling
from hdgan.gan_trainer.augment.colour import colour_matrix, recolour
from hdgan.gan_trainer.augment.corruption import cut_out
from hdgan.gan_trainer.augment.exact import exact_moves, move_exactly
from hdgan.gan_trainer.augment.geometry import inverse_geometry
from hdgan.gan_trainer.augment.image_filter import band_filters, band_gains, filter_bands
from hdgan.gan_trainer.augment.parameters import UNIFORM, Parameters
from hdgan.gan_trainer.draws import Draws


def draws(batch: int, step: int = 0) -> Draws:
    return Draws(0, step, range(batch), prefix="test/")


def smooth(batch: int = 1, side: int = 32) -> torch.Tensor:
    """An image of low frequencies only, so that any good resampling filter leaves it alone."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [
        torch.cos(2 * math.pi * (a * x + b * y) / side + a) for a, b in ((1, 0), (0, 2), (2, 1))
    ]
    return torch.stack(waves).expand(batch, 3, side, side).contiguous()


def test_nothing_happens_at_p_zero_to_the_bit() -> None:
    images = torch.rand(4, 3, 16, 16)
    for ops in aug.AUGMENT_SETS.values():
        assert aug.augment(images, ops, 0.0, draws(4)) is images


def test_sym6_is_an_orthonormal_low_pass_filter() -> None:
    taps = torch.tensor(resampling.SYM6, dtype=torch.float64)
    assert float(taps.sum()) == pytest.approx(math.sqrt(2), abs=1e-12)
    for shift in range(0, 12, 2):
        product = float((taps[shift:] * taps[: 12 - shift]).sum())
        assert product == pytest.approx(1.0 if shift == 0 else 0.0, abs=1e-10)


def test_resampling_by_the_identity_returns_the_image() -> None:
    images = torch.rand(2, 3, 32, 32)
    identity = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    torch.testing.assert_close(resampling.resample(images, identity), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pixels", [-5, 3, 8])
def test_resampling_by_whole_pixels_shifts(pixels: int) -> None:
    images = torch.rand(1, 3, 32, 32)
    inverse = torch.eye(3)[None].clone()
    inverse[0, 0, 2] = -2 * pixels / 32
    found = resampling.resample(images, inverse)
    inside = slice(10, 22)
    source = slice(10 - pixels, 22 - pixels)
    torch.testing.assert_close(
        found[:, :, inside, inside], images[:, :, inside, source], rtol=0, atol=1e-4
    )


def test_resampling_by_ninety_degrees_rotates() -> None:
    images = smooth()
    inverse = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    found = resampling.resample(images, inverse)
    rotated = [torch.rot90(images, turns, (2, 3)) for turns in (1, 3)]
    inside = slice(4, 28)
    error = min(float((found - r)[:, :, inside, inside].abs().max()) for r in rotated)
    assert error < 0.02


def test_resampling_by_a_scale_reads_a_known_function() -> None:
    """cos(kx) scaled by 2 is cos(kx / 2): the value is known between pixels."""
    side = 64
    position = (torch.arange(side) + 0.5) / side * 2 - 1
    images = torch.cos(3 * position).expand(1, 3, side, side).contiguous()
    inverse = torch.diag(torch.tensor([0.5, 0.5, 1.0]))[None]
    expected = torch.cos(1.5 * position).expand(1, 3, side, side)
    found = resampling.resample(images, inverse)
    torch.testing.assert_close(
        found[:, :, 8:-8, 8:-8], expected[:, :, 8:-8, 8:-8], rtol=0, atol=3e-3
    )


def test_large_images_are_filtered_in_blocks_with_the_same_result_and_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.rand(2, 3, 23, 23, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 3, 23, 23, dtype=torch.float64)
    inverse = torch.tensor([[[0.9, -0.3, 0.1], [0.3, 1.1, -0.2], [0.0, 0.0, 1.0]]]).expand(2, 3, 3)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        found = resampling.resample(images, inverse)
        return found, torch.autograd.grad((found * weights).sum(), images)[0]

    whole = both()
    monkeypatch.setattr(resampling, "MATRIX_SIDE", 16)
    monkeypatch.setattr(resampling, "BLOCK", 8)
    for found, expected in zip(both(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("right", "down"), [(16, 0), (-20, 7), (0, -9), (40, 25)])
def test_resampling_by_a_translation_reflects_at_the_border(right: int, down: int) -> None:
    image = smooth().double()
    inverse = torch.eye(3, dtype=torch.float64)[None].clone()
    inverse[0, :2, 2] = -2 * torch.tensor([right, down]) / 32
    found = resampling.resample(image, inverse)[0].numpy()
    padded = image[0].numpy()
    for _ in range(2):  # numpy reflects at most one image at a time
        padded = np.pad(padded, ((0, 0), (31, 31), (31, 31)), mode="reflect")
    expected = padded[:, 62 - down : 94 - down, 62 - right : 94 - right]
    # Reflection leaves a bend, which is as sharp as the resampling filter allows.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.06)


def test_all_geometry_together_reads_a_known_function_at_the_transformed_position() -> None:
    ops, batch, side = aug.AUGMENT_SETS["geom"], 12, 64
    given = Parameters(draws(batch), 1.0)
    centres = (np.arange(side) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(centres, centres, indexing="ij")

    def picture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(4 * x + 1), np.sin(3 * y - x), np.cos(2 * x) * np.sin(2 * y)])

    images = torch.from_numpy(picture(x, y)).expand(batch, 3, side, side)
    found = aug.augment(images, ops, 1.0, draws(batch)).numpy()
    compared = 0
    for i in range(batch):
        scale, stretch = (float(2 ** (0.2 * given.normal(n)[i])) for n in ("scale", "stretch"))
        angles = [
            -(float(given.uniform(n)[i]) * 2 - 1) * math.pi
            for n in ("rotate-before", "rotate-after")
        ]
        # What moves a point of the picture to where it is seen, in the order of the paper.
        forward = np.diag([scale, scale])
        turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
        forward = turns[1] @ np.diag([stretch, 1 / stretch]) @ turns[0] @ forward
        shift = [0.25 * float(given.normal(n)[i]) for n in ("shift-x", "shift-y")]
        seen = np.stack([x - shift[0], y - shift[1]]).reshape(2, -1)
        read_x, read_y = np.linalg.solve(forward, seen).reshape(2, side, side)
        inside = (np.abs(read_x) < 0.9) & (np.abs(read_y) < 0.9)
        inside[:3], inside[-3:], inside[:, :3], inside[:, -3:] = False, False, False, False
        error = np.abs(found[i] - picture(read_x, read_y))[:, inside]
        compared += error.size
        assert error.max() < 0.01
    assert compared > batch * side * side


def test_exact_operations_permute_pixels() -> None:
    """Without translation every result is one of the eight symmetries, to the bit."""
    images = torch.rand(1, 3, 8, 8).expand(200, 3, 8, 8)
    ops = aug.AugmentSet(flip=True, rotate90=True)
    found = aug.augment(images, ops, 1.0, draws(200))
    symmetries = [
        torch.rot90(one, turns, (1, 2))
        for one in (images[0], images[0].flip(2))
        for turns in range(4)
    ]
    seen = [0] * 8
    for one in found:
        matches = [i for i, s in enumerate(symmetries) if torch.equal(one, s)]
        assert len(matches) == 1
        seen[matches[0]] += 1
    assert min(seen) > 8  # 25 expected of each


def test_translated_image_is_the_shifted_array() -> None:
    images = torch.rand(50, 3, 16, 16)
    ops = aug.AugmentSet(translate=True)
    found = aug.augment(images, ops, 1.0, draws(50))
    shifts = set()
    for before, after in zip(images, found, strict=True):
        matches = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(after[:, 4:12, 4:12], before[:, 4 - dy : 12 - dy, 4 - dx : 12 - dx])
        ]
        assert len(matches) == 1
        shifts.add(matches[0])
    assert len(shifts) > 10


def test_flip_turn_and_translation_are_those_of_numpy() -> None:
    image = np.random.default_rng(0).random((3, 16, 16))
    for flip, turns, tx, ty in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 3, 0, 0), (1, 2, 3, -2)):
        numbers = [torch.tensor([n]) for n in (flip, turns, tx, ty)]
        found = move_exactly(torch.from_numpy(image)[None], *numbers)[0].numpy()
        expected = np.flip(image, 2) if flip else image
        expected = np.rot90(expected, turns, (1, 2))
        padded = np.pad(expected, ((0, 0), (3, 3), (3, 3)), mode="reflect")
        expected = padded[:, 3 - ty : 19 - ty, 3 - tx : 19 - tx]
        assert np.array_equal(found, expected)


def matrix_for(ops: aug.AugmentSet, batch: int = 300) -> torch.Tensor:
    return colour_matrix(ops, Parameters(draws(batch), 1.0)).float()


def test_brightness_adds_and_contrast_multiplies() -> None:
    bright = matrix_for(aug.AugmentSet(brightness=True))
    assert torch.equal(bright[:, :3, :3], torch.eye(3).expand(300, 3, 3))
    shift = bright[:, 0, 3]
    assert torch.equal(bright[:, :3, 3], shift[:, None].expand(-1, 3))
    assert float(shift.std()) == pytest.approx(0.2, rel=0.15)
    contrast = matrix_for(aug.AugmentSet(contrast=True))
    factor = contrast[:, 0, 0]
    assert torch.allclose(contrast[:, :3, :3], factor[:, None, None] * torch.eye(3))
    assert float(factor.log2().std()) == pytest.approx(0.5, rel=0.15)


def test_luma_flip_keeps_chroma_and_negates_luma() -> None:
    matrix = matrix_for(aug.AugmentSet(luma_flip=True))
    grey, chroma = torch.ones(3), torch.tensor([1.0, -1.0, 0.0])
    flipped = 0
    for one in matrix[:, :3, :3]:
        torch.testing.assert_close(one @ chroma, chroma)
        sign = 1.0 if torch.allclose(one @ grey, grey, atol=1e-5) else -1.0
        torch.testing.assert_close(one @ grey, sign * grey)
        flipped += sign < 0
    assert 100 < flipped < 200


def test_hue_rotates_about_grey() -> None:
    for one in matrix_for(aug.AugmentSet(hue=True), 20)[:, :3, :3]:
        torch.testing.assert_close(one @ torch.ones(3), torch.ones(3))
        torch.testing.assert_close(one @ one.T, torch.eye(3), rtol=0, atol=1e-5)
        assert float(torch.linalg.det(one)) == pytest.approx(1.0, abs=1e-5)


def test_saturation_zero_distance_from_grey_stays_grey() -> None:
    colour = torch.tensor([0.9, 0.1, 0.4])
    for one in matrix_for(aug.AugmentSet(saturation=True), 50):
        changed = one[:3, :3] @ colour
        assert float(changed.mean()) == pytest.approx(float(colour.mean()), abs=1e-5)
        assert torch.allclose(one[3], torch.tensor([0.0, 0.0, 0.0, 1.0]))


def test_all_colour_operations_together_are_those_of_the_paper_in_its_order() -> None:
    given = Parameters(draws(20), 1.0)
    pixels = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    matrix = colour_matrix(aug.AUGMENT_SETS["color"], given)
    found = recolour(torch.from_numpy(pixels)[:, :, None, None], matrix)[:, :, 0, 0].numpy()
    grey = np.ones(3) / math.sqrt(3)
    for i, pixel in enumerate(pixels):
        v = (pixel + 0.2 * float(given.normal("brightness")[i])) * 2 ** (
            0.5 * float(given.normal("contrast")[i])
        )
        if float(given.uniform("luma-flip")[i]) >= 0.5:
            v = v - 2 * grey * (grey @ v)
        theta = (float(given.uniform("hue")[i]) * 2 - 1) * math.pi
        v = (
            v * np.cos(theta)
            + np.cross(grey, v) * np.sin(theta)
            + grey * (grey @ v) * (1 - np.cos(theta))
        )
        luma = grey * (grey @ v)
        v = luma + (v - luma) * 2 ** float(given.normal("saturation")[i])
        np.testing.assert_allclose(found[i], v, atol=1e-10)


def test_histology_set_never_invents_stains() -> None:
    ops = aug.AUGMENT_SETS["histology"]
    assert not ops.luma_flip
    assert not ops.hue
    eosin = torch.tensor([0.85, 0.45, 0.62]) * 2 - 1
    images = eosin[None, :, None, None].expand(100, 3, 8, 8).contiguous()
    found = (aug.augment(images, ops, 1.0, draws(100))[:, :, 4, 4] + 1) / 2
    hues = [colorsys.rgb_to_hsv(*rgb)[0] for rgb in found.clamp(0.01, 0.99).tolist()]
    spread = sorted((h - 0.929 + 0.5) % 1 - 0.5 for h in hues)
    assert abs(spread[10]) < 0.08
    assert abs(spread[-10]) < 0.08


def test_share_of_changed_images_is_p() -> None:
    images = torch.rand(1, 3, 8, 8).expand(2000, 3, 8, 8)
    ops = aug.AugmentSet(brightness=True)
    changed = (aug.augment(images, ops, 0.3, draws(2000)) != images).flatten(1).any(dim=1)
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.04)


def test_every_operation_has_the_probability_p() -> None:
    given = Parameters(draws(3000), 0.3)
    for name in [column[:-1] for column in UNIFORM if column.endswith("?")]:
        assert float(given.active(name).double().mean()) == pytest.approx(0.3, abs=0.035), name
    # Two axes, but one decision: the chance of any translation is p, and then both axes move.
    whole = torch.stack(exact_moves(aug.AugmentSet(translate=True), given, 4096)[2:]) != 0
    part = inverse_geometry(aug.AugmentSet(shift=True), given)[:, :2, 2].T != 0
    for moved in (whole, part):
        assert float(moved.any(dim=0).double().mean()) == pytest.approx(0.3, abs=0.035)
        assert float((moved[0] ^ moved[1]).double().mean()) < 0.01
    # Two rotations, but the chance of any is p.
    turned = inverse_geometry(aug.AugmentSet(rotate=True), given) != torch.eye(3)
    share = turned.flatten(1).any(dim=1).double().mean()
    assert float(share) == pytest.approx(0.3, abs=0.035)


def test_filter_does_nothing_with_gains_of_one_and_amplifies_each_band_by_its_own() -> None:
    images = torch.rand(2, 3, 32, 32)
    same = filter_bands(images, torch.ones(2, 4, dtype=torch.float64))
    torch.testing.assert_close(same, images, rtol=0, atol=1e-6)
    impulse = torch.zeros(1, 3, 128, 128, dtype=torch.float64)
    impulse[:, :, 64, 64] = 1
    gains = torch.tensor([[2.0, 0.5, 3.0, 0.25]], dtype=torch.float64)
    # Both axes get the same kernel; at vertical frequency 0 its response is the first gain.
    found = np.abs(np.fft.rfft2(filter_bands(impulse, gains)[0, 0].numpy()))[0] / 2.0

    def low(w: np.ndarray) -> np.ndarray:
        # Power response of the sym2 scaling filter in closed form (Daubechies, 2 moments).
        power: np.ndarray = np.cos(w / 2) ** 4 * (1 + 2 * np.sin(w / 2) ** 2)
        return power

    w = np.linspace(0, np.pi, 65)
    bands = [
        low(w) * low(2 * w) * low(4 * w),
        low(w) * low(2 * w) * (1 - low(4 * w)),
        low(w) * (1 - low(2 * w)),
        1 - low(w),
    ]
    expected = sum(gain * band for gain, band in zip(gains[0].tolist(), bands, strict=True))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_band_filters_divide_the_spectrum_and_add_up_to_nothing_done() -> None:
    bands = band_filters()
    identity = np.zeros(bands.shape[1])
    identity[len(identity) // 2] = 1
    np.testing.assert_allclose(bands.sum(axis=0), identity, atol=1e-10)
    np.testing.assert_allclose(bands, bands[:, ::-1], atol=1e-12)  # zero phase
    response = np.abs(np.fft.rfft(bands, 512))  # 256 is pi
    for band, (low, high) in enumerate(((0, 32), (32, 64), (64, 128), (128, 256))):
        # Each band passes most where it should.
        middle = (low + high) // 2
        assert response[:, middle].argmax() == band
        assert response[band, low : high + 1].mean() > 0.6
    # Amplifying a band amplifies a wave in it by that gain, and the mean is the lowest band.
    wave = torch.cos(math.pi * 7 / 8 * torch.arange(64).double()).expand(1, 3, 64, 64)
    found = filter_bands(wave, torch.tensor([[1.0, 1.0, 1.0, 3.0]], dtype=torch.float64))
    measured = float(found[0, 0, 32, 20:44].abs().max() / wave[0, 0, 32, 20:44].abs().max())
    assert measured == pytest.approx(3.0, rel=0.05)
    flat = filter_bands(torch.ones(1, 3, 8, 8), torch.tensor([[2.0, 1.0, 1.0, 1.0]]).double())
    torch.testing.assert_close(flat, torch.full((1, 3, 8, 8), 4.0))  # rows and columns


def test_band_gains_keep_the_expected_power() -> None:
    gains = band_gains(Parameters(draws(200), 0.3))
    untouched = (gains == 1).all(dim=1)
    assert 0.15 < float(untouched.double().mean()) < 0.35  # 0.7 ** 4
    one = band_gains(Parameters(draws(2000), 0.02))
    power = torch.tensor([10.0, 1.0, 1.0, 1.0], dtype=torch.float64) / 13
    # Where a single band was drawn, the power is exactly that of before.
    single = (one != 1).all(dim=1) & ((one - one.median(dim=1, keepdim=True)[0]).ne(0).sum(1) == 1)
    assert int(single.sum()) > 50
    total = one[single].square() @ power
    torch.testing.assert_close(total, torch.ones_like(total))


def test_noise_has_the_papers_strength() -> None:
    images = torch.zeros(400, 3, 16, 16)
    found = aug.augment(images, aug.AUGMENT_SETS["noise"], 1.0, draws(400))
    strengths = found.flatten(1).std(dim=1)
    # |N(0, 0.1)| has the mean 0.1 sqrt(2 / pi).
    assert float(strengths.mean()) == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.1)
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-3)


def test_cutout_is_a_grey_square_of_half_the_side() -> None:
    found = cut_out(torch.ones(1, 3, 16, 16), torch.tensor([0.5]), torch.tensor([0.25]))
    expected = torch.ones(1, 3, 16, 16)
    expected[:, :, 0:8, 4:12] = 0
    assert torch.equal(found, expected)
    centres = np.random.default_rng(0).random((20, 2))
    x, y = torch.from_numpy(centres).unbind(1)
    found = cut_out(torch.ones(20, 3, 16, 16, dtype=torch.float64), x, y)
    for one, (at_x, at_y) in zip(found.numpy(), centres * 16, strict=True):
        pixels = np.arange(16) + 0.5
        cut = (np.abs(pixels - at_y) < 4)[:, None] & (np.abs(pixels - at_x) < 4)[None, :]
        assert np.array_equal(one, np.broadcast_to(~cut, one.shape))
    many = aug.augment(torch.ones(300, 3, 16, 16), aug.AUGMENT_SETS["cutout"], 1.0, draws(300))
    # A uniform centre: along one axis the square covers 1/2 less what lies beyond the border.
    covered = float((many == 0).double().mean())
    assert covered == pytest.approx((0.5 - 2 * 0.25 * 0.25 / 2) ** 2, rel=0.1)


@pytest.mark.parametrize("name", ["histology", "bgcfnc"])
def test_what_happens_to_an_image_depends_on_its_own_draws_alone(name: str) -> None:
    images = torch.rand(8, 3, 16, 16, dtype=torch.float64)
    ops = aug.AUGMENT_SETS[name]
    together = aug.augment(images, ops, 0.4, draws(8))
    for i in range(8):
        alone = aug.augment(images[i : i + 1], ops, 0.4, Draws(0, 0, [i], prefix="test/"))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)
    untouched = aug.augment(images, ops, 1e-6, draws(8))
    assert torch.equal(untouched, images)


def test_an_operation_more_leaves_the_numbers_of_the_others() -> None:
    images = torch.rand(8, 3, 16, 16)
    plain = aug.augment(images, aug.AUGMENT_SETS["blit"], 0.7, draws(8))
    cut = aug.augment(
        images, dataclasses.replace(aug.AUGMENT_SETS["blit"], cutout=True), 0.7, draws(8)
    )
    assert bool(((cut == plain) | (cut == 0)).all())


@pytest.mark.parametrize("name", ["blit", "geom", "color", "filter", "noise", "cutout", "bgcfnc"])
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_gradient_and_second_derivative(name: str, p: float) -> None:
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        # A nonlinearity behind it, so that second derivatives are not zero.
        return aug.augment(x, aug.AUGMENT_SETS[name], p, draws(3)).pow(3)

    # Along random directions: all of the Jacobian would take a minute.
    assert torch.autograd.gradcheck(function, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, images, fast_mode=True)


def test_same_key_same_draw_other_key_another() -> None:
    images = torch.rand(4, 3, 16, 16)
    ops = aug.AUGMENT_SETS["bgc"]
    first = aug.augment(images, ops, 0.8, draws(4, 1))
    assert torch.equal(first, aug.augment(images, ops, 0.8, draws(4, 1)))
    assert not torch.equal(first, aug.augment(images, ops, 0.8, draws(4, 2)))


def test_unknown_set_lists_the_known_ones() -> None:
    with pytest.raises(RequestError, match="'stains' is not one of blit"):
        aug.augment_set("stains")
