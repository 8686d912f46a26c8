"""A tiny run with made-up artifacts in a file store, for tests of what a person looks at."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.masks import encode_mask
from hdgan.core.observe import observe, pin_external
from hdgan.core.pipeline import BY_NAME, STAGE_VERSIONS, known_key, node_inputs
from hdgan.core.releases import Release, publish, release_of
from hdgan.core.run import ClassConfig, load_run, resolve
from hdgan.core.status_file import freeze
from hdgan.core.store import Store, open_store
from hdgan.core.tar_shards import write_shard
from hdgan.desk.intake import import_annotations
from hdgan.desk.png_text import with_candidate_id
from hdgan.desk.run_artifacts import open_run
from hdgan.desk.splits import Split

SIDE = 32
CLASSES = [
    ClassConfig(name="glass", color="#f0f0f0"),
    ClassConfig(name="stroma", color="#f08cac"),
    ClassConfig(name="tumour", color="#5a288c"),
]

RUN_FILE = """\
apiVersion: hdgan.io/v1alpha1
kind: DatasetRun
metadata: {name: tiny}
spec:
  slides: {uri: slides}
  tiler: {tileSize: 32, mpp: 2.0}
  ganTrainer: {kimg: 1}
  candidates: {count: 8, select: random}
  annotations:
    train: 2
    val: 1
    test: 2
    classes:
      - {name: glass, color: "#f0f0f0"}
      - {name: stroma, color: "#f08cac"}
      - {name: tumour, color: "#5a288c"}
  extractor: {blocks: 3}
