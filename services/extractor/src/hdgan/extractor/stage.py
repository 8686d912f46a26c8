"""The extractor stage: annotated candidates -> feature shards on scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from hdgan.core.claimed_folders import remove_unfinished
from hdgan.core.classes import request_classes
from hdgan.core.errors import NoSpace, RequestError
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import ExtractorConfig
from hdgan.core.stage import Stage, StageContext, format_bytes
from hdgan.extractor.annotated import Annotation, read_annotations, read_mask
from hdgan.extractor.pictures import decode_picture, require_same_picture
from hdgan.nets.candidates import Candidates, read_candidates, require_shape
from hdgan.nets.checkpoint import load_generator
from hdgan.nets.generator import Generator
from hdgan.nets.pyramid import FeaturePlan, feature_plan, render
from hdgan.nets.shards import (
    ShardDamaged,
    ShardRecord,
    class_counts,
    features_root,
    other_extractions,
    remove_shard,
    shard_bytes,
    verify_shard,
    write_index,
    write_shard,
)


def extract(ctx: StageContext) -> None:
    """Render every annotated candidate again and keep its feature maps; make only what is missing.

    The picture must be the one that was labelled. Everything a person has to correct is found
    before anything is rendered.
    """
    config: ExtractorConfig = ctx.config
    inputs = {name: ctx.input(name) for name in ("generator", "candidates", "annotations")}
    digests = {name: one.content_digest for name, one in inputs.items()}
    classes = tuple(one.name for one in request_classes(ctx.value("classes")))
    candidates = read_candidates(inputs["candidates"], digests["generator"])
    generator = load_generator(inputs["generator"].read, ctx.device, candidates.precision)
    arch = generator.arch
    require_shape(candidates, (arch.num_ws, arch.latent_dim), inputs["candidates"])
    plan = feature_plan(arch, config.blocks)
    annotations = read_annotations(inputs["annotations"], candidates, digests, classes)
    _require_usable_masks(ctx, annotations, classes, plan.resolution)

    root = features_root(ctx.scratch, ctx.request.key)
    root.mkdir(parents=True, exist_ok=True)
    remove_unfinished(root)
    done = _verified(ctx, root, annotations, plan)
    missing = [one for one in annotations if one.candidate.id not in done]
    _require_space(ctx, shard_bytes(plan, config.dtype) * len(missing), len(missing))

    for number, one in enumerate(missing):
        ctx.check_stop()
        done[one.candidate.id] = _extract_one(ctx, root, generator, plan, candidates, one, classes)
        ctx.progress(number + 1, len(missing), "images")
    index = write_index(root, [done[one.candidate.id] for one in annotations], classes)
    ctx.log(
        f"features of {len(annotations)} images, {plan.channels} channels, "
        f"{index.labelled} labelled training pixels, {len(missing)} images made now"
    )


def _extract_one(
    ctx: StageContext,
    root: Path,
    generator: Generator,
    plan: FeaturePlan,
    candidates: Candidates,
    annotation: Annotation,
    classes: Sequence[str],
) -> ShardRecord:
    """Render one candidate and write its shard; its maps are released one by one."""
    config: ExtractorConfig = ctx.config
    candidate, name = annotation.candidate, annotation.candidate.id
    ws, noise = candidates.latent(generator, candidate)
    rendered = render(generator, ws, noise, plan, config.dtype)
    picture, maps = rendered.image, list(rendered.maps)
    del rendered  # it would hold on to all the maps
    files = ctx.input("candidates")
    source = f"picture {files.uri(f'images/{name}.png')}"
    stored = decode_picture(files.read(f"images/{name}.png"), plan.resolution, source)
    require_same_picture(picture, stored, source)
    return write_shard(
        root,
        name,
        split=annotation.split,
        plan=plan,
        dtype=config.dtype,
        classes=len(classes),
        maps=_released(maps),
        labels=read_mask(ctx.input("annotations"), name, len(classes), plan.resolution),
        picture=picture,
    )


def _released(maps: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The maps in order, none of them kept."""
    while maps:
        yield maps.pop(0)


def _verified(
    ctx: StageContext, root: Path, annotations: Sequence[Annotation], plan: FeaturePlan
) -> dict[str, ShardRecord]:
    """Records of the shards that are there and verify. The others are deleted at once: what they
    take must count as free before space is asked for."""
    config: ExtractorConfig = ctx.config
    done: dict[str, ShardRecord] = {}
    for one in annotations:
        ctx.check_stop()
        name = one.candidate.id
        try:
            done[name] = verify_shard(
                root, name, split=one.split, plan=plan, dtype=config.dtype, threads=ctx.threads
            )
        except ShardDamaged as problem:
            if remove_shard(root, name):
                ctx.log(f"extracting {name} again: {problem}", level="warning")
    return done


def _require_space(ctx: StageContext, size: int, images: int) -> None:
    """NoSpace unless `size` bytes are free; it names what old extractions take."""
    try:
        ctx.require_scratch(size, f"the features of {images} images")
    except NoSpace as error:
        others = other_extractions(ctx.scratch, ctx.request.key)
        if not others:
            raise
        listed = ", ".join(f"{folder} ({format_bytes(taken)})" for folder, taken in others[:5])
        total = format_bytes(sum(taken for _, taken in others))
        raise NoSpace(
            f"{error}. Features of {len(others)} other extraction(s) take {total} there; delete "
            f"those that no run needs any more: {listed}"
        ) from error


def _require_usable_masks(
    ctx: StageContext, annotations: tuple[Annotation, ...], classes: tuple[str, ...], side: int
) -> None:
    """Read every mask once; every class must have a pixel in the training images."""
    counts = np.zeros(len(classes), dtype=np.int64)
    for one in annotations:
        ctx.check_stop()
        mask = read_mask(ctx.input("annotations"), one.candidate.id, len(classes), side)
        if one.split == "train":
            counts += np.asarray(class_counts(mask, len(classes)))
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing:
        raise RequestError(
            f"no training image has a pixel of class {', '.join(map(repr, missing))}: label some "
            "in the images of split train, or remove the class from spec.annotations.classes"
        )


EXTRACTOR = Stage(
    name="extractor",
    version=STAGE_VERSIONS["extractor"],
    config=ExtractorConfig,
    run=extract,
    artifact=False,
)
