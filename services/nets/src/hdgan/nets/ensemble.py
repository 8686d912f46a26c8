"""The pixel-classifier ensemble: small MLPs on a pixel's vector, all members evaluated together.

Each member is (Linear, ReLU, BatchNorm, Dropout) per hidden layer and a last Linear, as in the
paper. Members' parameters are stacked in the first dimension, so one batched product serves all of
them. `PixelEnsemble` is what trains; `fold` turns it into `FoldedEnsemble`, what serves:
standardisation is folded into the first layer, BatchNorm into the layer after it, the prior
correction into the last.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import nn

from hdgan.core.errors import DataError, InternalError
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.nets.precision import Precision, precision_of
from hdgan.nets.pyramid import DTYPES, FeaturePlan
from hdgan.nets.tensor_files import TensorFileError, read_tensors, require_weights

ENSEMBLE_FORMAT = 1
WEIGHTS_FILE = "ensemble.safetensors"
SPEC_FILE = "ensemble.json"
INIT_STREAM = 1  # first word of the seed sequence; other uses of a seed have other first words
NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1
# A channel that varies by less than float32 can tell from its mean carries rounding noise only.
CONSTANT_CHANNEL = 1e-6


@dataclass(frozen=True)
class ClassLabel:
    """A class: its name and its `#rrggbb` colour; its index is its position."""

    name: str
    color: str


@dataclass(frozen=True)
class EnsembleSpec:
    """Everything about an ensemble that is not a weight.

    `mean`, `std`: float64 [C] of the labelled training pixels. `log_prior_correction`: float64 [K],
    log(labelled prior) - log(training prior), added to every member's logits before use.
    `generator`: content digest of the generator artifact whose features it understands, when they
    are rendered in `precision`.
    """

    plan: FeaturePlan
    blocks: int
    dtype: str
    classes: tuple[ClassLabel, ...]
    hidden: tuple[int, ...]
    members: int
    dropout: float
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    log_prior_correction: npt.NDArray[np.float64]
    generator: str
    precision: Precision = "float32"

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer widths from the pixel's vector to the classes."""
        return (self.plan.channels, *self.hidden, len(self.classes))

    @property
    def parameters(self) -> int:
        """Weights and biases of all members."""
        return self.members * sum((a + 1) * b for a, b in itertools.pairwise(self.widths))

    def inverse_std(self) -> npt.NDArray[np.float64]:
        """1 / std per channel; 0 for a channel that is constant, which then says nothing."""
        constant = self.std <= CONSTANT_CHANNEL * np.abs(self.mean)
        inverse: npt.NDArray[np.float64] = np.zeros_like(self.std)
        np.divide(1.0, self.std, out=inverse, where=~constant)
        return inverse

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "hdgan-pixel-ensemble",
            "format": ENSEMBLE_FORMAT,
            "generator": self.generator,
            "precision": self.precision,
            "blocks": self.blocks,
            "dtype": self.dtype,
            "plan": self.plan.to_json(),
            "classes": [{"name": one.name, "color": one.color} for one in self.classes],
            "hidden": list(self.hidden),
            "members": self.members,
            "dropout": self.dropout,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "logPriorCorrection": self.log_prior_correction.tolist(),
        }

    @staticmethod
    def from_json(value: Any) -> EnsembleSpec:
        """Parse and check `ensemble.json`; `DataError` says what is wrong with it."""
        try:
            if value["kind"] != "hdgan-pixel-ensemble" or value["format"] != ENSEMBLE_FORMAT:
                raise ValueError(f"kind/format is {value['kind']!r}/{value['format']!r}")
            spec = EnsembleSpec(
                plan=FeaturePlan.from_json(value["plan"]),
                blocks=int(value["blocks"]),
                dtype=str(value["dtype"]),
                classes=tuple(
                    ClassLabel(str(one["name"]), str(one["color"])) for one in value["classes"]
                ),
                hidden=tuple(int(one) for one in value["hidden"]),
                members=int(value["members"]),
                dropout=float(value["dropout"]),
                mean=np.asarray(value["mean"], dtype=np.float64),
                std=np.asarray(value["std"], dtype=np.float64),
                log_prior_correction=np.asarray(value["logPriorCorrection"], dtype=np.float64),
                generator=str(value["generator"]),
                precision=precision_of(value),
            )
            _check_spec(spec)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(
                f"{SPEC_FILE} is not a usable ensemble description: {error!r}; "
                "run the classifier again"
            ) from error
        return spec


