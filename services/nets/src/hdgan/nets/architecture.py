"""The shape of a StyleGAN2 network pair as one value: what `architecture.json` holds."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hdgan.core.errors import RequestError
from hdgan.core.json_documents import parse_object

MIN_RESOLUTION = 8
MAX_RESOLUTION = 4096
MAX_LABELS = 10_000
MAX_JSON_BYTES = 4 << 20
# More than any network that is trained; a description asks for memory before weights are there.
MOST = {
    "latent_dim": 4096,
    "mapping_layers": 64,
    "channel_base": 1 << 22,
    "channel_max": 4096,
    "minibatch_std_group": 4096,
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Everything needed to build generator and discriminator, but not their weights.

    Attributes:
        resolution: side of the square image in pixels, a power of two from 8 to 4096.
        latent_dim: length of z and of w (StyleGAN2: 512).
        mapping_layers: fully connected layers of the mapping network (StyleGAN2: 8).
        mapping_lr_multiplier: learning rate of the mapping network relative to the rest (0.01).
        channel_base: a block at resolution r has min(channel_base // r, channel_max) channels
            (StyleGAN2 config F: 32768).
        channel_max: see channel_base (StyleGAN2: 512).
        conv_clamp: activations of every convolution are clamped to +-conv_clamp, which keeps
            16-bit training finite (StyleGAN2-ADA, appendix: 256). None: no clamp.
        minibatch_std_group: images per group of the minibatch-standard-deviation layer (4).
        labels: names of the classes a class-conditional network tells apart, such as stains, in
            the order of their label numbers. Empty: not conditional.
    """

    resolution: int
    latent_dim: int = 512
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = None
    minibatch_std_group: int = 4
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("resolution", *MOST):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise RequestError(f"architecture: {name} is {str(value)[:40]}, no whole number")
            if value > MOST.get(name, value):
                raise RequestError(f"architecture: {name} is {value}, more than {MOST[name]}")
        for name in ("mapping_lr_multiplier", "conv_clamp"):
            number = getattr(self, name)
            if number is None and name == "conv_clamp":
                continue
            if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
                raise RequestError(f"architecture: {name} is {str(number)[:40]}, not above 0")
        if len(self.labels) > MAX_LABELS:
            raise RequestError(f"architecture: {len(self.labels)} labels, more than {MAX_LABELS}")
        power_of_two = self.resolution > 0 and self.resolution & (self.resolution - 1) == 0
        if not power_of_two or not MIN_RESOLUTION <= self.resolution <= MAX_RESOLUTION:
            raise RequestError(
                f"architecture: resolution {self.resolution} is not a power of two from "
                f"{MIN_RESOLUTION} to {MAX_RESOLUTION}"
            )
        for name in ("latent_dim", "mapping_layers", "channel_max", "minibatch_std_group"):
            if getattr(self, name) < 1:
                raise RequestError(f"architecture: {name} must be at least 1")
        if self.channel_base < self.resolution:
            raise RequestError(
                f"architecture: channel_base {self.channel_base} leaves no channel at resolution "
                f"{self.resolution}; it must be at least the resolution"
            )
        if len(self.labels) == 1 or len(set(self.labels)) < len(self.labels):
            raise RequestError(
                f"architecture: labels {list(self.labels)} must be none, or at least two different "
                "names"
            )

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """Resolutions of the synthesis blocks, coarse to fine: 4, 8, ..., resolution."""
        return tuple(2**i for i in range(2, self.resolution.bit_length()))

    def channels(self, resolution: int) -> int:
        """Feature channels of the blocks at one resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def least_weights(self) -> int:
        """A number of weights that either network has more of: one 3 x 3 convolution a block."""
        return sum(9 * self.channels(r) ** 2 for r in self.block_resolutions[1:])

    @property
    def least_mapping_weights(self) -> int:
        """A number of weights that the mapping network has more of."""
        return self.mapping_layers * self.latent_dim**2

    @property
    def num_ws(self) -> int:
        """How many copies of w the synthesis network takes: one per convolution, one for RGB."""
        return 2 * len(self.block_resolutions)

    @property
    def conv_names(self) -> tuple[str, ...]:
        """Names of the synthesis convolutions, coarse to fine (4 x 4 has only `conv1`)."""
        first, *rest = self.block_resolutions
        return (f"b{first}.conv1", *(f"b{r}.conv{i}" for r in rest for i in (0, 1)))

    def differences(self, other: Architecture) -> list[str]:
        """In words, what keeps weights of `other` from working here as they do there; empty: they
        do. How many images the minibatch standard deviation compares may differ. Labels called
        "label 0", "label 1", ..., as converted networks have them, may get other names.
        """
        mine, theirs = self._effective(), other._effective()
        if other.labels == tuple(f"label {i}" for i in range(len(self.labels))):
            theirs["conditional"] = mine["conditional"]
        return [
            f"{name} is {theirs[name]} there, {value} here"
            for name, value in mine.items()
            if theirs[name] != value
        ]

    def _effective(self) -> dict[str, object]:
        """What the function of the networks depends on, by the run file's names where there are."""
        return {
            "tileSize": self.resolution,
            "latentDim": self.latent_dim,
            "mappingLayers": self.mapping_layers,
            "mappingLrMultiplier": self.mapping_lr_multiplier,
            "channels per resolution (channelBase, channelMax)": {
                r: self.channels(r) for r in self.block_resolutions
            },
            "convClamp": self.conv_clamp,
            "conditional": list(self.labels) or "none",
        }

    def to_json(self) -> bytes:
        """The bytes of `architecture.json`."""
        fields = dataclasses.asdict(self)
        if not self.labels:
            del fields["labels"]
        return (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Architecture:
        """Read `architecture.json`; unknown or missing fields are a RequestError."""
        try:
            fields: Any = parse_object(data, max_bytes=MAX_JSON_BYTES)
            labels = fields.pop("labels", [])
            if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
                raise TypeError("labels must be a list of names")
            return cls(**fields, labels=tuple(labels))
        except (ValueError, TypeError, AttributeError) as error:
            raise RequestError(
                f"architecture.json is not one this version reads: {error}"
            ) from None
