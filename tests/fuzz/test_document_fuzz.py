"""Every JSON document of ours, with values replaced, names changed, bytes damaged: its reader gives
a result or an HdganError with a message, or takes the document for absent where it says so.

More examples: see `support.fuzzing`.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from hdgan.core import fold_history, status_file
from hdgan.core.annotations import current
from hdgan.core.artifact import Artifact, Attempt, FileEntry, content_digest, open_artifact
from hdgan.core.canonical import canonical_digest
from hdgan.core.dataset_index import read_classes
from hdgan.core.dataset_pairs import _check_description
from hdgan.core.dataset_source import open_dataset
from hdgan.core.events import parse_event
from hdgan.core.export_plan import marker_of
from hdgan.core.materialise import materialise
from hdgan.core.pieces import Pieces, adopt_file
from hdgan.core.progress_view import describe_log, describe_progress
from hdgan.core.request import parse_request
from hdgan.core.run import load_run
from hdgan.core.slide_facts import AllFacts, load_facts
from hdgan.core.slides import SlideSnapshot, load_snapshot
from hdgan.core.store import Store
from hdgan.core.work import WorkState
from hdgan.desk.candidates import Candidates, published_splits
from hdgan.desk.choosing import choose, read_ranking
from hdgan.extractor.annotated import read_annotations
from hdgan.nets.architecture import Architecture
from hdgan.nets.candidates import read_candidates
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec
from hdgan.nets.pyramid import FeatureMap, FeaturePlan
from hdgan.nets.shards import open_features
from hdgan.synthesizer.calibration import Measured
from support.fuzzing import MemoryStore, changed_json, examples, json_files, survives

KEY, DIGEST, ID = "a" * 64, "b" * 64, "c" * 32
FOLDER = Path(tempfile.mkdtemp(prefix="hdgan-fuzz-"))


def stored(objects: dict[str, bytes]) -> Store:
    return cast(Store, MemoryStore(objects))


def artifact(stage: str, files: dict[str, bytes]) -> Artifact:
    attempt = Attempt(stored({}), stage, KEY, config={"a": 1}, inputs={"b": DIGEST})
    for name, data in files.items():
        attempt.add_bytes(name, data)
    return attempt.commit({"seconds": 1.5, "device": "cpu", "author": "somebody"})


@dataclass(frozen=True)
class Kind:
    """A document that is valid, and what reads it."""

    name: str
    valid: Any
    parse: Callable[[bytes], Any]


SIMPLE = artifact("tiler", {"a.txt": b"a", "b/c.txt": b"bc"})
MANIFEST = json.loads(SIMPLE.store.get(f"artifacts/tiler/{KEY}/manifest.json"))
RUN_INFO = {"seconds": 1.5, "device": "cpu"}


def open_manifest(data: bytes) -> Any:
    objects = cast(MemoryStore, SIMPLE.store).objects
    found = open_artifact(
        stored(objects | {f"artifacts/tiler/{KEY}/manifest.json": data}), "tiler", KEY
    )
    assert found is not None
    return [found.read(name) for name in found.names()], found.run_info()


def read_run_info(data: bytes) -> Any:
    place = f"artifacts/tiler/{KEY}/{SIMPLE.manifest.attempt}/run-info.json"
    objects = cast(MemoryStore, SIMPLE.store).objects
    found = open_artifact(stored(objects | {place: data}), "tiler", KEY)
    assert found is not None
    assert isinstance(found.run_info(), dict)


PIECE = {"calibration": KEY, "draws": 3, "rows": [{"id": "x"}], "file": MANIFEST["files"][0]}


def find_piece(data: bytes) -> Any:
    store = stored({f"work/dataset/{KEY}/pieces/one.json": data})
    found = Pieces(store, "dataset", KEY).find("one")
    if isinstance(found, dict):
        adopt_file(Attempt(store, "dataset", KEY), found.get("file"))


STATE = {
    "step": 3,
    "folder": f"data-{3:012d}-{'0' * 32}",
    "meta": {"a": [1, 2]},
    "files": {"x": {"size": 1, "sha256": DIGEST}},
}


def latest_state(data: bytes) -> Any:
    place = f"work/tiler/{KEY}/attempt/state-000000000003.json"
    return WorkState(stored({place: data}), "tiler", KEY, "attempt").latest()


POINTER = {"seq": 1, "key": KEY, "contentDigest": DIGEST}
SLIDE = {"name": "a.svs", "uri": "/a.svs", "size": 3, "version": "1", "companions": []}
SNAPSHOT = {"uri": "slides", "slides": [SLIDE]}
FACTS = {
    "facts": {"a.svs": {"case": "x", "stain": None, "mpp": [0.25, 0.25]}},
    "outlines": {"a.svs": {"uri": "/a.geojson", "size": 3, "version": "1"}},
    "unused": 0,
}
# Named by their content.
LIST = SlideSnapshot.model_validate_json(json.dumps(SNAPSHOT)).key
TABLE = str(AllFacts.model_validate_json(json.dumps(FACTS)).key)
REFERENCE = {"stage": "tiler", "key": KEY, "contentDigest": DIGEST}
TILING = {"holdout": "case", "tiling": {**REFERENCE}, "kept": None}
TILING["tiling"] = {"stage": "tiler", "key": KEY, "content_digest": DIGEST}
REQUEST = {
    "run": "tiny",
    "stage": "tiler",
    "service": "tiler",
    "config": {"tileSize": 64},
    "context": {"classes": [], "mpp": 0.5},
    "inputs": {"slides": REFERENCE},
    "key": KEY,
    "stageVersion": 1,
    "parts": 2,
    "store": "file:///store",
    "scratch": "/scratch",
    "threads": None,
}
RUN = {
    "apiVersion": "hdgan.io/v1alpha1",
    "kind": "DatasetRun",
    "metadata": {"name": "tiny"},
    "spec": {
        "slides": {"uri": "slides", "outlines": "slides", "casePattern": "(?P<case>x)"},
        "tiler": {"tileSize": 64, "compartments": ["a"]},
        "annotations": {
            "classes": [
                {"name": "gland", "color": "#aa3355"},
                {"name": "stroma", "color": "#3355aa"},
            ]
        },
        "synthesizer": {"quotas": [{"class": "gland", "minFraction": 0.5, "share": 0.1}]},
        "resources": {},
    },
}


def run_file(data: bytes) -> Any:
    place = FOLDER / "run.json"
    place.write_bytes(data)
    return load_run(place)


CLASSES = {"classes": [{"index": i, "name": f"c{i}", "color": f"#0000{i:02x}"} for i in range(3)]}
PAIR = {"id": "0001", "mpp": 0.5, "label": None}
NOTED = FileEntry(name="shard.tar", size=3, sha256=DIGEST, attempt="note")
NOTE = {
    "contentDigest": content_digest([NOTED]),
    "files": {"shard.tar": {"size": 3, "sha256": DIGEST, "mtimeNs": 5}},
}
MARKER = {"dataset": DIGEST, "complete": False, "shards": {"shard.tar": 7}}


def dataset_note(data: bytes) -> Any:
    folder = FOLDER / "dataset"
    folder.mkdir(exist_ok=True)
    (folder / ".hdgan-dataset.json").write_bytes(data)
    return open_dataset(str(folder))


def own_note(data: bytes) -> Any:
    """A note in the folder of `hdgan run --dataset`: only the artifact's files are touched."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name, "dataset")
        folder.mkdir()
        (folder / ".hdgan-dataset.json").write_bytes(data)
        (folder.parent / "outside").write_bytes(b"xyz")
        materialise(SIMPLE, folder)
        assert (folder / "b" / "c.txt").read_bytes() == b"bc"
        assert (folder.parent / "outside").read_bytes() == b"xyz"


