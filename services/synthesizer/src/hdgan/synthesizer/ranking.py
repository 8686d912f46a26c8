"""The ranking stages: what each candidate shows, so that people label those that teach most.

`ranking` comes before the first labels, `reranking` when an ensemble exists: it also says what the
ensemble sees in each candidate and where it is unsure. Which candidates follow from that is decided
where they are exported (`hdgan.desk.choosing`), as it depends on what has been labelled since.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from hdgan.core.artifact import Artifact
from hdgan.core.errors import RequestError, Stopped
from hdgan.core.stage import StageContext
from hdgan.core.well_formed import well_formed
from hdgan.nets.candidates import Candidate, read_candidates, require_shape
from hdgan.nets.checkpoint import DISCRIMINATOR, load_discriminator, load_generator
from hdgan.nets.ensemble import PixelEnsemble, fold
from hdgan.nets.pyramid import feature_plan
from hdgan.nets.tensor_files import read_tensors
from hdgan.synthesizer.looks import Floats, Look, Looker
from hdgan.synthesizer.textures import REFERENCE_IMAGES, Textures, learn_textures, mass

SAVE_SECONDS = 60.0
STATE_FILE = "state.safetensors"
TABLE_FILE = "ranking.parquet"
DOCUMENT_FILE = "ranking.json"

_Row = TypeVar("_Row", "Look", "Seen")


@dataclass(frozen=True)
class Seen:
    """A candidate as the table has it.

    `textures` float32 [K]: share of its pixels that show each; `place` float32 [2 D]: mean and
    standard deviation of its pixels' principal components; `unsure` [K], the uncertainty of those
    that show each texture, over all of its pixels: empty without an ensemble.
    """

    textures: Floats
    place: Floats
    contrast: float
    realism: float
    unsure: Floats
    uncertainty: float


def rank_candidates(ctx: StageContext) -> None:
    """Look at every candidate; the textures are learned from the first of them."""
    files, generator_files = ctx.input("candidates"), ctx.input("generator")
    candidates = read_candidates(files, generator_files.content_digest)
    generator = load_generator(generator_files.read, ctx.device, candidates.precision)
    require_shape(candidates, (generator.arch.num_ws, generator.arch.latent_dim), files)
    ensemble = _ensemble(ctx)
    if ensemble is None:
        plan, dtype = feature_plan(generator.arch, _blocks(ctx)), str(ctx.value("dtype"))
    else:
        plan, dtype = ensemble.spec.plan, ensemble.spec.dtype
    looker = Looker(
        generator,
        candidates,
        plan,
        dtype,
        # A generator that was converted may have come without.
        load_discriminator(generator_files.read, ctx.device).eval()
        if DISCRIMINATOR in generator_files
        else None,
        None if ensemble is None else fold(ensemble).to(ctx.device),
    )
    order = list(candidates.by_id.values())
    textures, seen = _look_at_all(ctx, looker, order)
    drawn = ctx.request.inputs["candidates"]
    ctx.output.need(drawn.stage, drawn.key)
    ctx.output.add_bytes(TABLE_FILE, _table(order, seen))
    ctx.output.add_bytes(DOCUMENT_FILE, _document(files, textures, seen))


def _look_at_all(
    ctx: StageContext, looker: Looker, order: Sequence[Candidate]
) -> tuple[Textures, list[Seen]]:
    """What is seen of each candidate, in order. A stop costs at most what a minute brought."""
    progress = Progress.load(ctx)
    last_save = time.monotonic()
    while progress.done < len(order):
        if ctx.stop_requested or time.monotonic() - last_save > SAVE_SECONDS:
            progress.save(ctx)
            last_save = time.monotonic()
        if ctx.stop_requested:
            raise Stopped(f"stopped after {progress.done} of {len(order)} candidates, state saved")
        progress.add(looker.look(order[progress.done]), len(order))
        ctx.progress(progress.done, len(order), "images")
    assert progress.textures is not None
    return progress.textures, progress.seen


@dataclass
class Progress:
    """How far the looking is. Until the textures are learned, looks are kept as they are."""

    textures: Textures | None
    looks: list[Look]
    seen: list[Seen]

    @property
    def done(self) -> int:
        return len(self.looks) + len(self.seen)

    def add(self, look: Look, total: int) -> None:
        """Take in the next look of `total`."""
        if self.textures is not None:
            self.seen.append(seen_of(look, self.textures))
            return
        self.looks.append(look)
        if len(self.looks) == min(REFERENCE_IMAGES, total):
            self.textures = learn_textures(np.concatenate([one.vectors for one in self.looks]))
            self.seen = [seen_of(one, self.textures) for one in self.looks]
            self.looks = []

    def save(self, ctx: StageContext) -> None:
        """Keep it as a saved state of the stage."""
        tensors: dict[str, npt.NDArray[Any]] = {}
        if self.textures is not None:
            tensors |= {f"textures.{name}": one for name, one in vars(self.textures).items()}
        tensors |= _stacked("look", self.looks) | _stacked("seen", self.seen)
        if tensors:
            ctx.work.save(self.done, {STATE_FILE: save(tensors)}, {})

    @staticmethod
    def load(ctx: StageContext) -> Progress:
        """What an earlier attempt has saved, or a beginning."""
        state = ctx.work.latest()
        if state is None:
            return Progress(None, [], [])
        with well_formed(f"the ranking's state saved by attempt {state.attempt}"):
            tensors = {
                name: one.numpy() for name, one in read_tensors(state.read(STATE_FILE)).items()
            }
            learned = {
                name.removeprefix("textures."): one
                for name, one in tensors.items()
                if name.startswith("textures.")
            }
            return Progress(
                Textures(**learned) if learned else None,
                _unstacked(Look, "look", tensors),
                _unstacked(Seen, "seen", tensors),
            )


def _stacked(name: str, rows: Sequence[Look | Seen]) -> dict[str, npt.NDArray[Any]]:
    """Every field of the rows as one array."""
    if not rows:
        return {}
    return {
        f"{name}.{one.name}": np.stack(
            [np.asarray(getattr(row, one.name), dtype=np.float32) for row in rows]
        )
        for one in fields(rows[0])
    }


def _unstacked(kind: type[_Row], name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> list[_Row]:
    """The rows that `_stacked` stacked."""
    columns = {one.name: tensors.get(f"{name}.{one.name}") for one in fields(kind)}
    found = {field: values for field, values in columns.items() if values is not None}
    if not found:
        return []
    return [kind(**_values(found, row)) for row in zip(*found.values(), strict=True)]


def _values(names: Iterable[str], row: Sequence[Any]) -> dict[str, Any]:
    return {
        name: value if value.ndim else float(value) for name, value in zip(names, row, strict=True)
    }


def seen_of(look: Look, textures: Textures) -> Seen:
    """What the table has of a look, once the textures are known."""
    positions = textures.positions(look.vectors)
    nearest = textures.nearest(positions)
    unsure = look.unsure if look.unsure.size else None
    return Seen(
        textures=mass(nearest, textures.count),
        place=np.concatenate([positions.mean(axis=0), positions.std(axis=0)]),
        contrast=look.contrast,
        realism=look.realism,
        unsure=look.unsure if unsure is None else mass(nearest, textures.count, unsure),
        uncertainty=look.uncertainty,
    )


def _table(order: Sequence[Candidate], seen: Sequence[Seen]) -> bytes:
    """ranking.parquet: a row for each candidate in the order they were drawn."""
    columns: dict[str, Any] = {
        "id": pa.array([one.id for one in order], pa.string()),
        "contrast": _number([one.contrast for one in seen]),
        "realism": _number([one.realism for one in seen]),
    }
    columns |= _spread("texture", [one.textures for one in seen])
    columns |= _spread("place", [one.place for one in seen])
    if seen[0].unsure.size:
        columns["uncertainty"] = _number([one.uncertainty for one in seen])
        columns |= _spread("unsure", [one.unsure for one in seen])
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _number(values: Sequence[float]) -> pa.Array:
    return pa.array(np.asarray(values, dtype=np.float32))


def _spread(name: str, rows: Sequence[Floats]) -> dict[str, pa.Array]:
    """One column for each number of the rows."""
    return {f"{name}{k}": pa.array(column) for k, column in enumerate(np.stack(rows).T.copy())}


def _document(
    candidates: Artifact,
    textures: Textures,
    seen: Sequence[Seen],
) -> bytes:
    """ranking.json: what the table's columns are."""
    document = {
        "candidates": candidates.content_digest,
        "textures": textures.count,
        "place": len(seen[0].place),
        "ensemble": bool(seen[0].unsure.size),
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def _ensemble(ctx: StageContext) -> PixelEnsemble | None:
    """The ensemble, where one is an input."""
    if "ensemble" not in ctx.request.inputs:
        return None
    ensemble = PixelEnsemble.load(ctx.input("ensemble").read)
    generator = ctx.input("generator").content_digest
    if ensemble.spec.generator != generator:
        raise RequestError(
            f"the ensemble was trained on features of generator {ensemble.spec.generator[:12]}, "
            f"this request's generator is {generator[:12]}: run extractor and classifier again"
        )
    return ensemble


def _blocks(ctx: StageContext) -> int:
    value = ctx.value("blocks")
    if not isinstance(value, int):
        raise RequestError(f"request.context.blocks must be a number, got {value!r}")
    return value