"""


def png(array: np.ndarray[Any, Any]) -> bytes:
    """PNG of an array, in the mode Pillow finds for it."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def noise_rgb(seed: int, side: int = SIDE) -> np.ndarray[Any, Any]:
    """A random RGB picture."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def striped_mask(shift: int = 0) -> np.ndarray[Any, Any]:
    """Three classes in upright stripes."""
    columns = (np.arange(SIDE) + shift) * 3 // SIDE % 3
    return np.broadcast_to(columns.astype(np.uint8), (SIDE, SIDE)).copy()


@dataclass
class TinyRun:
    """A run file and its store; stages are added one by one."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "run.yaml"

    @property
    def store(self) -> Store:
        return open_store((self.folder / "store").as_uri())

    @classmethod
    def create(cls, folder: Path) -> TinyRun:
        (folder / "slides").mkdir()
        (folder / "slides" / "a.svs").write_bytes(b"not read by these tests")
        (folder / "run.yaml").write_text(RUN_FILE, encoding="utf-8")
        return cls(folder)

    def add(
        self, stage: str, files: Mapping[str, bytes], run_info: Mapping[str, Any] | None = None
    ) -> Artifact:
        """Commit an artifact under the very key the pipeline looks for."""
        run = resolve(load_run(self.file))
        external = pin_external(self.store, run)
        observed = observe(self.store, run, external)
        key = known_key(BY_NAME[stage], run, external, observed)
        assert key is not None, f"an input of {stage} is missing"
        inputs = node_inputs(BY_NAME[stage], observed) or {}
        attempt = Attempt(
            self.store,
            stage,
            key,
            stage_version=STAGE_VERSIONS[stage],
            inputs={name: one.content_digest for name, one in inputs.items()},
        )
        for name, data in files.items():
            attempt.add_bytes(name, data)
        return attempt.commit(run_info or {"seconds": 65.0, "device": "cpu"})

    def add_tiles(self) -> Artifact:
        slides = [
            {
                "name": "a.svs",
                "case": "case-<1>",
                "dimensions": [100, 200],
                "slideMpp": [0.5, 0.5],
                "sha256": "ab" * 32,
                "tiles": {"examined": 12, "accepted": 7, "rejected": {"whitespace": 5}},
                "status": "tiled",
            },
            {"name": "broken.svs", "status": "setAside", "reason": "is truncated"},
        ]
        balance = [
            {
                "fold": fold,
                "tiles": tiles,
                "cases": 1,
                "tilesByStain": {"<PAS>": tiles},
                "tilesByCentre": {"unknown": tiles},
            }
            for fold, tiles in enumerate([4, 3])
        ]
        document = {
            "holdout": "spatial",
            "folds": 2,
            "tilesPerFold": [4, 3],
            "balance": balance,
            "slides": slides,
        }
        return self.add(
            "tiler",
            {"slides.json": json.dumps(document).encode(), "contact.png": png(noise_rgb(1))},
        )

    def add_generator(self) -> Artifact:
        log = [
            {"kimg": k, "adaP": 0.1 * k, "lossG": 1.0, "lossD": 0.9, "signReal": 0.4}
            for k in (0.5, 1.0)
        ]
        grid = png(noise_rgb(2, 4 * SIDE))
        metrics = [{"kimg": k, "kid": 0.75 - 0.5 * k} for k in (0.5, 1.0)]

        def kid(mean: float) -> dict[str, Any]:
            return {"mean": mean, "standard_error": 0.0125, "real": 90, "fake": 80, "subset": 80}

        evaluation = {
            "kid": {"whole": kid(0.25)},
            "floor": {"whole": kid(0.125)},
            "fid": None,
            "precision": 0.875,
            "recall": 0.5,
            "neighbours": 3,
            "memorisation": {"share": 0.025, "note": "is no guarantee"},
            "extractor": {"name": "some network"},
        }
        return self.add(
            "gan-trainer",
            {
                "metrics.jsonl": "".join(json.dumps(r) + "\n" for r in metrics).encode(),
                "evaluation.json": json.dumps(evaluation).encode(),
                "training.jsonl": "".join(json.dumps(r) + "\n" for r in log).encode(),
                "reals.png": grid,
                "samples.png": grid,
                "grids/fakes-000000000.png": grid,
                "grids/fakes-000001000.png": grid,
            },
        )

    def add_candidates(self, count: int = 8) -> Artifact:
        ids = [hashlib.sha256(f"candidate {n}".encode()).hexdigest()[:32] for n in range(count)]
        images = {i: png(noise_rgb(n)) for n, i in enumerate(ids)}
        document = {
            "generator": "9" * 64,
            "psi": 0.7,
            "images": [
                {"id": i, "index": n, "sha256": hashlib.sha256(images[i]).hexdigest()}
                for n, i in enumerate(ids)
            ],
        }
        files = {f"images/{i}.png": data for i, data in images.items()}
        files["candidates.json"] = json.dumps(document).encode()
        files["sheet.png"] = png(noise_rgb(3))
        return self.add("candidates", files)

    def add_ranking(self, stage: str, worth: Sequence[int]) -> Artifact:
        """Of candidates that are alike but for one texture each, of which `worth` is shown."""
        drawn = open_run(self.file, None).artifacts["candidates"]
        ids = [one["id"] for one in json.loads(drawn.read("candidates.json"))["images"]]
        count = len(ids)
        columns: dict[str, Any] = {"id": ids, "contrast": [50.0] * count, "realism": [0.0] * count}
        shown = np.diag(np.asarray(worth, dtype=np.float32))
        columns |= {f"texture{k}": shown[:, k] for k in range(count)}
        columns |= {f"place{k}": np.eye(count, dtype=np.float32)[:, k] for k in range(count)}
        table = io.BytesIO()
        pq.write_table(pa.table(columns), table)
        document = {
            "candidates": drawn.content_digest,
            "textures": count,
            "place": count,
            "ensemble": False,
        }
        return self.add(
            stage,
            {"ranking.parquet": table.getvalue(), "ranking.json": json.dumps(document).encode()},
        )

    def annotate(self, author: str = "Dr. <A>") -> dict[str, Split]:
        """Striped masks for all candidates that are to be labelled; returns their splits."""
        view = open_run(self.file, None)
        config, candidates = view.run.spec.annotations, view.candidates()
        assigned = candidates.assign(config)
        masks = self.folder / "masks"
        masks.mkdir(exist_ok=True)
        for identity in assigned:
            mask = encode_mask(striped_mask(), CLASSES)
            (masks / f"{identity}.png").write_bytes(with_candidate_id(mask, identity))
        run_info = {"author": author, "date": "2026-01-02T03:04:05Z"}
        import_annotations(self.store, candidates, config, [masks], run_info=run_info)
        return assigned

    def finish(self, dice: float = 0.9512) -> None:
        """Every stage that is not there yet, in order."""
        self.add_tiles()
        self.add_generator()
        self.add_candidates()
        assigned = self.annotate()
        self.add_classifier([i for i, split in assigned.items() if split == "test"], dice)
        self.add_dataset()

    def release(self) -> Release:
        """Publish what is there, as a runner does at the end."""
        run = resolve(load_run(self.file))
        external = pin_external(self.store, run)
        observed = observe(self.store, run, external)
        freeze(self.store, run, external)
        release = release_of(run, external, observed, datetime(2026, 1, 2, tzinfo=UTC))
        publish(self.store, release)
        return release

    def change(self, before: str, after: str) -> None:
        """Replace a text of the run file."""
        text = self.file.read_text(encoding="utf-8")
        assert before in text
        self.file.write_text(text.replace(before, after), encoding="utf-8")

    def add_classifier(self, test_ids: list[str], dice: float = 0.9512) -> Artifact:
        def report(dice: float) -> dict[str, Any]:
            def metric(value: float) -> dict[str, Any]:
                return {"macro": value, "perClass": {c.name: value for c in CLASSES}}

            intervals = {c.name: [dice - 0.05, dice + 0.05] for c in CLASSES}
            return {
                "images": 2,
                "labelledPixels": 300,
                "confusion": [[90, 10, 0], [5, 95, 0], [0, 0, 100]],
                "accuracy": metric(0.95),
                "dice": {
                    **metric(dice),
                    "macroInterval95": [dice - 0.02, dice + 0.02],
                    "perClassInterval95": intervals,
                },
                "iou": metric(0.9),
                "boundaryF": {**metric(0.8), "tolerance": {"um": 2.0, "px": 1.0}},
                "dice_micro": 0.95,
                "leftOut": [],
                "ece": 0.0123,
                "reliability": [
                    {"from": 0.5, "to": 1.0, "pixels": 300, "confidence": 0.9, "accuracy": 0.95}
                ],
            }

        scores = {
            "test": report(dice),
            "baselines": {
                "majority": {"test": report(0.2)},
                "rgb": {"test": report(0.8)},
                "rgbBlurred": {"test": report(0.85)},
            },
        }
        files = {f"predictions/{i}.png": encode_mask(striped_mask(1), CLASSES) for i in test_ids}
        files["scores.json"] = json.dumps(scores).encode()
        return self.add("classifier", files)

    def add_dataset(self) -> Artifact:
        """Three pairs, whose ids follow from the classifier."""
        of = open_run(self.file, None).artifacts["classifier"].content_digest
        ids = [hashlib.sha256(f"pair {n} {of}".encode()).hexdigest()[:32] for n in range(3)]
        members, rows = [], []
        for n, identity in enumerate(ids):
            mask = encode_mask(striped_mask(n), CLASSES)
            document = {"id": identity, "stream": "dataset", "seed": 5, "index": n}
            members += [
                (f"{identity}.json", json.dumps(document).encode()),
                (f"{identity}.mask.png", mask),
                (f"{identity}.png", png(noise_rgb(n))),
                (f"{identity}.uncertainty.png", png(np.full((SIDE, SIDE), 9000, np.uint16))),
            ]
            rows.append(
                {
                    "id": identity,
                    "shard": "shard-00000.tar",
                    "index": n,
                    "uncertainty": 0.1 + 0.05 * n,
                    **{f"fraction_{c.name}": 1 / 3 for c in CLASSES},
                    "mask_sha256": hashlib.sha256(mask).hexdigest(),
                }
            )
        shard = self.folder / "shard.tar"
        write_shard(shard, members)
        index = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), index)
        calibration = {"maxUncertainty": 0.3, "uncertainties": [0.1, 0.2, 0.3, 0.4]}
        return self.add(
            "dataset",
            {
                "shard-00000.tar": shard.read_bytes(),
                "index.parquet": index.getvalue(),
                "calibration.json": json.dumps(calibration).encode(),
            },
        )
