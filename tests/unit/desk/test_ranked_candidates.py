"""Which ranking decides what is labelled next: the newest there is, and none if none is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.core.annotations import current
from hdgan.core.errors import InputMissing
from hdgan.desk.candidates import published_splits
from hdgan.desk.run_artifacts import open_run
from support.desk_run import TinyRun

# By the positions of the eight candidates: the higher, the better.
FIRST = [1, 2, 3, 4, 5, 6, 7, 8]
LATER = [8, 7, 6, 5, 4, 3, 2, 1]


@pytest.fixture
def run(tmp_path: Path) -> TinyRun:
    made = TinyRun.create(tmp_path)
    made.change("select: random", "select: ranked")
    made.add_tiles()
    made.add_generator()
    made.add_candidates()
    return made


def asked_to_train(run: TinyRun) -> list[str]:
    """Ids of the images to label that nobody has labelled yet, in their order."""
    view = open_run(run.file, None)
    candidates = view.candidates()
    before = published_splits(current(view.store, candidates.artifact.content_digest))
    assigned = candidates.assign(view.run.spec.annotations, before)
    return [i for i, split in assigned.items() if split == "train" and i not in before]


def by_worth(run: TinyRun, worth: list[int]) -> list[str]:
    """Candidates that may train, best first."""
    view = open_run(run.file, None)
    ids = view.candidates().ids
    held_out = [
        i for i, s in view.candidates().assign(view.run.spec.annotations).items() if s != "train"
    ]
    order = sorted(range(len(ids)), key=lambda n: -worth[n])
    return [ids[n] for n in order if ids[n] not in held_out]


def test_before_any_label_the_first_ranking_decides(run: TinyRun) -> None:
    assert open_run(run.file, None).outcome != "AwaitingAnnotation"
    run.add_ranking("ranking", FIRST)
    assert open_run(run.file, None).outcome == "AwaitingAnnotation"
    assert asked_to_train(run) == by_worth(run, FIRST)[:2]


def test_asked_for_more_the_ensemble_of_the_labels_so_far_decides(run: TinyRun) -> None:
    """Though the run, as it is now, has no classifier: its labels are not complete."""
    run.add_ranking("ranking", FIRST)
    labelled = run.annotate()
    run.add_classifier([])
    run.add_ranking("reranking", LATER)
    run.change("train: 2", "train: 4")
    view = open_run(run.file, None)
    assert "classifier" not in view.artifacts
    assert view.outcome == "AwaitingAnnotation"
    left = [i for i in by_worth(run, LATER) if i not in labelled]
    assert asked_to_train(run) == left[:2]


def test_without_an_ensemble_yet_the_first_ranking_goes_on(run: TinyRun) -> None:
    run.add_ranking("ranking", FIRST)
    labelled = run.annotate()
    run.change("train: 2", "train: 4")
    left = [i for i in by_worth(run, FIRST) if i not in labelled]
    assert asked_to_train(run) == left[:2]


def test_random_takes_them_as_they_were_drawn(run: TinyRun) -> None:
    run.add_ranking("ranking", FIRST)
    run.change("select: ranked", "select: random")
    assert open_run(run.file, None).outcome == "AwaitingAnnotation"
    assert asked_to_train(run) == by_worth(run, [0] * 8)[:2]


def test_a_ranking_that_does_not_list_these_candidates_is_refused(
    run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.add_ranking("ranking", FIRST)
    candidates = open_run(run.file, None).candidates()
    monkeypatch.setitem(candidates.document, "images", candidates.document["images"][::-1])
    with pytest.raises(InputMissing, match="other candidates"):
        candidates.assign(open_run(run.file, None).run.spec.annotations)