def _check_spec(spec: EnsembleSpec) -> None:
    channels = (spec.plan.channels,)
    if spec.dtype not in DTYPES:
        raise ValueError(f"dtype is {spec.dtype!r}, allowed are {', '.join(DTYPES)}")
    if spec.mean.shape != channels or spec.std.shape != channels:
        raise ValueError(f"mean and std must have {channels[0]} values")
    if spec.log_prior_correction.shape != (len(spec.classes),):
        raise ValueError("logPriorCorrection must have one value per class")
    numbers = np.concatenate([spec.mean, spec.std, spec.log_prior_correction])
    if not np.isfinite(numbers).all() or (spec.std < 0).any():
        raise ValueError("mean, std and logPriorCorrection must be finite, std not negative")
    if not (1 <= spec.members <= 1000 and 2 <= len(spec.classes) <= 32):
        raise ValueError(f"{spec.members} members, {len(spec.classes)} classes")
    if any(not 1 <= one <= 65536 for one in spec.hidden) or not 0 <= spec.dropout < 1:
        raise ValueError(f"hidden is {spec.hidden}, dropout is {spec.dropout}")


class PixelEnsemble(nn.Module):
    """The ensemble as it trains: parameters [members, in, out], one batched product per layer."""

    def __init__(self, spec: EnsembleSpec, seed: int = 0) -> None:
        """Initialise every member from its own stream of `seed`: U(+-1/sqrt(in)), as nn.Linear."""
        super().__init__()
        self.spec = spec
        widths, members = spec.widths, spec.members
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        streams = [member_generator(seed, member) for member in range(members)]
        for fan_in, fan_out in itertools.pairwise(widths):
            bound = fan_in**-0.5
            drawn = [
                torch.rand(fan_in + 1, fan_out, generator=stream).mul_(2 * bound).sub_(bound)
                for stream in streams
            ]
            stacked = torch.stack(drawn)
            self.weights.append(nn.Parameter(stacked[:, :fan_in].contiguous()))
            self.biases.append(nn.Parameter(stacked[:, fan_in].contiguous()))
        self.norm_weights = nn.ParameterList(
            nn.Parameter(torch.ones(members, width)) for width in spec.hidden
        )
        self.norm_biases = nn.ParameterList(
            nn.Parameter(torch.zeros(members, width)) for width in spec.hidden
        )
        for layer, width in enumerate(spec.hidden):
            self.register_buffer(f"running_mean{layer}", torch.zeros(members, width))
            self.register_buffer(f"running_var{layer}", torch.ones(members, width))
        mean = torch.from_numpy(spec.mean.copy()).to(torch.float32)
        inverse = torch.from_numpy(spec.inverse_std()).to(torch.float32)
        correction = torch.from_numpy(spec.log_prior_correction.copy()).to(torch.float32)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("inverse_std", inverse, persistent=False)
        self.register_buffer("correction", correction, persistent=False)

    def standardise(self, rows_NC: torch.Tensor) -> torch.Tensor:
        """Raw vectors to zero mean and unit variance per channel; same shape."""
        mean, inverse = self.get_buffer("mean"), self.get_buffer("inverse_std")
        return (rows_NC - mean) * inverse

    def train_logits(
        self, standardised_MBC: torch.Tensor, dropout_stream: torch.Generator
    ) -> torch.Tensor:
        """Uncorrected logits [M, B, K] in training mode (batch statistics, dropout).

        Each member has its own rows. Dropout masks come from `dropout_stream` alone, so that a
        resumed run draws the same ones. Updates the running statistics.
        """
        x = standardised_MBC
        keep = 1.0 - self.spec.dropout
        for layer in range(len(self.spec.hidden)):
            x = torch.baddbmm(self.biases[layer][:, None], x, self.weights[layer]).relu_()
            variance, mean = torch.var_mean(x, dim=1, correction=0)
            self._track(layer, mean.detach(), variance.detach(), x.shape[1])
            scale = self.norm_weights[layer] * torch.rsqrt(variance + NORM_EPSILON)
            shift = self.norm_biases[layer] - mean * scale
            x = torch.addcmul(shift[:, None], x, scale[:, None])
            if keep < 1.0:
                mask = torch.empty_like(x).bernoulli_(keep, generator=dropout_stream)
                x = x * mask.div_(keep)
        return torch.baddbmm(self.biases[-1][:, None], x, self.weights[-1])

    def _track(self, layer: int, mean: torch.Tensor, variance: torch.Tensor, rows: int) -> None:
        unbiased = variance * (rows / max(rows - 1, 1))
        self.get_buffer(f"running_mean{layer}").lerp_(mean, NORM_MOMENTUM)
        self.get_buffer(f"running_var{layer}").lerp_(unbiased, NORM_MOMENTUM)

    def forward(self, rows_NC: torch.Tensor) -> torch.Tensor:
        """Prior-corrected logits [M, N, K] of raw vectors [N, C], in evaluation mode.

        The plain reference that `FoldedEnsemble` is tested against.
        """
        x = self.standardise(rows_NC).expand(self.spec.members, -1, -1)
        for layer in range(len(self.spec.hidden)):
            x = torch.baddbmm(self.biases[layer][:, None], x, self.weights[layer]).relu()
            mean = self.get_buffer(f"running_mean{layer}")[:, None]
            variance = self.get_buffer(f"running_var{layer}")[:, None]
            x = (x - mean) * torch.rsqrt(variance + NORM_EPSILON)
            x = x * self.norm_weights[layer][:, None] + self.norm_biases[layer][:, None]
        logits = torch.baddbmm(self.biases[-1][:, None], x, self.weights[-1])
        return logits + self.get_buffer("correction")

    def dump(self) -> dict[str, bytes]:
        """The ensemble as files: `ensemble.safetensors` and `ensemble.json`."""
        tensors = {
            name: value.detach().to("cpu").contiguous() for name, value in self.state_dict().items()
        }
        text = json.dumps(self.spec.to_json(), indent=1, allow_nan=False) + "\n"
        return {WEIGHTS_FILE: safetensors.torch.save(tensors), SPEC_FILE: text.encode()}

    @classmethod
    def load(cls, read: Callable[[str], bytes]) -> PixelEnsemble:
        """Load what `dump` wrote, in evaluation mode on the CPU.

        `read` gives a file's bytes by name, e.g. `Artifact.read`. Raises `DataError` if the files
        do not fit together.
        """
        try:
            value = parse_object(read(SPEC_FILE))
        except JsonError as error:
            raise DataError(f"{SPEC_FILE} is not JSON: {error}") from error
        spec = EnsembleSpec.from_json(value)
        data = read(WEIGHTS_FILE)
        try:
            tensors = read_tensors(data)
            if spec.parameters > len(data):  # before a description of a huge one allocates it
                raise TensorFileError(f"{spec.parameters} numbers are not in {len(data)} bytes")
            ensemble = cls(spec)
            require_weights(tensors, ensemble.state_dict())
            ensemble.load_state_dict(tensors, strict=True)
        except (TensorFileError, RuntimeError) as error:
            raise DataError(f"{WEIGHTS_FILE} does not fit {SPEC_FILE}: {error}") from error
        if not all(bool(torch.isfinite(one).all()) for one in tensors.values()):
            raise DataError(f"{WEIGHTS_FILE} holds values that are not finite")
        for name, one in tensors.items():
            if name.startswith("running_var") and bool((one < 0).any()):
                raise DataError(f"{WEIGHTS_FILE}: {name} is negative, which no variance is")
        return ensemble.eval()


