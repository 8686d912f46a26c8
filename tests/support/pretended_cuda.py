"""A GPU that is none: tensors that say they are on `cuda:0` and are computed on the CPU.

What a real one refuses is refused (tensors of two devices, numpy, the CPU's random numbers), and
every moment at which the host would wait for it is written down with its place. Other threads than
the one that entered it cannot put anything there.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda", 0)
# What C++ is told: for meta it looks for no GPU, and backward passes stay in this thread.
_META = torch.device("meta")
_aten: Any = torch.ops.aten
_INDEXING = (_aten.index, _aten.index_put, _aten.index_put_)
# The host has to know a value, or the values decide how large the result is.
_WAITING = (
    _aten._local_scalar_dense,
    _aten.equal,
    _aten.nonzero,
    _aten.masked_select,
    _aten._unique2,
    _aten.bincount,
)
# Called with a device that is no place for a tensor.
_ABOUT_DEVICES = (torch.device, torch.get_device_module)
_waits: list[str] = []


class OnGpu(Tensor):
    """A tensor that pretends. `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        made: OnGpu = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=_META,
        )
        made.held = held
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class Generator(torch.Generator):
    """Random numbers of the CPU, or what pretends to be a GPU's."""

    pretends: bool

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        made = super().__new__(cls)
        made.pretends = torch.device(device).type == "cuda"
        return made


def _place() -> str:
    """The function of hdgan that is at work."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("hdgan."):
            return f"{name.removeprefix('hdgan.')}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _run(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """One operation, as the GPU would do it or refuse it."""
    tensors: list[Tensor] = []

    def bare(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
        return value.held if isinstance(value, OnGpu) else value

    bare_args, bare_kwargs = tree_map(bare, args), tree_map(bare, dict(kwargs))
    operation, asked = func.overloadpacket, kwargs.get("device")
    there = any(isinstance(one, OnGpu) for one in tensors)
    on_gpu = there if asked is None else asked == _META
    if asked is not None:
        bare_kwargs["device"] = torch.device("cpu")
    if operation is _aten.copy_:
        on_gpu = isinstance(args[0], OnGpu)
        _copied(args[1], on_gpu, args[2] if len(args) > 2 else kwargs.get("non_blocking"))
    elif operation is _aten._to_copy:
        _copied(args[0], on_gpu, kwargs.get("non_blocking"))
    elif there:
        _check_devices(func, tensors)
    if operation is _aten._efficientzerotensor:  # zeros without memory, which only C++ can read
        func = _aten.zeros.default
    result = func(*bare_args, **bare_kwargs)
    if not on_gpu:
        return result
    result = tree_map(lambda one: OnGpu(one) if isinstance(one, Tensor) else one, result)
    if not there or operation is _aten._to_copy:
        return result
    return return_and_correct_aliasing(func, args, dict(kwargs), result)  # type: ignore[no-untyped-call]


def _copied(source: Tensor, to_gpu: bool, non_blocking: bool | None) -> None:
    from_gpu = isinstance(source, OnGpu)
    if from_gpu and not to_gpu:
        _waits.append(f"{_place()}: to the host")
    if to_gpu and not from_gpu and not non_blocking:
        _waits.append(f"{_place()}: to the device")


def _check_devices(func: Any, tensors: list[Tensor]) -> None:
    operation = func.overloadpacket
    elsewhere = [one for one in tensors if not isinstance(one, OnGpu)]
    if operation in _WAITING:
        _waits.append(f"{_place()}: {operation}")
    if operation in _INDEXING:
        # May come from the host, and is then copied; a mask has to be counted first.
        if elsewhere or any(one.dtype == torch.bool for one in tensors[1:]):
            _waits.append(f"{_place()}: {operation}")
        elsewhere = []
    # A single number of the host goes along as an argument.
    if any(one.dim() for one in elsewhere):
        shapes = [(one.device.type, tuple(one.shape)) for one in tensors]
        raise RuntimeError(f"{_place()}: {func} of tensors on two devices: {shapes}")


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _told(value: Any) -> Any:
    """`cuda` as C++ is told it; everything else as it is."""
    if isinstance(value, str):
        return _META if value.partition(":")[0] == "cuda" else value
    return _META if isinstance(value, torch.device) and value.type == "cuda" else value


class _Calls(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ABOUT_DEVICES:
            return func(*args, **kwargs)
        first = args[0] if args else None
        if isinstance(first, OnGpu):
            if func is Tensor.numpy:
                raise TypeError(f"{_place()}: a tensor on cuda:0 cannot become numpy")
            if func is Tensor.data_ptr:
                return 0
            if func is Tensor.tolist:
                _waits.append(f"{_place()}: tolist")
                return first.held.tolist()
        if func is torch.tensor and _told(kwargs.get("device")) is _META:
            kwargs.pop("device")
            return func(*args, **kwargs).to(_META)
        result = func(*map(_told, args), **{name: _told(one) for name, one in kwargs.items()})
        drawn_by = kwargs.get("generator")
        if isinstance(drawn_by, Generator) and drawn_by.pretends != isinstance(result, OnGpu):
            raise RuntimeError(f"{_place()}: tensor and generator are on different devices")
        return result


@contextlib.contextmanager
def pretended_cuda() -> Iterator[list[str]]:
    """While entered there is a GPU. Gives the waits for it, in order; clear them at any time."""
    _waits.clear()
    future: Any = torch.__future__
    before = future.get_overwrite_module_params_on_conversion()
    # Else a parameter that is converted takes over what C++ knows of the new one, and no more.
    future.set_overwrite_module_params_on_conversion(True)
    try:
        operations = _Operations()  # type: ignore[no-untyped-call]
        with mock.patch.object(torch, "Generator", Generator), _Calls(), operations:
            yield _waits
    finally:
        future.set_overwrite_module_params_on_conversion(before)
