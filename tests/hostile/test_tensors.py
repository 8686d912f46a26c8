"""Hostile files of tensors and descriptions of networks, each with the message it must produce."""

from __future__ import annotations

import io
import json
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.errors import DataError, HdganError, InputMissing, RequestError
from hdgan.nets.architecture import Architecture
from hdgan.nets.candidates import read_candidates, require_shape
from hdgan.nets.checkpoint import load_generator, weights_to_bytes
from hdgan.nets.ensemble import PixelEnsemble
from hdgan.nets.generator import Generator
from hdgan.nets.tensor_files import TensorFileError, read_npy, read_tensors
from support.fuzzing import MemoryStore


def built(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


NONE = "it is no safetensors file, or cut off"
SAFETENSORS = {
    "nothing": (b"", NONE),
    "seven bytes": (bytes(7), NONE),
    "a header of 2^63 bytes": (b"\xff" * 7 + b"\x7f" + b"{}", NONE),
    "a header of a gigabyte": ((1 << 30).to_bytes(8, "little") + b"{}", NONE),
    "a header beyond the file": ((100).to_bytes(8, "little") + b"{}", NONE),
    "no JSON": (built(b"\x80\x04]\x94."), "it is not UTF-8 text"),
    "deep JSON": (built(b"[" * 100_000), "nested too deeply"),
    "a name twice": (
        built(
            b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "'w' is given twice",
    ),
    "beyond the numbers": (built({"w": entry([9], 0, 36)}, bytes(4)), "(?i)incomplete|metadata"),
    "backwards": (built({"w": entry([1], 4, 0)}, bytes(4)), "(?i)offset|header|invalid"),
    "over each other": (
        built({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, bytes(6)),
        "(?i)offset|invalid",
    ),
    "the same numbers": (
        built({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
        "(?i)offset|invalid",
    ),
    "a hole": (built({"a": entry([1], 4, 8)}, bytes(8)), "(?i)offset|invalid"),
    "more than is said": (built({"a": entry([1], 0, 4)}, bytes(8)), "(?i)incomplete|metadata"),
    "a shape of 2^80": (
        built({"a": entry([2**40, 2**40], 0, 4)}, bytes(4)),
        "(?i)overflow|invalid|tensor|header",
    ),
    "a shape below nothing": (built({"a": entry([-1], 0, 4)}, bytes(4)), "(?i)header|invalid"),
    "another type": (
        built({"a": entry([1], 0, 4, "OBJECT")}, bytes(4)),
        "(?i)header|variant|invalid",
    ),
    "text as numbers": (built({"a": {"dtype": 3}}), "(?i)header|invalid"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_a_hostile_file_of_tensors_is_refused_with_its_reason(case: str) -> None:
    data, message = SAFETENSORS[case]
    tracemalloc.start()
    try:
        with pytest.raises(TensorFileError, match=message):
            read_tensors(data)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


NPY = {
    "nothing": (b"", "(?i)magic|EOF"),
    "a pickle": (pickle.dumps([1.0]), "magic"),
    "objects": (objects(), "floating-point numbers"),
    "whole numbers": (npy("{'descr':'<i8','fortran_order':False,'shape':(1,)}", bytes(8)), "float"),
    "a terabyte in no bytes": (
        npy("{'descr':'<f4','fortran_order':False,'shape':(1099511627776,)}"),
        "its shape is .1099511627776,., but it has 0 bytes",
    ),
    "more bytes than its shape": (
        npy("{'descr':'<f4','fortran_order':False,'shape':(1,)}", bytes(8)),
        "but it has 8 bytes",
    ),
    "below nothing": (
        npy("{'descr':'<f4','fortran_order':False,'shape':(-1,-4)}", bytes(16)),
        "its shape is",
    ),
    "a call": (npy("__import__('os').system('id')"), "(?i)header|malformed"),
    "deep": (npy("(" * 9000), "(?i)header|parse|nested|memory|EOF"),
    "a header of 60 kB": (npy("{'descr':'<f4'" + " " * 60_000 + "}"), "(?i)header"),
    "structures": (
        npy("{'descr':[('a','<f4')],'fortran_order':False,'shape':(1,)}", bytes(4)),
        "floating-point numbers",
    ),
    "of another version": (npy("{}", version=b"\x09\x00"), "version"),
}


@pytest.mark.parametrize("case", NPY)
def test_a_hostile_npy_is_refused_with_its_reason(case: str) -> None:
    data, message = NPY[case]
    with pytest.raises(TensorFileError, match=message) as error:
        read_npy(data)
    assert str(error.value)


def test_arrays_are_read_in_either_order() -> None:
    for order in ("C", "F"):
        array = np.asarray(np.arange(6.0).reshape(2, 3), order=order)
        buffer = io.BytesIO()
        np.save(buffer, array)
        assert read_npy(buffer.getvalue()).tolist() == array.tolist()


TINY = Architecture(8, latent_dim=4, mapping_layers=1, channel_base=16, channel_max=2)
WEIGHTS = weights_to_bytes(Generator(TINY))
FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "a network of terabytes": (
        {"resolution": 4096, "latent_dim": 4096, "channel_base": 1 << 22, "channel_max": 4096},
        r"describes a network of more than \d+ weights, which are not in \d+ bytes",
    ),
    "a latent of 2^40": ({"latent_dim": 2**40}, "latent_dim is 1099511627776, more than 4096"),
    "a million layers": ({"mapping_layers": 10**6}, "mapping_layers is 1000000, more than 64"),
    "a channel for everybody": ({"channel_max": 10**10}, "channel_max is 10000000000, more than"),
    "a side of 2^20": ({"resolution": 1 << 20}, "resolution 1048576 is not a power of two from"),
    "a side that is text": ({"resolution": "8"}, "resolution is 8, no whole number"),
    "a broken side": ({"resolution": 8.0}, r"resolution is 8\.0, no whole number"),
    "a boolean": ({"mapping_layers": True}, "mapping_layers is True, no whole number"),
    "a clamp of text": ({"conv_clamp": "x"}, "conv_clamp is x, not above 0"),
    "many labels": ({"labels": [f"{n}" for n in range(20_000)]}, "20000 labels, more than 10000"),
    "a field of another version": ({"hook": "os.system"}, "unexpected keyword argument 'hook'"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_hostile_description_asks_for_no_memory(case: str) -> None:
    change, message = FIELDS[case]
    document = json.loads(TINY.to_json()) | change
    files = {"architecture.json": json.dumps(document).encode(), "generator.safetensors": WEIGHTS}
    with pytest.raises(RequestError, match=message):
        load_generator(files.__getitem__)


def test_weights_of_another_type_are_refused() -> None:
    tensors = read_tensors(WEIGHTS)
    name = next(iter(tensors))
    for changed, message in (
        (tensors[name].to(torch.int64), "is torch.int64, which no torch.float32"),
        (tensors[name].to(torch.float8_e4m3fn), "is torch.float8_e4m3fn, which no"),
        (tensors[name].to(torch.complex64), "is torch.complex64, which no|not a readable"),
    ):
        files = {
            "architecture.json": TINY.to_json(),
            "generator.safetensors": save(tensors | {name: changed.contiguous()}),
        }
        with pytest.raises(RequestError, match=message):
            load_generator(files.__getitem__)


def test_an_ensemble_larger_than_its_file_is_not_built() -> None:
    plan = {"resolution": 8, "maps": [{"name": "b8.conv0", "resolution": 8, "channels": 65536}]}
    document = {
        "kind": "hdgan-pixel-ensemble",
        "format": 1,
        "generator": "x",
        "blocks": 1,
        "dtype": "float16",
        "plan": plan,
        "classes": [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#ffffff"}],
        "hidden": [65536, 65536],
        "members": 1000,
        "dropout": 0.0,
        "mean": [0.0] * 65536,
        "std": [1.0] * 65536,
        "logPriorCorrection": [0.0, 0.0],
    }
    files = {"ensemble.json": json.dumps(document).encode(), "ensemble.safetensors": WEIGHTS}
    with pytest.raises(DataError, match=r"does not fit ensemble.json: \d+ numbers are not in"):
        PixelEnsemble.load(files.__getitem__)


ID, DIGEST = "c" * 32, "b" * 64
INDEX = {
    "generator": DIGEST,
    "noise": "constant",
    "seed": 1,
    "stream": "candidates",
    "images": [{"id": ID, "index": 0}],
}


def candidates(document: Any, latents: bytes) -> Artifact:
    attempt = Attempt(MemoryStore(), "candidates", "a" * 64)  # type: ignore[arg-type]
    attempt.add_bytes("candidates.json", json.dumps(document).encode())
    attempt.add_bytes("latents.safetensors", latents)
    return attempt.commit({})


W = torch.zeros(1, 2, 3)
LATENTS = {
    "of another type": (save({"w": W.double()}), "does not hold w of float32 alone"),
    "whole numbers": (save({"w": W.long()}), "does not hold w of float32 alone"),
    "no w": (save({"v": W}), "does not hold w of float32 alone"),
    "something beside w": (save({"w": W, "hook": W.clone()}), "does not hold w of float32 alone"),
    "not finite": (save({"w": W / 0}), "not finite"),
    "of other images": (save({"w": torch.zeros(2, 2, 3)}), r"\[2, 2, 3\] for 1 images"),
    "flat": (save({"w": torch.zeros(1, 6)}), r"\[1, 6\] for 1 images"),
    "no tensors": (b"x" * 100, "no safetensors file"),
}


@pytest.mark.parametrize("case", LATENTS)
def test_hostile_latents_are_refused_with_their_reason(case: str) -> None:
    data, message = LATENTS[case]
    with pytest.raises(InputMissing, match=f"candidates.json is not a candidates index.*{message}"):
        read_candidates(candidates(INDEX, data), DIGEST)


def test_latents_of_another_generator_are_refused_by_their_shape() -> None:
    files = candidates(INDEX, save({"w": W}))
    found = read_candidates(files, DIGEST)
    require_shape(found, (2, 3), files)
    with pytest.raises(InputMissing, match=r"holds w of \[2, 3\], the generator takes \[4, 3\]"):
        require_shape(found, (4, 3), files)


@pytest.mark.parametrize(
    "change",
    [
        {"images": [{"id": "../" + ID, "index": 0}]},
        {"images": [{"id": ID, "index": -1}]},
        {"images": [{"id": ID, "index": 2**63}]},
        {"images": [{"id": ID.upper(), "index": 0}]},
        {"images": {"id": ID}},
        {"noise": ["constant"]},
        {"stream": "../x"},
        {"seed": -1},
        {"seed": "x"},
        {"precision": "pickle"},
    ],
)
def test_an_index_of_candidates_names_nothing_else(change: dict[str, Any]) -> None:
    with pytest.raises(HdganError, match=r"candidates\.json is not a candidates index"):
        read_candidates(candidates(INDEX | change, save({"w": W})), DIGEST)
