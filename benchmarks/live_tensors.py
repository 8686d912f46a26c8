"""How many bytes of tensors a training step has at most, without computing it.

The step runs on PyTorch's fake tensors, which have shapes and lifetimes but no data. What would
look at data is replaced: the decision whether gradients are finite, Adam's arithmetic (its two
moments are there from the start), and the numbers a step reports.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hdgan.gan_trainer.training import Training


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every tensor made while it is active, from birth to death of its memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: set[int] = set()
        self._bytes = 0
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self._bytes += size
        self.peak = max(self.peak, self._bytes)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._bytes -= size


def peak_tensor_bytes(make: Callable[[], Training], tiles_BHW3: NDArray[np.uint8]) -> int:
    """Most bytes of tensors alive at once in a training's first step on these tiles."""
    with ExitStack() as stack:
        # Copying a fake module asks for its memory's address, which torch warns of.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        live = LiveBytes()
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(live)
        # Fake tensors cannot change places, and there is no random state to restore.
        with (
            mock.patch.object(nn.Module, "to", lambda module, *args, **kwargs: module),
            mock.patch.object(torch.random, "fork_rng"),
        ):
            training = make()
        moments = [
            torch.zeros_like(gradients.flat)
            for gradients in (training._g_gradients, training._d_gradients)
            for _ in ("exp_avg", "exp_avg_sq")
        ]
        for method, answer in (("_apply", True), ("_measured", {"signReal": 0.0})):
            stack.enter_context(mock.patch.object(Training, method, return_value=answer))
        training.step(tiles_BHW3)
        del moments
    return live.peak
