"""The whole pipeline on a small cut of a real slide, by the commands a person types."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.small_pipeline import (
    CLASSES,
    SIDE,
    SmallPipeline,
    Typed,
    pattern,
    write_run_file,
)

STAGES = (
    "tiler", "gan-trainer", "candidates", "ranking", "classifier", "reranking", "dataset",
)  # fmt: skip


def words_for(ended: Typed, stage: str) -> set[str]:
    """What the runner said about a stage besides its progress: started, reused, done."""
    said = re.findall(rf"^{stage}: (started|reused|done)\b", ended.out, re.MULTILINE)
    return set(said)


def succeeded(ended: Typed) -> Typed:
    assert ended.code == 0, ended.out + ended.err
    return ended


def test_first_run_ends_at_the_annotations_and_says_what_to_do(finished_run: SmallPipeline) -> None:
    first = finished_run.typed["first run"]
    assert first.code == 3, first.out + first.err
    for stage in ("tiler", "gan-trainer", "candidates"):
        assert words_for(first, stage) == {"started", "done"}
    assert "Label 3 + 1 + 2 of them" in first.out
    for command in (
        "hdgan annotations export run.yaml DIR",
        "hdgan annotations import run.yaml DIR",
        "hdgan run run.yaml",
    ):
        assert command in first.out


def test_export_gives_a_person_everything_to_label(finished_run: SmallPipeline) -> None:
    exported = succeeded(finished_run.typed["export"])
    assert "6 candidates to label in pictures" in exported.out
    names = [path.name for path in (finished_run.folder / "pictures").iterdir()]
    splits = [
        name.split("-")[0] for name in names if re.match(r"(train|val|test)-[0-9a-f]{32}", name)
    ]
    assert sorted(splits) == ["test"] * 2 + ["train"] * 3 + ["val"]
    assert {"classes.json", "GUIDE.txt", "contact-sheet.html", "project.qpproj"} <= set(names)


def test_import_reports_what_was_understood(finished_run: SmallPipeline) -> None:
    imported = succeeded(finished_run.typed["import"])
    assert "imported 6 images as version 1" in imported.out
    for index, name in enumerate(CLASSES):
        share = 100 * (pattern() == index).mean()
        assert re.search(rf"{name} +{share:.1f} % of pixels", imported.out)


def test_second_run_goes_on_to_the_dataset(finished_run: SmallPipeline) -> None:
    second = succeeded(finished_run.typed["second run"])
    for stage in ("tiler", "gan-trainer", "candidates"):
        assert words_for(second, stage) == {"reused"}
    for stage in ("extractor", "classifier", "dataset"):
        assert words_for(second, stage) == {"started", "done"}
    folder = finished_run.folder / "dataset"
    shards = sorted(path.name for path in folder.glob("shard-*.tar"))
    assert shards == ["shard-00000.tar", "shard-00001.tar"]


def test_the_dataset_passes_its_check(finished_run: SmallPipeline) -> None:
    checked = succeeded(finished_run.hdgan("dataset", "check", "dataset", "--min-pairs", "6"))
    assert f"6 pairs in 2 shards, {SIDE} x {SIDE} pixels, all right" in checked.out
    too_few = finished_run.hdgan("dataset", "check", "dataset", "--min-pairs", "7")
    assert too_few.code == 65
    assert "7" in too_few.err


def test_a_damaged_dataset_does_not_pass(finished_run: SmallPipeline, tmp_path: Path) -> None:
    copy = shutil.copytree(finished_run.folder / "dataset", tmp_path / "dataset")
    shard = copy / "shard-00001.tar"
    data = bytearray(shard.read_bytes())
    start = data.index(b"IDAT")
    data[start + 20] ^= 1
    shard.unlink()  # it may be a link into the store, which must stay whole
    shard.write_bytes(data)
    checked = finished_run.hdgan("dataset", "check", copy)
    assert checked.code == 65, checked.out + checked.err
    assert "shard-00001.tar" in checked.err


def test_the_classifier_learned_something_of_the_pattern(finished_run: SmallPipeline) -> None:
    """The pattern never moves, so the generator's constant input and noise give it away."""
    (scores,) = finished_run.store.glob("artifacts/classifier/*/*/scores.json")
    document = json.loads(scores.read_text())
    assert set(document["test"]["dice"]["perClass"]) == set(CLASSES)
    majority = document["baselines"]["majority"]["test"]["dice"]["macro"]
    assert document["test"]["dice"]["macro"] > majority + 0.1


