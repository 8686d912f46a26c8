"""From the names of the official StyleGAN2-ADA networks to ours. Pure.

Both store weights before their equalised gain, so tensors are taken as they are.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.core.errors import RequestError
from hdgan.nets.architecture import MIN_RESOLUTION, Architecture
from hdgan.nets.convert.stylegan2_pickle import Network
from hdgan.nets.discriminator import LABEL_LAYERS, LABEL_LR_MULTIPLIER, Discriminator
from hdgan.nets.generator import Generator
from hdgan.nets.layers import FIR_TAPS

MAX_WHOLE = 1 << 20
"""Largest resolution, width or number of labels that is looked at."""


def architecture_of(generator: Network, discriminator: Network) -> Architecture:
    """The architecture of a pair of official networks.

    RequestError, with the reason, if it is one that our networks cannot express.
    """
    top = generator.modules[""]
    resolution, w_dim = (_whole(top.setting(name), name) for name in ("img_resolution", "w_dim"))
    z_dim, c_dim = (_whole(top.setting(name), name) for name in ("z_dim", "c_dim"))
    if z_dim != w_dim:
        raise RequestError(
            f"its z has {z_dim} dimensions and its w {w_dim}: ours have equally many"
        )
    if top.setting("img_channels") != 3:
        raise RequestError(f"it makes {_said(top.setting('img_channels'))} channels: ours make RGB")
    if resolution < MIN_RESOLUTION:
        raise RequestError(f"its img_resolution is {resolution}, less than {MIN_RESOLUTION}")
    resolutions = [2**i for i in range(2, resolution.bit_length())]
    channels = {r: _shape(generator, f"synthesis.b{r}.conv1.weight")[0] for r in resolutions}
    base, most = _widths(channels)
    layers = sum(
        name.startswith("mapping.fc") and name.endswith(".weight") for name in generator.tensors
    )
    first = generator.modules.get("mapping.fc0")
    if first is None or layers < 1:
        raise RequestError("its mapping network has no layers")
    clamps = {
        _number(record.setting("conv_clamp"), "conv_clamp")
        for network in (generator, discriminator)
        for name, record in network.modules.items()
        # The residual path has no activation, so there is nothing to clamp.
        if "conv_clamp" in record.state and not name.endswith("skip")
    }
    if len(clamps) != 1:
        raise RequestError(f"its layers are clamped differently ({clamps}): ours are not")
    clamp = clamps.pop()
    _check_variants(generator, discriminator, resolution)
    return Architecture(
        resolution=resolution,
        latent_dim=w_dim,
        mapping_layers=layers,
        mapping_lr_multiplier=_number(first.setting("bias_gain"), "bias_gain") or 1.0,
        channel_base=base,
        channel_max=most,
        conv_clamp=clamp,
        minibatch_std_group=_minibatch_group(discriminator),
        labels=tuple(f"label {i}" for i in range(c_dim)) if c_dim > 1 else (),
    )


def generator_weights(network: Network, arch: Architecture) -> dict[str, Tensor]:
    """An official generator's tensors under our names."""
    names: dict[str, str] = {}
    for layer in range(arch.mapping_layers):
        names |= _linear(f"mapping.fc{layer}", f"mapping.layers.{layer}")
    if arch.labels:
        names |= _linear("mapping.embed", "mapping.embed")
    names["synthesis.b4.const"] = "synthesis.const"
    for r in arch.block_resolutions:
        for conv in ("conv1",) if r == 4 else ("conv0", "conv1"):
            theirs, ours = f"synthesis.b{r}.{conv}", f"synthesis.blocks.b{r}.{conv}"
            names[f"{theirs}.weight"] = f"{ours}.conv.weight"
            names |= _linear(f"{theirs}.affine", f"{ours}.conv.affine")
            for part in ("bias", "noise_strength", "noise_const"):
                names[f"{theirs}.{part}"] = f"{ours}.{part}"
        theirs, ours = f"synthesis.b{r}.torgb", f"synthesis.blocks.b{r}.to_rgb"
        names[f"{theirs}.weight"] = f"{ours}.conv.weight"
        names[f"{theirs}.bias"] = f"{ours}.bias"
        names |= _linear(f"{theirs}.affine", f"{ours}.conv.affine")
    names["mapping.w_avg"] = "mapping.w_avg"
    renamed = _renamed(network, names, "generator")
    if arch.labels:
        # Theirs is of all labels together: the best that is known of each.
        renamed["mapping.w_avg"] = renamed["mapping.w_avg"].expand(len(arch.labels), -1).clone()
    return _checked(renamed, Generator(arch), "generator")


