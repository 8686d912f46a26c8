"""NVIDIA's StyleGAN2-ADA pickles (PyTorch): their networks as records, without their code.

In these files every module is stored as its class's source text and its state. The source is never
run, nor kept; the state is taken apart into names, tensors and settings.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hdgan.core.errors import RequestError
from hdgan.nets.convert.restricted_pickle import (
    InertDict,
    Maker,
    Named,
    Stand,
    Unchanging,
    restricted_load,
)
from hdgan.nets.convert.torch_archive import TENSORS, LazyTensor, Storage, read_archive_object

MAX_DEPTH = 32
MAX_MODULES = 10_000


@dataclass
class Record(Unchanging):
    """A module of the pickle: the name of its class, and its attributes."""

    class_name: str
    state: dict[Any, Any]

    def setting(self, name: str) -> Any:
        """A plain attribute; None if it has none of that name."""
        return self.state.get(name)


@dataclass(frozen=True)
class Network:
    """A network of the pickle, flattened.

    Attributes:
        class_name: class of the whole network.
        tensors: parameters and buffers by dotted name, as in its state dictionary.
        modules: every module by dotted name; the network itself is "".
    """

    class_name: str
    tensors: dict[str, Tensor]
    modules: dict[str, Record] = field(default_factory=dict)


def read_pickle(data: bytes) -> dict[str, Network]:
    """The networks (`G`, `D`, `G_ema`) of a StyleGAN2-ADA pickle.

    RequestError if it is no such file, damaged, or asks for anything but plain data.
    """
    found = restricted_load(io.BytesIO(data), _stand_ins())
    if not isinstance(found, dict):
        raise RequestError("the pickle holds no dictionary of networks")
    networks = {
        name: _flatten(value)
        for name, value in found.items()
        if name in ("G", "D", "G_ema") and isinstance(value, Record)
    }
    missing = {"D", "G_ema"} - networks.keys()
    if missing:
        raise RequestError(f"the pickle has no network {' and '.join(sorted(missing))}")
    return networks


def _stand_ins() -> Stand:
    return {
        **TENSORS,
        ("torch.storage", "_load_from_bytes"): Maker(_nested_storage),
        ("torch.nn.parameter", "Parameter"): Named("torch.nn.parameter", "Parameter"),
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): Maker(_record),
        ("dnnlib.util", "EasyDict"): InertDict,
    }


def _record(meta: Any) -> Record:
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise RequestError("a module of the pickle is described in an unknown way: refused")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise RequestError("a module of the pickle has no class or no state: refused")
    return Record(name, state)


def _nested_storage(data: Any) -> Storage:
    """A storage is a file of `torch.save` inside the pickle."""
    if not isinstance(data, bytes):
        raise RequestError("a storage of the pickle is no byte string: refused")
    found = read_archive_object(data)
    if not isinstance(found, Storage):
        raise RequestError("a storage of the pickle holds something else: refused")
    return found


def _flatten(network: Record) -> Network:
    result = Network(network.class_name, {})
    waiting = [("", network, 0)]
    while waiting:
        prefix, record, depth = waiting.pop()
        if depth > MAX_DEPTH or len(result.modules) >= MAX_MODULES:
            raise RequestError("the pickle's modules are nested too deeply, or too many: refused")
        result.modules[prefix.removesuffix(".")] = record
        for group in ("_parameters", "_buffers"):
            for name, value in _named(record.state.get(group, {})):
                if value is None:
                    continue
                if not isinstance(value, LazyTensor):
                    raise RequestError(f"{prefix}{name} of the pickle is no tensor: refused")
                result.tensors[f"{prefix}{name}"] = value.tensor()
        for name, value in _named(record.state.get("_modules", {})):
            if not isinstance(value, Record):
                raise RequestError(f"{prefix}{name} of the pickle is no module: refused")
            waiting.append((f"{prefix}{name}.", value, depth + 1))
    return result


def _named(values: Any) -> list[tuple[str, Any]]:
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise RequestError("a module of the pickle lists its parts in an unknown way: refused")
    return list(values.items())
