"""Gates pass at their limit and fail beyond it; what cannot be measured passes none that is set."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from hdgan.core.errors import RequestError
from hdgan.core.gates import (
    MAX_GATES,
    Evaluation,
    GateVerdict,
    Measured,
    Scores,
    Size,
    Standing,
    failed,
    finite,
    measured_by,
    verdicts,
)
from hdgan.core.run import DatasetRun, parse_run
from support.runs import changed

LITE0 = "EfficientNet-Lite0 (ImageNet), not the Inception network of published FID and KID"
ARTIFACTS = {"gan-trainer": "g", "classifier": "c", "annotations": "a", "dataset": "d"}
GOOD = Measured(
    Scores("c", 0.9, {"glass": 0.8, "dermis": 0.7, "epidermis": 0.6}),
    Evaluation("g", kid=0.02, kid_error=0.001, extractor=LITE0, memorisation=0.01),
    Size("d", 4),
    Standing("monday-1", 0.91, "a"),
)


def run_with(**gates: Any) -> DatasetRun:
    return parse_run(changed("spec.gates", gates))


def decided(
    measured: Measured = GOOD, artifacts: dict[str, str] = ARTIFACTS, **gates: Any
) -> list[GateVerdict]:
    return verdicts(run_with(**gates).spec, artifacts, measured)


def scored(**scores: Any) -> Measured:
    assert GOOD.scores is not None
    return replace(GOOD, scores=replace(GOOD.scores, **scores))


def evaluated(**evaluation: Any) -> Measured:
    assert GOOD.evaluation is not None
    return replace(GOOD, evaluation=replace(GOOD.evaluation, **evaluation))


def test_without_gates_nothing_is_decided() -> None:
    assert decided() == []


@pytest.mark.parametrize(
    ("gates", "measured", "passed", "value", "words"),
    [
        ({"minMacroDice": 0.9}, GOOD, True, 0.9, "reaches gates.minMacroDice 0.9"),
        (
            {"minMacroDice": 0.9},
            scored(macro_dice=math.nextafter(0.9, 0)),
            False,
            math.nextafter(0.9, 0),
            "0.8999999999999999 on the test images is below gates.minMacroDice 0.9",
        ),
        ({"minMacroDice": 0.0}, scored(macro_dice=None), False, None, "no macro Dice"),
        ({"minClassIou": {"dermis": 0.7}}, GOOD, True, 0.7, "reaches gates.minClassIou 0.7"),
        (
            {"minClassIou": {"dermis": 0.701}},
            GOOD,
            False,
            0.7,
            "IoU 0.7000 of dermis on the test images is below gates.minClassIou 0.701",
        ),
        (
            {"minClassIou": {"dermis": 0.0}},
            scored(class_iou={"dermis": None}),
            False,
            None,
            "dermis has no IoU, being in no test image",
        ),
        ({"minClassIou": {"dermis": 0.0}}, scored(class_iou={}), False, None, "has no IoU"),
        ({"minClassIou": {"dermis": 0.0}}, scored(class_iou=None), False, None, "has no IoU"),
        ({"maxKid": 0.02}, GOOD, True, 0.02, "is within gates.maxKid 0.02"),
        ({"maxKid": 0.0199}, GOOD, False, 0.02, "(standard error 0.001) against held-out"),
        ({"maxKid": 0.0}, evaluated(kid=-0.001), True, -0.001, "-0.0010"),
        (
            {"maxKid": 1000},
            evaluated(kid=None, lack="fewer than 16 tiles are held out"),
            False,
            None,
            "no KID (fewer than 16 tiles are held out)",
        ),
        (
            {"maxKid": 1000},
            evaluated(extractor="other.onnx (ONNX, SHA-256 1234)"),
            False,
            0.02,
            "other.onnx (ONNX, SHA-256 1234) and ganTrainer.featureExtractor is efficientnet-lite0",
        ),
        ({"maxMemorisation": 0.01}, GOOD, True, 0.01, "is within gates.maxMemorisation 0.01"),
        ({"maxMemorisation": 0.0099}, GOOD, False, 0.01, "is above gates.maxMemorisation 0.0099"),
        ({"maxMemorisation": 1}, evaluated(memorisation=None), False, None, "not measured"),
        ({"minPairs": 4}, GOOD, True, 4, "4 pairs, as gates.minPairs 4 asks for"),
        ({"minPairs": 4}, replace(GOOD, size=Size("d", 3)), False, 3, "3 pairs, fewer than"),
        # 0.91 - 0.90 is 0.010000000000000009
        ({"maxDropVsLatest": 0.01}, GOOD, True, 0.01, "0.9100, on the same test images), which"),
        ({"maxDropVsLatest": 0.0099}, GOOD, False, 0.01, "0.0099 does not allow"),
        ({"maxDropVsLatest": 0.0}, scored(macro_dice=0.95), True, -0.04, "0.0400 above that of"),
        (
            {"maxDropVsLatest": 0.0},
            replace(GOOD, standing=Standing()),
            True,
            None,
            "there is no release to fall below",
        ),
        (
            {"maxDropVsLatest": 1},
            replace(GOOD, standing=Standing("monday-1")),
            False,
            None,
            "release monday-1 has no macro Dice",
        ),
        ({"maxDropVsLatest": 1}, scored(macro_dice=None), False, None, "the classifier has no"),
        (
            {"maxDropVsLatest": 1},
            replace(GOOD, standing=Standing("monday-1", 0.9, "b")),
            True,
            0.0,
            "on other test images",
        ),
    ],
)
def test_each_gate_at_its_limit_beyond_it_and_unmeasured(
    gates: dict[str, Any], measured: Measured, passed: bool, value: float | None, words: str
) -> None:
    (verdict,) = decided(measured, **gates)
    name, limit = next(iter(gates.items()))
    if isinstance(limit, dict):
        ((class_name, limit),) = limit.items()
        name = f"{name}.{class_name}"
    assert (verdict.name, verdict.limit, verdict.passed) == (name, limit, passed)
    assert verdict.measured == (value if value is None else pytest.approx(value, abs=1e-12))
    assert words in verdict.sentence
    assert (verdict.sentence in failed([verdict])) is not passed


def test_one_limit_for_all_classes_and_others_for_some() -> None:
    found = decided(minIou=0.65, minClassIou={"epidermis": 0.6})
    assert [(one.name, one.passed) for one in found] == [
        ("minIou.glass", True),
        ("minIou.dermis", True),
        ("minClassIou.epidermis", True),
    ]
    found = decided(minIou=0.65)
    assert [one.name for one in found if not one.passed] == ["minIou.epidermis"]


def test_all_that_fail_are_named_together() -> None:
    bad = Measured(
        Scores("c", 0.1, {}), Evaluation("g"), Size("d", 1), Standing("monday-1", 0.9, "a")
    )
    found = decided(
        bad,
        minMacroDice=0.5,
        minIou=0.5,
        maxKid=0.1,
        maxMemorisation=0.05,
        minPairs=2,
        maxDropVsLatest=0.1,
    )
    assert len(failed(found)) == len(found) == 8
    assert [one.name.partition(".")[0] for one in found] == [
        "minMacroDice", "minIou", "minIou", "minIou", "maxKid", "maxMemorisation", "minPairs",
        "maxDropVsLatest",
    ]  # fmt: skip


EVERY: dict[str, Any] = {
    "minMacroDice": 0.5,
    "minIou": 0.1,
    "maxKid": 0.1,
    "maxMemorisation": 0.05,
    "minPairs": 2,
    "maxDropVsLatest": 0.1,
}


@pytest.mark.parametrize(
    ("gone", "undecided"),
    [
        ("gan-trainer", {"maxKid", "maxMemorisation"}),
        ("classifier", {"minMacroDice", "minIou", "maxDropVsLatest"}),
        ("dataset", {"minPairs"}),
    ],
)
def test_a_gate_is_undecided_until_what_it_is_about_exists_and_was_looked_at(
    gone: str, undecided: set[str]
) -> None:
    def open_gates(measured: Measured, artifacts: dict[str, str]) -> set[str]:
        found = decided(measured, artifacts, **EVERY)
        assert all(one.passed for one in found if one.passed is not None)
        return {one.name.partition(".")[0] for one in found if one.passed is None}

    assert open_gates(GOOD, ARTIFACTS) == set()
    without = {name: digest for name, digest in ARTIFACTS.items() if name != gone}
    assert open_gates(GOOD, without) == undecided
    # What was measured of another one says nothing of this one.
    assert open_gates(GOOD, ARTIFACTS | {gone: "new"}) == undecided
    field = {"gan-trainer": "evaluation", "classifier": "scores", "dataset": "size"}[gone]
    assert open_gates(replace(GOOD, **{field: None}), ARTIFACTS) == undecided


def test_the_latest_release_has_to_be_looked_for_too() -> None:
    (verdict,) = decided(replace(GOOD, standing=None), maxDropVsLatest=1)
    assert verdict.passed is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, None, "0.9", [0.9], {}])
def test_what_is_no_finite_number_is_no_measure(value: Any) -> None:
    assert finite(value) is None
    assert finite(1) == 1.0


@pytest.mark.parametrize(
    ("asked", "extractor", "same"),
    [
        ("efficientnet-lite0", LITE0, True),
        ("efficientnet-lite0", "EfficientNet-Lite01 (ImageNet)", False),
        ("efficientnet-lite0", "", False),
        ("/models/uni.onnx", "uni.onnx (ONNX, SHA-256 0123)", True),
        ("/models/uni.onnx", "uni2.onnx (ONNX, SHA-256 0123)", False),
        ("/models/uni.onnx", LITE0, False),
    ],
)
def test_kids_are_compared_within_one_extractor(asked: str, extractor: str, same: bool) -> None:
    assert measured_by(asked, extractor) is same


def test_verdicts_of_the_most_gates_there_can_be_fit_into_what_keeps_them() -> None:
    classes = [
        {"name": f"{number:02d}" + "x" * 62, "color": f"#0000{number:02x}"} for number in range(32)
    ]
    document = changed("spec.annotations.classes", classes, changed("spec.gates", EVERY))
    found = verdicts(parse_run(document).spec, ARTIFACTS, GOOD)
    assert len(found) == 37
    assert len(found) <= MAX_GATES
    assert all(GateVerdict.model_validate(one.model_dump()) == one for one in found)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            "spec.gates.minClassIou",
            {"muscle": 0.5},
            "gates.minClassIou.muscle: there is no class 'muscle' in annotations.classes; there "
            "are glass, dermis, epidermis",
        ),
        ("spec.gates.minClassIou", {"dermis": 1.1}, "spec.gates.minClassIou.dermis: 1.1"),
        ("spec.gates.minPairs", 5, "gates.minPairs is 5, but synthesizer.count is 4"),
        ("spec.gates.maxKid", -0.1, "spec.gates.maxKid: -0.1"),
    ],
)
def test_a_gate_nothing_could_pass_is_refused_by_its_path(
    path: str, value: Any, words: str
) -> None:
    with pytest.raises(RequestError, match="test: ") as error:
        parse_run(changed(path, value), "test")
    assert words in str(error.value)


@pytest.mark.parametrize("gate", ["maxKid", "maxMemorisation"])
def test_gates_on_what_will_not_be_measured_are_refused(gate: str) -> None:
    gated = changed(f"spec.gates.{gate}", 0.5)
    parse_run(gated)
    with pytest.raises(RequestError, match=rf"gates\.{gate} is 0\.5, but ganTrainer\.featureExtr"):
        parse_run(changed("spec.ganTrainer.featureExtractor", "none", gated))
    unheld = changed("spec.ganTrainer.holdoutFold", -1, gated)
    with pytest.raises(RequestError, match=rf"gates\.{gate} is 0\.5, but ganTrainer\.holdoutFold"):
        parse_run(unheld)
    # A release's generator was measured when it was trained.
    parse_run(changed("spec.generator", "pinned", unheld))
