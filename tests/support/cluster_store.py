"""A store as a cluster's runs use it, and what stages would put there."""

from __future__ import annotations

import json
from typing import Any

from hdgan.core.annotations import publish
from hdgan.core.artifact import Attempt, open_artifact
from hdgan.core.store import Store

EVALUATION = {
    "kid": {"whole": {"mean": 0.3}},
    "extractor": {"name": "EfficientNet-Lite0 (not really)"},
}

FILES: dict[str, dict[str, bytes]] = {
    "tiler": {"folds.parquet": b"folds"},
    "gan-trainer": {"evaluation.json": json.dumps(EVALUATION).encode()},
    "classifier": {"scores.json": json.dumps({"test": {"dice": {"macro": 0.91}}}).encode()},
}
"""What of an artifact somebody else than its own stage reads."""


def make_artifact(store: Store, stage: str, key: str) -> None:
    """Commit the artifact as its stage would, once."""
    if open_artifact(store, stage, key) is None:
        attempt = Attempt(store, stage, key)
        for name, data in FILES.get(stage, {"made": stage.encode()}).items():
            attempt.add_bytes(name, data)
        attempt.commit({})


def annotate(store: Store, candidates_digest: str, run: dict[str, Any], count: int = 1) -> None:
    """Import annotations: `count` images for each split."""
    annotations = run["spec"]["annotations"]
    document = {
        "classes": annotations["classes"],
        "images": [{"split": split} for split in ("train", "val", "test") for _ in range(count)],
    }
    attempt = Attempt(store, "annotations", f"{count:064x}")
    attempt.add_bytes("annotations.json", json.dumps(document).encode())
    publish(store, candidates_digest, attempt.commit({}))
