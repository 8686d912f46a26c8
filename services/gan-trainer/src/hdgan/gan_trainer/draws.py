"""Random draws of a training step, keyed by (seed, step, sample of the global batch, purpose).

There is no generator state to save, so a resumed run continues exactly; and a sample gets the same
numbers whichever process draws them, so the result does not depend on how many share a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def keyed_generator(
    seed: int, step: int, sample: int, purpose: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator on `device` whose numbers depend on nothing but the arguments.

    CPU and CUDA generators give different numbers for the same key.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{sample}/{purpose}".encode()).digest()
    generator = torch.Generator(device)
    return generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Draws:
    """Draws for some samples of one step's batch; row i of a result belongs to `samples[i]`.

    Args:
        seed: of the run.
        step: optimizer step, from 0.
        samples: positions in the global batch, any subset in any order.
        device: where large draws are made and where `normal` puts them when asked to.
        prefix: put before every purpose.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        samples: Sequence[int],
        device: torch.device | str = "cpu",
        prefix: str = "",
    ) -> None:
        self.seed, self.step, self.samples = seed, step, list(samples)
        self.device = torch.device(device)
        self.prefix = prefix

    def under(self, prefix: str) -> Draws:
        """The same samples with `prefix` before every purpose: other numbers."""
        return Draws(self.seed, self.step, self.samples, self.device, f"{self.prefix}{prefix}/")

    def of(self, rows: Sequence[int]) -> Draws:
        """Draws for `samples[r]` for r in `rows`: those rows of every result."""
        samples = [self.samples[row] for row in rows]
        return Draws(self.seed, self.step, samples, self.device, self.prefix)

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform in [0, 1): float32 [len(samples), *shape], on the CPU."""
        return torch.stack([torch.rand(shape, generator=key) for key in self._keys(purpose, "cpu")])

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal: float32 [len(samples), *shape], on the CPU."""
        return torch.stack(
            [torch.randn(shape, generator=key) for key in self._keys(purpose, "cpu")]
        )

    def normal_on_device(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal: float32 [len(samples), *shape], made on `device` (for large draws)."""
        result = torch.empty((len(self.samples), *shape), device=self.device)
        for row, key in enumerate(self._keys(purpose, self.device)):
            result[row].normal_(generator=key)
        return result

    def integers(self, purpose: str, low: int, high: int) -> Tensor:
        """Uniform integers low <= n < high: int64 [len(samples)], on the CPU."""
        return torch.stack(
            [
                torch.randint(low, high, (), generator=key)
                for key in self._keys(purpose, torch.device("cpu"))
            ]
        )

    def _keys(self, purpose: str, device: torch.device | str) -> list[torch.Generator]:
        purpose = f"{self.prefix}{purpose}"
        return [keyed_generator(self.seed, self.step, s, purpose, device) for s in self.samples]
