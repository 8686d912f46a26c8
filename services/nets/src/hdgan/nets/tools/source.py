"""Opens a generator wherever it lies: a folder, a store prefix, an artifact, or a run's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.canonical import canonical_digest
from hdgan.core.cli import store_for
from hdgan.core.errors import InputMissing, KeyMissing, RequestError
from hdgan.core.observe import observe, pin_external
from hdgan.core.run import load_run, resolve
from hdgan.core.store import open_store
from hdgan.nets.checkpoint import ARCHITECTURE, GENERATOR, Read, load_generator
from hdgan.nets.generator import Generator

FILES = (ARCHITECTURE, GENERATOR)
RUN_FILES = (".yaml", ".yml", ".json")
STAGE = "gan-trainer"


@dataclass(frozen=True)
class Networks:
    """A generator, ready for inference, and what identifies it."""

    generator: Generator
    digest: str
    """64 hex digits over name and SHA-256 of architecture and weights: the same generator has the
    same digest wherever it lies. (An artifact's content digest also covers logs and pictures.)"""
    source: str
    """URI of where it was found."""


def open_networks(where: str, device: str, store: str | None = None) -> Networks:
    """Load the averaged generator.

    Args:
        where: a folder or `file://`, `s3://` prefix with architecture.json and
            generator.safetensors; the folder of a gan-trainer artifact
            (`.../artifacts/gan-trainer/<key>`); or a run file, for the generator of that run.
        device: `cpu` or `cuda`.
        store: of the run file, as for `hdgan run`; for nothing else.

    Raises:
        InputMissing: there are no such files, or an artifact's do not verify.
        RequestError: `where` means nothing, or the files are not a generator.
    """
    if "://" not in where and where.endswith(RUN_FILES):
        artifact = _of_run(Path(where), store)
        return _load(artifact.read, artifact.uri(GENERATOR), device)
    if store is not None:
        raise RequestError(
            f"--store names the store of a run file, but {where} is none: leave --store out"
        )
    root, _, tail = where.rstrip("/").rpartition("artifacts/")
    parts = tail.split("/")
    if (not root or root.endswith("/")) and len(parts) == 2 and parts[0] == STAGE:
        found = open_artifact(open_store(root.rstrip("/") or "."), STAGE, parts[1])
        if found is None:
            raise InputMissing(
                f"{where} is no finished artifact: it has no manifest.json. `hdgan status` lists "
                "the keys of a run"
            )
        return _load(found.read, found.uri(GENERATOR), device)
    return _load(*_of_prefix(where), device)


def choose_device(asked: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`. RequestError for a GPU that is not there."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise RequestError(
            "--device cuda: torch finds no CUDA GPU; use auto or cpu, or see `hdgan doctor`"
        )
    return ("cuda" if available else "cpu") if asked == "auto" else asked


def label_number(labels: tuple[str, ...], label: str | None) -> int | None:
    """Number of the label a conditional network is asked for; None where there is none to ask.

    RequestError, naming the labels, if it is missing, unknown, or the network takes none.
    """
    if not labels:
        if label is not None:
            raise RequestError(
                f"--label {label}: this generator is not conditional, it knows no labels; leave "
                "--label out"
            )
        return None
    known = ", ".join(labels)
    if label is None:
        raise RequestError(f"this generator makes images by label: give --label, one of {known}")
    if label not in labels:
        raise RequestError(f"--label {label}: this generator knows only {known}")
    return labels.index(label)


def _of_run(file: Path, store: str | None) -> Artifact:
    run = resolve(load_run(file))
    place = open_store(store_for(file, store))
    found = observe(place, run, pin_external(place, run, save=False)).artifacts.get(STAGE)
    artifact = None if found is None else open_artifact(place, found.stage, found.key)
    if artifact is None:
        raise InputMissing(
            f"run {run.metadata.name} has no trained generator in {place.uri} yet: `hdgan run "
            f"{file}` trains it first (or name the right store with --store)"
        )
    return artifact


def _of_prefix(where: str) -> tuple[Read, str]:
    store = open_store(where)

    def read(name: str) -> bytes:
        try:
            return store.get(name)
        except KeyMissing:
            raise InputMissing(
                f"{store.url(name)} does not exist. Name a folder or s3:// prefix that holds "
                f"{' and '.join(FILES)}, the folder of a {STAGE} artifact, or a run file"
            ) from None

    return read, store.url(GENERATOR)


def _load(read: Read, source: str, device: str) -> Networks:
    held = {name: read(name) for name in FILES}
    digest = canonical_digest([[name, hashlib.sha256(held[name]).hexdigest()] for name in FILES])
    return Networks(load_generator(held.__getitem__, device), digest, source)
