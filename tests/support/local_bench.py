"""`hdgan run` with fake services: a run file, a store and the services in one folder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hdgan.core.annotations import publish
from hdgan.core.artifact import Attempt
from hdgan.core.local import RunResult, run_local
from hdgan.core.progress_view import PlainView
from hdgan.core.run import load_run
from hdgan.core.store import open_store
from support import fake_services
from support.runs import CLASSES, DOCUMENT, write_run


@dataclass
class Bench:
    """A run file, a store and fake services in one folder."""

    folder: Path
    output: io.StringIO = field(default_factory=io.StringIO)

    @property
    def store_uri(self) -> str:
        return (self.folder / "store").as_uri()

    def run(self, document: dict[str, Any] = DOCUMENT) -> RunResult:
        fake_services.forget(self.folder)
        view = PlainView(self.output)
        path = write_run(self.folder, document)
        return run_local(
            load_run(path), store_uri=self.store_uri, scratch=self.folder / "scratch", view=view
        )

    def starts(self) -> list[str]:
        return fake_services.starts(self.folder)

    def plan(self, stage: str, *words: str) -> None:
        fake_services.plan(self.folder, stage, *words)

    def annotate(self, *splits: str, document: dict[str, Any] = DOCUMENT) -> None:
        """Publish annotations of the candidates there are, one image per split given."""
        store = open_store(self.store_uri)
        result = self.run(document)
        candidates = result.artifact("candidates")
        assert candidates is not None
        labelled = {"classes": CLASSES, "images": [{"split": split} for split in splits]}
        text = json.dumps(labelled).encode()
        attempt = Attempt(store, "annotations", f"{len(splits):064x}")
        attempt.add_bytes("annotations.json", text)
        publish(store, candidates.content_digest, attempt.commit({}))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(open_store(self.store_uri).get("runs/small/status.json"))
        return found
