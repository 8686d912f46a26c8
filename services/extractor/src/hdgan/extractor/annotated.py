"""What is to be extracted: annotated candidates with their latents, checked against each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch

from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.core.masks import UNLABELLED, decode_mask
from hdgan.nets.latents import Stream
from hdgan.nets.precision import Precision, precision_of
from hdgan.nets.sample_noise import NoiseMode
from hdgan.nets.shards import SPLITS
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
    """One candidate: its id, its number in the stream, w float32 [num_ws, w_dim]."""

    id: str
    index: int
    w: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """All candidates of a generator, and how they were rendered."""

    noise: NoiseMode
    precision: Precision
    seed: int
    stream: Stream
    by_id: Mapping[str, Candidate]


@dataclass(frozen=True)
class Annotation:
    """An annotated candidate and the split it belongs to."""

    candidate: Candidate
    split: str


def read_candidates(files: Files, generator: str) -> Candidates:
    """Parse `candidates.json` and the latents; they must be of the generator given by digest."""
    document = _json(files, "candidates.json")
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
        # Ids become names of folders, some of which are deleted; numbers become uint64.
        for name, index in ids:
            if not _ID.fullmatch(name) or not 0 <= index < 2**63:
                raise ValueError(f"image {name[:100]!r} with number {index}")
        w = _latents(files)
        if noise not in get_args(NoiseMode) or stream not in get_args(Stream) or seed < 0:
            raise ValueError(f"noise {noise!r}, stream {stream!r}, seed {seed}")
        if w.ndim != 3 or len(w) != len(ids):
            raise ValueError(f"latents w are {list(w.shape)} for {len(ids)} images")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        where = files.uri("candidates.json")
        raise InputMissing(f"{where} is not a candidates index: {error!r}") from error
    by_id = {name: Candidate(name, i, w[row]) for row, (name, i) in enumerate(ids)}
    return Candidates(noise, precision, seed, stream, by_id)


def require_shape(candidates: Candidates, shape: tuple[int, int], files: Files) -> None:
    """InputMissing unless every w is [num_ws, w_dim] of the generator."""
    for one in candidates.by_id.values():
        if one.w.shape != shape:
            raise InputMissing(
                f"{files.uri('latents.safetensors')} holds w of {list(one.w.shape)}, the generator "
                f"takes {list(shape)}: draw candidates again"
            )


def read_annotations(
    files: Files, candidates: Candidates, digests: Mapping[str, str], classes: Sequence[str]
) -> tuple[Annotation, ...]:
    """The annotated images, in the order of `annotations.json`.

    `digests`: content digests of generator and candidates; `classes`: names in the run's order.
    Every mismatch is a `RequestError` that says what to change.
    """
    document = _json(files, "annotations.json")
    try:
        for what in ("generator", "candidates"):
            if document[what] != digests[what]:
                raise RequestError(
                    f"the annotations belong to {what} {str(document[what])[:12]}, this run has "
                    f"{digests[what][:12]}: label this run's candidates, or pin that generator"
                )
        named = [str(one["name"]) for one in document["classes"]]
        images = [(str(one["id"]), str(one["split"])) for one in document["images"]]
    except (KeyError, TypeError, ValueError) as error:
        where = files.uri("annotations.json")
        raise RequestError(f"{where} is not an annotations index: {error!r}") from error
    if named != list(classes):
        raise RequestError(
            f"the annotations have the classes {', '.join(named)}; spec.annotations.classes are "
            f"{', '.join(classes)}: names and order must agree"
        )
    result: list[Annotation] = []
    seen: set[str] = set()
    for image_id, split in images:
        if image_id not in candidates.by_id:
            raise RequestError(
                f"annotated image {image_id[:80]!r} is not one of this run's candidates"
            )
        if image_id in seen:
            raise RequestError(f"image {image_id} is annotated twice")
        if split not in SPLITS:
            raise RequestError(f"image {image_id} has split {split!r}, not one of {SPLITS}")
        seen.add(image_id)
        result.append(Annotation(candidates.by_id[image_id], split))
    if not any(one.split == "train" for one in result):
        raise RequestError(
            f"{files.uri('annotations.json')} has no image of split train: label some and import "
            "them again"
        )
    return tuple(result)


def read_mask(files: Files, image_id: str, classes: int, side: int) -> npt.NDArray[np.uint8]:
    """The labels of one image, uint8 [side, side], 255 = unlabelled; at least one is labelled."""
    name = f"masks/{image_id}.png"
    source = f"mask of image {image_id} ({files.uri(name)})"
    mask = decode_mask(files.read(name), classes=classes, shape=(side, side), source=source)
    if (mask == UNLABELLED).all():
        raise RequestError(
            f"{source} labels no pixel: label it, or leave the image out of the annotations"
        )
    return mask


def _latents(files: Files) -> npt.NDArray[np.float32]:
    """w float32 [images, num_ws, w_dim], all finite. ValueError for anything else."""
    tensors = read_tensors(files.read("latents.safetensors"))
    if tensors.keys() != {"w"} or tensors["w"].dtype != torch.float32:
        raise ValueError("latents.safetensors does not hold w of float32 alone")
    if not bool(tensors["w"].isfinite().all()):
        raise ValueError("latents.safetensors holds values that are not finite")
    found: npt.NDArray[np.float32] = tensors["w"].numpy()
    return found


def _json(files: Files, name: str) -> Any:
    try:
        return parse_object(files.read(name))
    except JsonError as error:
        raise InputMissing(f"{files.uri(name)} is not JSON: {error}") from error
