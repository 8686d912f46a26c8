"""Pickles laid out as the official StyleGAN2-ADA ones, written by hand: no code of theirs in them.

The few opcodes needed are put together here, so that nothing has to be importable under the names
that the pickle mentions.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdgan.nets.architecture import Architecture
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.generator import Generator

FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0])[:, None] * torch.tensor([1.0, 3.0, 3.0, 1.0]) / 64


class Call:
    """A call of a global in the pickle: `module.name(*arguments)`."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.module, self.name, self.arguments = module, name, arguments


def dumps(value: Any) -> bytes:
    """A protocol 3 pickle of plain values, tensors and `Call`s."""
    out = io.BytesIO()
    out.write(b"\x80\x03")
    _write(out, value)
    out.write(b".")
    return out.getvalue()


def _write(out: io.BytesIO, value: Any) -> None:
    if isinstance(value, Call):
        out.write(f"c{value.module}\n{value.name}\n".encode())
        _write(out, tuple(value.arguments))
        out.write(b"R")
    elif isinstance(value, Tensor):
        _write(out, _tensor(value))
    elif isinstance(value, dict):
        out.write(b"}(")
        for key, item in value.items():
            _write(out, key)
            _write(out, item)
        out.write(b"u")
    elif isinstance(value, tuple):
        out.write(b"(")
        for item in value:
            _write(out, item)
        out.write(b"t")
    elif isinstance(value, bytes):
        out.write(b"B" + struct.pack("<I", len(value)) + value)
    else:
        # Numbers, strings and None: what Python writes, without its frame.
        out.write(pickle.dumps(value, protocol=3)[2:-1])


def _tensor(value: Tensor) -> Call:
    """As a module keeps it: rebuilt from a storage, which is a file of torch.save of its own."""
    flat = value.detach().contiguous().reshape(-1)
    storage = Call("torch.storage", "_load_from_bytes", legacy_storage(flat))
    strides = tuple(value.detach().contiguous().stride())
    return Call(
        "torch._utils", "_rebuild_tensor_v2", storage, 0, tuple(value.shape), strides, False, {}
    )