LATENTS = save({"w": torch.zeros(1, 2, 3)})
CANDIDATES = {
    "generator": DIGEST,
    "noise": "constant",
    "precision": "float32",
    "seed": 1,
    "psi": 0.7,
    "stream": "candidates",
    "images": [{"id": ID, "index": 0, "sha256": DIGEST}],
}
LABELS = {
    "generator": DIGEST,
    "candidates": DIGEST,
    "classes": [{"name": "gland", "color": "#aa3355"}],
    "background": None,
    "images": [{"id": ID, "split": "train", "sha256": DIGEST}],
}


def candidates_of(data: bytes) -> Any:
    files = artifact("candidates", {"candidates.json": data, "latents.safetensors": LATENTS})
    survives(lambda: (Candidates(files).ids, Candidates(files).generator))
    return read_candidates(files, DIGEST)


def labels_of(data: bytes) -> Any:
    made = {"candidates.json": json.dumps(CANDIDATES).encode(), "latents.safetensors": LATENTS}
    known = read_candidates(artifact("candidates", made), DIGEST)
    files = artifact("annotations", {"annotations.json": data})
    survives(lambda: published_splits(files))
    digests = {"generator": DIGEST, "candidates": DIGEST}
    return read_annotations(files, known, digests, ["gland"])


