"""The run nothing happened to: what a scenario begins with, and what it has to end with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from e2e.object_server import Buckets
from support.small_pipeline import SmallPipeline, run_everything

BUCKET: Final = "faults"

_TOOK = re.compile(r"^([a-z-]+): done in (?:(\d+) min )?([0-9.]+) s$", re.MULTILINE)

# Seconds `hdgan` itself takes for what it does alone.
_OWN_SECONDS = {"annotations": 1.5, "release": 1.2}

QUICK: Final[Mapping[str, Mapping[str, Any]]] = {
    "ganTrainer": {"kimg": 0.08, "snapshotKimg": 0.024, "metricKimg": 0.08},
    "classifier": {"epochs": 4},
}
"""Less work than the small run has, so that a scenario takes seconds."""


@dataclass(frozen=True)
class Undisturbed:
    """A finished run, with the masks it was annotated with in its folder `masks`."""

    run: SmallPipeline
    seconds: Mapping[str, float]
    """How long each stage took."""

    @cached_property
    def files(self) -> dict[str, Path]:
        """Every object of its store, by key."""
        return {name: self.run.store / name for name in sorted(self.run.files())}

    @cached_property
    def digests(self) -> dict[str, str]:
        """Content digest of every artifact, by `stage/key`."""
        return {
            "/".join(place.split("/")[1:3]): json.loads(document)["contentDigest"]
            for place, document in self.run.manifests().items()
        }

    @cached_property
    def features(self) -> dict[str, str]:
        """What the extractor left on scratch: see `features_in`."""
        return features_in(self.run.scratch)

    @cached_property
    def release(self) -> str:
        """Name of its release."""
        found: str = json.loads((self.run.store / "datasets/cut/latest.json").read_text())[
            "release"
        ]
        return found

    @cached_property
    def objects(self) -> Path:
        """Its store once more, as the object server keeps one: the folder of its buckets."""
        folder = self.run.folder / "objects"
        if not folder.is_dir():
            unready = self.run.folder / "objects-unready"
            buckets = Buckets(unready)
            buckets.make(BUCKET)
            for key, path in self.files.items():
                data = path.read_bytes()
                part = unready / BUCKET / "new.part"
                part.write_bytes(data)
                etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
                buckets.put(BUCKET, key, part, etag, "binary/octet-stream", new=True)
            unready.rename(folder)
        return folder


def features_in(scratch: Path) -> dict[str, str]:
    """SHA-256 of each finished feature shard on a scratch, by `key/image`."""
    found = {}
    for index in sorted(scratch.glob("features/*/index.json")):
        for image in json.loads(index.read_text())["images"]:
            found[f"{index.parent.name}/{image['id']}"] = image["shardSha256"]
    return found


def make(folder: Path) -> Undisturbed:
    """Run everything in `folder`, which has the slides already."""
    undisturbed = of_run(run_everything(folder, QUICK))
    write_down(undisturbed)
    return undisturbed


def write_down(undisturbed: Undisturbed) -> None:
    """Leave in its folder what another process needs to `load` it."""
    _ = undisturbed.objects
    path = undisturbed.run.folder / "undisturbed.json"
    path.write_text(json.dumps(dict(undisturbed.seconds)))


def load(folder: Path) -> Undisturbed:
    """What was written down there."""
    seconds = json.loads((folder / "undisturbed.json").read_text())
    return Undisturbed(SmallPipeline(folder), seconds)


def of_run(run: SmallPipeline) -> Undisturbed:
    """From a run that was typed in full."""
    seconds = dict(_OWN_SECONDS)
    for typed in run.typed.values():
        for stage, minutes, rest in _TOOK.findall(typed.out):
            seconds[stage] = 60.0 * int(minutes or 0) + float(rest)
    last = run.typed["second run"]
    if last.code != 0:
        raise RuntimeError(f"the undisturbed run failed: {last.out}{last.err}")
    return Undisturbed(run, seconds)
