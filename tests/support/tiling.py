"""A folder of slides that is tiled by the real stage, through its real entry."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.request import InputRef, StageRequest
from hdgan.core.slide_facts import find_facts, save_facts
from hdgan.core.slides import save_snapshot, take_snapshot
from hdgan.core.stage import run_stage
from hdgan.core.store import Store, open_store
from hdgan.tiler.opening import open_slide
from hdgan.tiler.slide import Slide, SlideOpener
from hdgan.tiler.stage import TILER, TILER_INDEX_SCHEMA, run
from support.slides import tissue_picture, write_tiff

CONFIG: dict[str, Any] = {"tileSize": 64, "mpp": 0.5, "folds": 3}
BY_CASE = {"casePattern": "^(?P<case>[^_]+)_"}


class Tiling:
    """A folder of slides and a store, and the outcome of the last run over them."""

    def __init__(self, folder: Path) -> None:
        self.slides = folder / "slides"
        self.slides.mkdir()
        self._folder = folder
        self.store: Store = open_store((folder / "store").as_uri())
        self.events: list[dict[str, Any]] = []
        self.opened: list[str] = []
        self.uri = str(self.slides)
        """Where the stage finds the slides; a test may copy them elsewhere."""
        self._runs = 0

    def add(self, name: str, seed: int = 0, mpp: float | None = 0.5) -> Path:
        return write_tiff(self.slides / name, tissue_picture(420, 300, seed), mpp)

    def run(
        self,
        config: dict[str, Any] | None = None,
        slides: dict[str, Any] | None = None,
        inputs: dict[str, InputRef] | None = None,
        opener: SlideOpener | None = None,
        *,
        outlines: Path | None = None,
        threads: int = 1,
        part: int | None = None,
        parts: int = 1,
        commit: bool = False,
        again: bool = False,
    ) -> int:
        """Run the stage under a new key (`again`: under the last one); returns the exit code.

        opener: reads slides; what it opens is noted in `opened`. None with several threads: slides
        are cut in processes, which note nothing.
        """
        if not again:
            self._runs += 1
        self.key = f"{self._runs:064x}"
        self.opened = []
        uri = self.uri
        asked = {"uri": uri, **(BY_CASE if slides is None else slides)}
        snapshot = take_snapshot(uri)
        place = None if outlines is None else str(outlines)
        facts = find_facts(snapshot, asked.get("metadata"), place)
        request = StageRequest(
            run="test",
            stage="tiler",
            service="tiler",
            config={**CONFIG, **(config or {})},
            context={
                "slides": save_snapshot(self.store, snapshot),
                "slideFacts": save_facts(self.store, facts),
                "slideCacheGigabytes": 1.0,
                "slidesConfig": asked,
            },
            inputs=inputs or {},
            key=self.key,
            stage_version=TILER.version,
            store=self.store.uri,
            scratch=str(self._folder / "scratch"),
            threads=threads,
            parts=parts,
            commit=commit,
        )
        path = self._folder / "request.json"
        path.write_text(request.model_dump_json(by_alias=True))

        def counting(slide: Path) -> Slide:
            self.opened.append(slide.name)
            return (opener or open_slide)(slide)

        stage = TILER
        if opener is not None or threads == 1:
            stage = replace(TILER, run=lambda context: run(context, counting))
        out = io.StringIO()
        environ = {"HDGAN_REQUEST": str(path)}
        if part is not None:
            environ["JOB_COMPLETION_INDEX"] = str(part)
        code = run_stage((stage,), environ, out)
        self.events = [json.loads(line) for line in out.getvalue().splitlines()]
        return code

    @property
    def error(self) -> str:
        assert self.events[-1]["event"] == "error"
        return str(self.events[-1]["message"])

    @property
    def artifact(self) -> Artifact:
        artifact = open_artifact(self.store, "tiler", self.key)
        assert artifact is not None
        return artifact

    @property
    def rows(self) -> list[dict[str, Any]]:
        table = pq.read_table(io.BytesIO(self.artifact.read("index.parquet")))
        assert table.schema.equals(TILER_INDEX_SCHEMA)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.artifact.read("slides.json"))
        return document

    @property
    def reference(self) -> InputRef:
        return InputRef(
            stage="tiler", key=self.key, content_digest=self.artifact.manifest.content_digest
        )
