"""A candidates artifact as the stages that render it again read it: ids, latents, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch

from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.nets.generator import Generator, Noise
from hdgan.nets.latents import Stream
from hdgan.nets.precision import Precision, precision_of
from hdgan.nets.sample_noise import NoiseMode, sample_noise
from hdgan.nets.tensor_files import read_tensors

_ID = re.compile(r"[0-9a-f]{32}")


class Files(Protocol):
    """The read side of an artifact."""

    @property
    def content_digest(self) -> str: ...

    def read(self, name: str) -> bytes: ...

    def uri(self, name: str) -> str: ...


@dataclass(frozen=True)
class Candidate:
    """One candidate: its id, its number in the stream, w float32 [num_ws, w_dim], and what a
    conditional generator was asked for."""

    id: str
    index: int
    w: npt.NDArray[np.float32]
    label: str | None = None


@dataclass(frozen=True)
class Candidates:
    """All candidates of a generator, and how they were rendered."""

    noise: NoiseMode
    precision: Precision
    seed: int
    stream: Stream
    by_id: Mapping[str, Candidate]

    def latent(self, generator: Generator, candidate: Candidate) -> tuple[torch.Tensor, Noise]:
        """What renders it again: w float32 [num_ws, w_dim] on the generator's device, noise."""
        device = next(generator.parameters()).device
        noise = sample_noise(generator, self.noise, self.seed, self.stream, candidate.index)
        return torch.from_numpy(candidate.w.copy()).to(device), noise


def read_candidates(files: Files, generator: str) -> Candidates:
    """Parse `candidates.json` and the latents; they must be of the generator given by digest."""
    document = read_document(files, "candidates.json")
    try:
        if document["generator"] != generator:
            raise RequestError(
                f"the candidates were drawn from generator {str(document['generator'])[:12]}, this "
                f"run's generator is {generator[:12]}: draw candidates again"
            )
        noise, seed = document["noise"], int(document["seed"])
        precision = precision_of(document)
        stream, listed = document["stream"], list(document["images"])
        ids = [(str(one["id"]), int(one["index"])) for one in listed]
        labels = [None if one.get("label") is None else str(one["label"]) for one in listed]
        # Ids become names of folders, some of which are deleted; numbers become uint64.
        for name, index in ids:
            if not _ID.fullmatch(name) or not 0 <= index < 2**63:
                raise ValueError(f"image {name[:100]!r} with number {index}")
        w = _latents(files)
        if noise not in get_args(NoiseMode) or stream not in get_args(Stream) or seed < 0:
            raise ValueError(f"noise {noise!r}, stream {stream!r}, seed {seed}")
        if w.ndim != 3 or len(w) != len(ids):
            raise ValueError(f"latents w are {list(w.shape)} for {len(ids)} images")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        where = files.uri("candidates.json")
        raise InputMissing(f"{where} is not a candidates index: {error!r}") from error
    by_id = {name: Candidate(name, i, w[row], labels[row]) for row, (name, i) in enumerate(ids)}
    return Candidates(noise, precision, seed, stream, by_id)


def require_shape(candidates: Candidates, shape: tuple[int, int], files: Files) -> None:
    """InputMissing unless every w is [num_ws, w_dim] of the generator."""
    for one in candidates.by_id.values():
        if one.w.shape != shape:
            raise InputMissing(
                f"{files.uri('latents.safetensors')} holds w of {list(one.w.shape)}, the generator "
                f"takes {list(shape)}: draw candidates again"
            )


def _latents(files: Files) -> npt.NDArray[np.float32]:
    """w float32 [images, num_ws, w_dim], all finite. ValueError for anything else."""
    tensors = read_tensors(files.read("latents.safetensors"))
    if tensors.keys() != {"w"} or tensors["w"].dtype != torch.float32:
        raise ValueError("latents.safetensors does not hold w of float32 alone")
    if not bool(tensors["w"].isfinite().all()):
        raise ValueError("latents.safetensors holds values that are not finite")
    found: npt.NDArray[np.float32] = tensors["w"].numpy()
    return found


def read_document(files: Files, name: str) -> Any:
    """A JSON object of an artifact. InputMissing if it is none."""
    try:
        return parse_object(files.read(name))
    except JsonError as error:
        raise InputMissing(f"{files.uri(name)} is not JSON: {error}") from error