def legacy_storage(flat: Tensor) -> bytes:
    """What torch.save writes of a storage in its old format."""
    out = io.BytesIO()
    storage = flat.clone().untyped_storage()
    make: Any = torch.storage.TypedStorage
    typed = make(wrap_storage=storage, dtype=flat.dtype, _internal=True)
    torch.save(typed, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def module(class_name: str, source: str = "raise SystemExit", /, **state: Any) -> Call:
    """A module as the official files store it, with source text that must never run."""
    parts = {"_parameters": {}, "_buffers": {}, "_modules": {}, **state}
    meta = {
        "type": "class",
        "version": 6,
        "module_src": source,
        "class_name": class_name,
        "state": parts,
    }
    return Call("torch_utils.persistence", "_reconstruct_persistent_obj", meta)


def _linear(layer: Any, **state: Any) -> Call:
    return module("FullyConnectedLayer", _parameters=_own(layer), **state)


def _own(layer: Any) -> dict[str, Any]:
    return dict(layer.named_parameters(recurse=False))


def generator(network: Generator, **changes: Any) -> Call:
    """Our generator in their layout. `changes` are settings of the whole network."""
    arch, synthesis = network.arch, network.synthesis
    multiplier = arch.mapping_lr_multiplier
    mapping = {
        f"fc{i}": _linear(layer, activation="lrelu", bias_gain=multiplier)
        for i, layer in enumerate(network.mapping.layers)
    }
    if network.mapping.embed is not None:
        mapping["embed"] = _linear(network.mapping.embed, activation="linear", bias_gain=1)
    w_avg = network.mapping.w_avg
    blocks = {}
    for r in arch.block_resolutions:
        block: Any = synthesis.blocks[f"b{r}"]
        layers = {}
        for name, layer in block.layers:
            layers[name] = module(
                "SynthesisLayer",
                _parameters={
                    "weight": layer.conv.weight,
                    "bias": layer.bias,
                    "noise_strength": layer.noise_strength,
                },
                _buffers={"noise_const": layer.noise_const, "resample_filter": FILTER},
                _modules={"affine": _linear(layer.conv.affine)},
                activation="lrelu",
                conv_clamp=arch.conv_clamp,
                use_noise=True,
            )
        rgb = block.to_rgb
        layers["torgb"] = module(
            "ToRGBLayer",
            _parameters={"weight": rgb.conv.weight, "bias": rgb.bias},
            _modules={"affine": _linear(rgb.conv.affine)},
            conv_clamp=arch.conv_clamp,
        )
        blocks[f"b{r}"] = module(
            "SynthesisBlock",
            _parameters={"const": synthesis.const} if r == 4 else {},
            _buffers={"resample_filter": FILTER},
            _modules=layers,
            architecture="skip",
        )
    settings = {
        "z_dim": arch.latent_dim,
        "c_dim": len(arch.labels),
        "w_dim": arch.latent_dim,
        "img_resolution": arch.resolution,
        "img_channels": 3,
        **changes,
    }
    return module(
        "Generator",
        _modules={
            "synthesis": module("SynthesisNetwork", _modules=blocks),
            "mapping": module(
                "MappingNetwork",
                _buffers={"w_avg": w_avg[0] if arch.labels else w_avg},
                _modules=mapping,
            ),
        },
        **settings,
    )


def discriminator(network: Discriminator, **changes: Any) -> Call:
    """Our discriminator in their layout. `changes` are settings of its blocks."""
    arch = network.arch
    top: dict[str, Any] = {}

    def conv(layer: Any, **state: Any) -> Call:
        return module(
            "Conv2dLayer",
            _parameters=_own(layer),
            _buffers={"resample_filter": FILTER},
            **{"activation": "lrelu", "conv_clamp": arch.conv_clamp, **state},
        )

    for name, block in network.blocks.items():
        parts: Any = block
        layers = {
            "conv0": conv(parts.conv0),
            "conv1": conv(parts.conv1),
            "skip": conv(parts.skip, activation="linear", conv_clamp=None),
        }
        if name == f"b{arch.resolution}":
            layers["fromrgb"] = conv(network.from_rgb)
        top[name] = module(
            "DiscriminatorBlock",
            _buffers={"resample_filter": FILTER},
            _modules=layers,
            **{"architecture": "resnet", **changes},
        )
    top["b4"] = module(
        "DiscriminatorEpilogue",
        _modules={
            "mbstd": module(
                "MinibatchStdLayer", group_size=arch.minibatch_std_group, num_channels=1
            ),
            "conv": conv(network.final_conv),
            "fc": _linear(network.hidden, activation="lrelu", bias_gain=1),
            "out": _linear(network.out, activation="linear", bias_gain=1),
        },
    )
    if network.label_mapping is not None:
        label = network.label_mapping
        mapping = {
            f"fc{i}": _linear(layer, activation="lrelu", bias_gain=np.float64(0.01).item())
            for i, layer in enumerate(label.layers)
        }
        mapping["embed"] = _linear(label.embed, activation="linear", bias_gain=1)
        top["mapping"] = module("MappingNetwork", _modules=mapping)
    return module("Discriminator", _modules=top)


def networks(arch: Architecture) -> tuple[Generator, Discriminator]:
    """A pair with no weight at its initial value."""
    torch.manual_seed(0)
    made, judge = Generator(arch), Discriminator(arch)
    with torch.no_grad():
        for parameter in [*made.parameters(), *judge.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
        made.mapping.w_avg.copy_(torch.randn(arch.latent_dim).expand_as(made.mapping.w_avg))
    return made.requires_grad_(False), judge.requires_grad_(False)