def discriminator_weights(network: Network, arch: Architecture) -> dict[str, Tensor]:
    """An official discriminator's tensors under our names."""
    names = {
        f"b{arch.resolution}.fromrgb.weight": "from_rgb.weight",
        f"b{arch.resolution}.fromrgb.bias": "from_rgb.bias",
        "b4.conv.weight": "final_conv.weight",
        "b4.conv.bias": "final_conv.bias",
        **_linear("b4.fc", "hidden"),
        **_linear("b4.out", "out"),
    }
    for r in arch.block_resolutions[1:]:
        for conv in ("conv0", "conv1"):
            names[f"b{r}.{conv}.weight"] = f"blocks.b{r}.{conv}.weight"
            names[f"b{r}.{conv}.bias"] = f"blocks.b{r}.{conv}.bias"
        names[f"b{r}.skip.weight"] = f"blocks.b{r}.skip.weight"
    if arch.labels:
        names |= _linear("mapping.embed", "label_mapping.embed")
        for layer in range(LABEL_LAYERS):
            names |= _linear(f"mapping.fc{layer}", f"label_mapping.layers.{layer}")
    return _checked(_renamed(network, names, "discriminator"), Discriminator(arch), "discriminator")


def _linear(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}


def _renamed(network: Network, names: dict[str, str], what: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for theirs, tensor in network.tensors.items():
        if theirs.rpartition(".")[2] == "resample_filter":
            _check_filter(tensor)
        elif theirs not in names:
            raise RequestError(f"its {what} has {theirs}, which ours have no place for")
        else:
            found[names[theirs]] = tensor.float()
    missing = sorted(theirs for theirs, ours in names.items() if ours not in found)
    if missing:
        raise RequestError(f"its {what} lacks {missing[0]} (and {len(missing) - 1} more)")
    return found


def _checked(found: dict[str, Tensor], module: nn.Module, what: str) -> dict[str, Tensor]:
    """The tensors, once their shapes are those of the module and all numbers are finite."""
    for name, expected in module.state_dict().items():
        if name not in found:
            raise RequestError(f"its {what} lacks what we call {name}")
        if found[name].shape != expected.shape:
            raise RequestError(
                f"its {what} has another shape at {name}: {tuple(found[name].shape)}, "
                f"not {tuple(expected.shape)}"
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise RequestError(f"its {what} has numbers that are not finite at {name}")
    return found


def _check_filter(tensor: Tensor) -> None:
    taps = torch.tensor(FIR_TAPS)
    expected = taps[:, None] * taps[None, :]
    expected = expected / expected.sum()
    if tensor.shape != expected.shape or not torch.allclose(tensor.float(), expected, atol=1e-6):
        raise RequestError("its resampling filter is not [1, 3, 3, 1], the one of ours")


def _check_variants(generator: Network, discriminator: Network, resolution: int) -> None:
    for network, what, block, expected in (
        (generator, "generator", f"synthesis.b{resolution}", "skip"),
        (discriminator, "discriminator", f"b{resolution}", "resnet"),
    ):
        record = network.modules.get(block)
        architecture = None if record is None else record.setting("architecture")
        if architecture != expected:
            raise RequestError(f"its {what} is of kind {_said(architecture)}; ours is {expected}")
        for name, one in network.modules.items():
            activation = one.setting("activation")
            linear_ones = name.endswith(("affine", "out", "skip", "embed", "torgb"))
            if activation not in (None, "lrelu") and not linear_ones:
                raise RequestError(
                    f"its {what} uses {_said(activation)} at {name}; ours uses lrelu"
                )
    for name, one in generator.modules.items():
        if one.setting("use_noise") is False:
            raise RequestError(f"its generator has no noise at {name}; ours has")
    label = discriminator.modules.get("mapping.fc0")
    if label is not None and not math.isclose(
        _number(label.setting("bias_gain"), "bias_gain") or 0.0, LABEL_LR_MULTIPLIER
    ):
        raise RequestError("its discriminator maps labels at another learning rate than ours")


def _minibatch_group(discriminator: Network) -> int:
    record = discriminator.modules.get("b4.mbstd")
    if record is None:
        raise RequestError("its discriminator has no minibatch standard deviation; ours has")
    if record.setting("num_channels") != 1:
        raise RequestError("its minibatch standard deviation has several channels; ours has one")
    return _whole(record.setting("group_size"), "group_size")


def _widths(channels: dict[int, int]) -> tuple[int, int]:
    """channel_base and channel_max that give these channels per resolution."""
    most = max(channels.values())
    # The narrowest resolution tells the base, unless all are as wide as the maximum.
    for resolution, count in sorted(channels.items()):
        base = resolution * count
        found = {r: min(base // r, most) for r in channels}
        if found == channels:
            return base, most
    raise RequestError(
        f"its channels per resolution ({channels}) are not min(base / resolution, maximum) for any "
        "base: ours are"
    )


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_WHOLE:
        raise RequestError(f"its {name} is {_said(value)}, which is no whole number that can be")
    return value


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise RequestError(f"its {name} is {_said(value)}, which is no number that can be")
    return float(value)


def _said(value: Any) -> str:
    """A value for a message. No lists: those of a pickle may hold themselves many times over."""
    return repr(value)[:80] if isinstance(value, str | float | bool) else _kind(value)


def _kind(value: Any) -> str:
    small = isinstance(value, int) and abs(value) < 10**18
    return repr(value) if small or value is None else f"of kind {type(value).__name__}"


def _shape(network: Network, name: str) -> tuple[int, ...]:
    tensor = network.tensors.get(name)
    if tensor is None or tensor.dim() == 0:
        raise RequestError(f"its generator lacks {name}")
    return tuple(tensor.shape)