def test_the_report_stands_alone(finished_run: SmallPipeline) -> None:
    succeeded(finished_run.hdgan("report", "run.yaml", "--out", "report.html"))
    html = (finished_run.folder / "report.html").read_text()
    fetched = re.findall(r"""(?:src|href|data|poster)\s*=\s*["']?([^"'\s>]+)""", html)
    fetched += re.findall(r"""url\(\s*["']?([^"')\s]+)""", html)
    assert any(target.startswith("data:image/") for target in fetched)
    assert [target for target in fetched if not target.startswith(("data:", "#"))] == []
    assert "@import" not in html
    assert "Table 1" in html
    for name in CLASSES:
        assert name in html


def test_status_says_done(finished_run: SmallPipeline) -> None:
    told = succeeded(finished_run.hdgan("status", "run.yaml", "--json"))
    document = json.loads(told.out)
    assert document["outcome"] == "Released"
    states = {node["name"]: node["state"] for node in document["nodes"]}
    assert states == dict.fromkeys((*STAGES, "annotations", "gate"), "done") | {
        "extractor": "skipped"
    }


def test_gates_see_what_the_stages_measured(finished_run: SmallPipeline) -> None:
    (evaluation,) = finished_run.store.glob("artifacts/gan-trainer/*/*/evaluation.json")
    measured = json.loads(evaluation.read_text())
    kid, share = measured["kid"]["whole"]["mean"], measured["memorisation"]["share"]
    gates = {"minIou": 0.0, "maxKid": kid, "maxMemorisation": share, "minPairs": 6}
    write_run_file(finished_run.folder / "gated.yaml", {"gates": gates | {"maxDropVsLatest": 0.0}})
    told = succeeded(finished_run.hdgan("status", "gated.yaml", "--json"))
    found = {one["name"]: one for one in json.loads(told.out)["gates"]}
    assert {name: one["passed"] for name, one in found.items()} == dict.fromkeys(
        [*(f"minIou.{name}" for name in CLASSES), *list(gates)[1:], "maxDropVsLatest"], True
    )
    assert found["minPairs"]["measured"] == 6
    tighter = {"maxKid": kid - 1e-6 if kid > 1e-6 else 0.0, "minMacroDice": 1.0}
    write_run_file(finished_run.folder / "gated.yaml", {"gates": tighter})
    told = finished_run.hdgan("run", "gated.yaml")
    assert told.code == 4, told.err
    assert "is below gates.minMacroDice 1; the generator's KID" in told.err
    assert "is above gates.maxKid" in told.err


def test_a_third_run_reuses_every_stage(finished_run: SmallPipeline) -> None:
    before, files = finished_run.manifests(), finished_run.files()
    third = succeeded(finished_run.hdgan("run", "run.yaml", "--dataset", "dataset"))
    assert {stage: words_for(third, stage) for stage in STAGES} == {
        stage: {"reused"} for stage in STAGES
    }
    assert words_for(third, "extractor") == set()
    assert "(0 files written" in third.out
    assert finished_run.manifests() == before
    assert {f for f in finished_run.files() if f.startswith("artifacts/")} == {
        f for f in files if f.startswith("artifacts/")
    }


def test_another_count_runs_the_dataset_stage_alone(finished_run: SmallPipeline) -> None:
    before = finished_run.manifests()
    write_run_file(finished_run.folder / "more.yaml", {"synthesizer": {"count": 7}})
    more = succeeded(finished_run.hdgan("run", "more.yaml"))
    assert {stage: words_for(more, stage) for stage in STAGES} == {
        stage: {"reused"} for stage in STAGES
    } | {"dataset": {"started", "done"}}
    assert words_for(more, "extractor") == set()
    after = finished_run.manifests()
    assert {name: after[name] for name in before} == before
    (added,) = set(after) - set(before)
    assert added.startswith("artifacts/dataset/")
    # The pairs it had before are the first pairs it has now: only the last shard is longer.
    whole = finished_run.store / Path(added).parent
    (longer,) = whole.glob("*/shard-00000.tar")
    assert longer.read_bytes() == (finished_run.folder / "dataset" / "shard-00000.tar").read_bytes()


@pytest.mark.parametrize("wrong", ["class", "size"])
def test_wrong_masks_are_refused_and_nothing_is_imported(
    finished_run: SmallPipeline, tmp_path: Path, wrong: str
) -> None:
    masks = shutil.copytree(finished_run.folder / "masks", tmp_path / "masks")
    path = sorted(masks.glob("train-*.png"))[0]
    if wrong == "class":
        mask = pattern()
        mask[3, 4] = len(CLASSES)
        Image.fromarray(mask).save(path)
    else:
        Image.fromarray(np.repeat(pattern(), 2, axis=0)).save(path)
    before = finished_run.files()
    refused = finished_run.hdgan("annotations", "import", "run.yaml", masks)
    assert refused.code == 64, refused.out + refused.err
    assert path.name in refused.err
    told = "3 (1 px)" if wrong == "class" else f"{SIDE} x {2 * SIDE} px"
    assert told in refused.err
    assert finished_run.files() == before