def member_generator(seed: int, member: int) -> torch.Generator:
    """The CPU random stream that initialises one member; independent of how many there are."""
    state = int(np.random.SeedSequence([INIT_STREAM, seed, member]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


@dataclass(frozen=True, eq=False)
class FoldedEnsemble:
    """The ensemble as it serves: plain Linear and ReLU on raw features.

    `first` is one [C_m, M * H] matrix per map of the plan (they sum, which is why a map's share
    can be computed at its native resolution and upsampled afterwards), `first_bias` [M * H].
    `later` holds (weight [M, in, out], bias [M, out]). float32.
    """

    spec: EnsembleSpec
    first: tuple[torch.Tensor, ...]
    first_bias: torch.Tensor
    later: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def to(self, device: str | torch.device) -> FoldedEnsemble:
        return FoldedEnsemble(
            self.spec,
            tuple(one.to(device) for one in self.first),
            self.first_bias.to(device),
            tuple((weight.to(device), bias.to(device)) for weight, bias in self.later),
        )

    def finish(self, pre_NF: torch.Tensor) -> torch.Tensor:
        """Corrected logits [M, N, K] from the first layer's pre-activations [N, M * H].

        `pre_NF` includes the bias and may be overwritten.
        """
        members = self.spec.members
        x = pre_NF.reshape(pre_NF.shape[0], members, -1).permute(1, 0, 2)
        for weight, bias in self.later:
            x = torch.baddbmm(bias[:, None], x.relu(), weight)
        return x

    def logits(self, rows_NC: torch.Tensor) -> torch.Tensor:
        """Corrected logits [M, N, K] of raw vectors float32 [N, C]."""
        pre = self.first_bias.expand(rows_NC.shape[0], -1)
        return self.finish(torch.addmm(pre, rows_NC, torch.cat(self.first)))


@torch.no_grad()
def fold(ensemble: PixelEnsemble) -> FoldedEnsemble:
    """Fold standardisation, BatchNorm and prior correction into the linear layers, in float64."""
    spec = ensemble.spec
    members = spec.members

    def wide(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("cpu", torch.float64)

    weights = [wide(one) for one in ensemble.weights]
    biases = [wide(one) for one in ensemble.biases]
    inverse = torch.from_numpy(spec.inverse_std())
    mean = torch.from_numpy(spec.mean.copy())
    weights[0] = weights[0] * inverse[None, :, None]
    biases[0] = biases[0] - torch.einsum("c,mch->mh", mean, weights[0])
    for layer in range(len(spec.hidden)):
        variance = wide(ensemble.get_buffer(f"running_var{layer}"))
        scale = wide(ensemble.norm_weights[layer]) * torch.rsqrt(variance + NORM_EPSILON)
        running_mean = wide(ensemble.get_buffer(f"running_mean{layer}"))
        shift = wide(ensemble.norm_biases[layer]) - running_mean * scale
        following = weights[layer + 1]
        biases[layer + 1] = biases[layer + 1] + torch.einsum("mi,mio->mo", shift, following)
        weights[layer + 1] = following * scale[:, :, None]
    biases[-1] = biases[-1] + torch.from_numpy(spec.log_prior_correction.copy())
    stacked = weights[0].permute(1, 0, 2).reshape(spec.plan.channels, members * spec.widths[1])
    stacked = stacked.to(torch.float32)
    return FoldedEnsemble(
        spec,
        tuple(stacked[part].contiguous() for part in spec.plan.slices()),
        biases[0].reshape(-1).to(torch.float32),
        tuple(
            (weight.to(torch.float32), bias.to(torch.float32))
            for weight, bias in zip(weights[1:], biases[1:], strict=True)
        ),
    )


def prior_correction(
    labelled: Sequence[int] | npt.NDArray[np.int64], drawn: Sequence[float]
) -> npt.NDArray[np.float64]:
    """log(labelled prior) - log(training prior) per class, float64 [K].

    `labelled`: pixels per class in the training labels; `drawn`: probability with which training
    draws each class. Both must be positive for every class.
    """
    counts = np.asarray(labelled, dtype=np.float64)
    training = np.asarray(drawn, dtype=np.float64)
    if (counts <= 0).any() or (training <= 0).any():
        raise InternalError("a class without training pixels has no prior to correct to")
    labelled_prior, training_prior = counts / counts.sum(), training / training.sum()
    correction: npt.NDArray[np.float64] = np.log(labelled_prior) - np.log(training_prior)
    return correction
