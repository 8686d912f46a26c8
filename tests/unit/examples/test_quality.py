"""`make quality`: differences are taken in pairs, masks of finer pictures follow the rule, finished
runs are reused, and the committed page is the one its figures give."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdgan.core.process import StopFlag
from hdgan.core.progress_view import PlainView
from hdgan.core.run import load_run
from quality import (
    EXAMPLES,
    PAPER_BLOCKS,
    SHIPPED,
    STUDIES,
    Stages,
    annotate,
    label_at,
    label_factor,
    main,
    put_generator,
    study_run,
    write_results,
)
from quality_page import render
from quality_scores import (
    Predictions,
    block_scores,
    difference,
    macro_dice,
    smoothing_scores,
)
from standin_annotator import label_stains

DOCS = Path(__file__).parents[3] / "docs"
TRUTH = (
    np.repeat(np.array([0, 1], np.uint8), [8, 8])[None].repeat(16, axis=0),
    np.repeat(np.array([0, 1], np.uint8), [4, 12])[None].repeat(16, axis=0),
)


def predictions(*masks: np.ndarray[Any, np.dtype[np.uint8]]) -> Predictions:
    """A classifier of two classes that predicted `masks` where TRUTH is right."""
    part = {
        "macro": 0.9,
        "macroInterval95": [0.8, 0.95],
        "perClass": {"a": 0.9, "b": None},
    }
    test = {
        "dice": part,
        "boundaryF": {"macro": 0.5, "tolerance": {"px": 1.0}},
        "ece": 0.1,
    }
    return Predictions({"classes": ["a", "b"], "channels": 3, "test": test}, TRUTH, masks)


def test_macro_dice_is_of_the_pooled_pixels() -> None:
    all_ones = predictions(*(np.ones_like(mask) for mask in TRUTH))
    # Class a: never predicted, 0. Class b: 320 of its pixels, all of 512 predicted.
    assert macro_dice(all_ones.matrices) == pytest.approx((0 + 2 * 320 / (320 + 512)) / 2)


def test_a_difference_is_taken_on_the_same_images() -> None:
    good, bad = np.diag([8, 8]), np.array([[4, 4], [4, 4]])
    ours = np.stack([good, bad])
    # However images are drawn, equal classifiers are equal: unpaired draws would differ.
    assert difference([ours], [ours]) == {"value": 0.0, "interval95": [0.0, 0.0]}
    found = difference([ours], [np.stack([bad, bad])])
    assert found["value"] == 0.25  # 0.75 less 0.5
    assert found["interval95"] == [0.0, 0.5]


def test_several_single_members_count_with_their_mean() -> None:
    right, wrong = predictions(*TRUTH), predictions(*(1 - mask for mask in TRUTH))
    row = block_scores(right, [right, wrong], right)
    assert row["lessPaperBlocks"] is None
    assert row["single"] == {"macroDice": 0.5, "range": [0.0, 1.0]}
    assert row["ensembleLessSingle"]["value"] == 0.5
    assert row["ensemble"]["perClass"] == {"a": 0.9, "b": None}


def test_smoothing_takes_specks_away() -> None:
    speckled = [mask.copy() for mask in TRUTH]
    for mask in speckled:
        mask[2, 2] = 1
    plain, smoothed = smoothing_scores(predictions(*speckled), 0.5, [1.0])
    assert (plain["lessUnsmoothed"], plain["changed"]) == (None, 0.0)
    assert smoothed["radiusPx"] == 2.0
    assert smoothed["macroDice"] == smoothed["boundaryF"] == 1.0
    assert smoothed["changed"] == round(1 / 256, 4)


def test_finer_pictures_are_labelled_at_the_scale_of_the_rule() -> None:
    stream = np.random.default_rng(0)
    small = np.full((64, 64, 3), (225, 150, 190), np.uint8)
    small[:, 30:] = (110, 60, 140)
    small = small - stream.integers(0, 9, small.shape, np.uint8)
    fine = small.repeat(4, axis=0).repeat(4, axis=1)
    assert (label_factor(2.0), label_factor(0.5)) == (1, 4)
    assert np.array_equal(label_at(small, 1), label_stains(small))
    mask, expected = label_at(fine, 4), label_stains(small)
    assert len(np.unique(expected)) > 1
    assert mask.dtype == np.uint8
    # The middle of each block of 4 x 4 px keeps the label; only outlines between them move.
    assert (mask[1::4, 1::4] == expected).mean() > 0.99


@pytest.mark.parametrize("name", list(STUDIES))
def test_rows_of_a_study_differ_in_the_classifier_alone(name: str) -> None:
    base, study = load_run(EXAMPLES / name / "run.yaml"), STUDIES[name]
    assert PAPER_BLOCKS in study.blocks
    runs = [study_run(base, study, blocks) for blocks in study.blocks]
    runs.append(study_run(base, study, PAPER_BLOCKS, members=1, seed=2))
    assert max(study.blocks) == base.spec.tiler.synthesis_blocks
    assert len({run.metadata.name for run in runs}) == len(runs)
    assert {run.spec.candidates for run in runs} == {runs[0].spec.candidates}
    assert runs[-1].spec.classifier.members == 1


def test_finished_work_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quality.CANDIDATES", 20)
    monkeypatch.setattr("quality.SPLITS", {"train": 16, "val": 2, "test": 2})
    folder, study = EXAMPLES / "skin-64", STUDIES["skin-64"]
    base = load_run(folder / "run.yaml")
    run = study_run(base, study, 1, members=1, threads=1)
    said = io.StringIO()
    for _ in range(2):
        stages = Stages(tmp_path, PlainView(said), StopFlag())
        generator = put_generator(stages.store, folder)
        inputs = {"gan-trainer": generator}
        inputs["candidates"] = stages.artifact("candidates", run, inputs)
        masks = annotate(stages.store, inputs["candidates"], run.spec.annotations, 2.0)
    assert generator.read(SHIPPED[1]) == (folder / SHIPPED[1]).read_bytes()
    assert len([name for name in masks.names() if name.startswith("masks/")]) == 20
    assert said.getvalue().count("candidates: started") == 1


def test_a_generator_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "skin-64").mkdir()
    monkeypatch.setattr("quality.EXAMPLES", tmp_path)
    run = (EXAMPLES / "skin-64" / "run.yaml").read_text()
    (tmp_path / "skin-64" / "run.yaml").write_text(run)
    arguments = ["--generator", "skin-64", "--work", str(tmp_path / "w"), "--out", str(tmp_path)]
    assert main(arguments) == 66
    assert "lacks architecture.json, generator.safetensors" in capsys.readouterr().out


def committed() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DOCS / "quality.json").read_text("utf-8"))
    return document


def test_the_page_is_that_of_its_figures() -> None:
    assert (DOCS / "quality.md").read_text("utf-8") == render(committed())


def test_other_generators_keep_their_figures(tmp_path: Path) -> None:
    entry = committed()["generators"]["skin-64"]
    write_results(tmp_path, {"skin-256": entry})
    write_results(tmp_path, {"skin-64": entry})
    kept = json.loads((tmp_path / "quality.json").read_text())["generators"]
    assert list(kept) == ["skin-64", "skin-256"]
    assert (tmp_path / "quality.md").read_text().count("\n## skin-") == 2
