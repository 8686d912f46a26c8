"""The one reader of tensors from outside: safetensors and .npy, checked before they are believed.

Neither format can hold code. What they can hold is a header of any length, a shape of any size with
no numbers behind it, and numbers of a type nobody expects.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from hdgan.core.json_documents import parse_object

MAX_HEADER_BYTES = 16 << 20
"""Of a safetensors file. Ours have some hundred bytes for each tensor."""
MAX_NPY_HEADER_BYTES = 10_000
FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
"""Types that weights may be stored in."""


class TensorFileError(ValueError):
    """The bytes are no tensors that are read here; the message says why."""


def read_tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, by name. TensorFileError for anything else."""
    check_header(data[:8], len(data))
    try:
        # The library takes the last of two tensors of one name; here that is refused.
        size = int.from_bytes(data[:8], "little")
        parse_object(data[8 : 8 + size], max_bytes=MAX_HEADER_BYTES)
        return safetensors.torch.load(data)
    # Any: the library raises its own untyped errors, and torch's for types it does not know.
    except Exception as error:
        raise TensorFileError(_words(error)) from None


def check_header(beginning: bytes, size: int) -> None:
    """TensorFileError unless the first 8 bytes of a file of this size announce a header that can
    be."""
    announced = int.from_bytes(beginning, "little") if len(beginning) == 8 else None
    if announced is None or not 2 <= announced <= min(size - 8, MAX_HEADER_BYTES):
        raise TensorFileError("it is no safetensors file, or cut off")


def metadata_of(data: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file that `read_tensors` has read."""
    size = int.from_bytes(data[:8], "little")
    found = parse_object(data[8 : 8 + size], max_bytes=MAX_HEADER_BYTES).get("__metadata__")
    return {} if not isinstance(found, dict) else {k: str(v) for k, v in found.items()}


def require_weights(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """TensorFileError unless names and shapes are those expected, and floats are floats."""
    differing = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if _shape(expected, name) != _shape(tensors, name)
    )
    if differing:
        name = differing[0]
        raise TensorFileError(
            f"{len(differing)} tensors differ, the first is {name[:200]}: expected "
            f"{_shape(expected, name) or 'none'}, found {_shape(tensors, name) or 'none'}"
        )
    for name, tensor in tensors.items():
        wanted = expected[name].dtype
        fits = tensor.dtype in FLOATS if wanted in FLOATS else tensor.dtype == wanted
        if not fits:
            raise TensorFileError(f"{name} is {tensor.dtype}, which no {wanted} can be stored in")


def read_npy(data: bytes) -> npt.NDArray[np.float32]:
    """The numbers of a .npy file as float32, any shape. TensorFileError for anything else."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"it is of version {version}")
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file, max_header_size=MAX_NPY_HEADER_BYTES)
    # Any: the header is a Python literal, and a hostile one fails in many ways.
    except Exception as error:
        raise TensorFileError(_words(error)) from None
    if dtype.kind != "f" or dtype.hasobject:
        raise TensorFileError("an array of floating-point numbers is needed")
    if any(side < 0 for side in shape):
        raise TensorFileError(f"its shape is {str(shape)[:80]}")
    rest = data[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(rest):
        raise TensorFileError(f"its shape is {str(shape)[:80]}, but it has {len(rest)} bytes")
    array = np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
    return np.asarray(array, dtype=np.float32)


def _shape(tensors: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _words(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