RANKED = io.BytesIO()
pq.write_table(
    pa.table(
        {name: [1.0] for name in ("contrast", "realism", "texture0", "place0")} | {"id": [ID]}
    ),
    RANKED,
)
RANKING = {"candidates": SIMPLE.content_digest, "textures": 1, "place": 1, "ensemble": False}


def ranking_of(data: bytes) -> Any:
    made = artifact("ranking", {"ranking.json": data, "ranking.parquet": RANKED.getvalue()})
    return choose(read_ranking(made, SIMPLE), [], [])


PLAN = FeaturePlan(8, (FeatureMap("b8.conv0", 8, 2), FeatureMap("b8.conv1", 8, 2)))
ENSEMBLE = EnsembleSpec(
    plan=PLAN,
    blocks=1,
    dtype="float16",
    classes=(ClassLabel("a", "#ff0000"), ClassLabel("b", "#00ff00")),
    hidden=(4,),
    members=2,
    dropout=0.1,
    mean=np.zeros(4),
    std=np.ones(4),
    log_prior_correction=np.zeros(2),
    generator=DIGEST,
).to_json()
INDEX = {
    "format": 1,
    "plan": PLAN.to_json(),
    "dtype": "float16",
    "classes": ["a", "b"],
    "images": [{"id": ID, "shardSha256": DIGEST}],
    "mean": [0.0] * 4,
    "std": [1.0] * 4,
    "labelled": 3,
}
SHARD = {
    "format": 1,
    "id": ID,
    "split": "train",
    "plan": PLAN.to_json(),
    "dtype": "float16",
    "files": [{"name": "labels.npy", "size": 3, "sha256": DIGEST}],
    "classCounts": [1, 2],
    "moments": {"count": 3, "mean": [0.0] * 4, "deviation": [1.0] * 4},
}


def ensemble_of(data: bytes) -> Any:
    from hdgan.nets.ensemble import PixelEnsemble

    files = {"ensemble.json": data, "ensemble.safetensors": LATENTS}
    return PixelEnsemble.load(files.__getitem__)


def features_index(data: bytes) -> Any:
    (FOLDER / "index.json").write_bytes(data)
    return open_features(FOLDER)


def feature_shard(data: bytes) -> Any:
    import hashlib

    folder = FOLDER / "features" / ID
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shard.json").write_bytes(data)
    listed = [{"id": ID, "shardSha256": hashlib.sha256(data).hexdigest()}]
    (folder.parent / "index.json").write_text(json.dumps(INDEX | {"images": listed}))
    return open_features(folder.parent)


