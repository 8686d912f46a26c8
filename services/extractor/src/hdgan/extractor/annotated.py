"""What is to be extracted: annotated candidates with their latents, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdgan.core.errors import RequestError
from hdgan.core.masks import UNLABELLED, decode_mask
from hdgan.nets.candidates import Candidate, Candidates, Files, read_document
from hdgan.nets.shards import SPLITS


@dataclass(frozen=True)
class Annotation:
    """An annotated candidate and the split it belongs to."""

    candidate: Candidate
    split: str


def read_annotations(
    files: Files, candidates: Candidates, digests: Mapping[str, str], classes: Sequence[str]
) -> tuple[Annotation, ...]:
    """The annotated images, in the order of `annotations.json`.

    `digests`: content digests of generator and candidates; `classes`: names in the run's order.
    Every mismatch is a `RequestError` that says what to change.
    """
    document = read_document(files, "annotations.json")
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
