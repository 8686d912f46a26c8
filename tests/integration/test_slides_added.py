"""A run whose folder of slides grows: nothing is cut twice, no case changes its fold."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from hdgan.core.artifact import open_artifact
from hdgan.core.fold_history import note_folds
from hdgan.core.observe import observe, pin_external
from hdgan.core.pipeline import BY_NAME, Observed, stage_request
from hdgan.core.run import load_run, resolve
from hdgan.core.stage import run_stage
from hdgan.core.store import open_store
from hdgan.tiler.stage import TILER
from support.slides import tissue_picture, write_tiff


class Growing:
    """A run file, a store, and a folder of slides; tiled as `hdgan run` would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "slides").mkdir()
        self.file = folder / "run.yaml"
        classes = [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#ffffff"}]
        document = {
            "apiVersion": "hdgan.io/v1alpha1",
            "kind": "DatasetRun",
            "metadata": {"name": "growing"},
            "spec": {
                "slides": {"uri": "slides", "metadata": "slides.csv"},
                "tiler": {"tileSize": 64, "mpp": 0.5, "folds": 3},
                "annotations": {"classes": classes},
                "extractor": {"blocks": 5},
            },
        }
        self.file.write_text(yaml.safe_dump(document))
        self.store = open_store((folder / "store").as_uri())
        self.said: list[str] = []

    def add(self, name: str, seed: int) -> None:
        write_tiff(self.folder / "slides" / name, tissue_picture(420, 300, seed))

    def table(self, stains: Mapping[str, str]) -> None:
        rows = [f"{name},P-{name},{stain}" for name, stain in stains.items()]
        (self.folder / "slides.csv").write_text("\n".join(["slide,case,stain", *rows]) + "\n")

    def tile(self) -> dict[str, tuple[str, int]]:
        """Tile what is not tiled; case and fold of every slide."""
        run = resolve(load_run(self.file))
        external = pin_external(self.store, run)
        request = stage_request(
            BY_NAME["tiler"],
            run,
            external,
            Observed(),
            store=self.store.uri,
            scratch=str(self.folder / "scratch"),
        )
        path = self.folder / "request.json"
        path.write_text(request.model_dump_json(by_alias=True))
        out = io.StringIO()
        assert run_stage((TILER,), {"HDGAN_REQUEST": str(path)}, out) == 0, out.getvalue()
        events = [json.loads(line) for line in out.getvalue().splitlines()]
        self.said = [str(event.get("message", "")) for event in events]
        found = observe(self.store, run, external).artifacts["tiler"]
        note_folds(self.store, run, external, found)
        artifact = open_artifact(self.store, "tiler", found.key)
        assert artifact is not None
        rows = pq.read_table(io.BytesIO(artifact.read("index.parquet"))).to_pylist()
        return {row["slide"]: (row["case"], row["fold"]) for row in rows}


def test_new_slides_change_no_fold_and_cut_nothing_twice(tmp_path: Path) -> None:
    growing = Growing(tmp_path)
    for number, name in enumerate(["m.tif", "n.tif", "o.tif"]):
        growing.add(name, number)
    growing.table({"m": "HE", "n": "PAS", "o": "HE"})
    before = growing.tile()
    assert {fold for _, fold in before.values()} == {0, 1, 2}
    assert growing.tile() == before
    assert any("is there already" in message for message in growing.said)

    # Sorts first, and without kept folds would be the first to get one.
    growing.add("a.tif", 9)
    growing.table({"a": "HE", "m": "HE", "n": "PAS", "o": "HE"})
    after = growing.tile()
    assert {name: after[name] for name in before} == before
    assert after["a.tif"][0] == "P-a"
    assert after["a.tif"][1] == before["n.tif"][1]  # the fold that lacks its stain
    assert sum(" tiles of " in message for message in growing.said) == 1
    assert growing.tile() == after

    growing.table({"a": "HE", "m": "PAS", "n": "PAS", "o": "HE"})
    assert {name: fold for name, (_, fold) in growing.tile().items()} == {
        name: fold for name, (_, fold) in after.items()
    }
    assert not any(" tiles of " in message for message in growing.said)
