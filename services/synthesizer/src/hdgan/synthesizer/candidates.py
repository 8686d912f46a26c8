"""The candidates stage: images for an expert to choose from, with the latents that made them."""

from __future__ import annotations

import io
import json

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save

from hdgan.core.artifact import FileEntry, artifact_folder
from hdgan.core.errors import InputMissing, Stopped
from hdgan.core.run import CandidatesConfig
from hdgan.core.stage import StageContext
from hdgan.nets.checkpoint import load_generator
from hdgan.nets.generator import to_uint8
from hdgan.synthesizer.pictures import ContactSheet, encode_rgb
from hdgan.synthesizer.sampling import Sampler

# Images between two saves of the progress: what a kill can cost.
SAVE_EVERY = 25
SHEET_IMAGES = 200


def make_candidates(ctx: StageContext) -> None:
    """Draw `count` images; already finished ones of an earlier attempt are taken over."""
    config: CandidatesConfig = ctx.config
    generator_artifact = ctx.input("generator")
    generator = load_generator(generator_artifact.read, ctx.device, config.precision)
    sampler = Sampler(
        generator,
        generator_artifact.content_digest,
        "candidates",
        config.seed,
        config.psi,
        config.noise,
    )
    finished = _finished(ctx)
    saved = len(finished)
    for index in range(len(finished), config.count):
        if ctx.stop_requested or index - saved >= SAVE_EVERY:
            entries = [entry.model_dump(mode="json") for entry in finished]
            ctx.work.save(index, {}, {"files": entries})
            saved = index
        if ctx.stop_requested:
            raise Stopped(f"stopped after {index} of {config.count} candidates, state saved")
        sample = sampler.sample(index)
        with torch.no_grad():
            image = to_uint8(generator.synthesis(sample.ws, sample.noise))[0].cpu().numpy()
        png = encode_rgb(image, sample.id)
        finished.append(ctx.output.add_bytes(f"images/{sample.id}.png", png))
        ctx.progress(index + 1, config.count, "images")
    _write_index(ctx, sampler, config, finished)


def _finished(ctx: StageContext) -> list[FileEntry]:
    """Entries of the images an earlier attempt uploaded, in order of their index."""
    state = ctx.work.latest()
    if state is None:
        return []
    entries: list[FileEntry] = []
    for one in state.meta["files"]:
        entry = FileEntry.model_validate(one)
        try:
            ctx.output.adopt(entry)
        except InputMissing as error:
            ctx.log(f"making the images from {entry.name} on again: {error}", level="warning")
            break
        entries.append(entry)
    ctx.log(f"taking over {len(entries)} finished images")
    return entries


def _write_index(
    ctx: StageContext, sampler: Sampler, config: CandidatesConfig, finished: list[FileEntry]
) -> None:
    """candidates.json, the latents and a contact sheet."""
    samples = [sampler.sample(index) for index in range(config.count)]
    ws = np.concatenate([sample.ws.cpu().numpy() for sample in samples])
    generator = ctx.request.inputs["generator"]
    ctx.output.need(generator.stage, generator.key)
    ctx.output.add_bytes("latents.safetensors", save({"w": ws}))
    document = {
        "generator": sampler.generator_digest,
        "stream": sampler.stream,
        "seed": config.seed,
        "psi": config.psi,
        "noise": config.noise,
        **({} if config.precision == "float32" else {"precision": config.precision}),
        "images": [
            {"id": sample.id, "index": sample.index, "sha256": entry.sha256}
            | ({} if sample.label is None else {"label": sample.label})
            for sample, entry in zip(samples, finished, strict=True)
        ],
    }
    ctx.output.add_bytes("candidates.json", (json.dumps(document, indent=1) + "\n").encode())
    shown = min(config.count, SHEET_IMAGES)
    sheet = ContactSheet(shown)
    folder = artifact_folder(ctx.request.stage, ctx.request.key)
    for position, entry in enumerate(finished[:shown]):
        data = ctx.store.get(f"{folder}/{entry.attempt}/{entry.name}")
        sheet.paste(position, Image.open(io.BytesIO(data)))
    ctx.output.add_bytes("sheet.png", sheet.png())
