"""The extractor stage: annotated candidates -> feature shards on scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hdgan.core.errors import RequestError
from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import ExtractorConfig
from hdgan.core.stage import Stage, StageContext
from hdgan.extractor.annotated import (
    Annotation,
    read_annotations,
    read_candidates,
    read_mask,
)
from hdgan.extractor.pictures import decode_picture, require_same_picture
from hdgan.nets.checkpoint import load_generator
from hdgan.nets.pyramid import feature_plan, render
from hdgan.nets.sample_noise import sample_noise
from hdgan.nets.shards import (
    ShardDamaged,
    ShardRecord,
    class_counts,
    features_root,
    remove_unfinished,
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
    classes = class_names(ctx.value("classes"))
    generator = load_generator(inputs["generator"].read, ctx.device)
    plan = feature_plan(generator.arch, config.blocks)
    candidates = read_candidates(inputs["candidates"], digests["generator"])
    annotations = read_annotations(inputs["annotations"], candidates, digests, classes)
    _require_usable_masks(ctx, annotations, classes, plan.resolution)

    root = features_root(ctx.scratch, ctx.request.key)
    root.mkdir(parents=True, exist_ok=True)
    remove_unfinished(root)
    done: dict[str, ShardRecord] = {}
    for one in annotations:
        ctx.check_stop()
        name = one.candidate.id
        try:
            done[name] = verify_shard(root, name, split=one.split, plan=plan, dtype=config.dtype)
        except ShardDamaged as problem:
            if (root / name).exists():
                ctx.log(f"extracting {name} again: {problem}", level="warning")
    missing = [one for one in annotations if one.candidate.id not in done]
    need = shard_bytes(plan, config.dtype) * len(missing)
    ctx.require_scratch(need, f"the features of {len(missing)} images")

    for number, one in enumerate(missing):
        ctx.check_stop()
        name = one.candidate.id
        ws = torch.from_numpy(one.candidate.w.copy()).to(ctx.device)
        noise = sample_noise(
            generator, candidates.noise, candidates.seed, candidates.stream, one.candidate.index
        )
        rendered = render(generator, ws, noise, plan, config.dtype)
        source = f"picture {inputs['candidates'].uri(f'images/{name}.png')}"
        png = inputs["candidates"].read(f"images/{name}.png")
        require_same_picture(rendered.image, decode_picture(png, plan.resolution, source), source)
        done[name] = write_shard(
            root,
            name,
            split=one.split,
            plan=plan,
            dtype=config.dtype,
            classes=len(classes),
            maps=rendered.maps,
            labels=read_mask(inputs["annotations"], name, len(classes), plan.resolution),
            picture=rendered.image,
        )
        ctx.progress(number + 1, len(missing), "images")
    index = write_index(root, [done[one.candidate.id] for one in annotations], classes)
    ctx.log(
        f"features of {len(annotations)} images, {plan.channels} channels, "
        f"{index.labelled} labelled training pixels, {len(missing)} images made now"
    )


def class_names(value: Any) -> tuple[str, ...]:
    """Names of the classes in the request's context, in order."""
    try:
        names = tuple(str(one["name"]) for one in value)
    except (KeyError, TypeError) as error:
        message = f"request.context.classes is not a list of classes: {value!r}"
        raise RequestError(message) from error
    if not 2 <= len(names) <= 32:
        raise RequestError(f"request.context.classes has {len(names)} classes, allowed are 2 to 32")
    return names


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
