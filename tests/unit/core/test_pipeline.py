"""Keys change exactly when they should, and the plan says what comes next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hdgan.core.gates import Evaluation, Measured, Scores, Size
from hdgan.core.pipeline import (
    BY_NAME,
    NODES,
    STAGE_VERSIONS,
    External,
    NodeStatus,
    Observed,
    annotations_lack,
    known_key,
    node_key,
    plan,
    stage_request,
)
from hdgan.core.request import InputRef, parse_request
from support.runs import CLASSES, small_run

EXTERNAL = External("work/slides/x.json", "5" * 64)
ARTIFACTS = ("tiler", "gan-trainer", "candidates", "annotations", "classifier", "dataset")


def reference(stage: str, digit: str = "a") -> InputRef:
    return InputRef(stage=stage, key=digit * 64, content_digest=digit * 64)


def observed(*stages: str, **rest: Any) -> Observed:
    return Observed({stage: reference(stage) for stage in stages}, **rest)


def keys(
    path: str | None = None, value: Any = None, external: External = EXTERNAL
) -> dict[str, str | None]:
    """Keys of all nodes while everything exists."""
    run = small_run(path, value)
    return {node.name: known_key(node, run, external, observed(*ARTIFACTS)) for node in NODES}


def differing(path: str, value: Any) -> set[str]:
    before, after = keys(), keys(path, value)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("path", "value", "nodes"),
    [
        # What does not change any output
        ("metadata.name", "other", set()),
        ("spec.slides.uri", "elsewhere", set()),
        ("spec.resources.threads", 7, set()),
        ("spec.resources.device", "auto", set()),
        ("spec.gates.minMacroDice", 0.9, set()),
        (
            "spec.gates",
            {
                "minIou": 0.1,
                "minClassIou": {"dermis": 0.2},
                "maxKid": 1,
                "maxMemorisation": 0.1,
                "minPairs": 1,
                "maxDropVsLatest": 0.1,
            },
            set(),
        ),
        ("spec.annotations.train", 2, set()),
        ("spec.ganTrainer.snapshotKimg", 3, set()),
        # A default written out
        ("spec.tiler.stride", 64, set()),
        ("spec.ganTrainer.r1Gamma", 0.0002 * 64**2 / 8, set()),
        ("spec.classifier.members", 10, set()),
        # What does change it: that stage alone, as long as contents stay as they are
        ("spec.slides.assumeMpp", 0.25, {"tiler"}),
        ("spec.tiler.maxWhitespace", 0.4, {"tiler"}),
        ("spec.tiler.mpp", 2.0, {"tiler", "classifier", "dataset"}),
        ("spec.ganTrainer.kimg", 2, {"gan-trainer"}),
        ("spec.candidates.seed", 1, {"candidates"}),
        ("spec.extractor.blocks", 4, {"ranking", "extractor", "classifier", "dataset"}),
        ("spec.candidates.select", "random", set()),
        ("spec.classifier.epochs", 3, {"classifier"}),
        ("spec.synthesizer.count", 5, {"dataset"}),
        ("spec.annotations.classes", CLASSES[:2], {"extractor", "classifier", "dataset"}),
        ("spec.rerun.candidates", "today", {"candidates"}),
    ],
)
def test_a_change_changes_exactly_the_keys_it_should(
    path: str, value: Any, nodes: set[str]
) -> None:
    assert differing(path, value) == nodes


def test_contents_of_inputs_change_keys_and_where_they_come_from_does_not() -> None:
    run = small_run()
    for node in NODES:
        for name, source in node.inputs.items():
            everything = {stage: reference(stage) for stage in ARTIFACTS}
            before = known_key(node, run, EXTERNAL, Observed(everything))
            content = everything | {source: reference(source, "b")}
            assert known_key(node, run, EXTERNAL, Observed(content)) != before, (node.name, name)
            moved = InputRef(stage=source, key="c" * 64, content_digest="a" * 64)
            assert known_key(node, run, EXTERNAL, Observed(everything | {source: moved})) == before


def test_slides_and_initial_networks_count_by_content() -> None:
    def changed_by(external: External) -> set[str]:
        before, after = keys(), keys(external=external)
        return {name for name in before if before[name] != after[name]}

    assert changed_by(replace(EXTERNAL, slides_key="work/slides/moved.json")) == set()
    assert changed_by(replace(EXTERNAL, slides_digest="6" * 64)) == {"tiler"}
    assert changed_by(replace(EXTERNAL, init_digest="7" * 64)) == {"gan-trainer"}


def test_keys_are_golden() -> None:
    """These may change only together with a stage version: they decide what is trained again."""
    key = node_key(BY_NAME["candidates"], small_run(), EXTERNAL, {"generator": reference("x")})
    # sha256 of the canonical JSON, worked out with another program
    import hashlib

    text = (
        '{"config":{"candidates":{"count":6}},"inputs":{"generator":"' + "a" * 64 + '"},'
        f'"stage":"candidates","stageVersion":{STAGE_VERSIONS["candidates"]}}}'
    )
    assert key == hashlib.sha256(text.encode()).hexdigest()


def states(statuses: list[NodeStatus]) -> dict[str, str]:
    return {status.name: status.state for status in statuses}


def test_the_plan_of_an_empty_store() -> None:
    assert states(plan(small_run(), EXTERNAL, observed())) == {
        "tiler": "ready",
        "gan-trainer": "waiting",
        "candidates": "waiting",
        "ranking": "waiting",
        "annotations": "waiting",
        "extractor": "waiting",
        "classifier": "waiting",
        "gate": "waiting",
        "dataset": "waiting",
        "reranking": "waiting",
    }


def test_the_plan_waits_for_a_person_and_then_goes_on() -> None:
    drawn = observed("tiler", "gan-trainer", "candidates", annotations_lack="1 of 2 for val")
    ranking = states(plan(small_run(), EXTERNAL, drawn))
    assert (ranking["ranking"], ranking["annotations"]) == ("ready", "waiting")
    before = observed(
        "tiler", "gan-trainer", "candidates", "ranking", annotations_lack="1 of 2 for val"
    )
    waiting = plan(small_run(), EXTERNAL, before)
    assert states(waiting)["annotations"] == "awaiting"
    assert next(s for s in waiting if s.name == "annotations").reason == "1 of 2 for val"
    assert "ready" not in states(waiting).values()

    after = states(
        plan(
            small_run(),
            EXTERNAL,
            observed("tiler", "gan-trainer", "candidates", "annotations"),
        )
    )
    assert (after["annotations"], after["extractor"], after["classifier"]) == (
        "done", "ready", "waiting",
    )  # fmt: skip
    assert after["ranking"] == "skipped"  # whoever has labelled needs to be told nothing


def test_candidates_that_are_not_to_be_ranked_are_not() -> None:
    run = small_run("spec.candidates.select", "random")
    drawn = states(plan(run, EXTERNAL, observed("tiler", "gan-trainer", "candidates")))
    assert (drawn["ranking"], drawn["annotations"]) == ("skipped", "awaiting")
    made = states(plan(run, EXTERNAL, observed(*ARTIFACTS)))
    assert made["reranking"] == "skipped"


def test_what_to_label_next_is_told_above_all_where_a_gate_has_failed() -> None:
    """Once there is an ensemble to ask."""
    run = small_run("spec.gates.minMacroDice", 0.9)
    measured = Measured(Scores(reference("classifier").content_digest, 0.5))
    shut = states(plan(run, EXTERNAL, observed(*ARTIFACTS[:-1], measured=measured)))
    assert (shut["gate"], shut["dataset"], shut["reranking"]) == ("failed", "waiting", "ready")


@pytest.mark.parametrize(
    ("least", "dice", "gate", "dataset"),
    [
        (None, None, "done", "ready"),
        (0.8, 0.8, "done", "ready"),
        (0.8, 0.79, "failed", "waiting"),
        (0.8, None, "failed", "waiting"),
    ],
)
def test_the_gate_decides_about_the_dataset(
    least: float | None, dice: float | None, gate: str, dataset: str
) -> None:
    measured = Measured(Scores(reference("classifier").content_digest, dice))
    found = observed(*ARTIFACTS[:-1], measured=measured)
    result = states(plan(small_run("spec.gates.minMacroDice", least), EXTERNAL, found))

    assert (result["gate"], result["dataset"]) == (gate, dataset)
    assert result["extractor"] == "skipped"  # features are only for making the classifier


def evaluated(kid: float) -> Measured:
    digest = reference("gan-trainer").content_digest
    return Measured(evaluation=Evaluation(digest, kid=kid, extractor="efficientnet-lite0 (fake)"))


def test_a_generator_that_fails_its_gate_is_gone_on_with_in_nothing() -> None:
    run = small_run("spec.gates", {"maxKid": 0.1, "minPairs": 1})
    found = observed("tiler", "gan-trainer", measured=evaluated(0.2))
    statuses = plan(run, EXTERNAL, found)
    assert states(statuses) == {
        "tiler": "done",
        "gan-trainer": "done",
        "candidates": "waiting",
        "ranking": "waiting",
        "annotations": "waiting",
        "extractor": "waiting",
        "classifier": "waiting",
        "gate": "failed",
        "dataset": "waiting",
        "reranking": "waiting",
    }
    assert next(s for s in statuses if s.name == "candidates").reason == "for the gates"
    # Nor does anybody have to label anything.
    drawn = observed("tiler", "gan-trainer", "candidates", measured=evaluated(0.2))
    assert states(plan(run, EXTERNAL, drawn))["annotations"] == "waiting"
    assert states(plan(run, EXTERNAL, drawn))["ranking"] == "waiting"
    better = observed("tiler", "gan-trainer", "candidates", "ranking", measured=evaluated(0.1))
    assert states(plan(run, EXTERNAL, better))["annotations"] == "awaiting"


def test_a_pinned_run_is_told_of_its_drift_whatever_gates_say() -> None:
    external = replace(
        EXTERNAL, release="r", generator=reference("gan-trainer"), candidates=reference("x")
    )
    run = small_run("spec.gates", {"maxKid": 0.1})
    ready = [
        observed("gan-trainer", "candidates", measured=evaluated(0.2)),
        observed("gan-trainer", "candidates", "tiler", measured=evaluated(0.2)),
    ]
    assert states(plan(run, external, ready[0]))["tiler"] == "ready"
    assert states(plan(run, external, ready[1]))["drift"] == "ready"


def test_pairs_are_a_gate_of_a_dataset_that_is_there() -> None:
    run = small_run("spec.gates.minPairs", 4)
    digest = reference("dataset").content_digest

    def gate(*stages: str, size: Size | None = None) -> tuple[str, str]:
        found = states(plan(run, EXTERNAL, observed(*stages, measured=Measured(size=size))))
        return found["gate"], found["dataset"]

    assert gate(*ARTIFACTS[:-1]) == ("done", "ready")
    assert gate(*ARTIFACTS) == ("waiting", "done")  # nobody has counted yet
    assert gate(*ARTIFACTS, size=Size(digest, 4)) == ("done", "done")
    assert gate(*ARTIFACTS, size=Size(digest, 3)) == ("failed", "done")


def test_a_request_says_everything_and_survives_the_way_to_the_stage() -> None:
    run = small_run()
    for node in NODES:
        request = stage_request(
            node, run, EXTERNAL, observed(*ARTIFACTS), store="file:///s", scratch="/scratch"
        )
        assert parse_request(request.model_dump_json(by_alias=True)) == request
        assert set(request.inputs) == set(node.inputs)
        assert (request.device, request.threads) == ("cpu", 1)
    classifier = stage_request(
        BY_NAME["classifier"], run, EXTERNAL, observed(*ARTIFACTS), store="s", scratch="s"
    )
    assert classifier.context["featuresKey"] == keys()["extractor"]


def test_annotations_are_compared_with_what_the_run_asks_for() -> None:
    run = small_run()

    def lack(classes: list[dict[str, Any]], *splits: str) -> str | None:
        return annotations_lack(
            run, {"classes": classes, "images": [{"split": split} for split in splits]}
        )

    assert lack(CLASSES, "train", "val", "test", "test") is None
    assert lack(CLASSES, "train", "train", "test") == "labelled so far: 0 of 1 for val"
    other = lack(CLASSES[::-1], "train", "val", "test")
    assert other is not None
    assert "import them again" in other
