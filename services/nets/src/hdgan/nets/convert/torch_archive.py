"""Files of `torch.save`, in the old format and as zip, read without `torch.load`.

Only tensors, and dictionaries and lists of them, come out.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hdgan.core.errors import RequestError
from hdgan.nets.convert.restricted_pickle import (
    PLAIN,
    Maker,
    Named,
    Stand,
    Unchanging,
    restricted_load,
)

MAX_STORAGES = 100_000
MAX_DIMENSIONS = 8
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass
class Storage(Unchanging):
    """The numbers behind tensors: 1-D, filled when their bytes have been read."""

    dtype: torch.dtype
    size: int
    data: Tensor | None = None


@dataclass
class LazyTensor(Unchanging):
    """A view of a storage whose bytes may come later in the file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """The tensor, copied. RequestError if it reaches beyond its storage."""
        if self.storage.data is None:
            raise RequestError("a tensor's numbers are not in the file: it is truncated")
        return self.storage.data.as_strided(self.shape, self.stride, self.offset).clone()


def lazy_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> LazyTensor:
    """Stands for torch's function that makes tensors; checks that they lie in their storage."""
    if not isinstance(storage, Storage):
        raise RequestError("a tensor is made of something that is no storage: refused")
    numbers = [offset, *_checked(shape), *_checked(stride)]
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers):
        raise RequestError("a tensor has a negative or fractional shape: refused")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise RequestError("a tensor has a shape that does not fit its strides: refused")
    empty = 0 in shape
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if not empty and (last >= storage.size or math.prod(shape) > storage.size):
        raise RequestError("a tensor reaches beyond the numbers it is made of: refused")
    return LazyTensor(storage, offset, tuple(shape), tuple(stride))


def _checked(values: Any) -> Sequence[Any]:
    if not isinstance(values, tuple | list):
        raise RequestError("a tensor's shape is no list: refused")
    return values


def _parameter(data: Any, *_: Any) -> Any:
    return data


TENSORS: Stand = {
    **PLAIN,
    ("torch._utils", "_rebuild_tensor_v2"): Maker(lazy_tensor),
    ("torch._utils", "_rebuild_parameter"): Maker(_parameter),
    **{("torch", name): Named("torch", name) for name in _STORAGES},
}


def read_torch_archive(data: bytes) -> dict[str, Tensor]:
    """The tensors of a saved state dictionary, by name.

    Args:
        data: content of a file that `torch.save` made, in either of its formats.

    Raises:
        RequestError: it is anything else, damaged, or asks for code to be run.
    """
    found = read_archive_object(data)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise RequestError("the file holds no dictionary of tensors")
    tensors = {name: value for name, value in found.items() if isinstance(value, LazyTensor)}
    if len(tensors) != len(found):
        other = sorted(found.keys() - tensors.keys())[0]
        raise RequestError(f"the file's entry {other!r} is no tensor")
    return {name: value.tensor() for name, value in tensors.items()}


def read_archive_object(data: bytes) -> Any:
    """What a file of `torch.save` holds, with `Storage` and `LazyTensor` in place of torch's."""
    return _read_zip(data) if data[:4] == b"PK\x03\x04" else _read_legacy(data)


def _storage_ids(storages: dict[str, Storage], limit: int) -> Callable[[Any], Storage]:
    """What persistent ids stand for: ("storage", type, key, location, size, ...)."""

    def load(pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise RequestError("the file refers to something that is no storage: refused")
        kind, key, size = pid[1], pid[2], pid[4]
        if not isinstance(kind, Named) or kind.name not in _STORAGES:
            raise RequestError("a storage has an unknown type: refused")
        dtype = _STORAGES[kind.name]
        if not isinstance(key, str) or not isinstance(size, int) or size < 0:
            raise RequestError("a storage has no proper name or size: refused")
        if size * dtype.itemsize > limit:
            raise RequestError("a storage is larger than the file it is in: refused")
        known = storages.setdefault(key, Storage(dtype, size))
        if (known.dtype, known.size) != (dtype, size):
            raise RequestError("a storage is described in two ways: refused")
        if len(storages) > MAX_STORAGES:
            raise RequestError(f"the file has more than {MAX_STORAGES} storages: refused")
        return known

    return load


def _read_legacy(data: bytes) -> Any:
    file = io.BytesIO(data)
    if restricted_load(file, {}) != _LEGACY_MAGIC:
        raise RequestError("the file is none that torch.save makes")
    if restricted_load(file, {}) != _LEGACY_PROTOCOL:
        raise RequestError("the file is of a version of torch.save that is not known")
    system = restricted_load(file, PLAIN)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RequestError("the file was written on a machine of another byte order")
    storages: dict[str, Storage] = {}
    found = restricted_load(file, TENSORS, _storage_ids(storages, len(data)))
    keys = restricted_load(file, {})
    if not isinstance(keys, list) or set(map(str, keys)) != storages.keys():
        raise RequestError("the file's list of storages is not that of its tensors")
    for key in keys:
        storage = storages[key]
        size = int.from_bytes(file.read(8), "little")
        if size != storage.size:
            raise RequestError("a storage's size is not what its tensors were told")
        storage.data = _numbers(file.read(size * storage.dtype.itemsize), storage)
    return found


def _read_zip(data: bytes) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in entries if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise RequestError("the zip file is none that torch.save makes")
            prefix = pickles[0][: -len("data.pkl")]
            total = sum(info.file_size for info in entries.values())
            # torch.save stores without compression: content cannot be larger than the file.
            if total > len(data) or any(i.compress_type for i in entries.values()):
                raise RequestError("the zip file is compressed, which torch.save never does")
            order = entries.get(f"{prefix}byteorder")
            if order is not None and archive.read(order) != b"little":
                raise RequestError("the file was written on a machine of another byte order")
            storages: dict[str, Storage] = {}
            source = io.BytesIO(archive.read(pickles[0]))
            found = restricted_load(source, TENSORS, _storage_ids(storages, len(data)))
            for key, storage in storages.items():
                info = entries.get(f"{prefix}data/{key}")
                if info is None:
                    raise RequestError("a storage is not in the file: it is truncated")
                storage.data = _numbers(archive.read(info), storage)
            return found
    # RuntimeError: an entry with a password.
    except (
        zipfile.BadZipFile,
        EOFError,
        RuntimeError,
        OSError,
        ValueError,
        LookupError,
        struct.error,
        zlib.error,
    ) as error:
        raise RequestError(f"the zip file is damaged: {error}") from None


def _numbers(data: bytes, storage: Storage) -> Tensor:
    if len(data) != storage.size * storage.dtype.itemsize:
        raise RequestError("a storage is shorter than it says: the file is truncated")
    if not data:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(data), dtype=storage.dtype)