EVENT = {
    "event": "progress",
    "stage": "x",
    "done": 1,
    "total": 2,
    "rate": 0.5,
    "eta": 3,
    "unit": "u",
}


def show_event(data: bytes) -> Any:
    event = parse_event(data.decode("utf-8", "replace"))
    if event is not None:
        assert describe_progress(event) is not None
        assert describe_log(event) is not None


KINDS = [
    Kind("manifest", MANIFEST, open_manifest),
    Kind("run-info", RUN_INFO, read_run_info),
    Kind("piece", {"sha256": canonical_digest(PIECE), "value": PIECE}, find_piece),
    Kind("state", STATE, latest_state),
    Kind(
        "annotations pointer",
        POINTER,
        lambda data: current(stored({f"annotations/{DIGEST}/000001.json": data}), DIGEST),
    ),
    Kind("slides", SNAPSHOT, lambda data: load_snapshot(stored({LIST: data}), LIST)),
    Kind("slide facts", FACTS, lambda data: load_facts(stored({TABLE: data}), TABLE)),
    Kind(
        "folds",
        TILING,
        lambda data: list(fold_history.noted_folds(stored({"datasets/x/folds.json": data}))),
    ),
    Kind("ranking", RANKING, ranking_of),
    Kind("request", REQUEST, lambda data: parse_request(data)),
    Kind("run file", RUN, run_file),
    Kind("classes", CLASSES, lambda data: read_classes(data, "dataset")),
    Kind("pair", PAIR, lambda data: _check_description("here", "0001", data, {"mpp": 0.5})),
    Kind("dataset note", NOTE, dataset_note),
    Kind("own note", NOTE, own_note),
    Kind("export marker", MARKER, lambda data: marker_of(data, [], DIGEST, "folder")),
    Kind("candidates", CANDIDATES, candidates_of),
    Kind("annotations", LABELS, labels_of),
    Kind(
        "architecture",
        json.loads(Architecture(8).to_json()),
        lambda data: Architecture.from_json(data),
    ),
    Kind("ensemble", ENSEMBLE, ensemble_of),
    Kind("feature index", INDEX, features_index),
    Kind("feature shard", SHARD, feature_shard),
    Kind("event", EVENT, show_event),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_valid_document_is_read(kind: Kind) -> None:
    """Else the test below would only meet the first check of each parser."""
    if kind.name in ("ensemble", "feature index", "feature shard", "annotations pointer"):
        return  # what they name is not there
    found = survives(lambda: kind.parse(json.dumps(kind.valid).encode()))
    assert not isinstance(found, Exception), found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_changed_document_is_read_or_refused(kind: Kind) -> None:
    @examples(40, 5000)
    @given(json_files(kind.valid))
    def check(data: bytes) -> None:
        survives(lambda: kind.parse(data))

    check()


@examples(60)
@given(changed_json(PIECE))
def test_a_piece_with_a_digest_that_matches_is_read_or_left(value: Any) -> None:
    document = {"sha256": canonical_digest(value), "value": value}
    survives(lambda: find_piece(json.dumps(document).encode()))


@examples(60)
@given(changed_json({"uncertainty": 0.1, "fractions": {"a": 0.5}, "ignored": 0.0}))
def test_a_measured_image_of_another_form_is_told_by_ordinary_errors(value: Any) -> None:
    """What `well_formed` turns into an InputMissing with the place."""
    survives(lambda: Measured.from_json(value), LookupError, TypeError, ValueError, AttributeError)


@examples(60)
@given(st.binary(max_size=200))
def test_a_status_is_read_or_left(data: bytes) -> None:
    place = FOLDER / "run.json"
    place.write_text(json.dumps(RUN))
    run = load_run(place)
    assert isinstance(status_file.read_status(stored({"runs/tiny/status.json": data}), run), dict)
