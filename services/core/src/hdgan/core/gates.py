"""Gates: what has to hold before a dataset is released. Pure functions from what was measured to
verdicts.

A gate is undecided until what it looks at is there. A measure that is missing, or no finite number,
passes no gate.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hdgan.core.run import RunSpec

MAX_GATES = 40
"""More than a run can have: one for each of 32 classes, and one of each other kind."""
ROUNDING = 1e-9
"""A drop from 0.90 to 0.85 is one of 0.05, whatever binary fractions make of it."""


class GateVerdict(BaseModel):
    """What a gate has decided."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    name: Annotated[str, Field(max_length=100)]
    """Where its limit is in the run file, below `gates`."""
    measured: float | None = None
    """None: it could not be measured, or has not been yet."""
    limit: float
    passed: bool | None = None
    """None: undecided, because what it looks at is not there yet."""
    sentence: Annotated[str, Field(max_length=600)]
    """What was found, in words."""

    @property
    def line(self) -> str:
        """For people."""
        words = {True: "passed", False: "failed", None: "undecided"}[self.passed]
        return f"gate {self.name} {words}: {self.sentence}"


@dataclass(frozen=True)
class Scores:
    """Of the classifier, on the test images; None where there is none."""

    of: str
    """Content digest of the classifier."""
    macro_dice: float | None = None
    class_iou: Mapping[str, float | None] | None = None


@dataclass(frozen=True)
class Evaluation:
    """What the trainer measured of the generator in the end; None where it did not."""

    of: str
    """Content digest of the generator."""
    kid: float | None = None
    kid_error: float | None = None
    """Its standard error."""
    extractor: str = ""
    """The feature extractor by which images were compared, as it calls itself."""
    memorisation: float | None = None
    lack: str = ""
    """Why something was not measured."""


@dataclass(frozen=True)
class Size:
    """Of the dataset."""

    of: str
    """Its content digest."""
    pairs: int


@dataclass(frozen=True)
class Standing:
    """The release a new one is compared with."""

    release: str | None = None
    """Its name; None: there is none."""
    macro_dice: float | None = None
    annotations: str | None = None
    """Content digest of the annotations whose test images that was measured on."""


@dataclass(frozen=True)
class Measured:
    """All that gates look at. None: nobody has looked yet."""

    scores: Scores | None = None
    evaluation: Evaluation | None = None
    size: Size | None = None
    standing: Standing | None = None


def verdicts(spec: RunSpec, artifacts: Mapping[str, str], measured: Measured) -> list[GateVerdict]:
    """What every gate that is set has decided, in the order of the run file.

    artifacts  content digests of those that exist, by stage
    """

    def of(stage: str, found: Scores | Evaluation | Size | None) -> bool:
        return found is not None and artifacts.get(stage) == found.of

    scores = measured.scores if of("classifier", measured.scores) else None
    evaluation = measured.evaluation if of("gan-trainer", measured.evaluation) else None
    size = measured.size if of("dataset", measured.size) else None
    return [
        *_macro_dice(spec, scores),
        *_iou(spec, scores),
        *_kid(spec, evaluation),
        *_memorisation(spec, evaluation),
        *_pairs(spec, size),
        *_drop(spec, scores, measured.standing, artifacts.get("annotations")),
    ]


def failed(decided: Collection[GateVerdict]) -> list[str]:
    """Why gates say no: a sentence of each that does."""
    return [one.sentence for one in decided if one.passed is False]


def finite(value: Any) -> float | None:
    """A value out of a JSON document as a measure; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _macro_dice(spec: RunSpec, scores: Scores | None) -> Iterator[GateVerdict]:
    limit = spec.gates.min_macro_dice
    if limit is None:
        return
    name = "minMacroDice"
    if scores is None:
        yield _undecided(name, limit, "the classifier")
        return
    dice = scores.macro_dice
    if dice is None:
        text = f"no macro Dice could be measured; gates.{name} is {limit:g}"
        yield _verdict(name, None, limit, False, text)
        return
    passed = dice >= limit
    relation = "reaches" if passed else "is below"
    text = f"macro Dice {_shown(dice, limit)} on the test images {relation} gates.{name} {limit:g}"
    yield _verdict(name, dice, limit, passed, text)


def _iou(spec: RunSpec, scores: Scores | None) -> Iterator[GateVerdict]:
    gates = spec.gates
    for class_name in (one.name for one in spec.annotations.classes):
        kind, limit = "minClassIou", gates.min_class_iou.get(class_name)
        if limit is None:
            kind, limit = "minIou", gates.min_iou
        if limit is None:
            continue
        name = f"{kind}.{class_name}"
        if scores is None:
            yield _undecided(name, limit, "the classifier")
            continue
        iou = None if scores.class_iou is None else scores.class_iou.get(class_name)
        if iou is None:
            text = (
                f"{class_name} has no IoU, being in no test image (neither labelled nor "
                f"predicted); gates.{kind} is {limit:g}"
            )
            yield _verdict(name, None, limit, False, text)
            continue
        passed = iou >= limit
        relation = "reaches" if passed else "is below"
        text = (
            f"IoU {_shown(iou, limit)} of {class_name} on the test images {relation} "
            f"gates.{kind} {limit:g}"
        )
        yield _verdict(name, iou, limit, passed, text)


def _kid(spec: RunSpec, evaluation: Evaluation | None) -> Iterator[GateVerdict]:
    limit = spec.gates.max_kid
    if limit is None:
        return
    name = "maxKid"
    if evaluation is None:
        yield _undecided(name, limit, "the generator")
        return
    kid, asked = evaluation.kid, spec.gan_trainer.feature_extractor
    if kid is None:
        text = f"the generator has no KID{_because(evaluation)}; gates.{name} is {limit:g}"
        yield _verdict(name, None, limit, False, text)
        return
    if not measured_by(asked, evaluation.extractor):
        text = (
            f"the generator's KID {_shown(kid, limit)} was measured by "
            f"{evaluation.extractor or 'an extractor without a name'} and ganTrainer."
            f"featureExtractor is {asked[:100]}: these cannot be compared; gates.{name} is "
            f"{limit:g}"
        )
        yield _verdict(name, kid, limit, False, text)
        return
    passed = kid <= limit
    error = f" (standard error {evaluation.kid_error:.2g})" if evaluation.kid_error else ""
    text = (
        f"the generator's KID {_shown(kid, limit)}{error} against held-out tiles "
        f"{'is within' if passed else 'is above'} gates.{name} {limit:g}"
    )
    yield _verdict(name, kid, limit, passed, text)


def _memorisation(spec: RunSpec, evaluation: Evaluation | None) -> Iterator[GateVerdict]:
    limit = spec.gates.max_memorisation
    if limit is None:
        return
    name = "maxMemorisation"
    if evaluation is None:
        yield _undecided(name, limit, "the generator")
        return
    share = evaluation.memorisation
    if share is None:
        text = (
            f"whether the generator repeats training tiles was not measured{_because(evaluation)}; "
            f"gates.{name} is {limit:g}"
        )
        yield _verdict(name, None, limit, False, text)
        return
    passed = share <= limit
    text = (
        f"{_shown(share, limit)} of the generator's samples are nearer to a training tile than "
        f"nearly all held-out tiles are, which {'is within' if passed else 'is above'} "
        f"gates.{name} {limit:g}"
    )
    yield _verdict(name, share, limit, passed, text)


def _pairs(spec: RunSpec, size: Size | None) -> Iterator[GateVerdict]:
    limit = spec.gates.min_pairs
    if limit is None:
        return
    name = "minPairs"
    if size is None:
        yield _undecided(name, limit, "the dataset")
        return
    passed = size.pairs >= limit
    text = (
        f"the dataset has {size.pairs} pairs, {'as gates' if passed else 'fewer than gates'}."
        f"{name} {limit} {'asks for' if passed else ''}"
    ).rstrip()
    yield _verdict(name, size.pairs, limit, passed, text)


def _drop(
    spec: RunSpec, scores: Scores | None, standing: Standing | None, annotations: str | None
) -> Iterator[GateVerdict]:
    limit = spec.gates.max_drop_vs_latest
    if limit is None:
        return
    name = "maxDropVsLatest"
    if scores is None or standing is None:
        yield _undecided(name, limit, "the classifier")
        return
    dice, before = scores.macro_dice, standing.macro_dice
    if standing.release is None:
        text = f"there is no release to fall below; gates.{name} is {limit:g}"
        yield _verdict(name, None, limit, True, text)
        return
    if dice is None or before is None:
        lacks = "the classifier" if dice is None else f"release {standing.release}"
        text = f"{lacks} has no macro Dice to compare; gates.{name} is {limit:g}"
        yield _verdict(name, None, limit, False, text)
        return
    drop = before - dice
    passed = drop <= limit + ROUNDING
    same = annotations is not None and annotations == standing.annotations
    text = (
        f"macro Dice {dice:.4f} is {_shown(abs(drop), limit)} {'below' if drop > 0 else 'above'} "
        f"that of release {standing.release} ({before:.4f}, on {'the same' if same else 'other'} "
        f"test images), which gates.{name} {limit:g} {'allows' if passed else 'does not allow'}"
    )
    yield _verdict(name, drop, limit, passed, text)


def measured_by(asked: str, extractor: str) -> bool:
    """Whether an extractor that calls itself so is the one that a run file asks for.

    asked  `ganTrainer.featureExtractor`: a name, or the path of an ONNX file
    """
    path = PurePosixPath(asked)
    if path.suffix == ".onnx":
        return extractor.startswith(f"{path.name} ")
    return extractor.casefold().startswith(f"{asked.casefold()} ")


def _because(evaluation: Evaluation) -> str:
    return f" ({evaluation.lack[:200]})" if evaluation.lack else ""


def _undecided(name: str, limit: float, what: str) -> GateVerdict:
    return _verdict(name, None, limit, None, f"not decided before {what} is there")


def _verdict(
    name: str, measured: float | None, limit: float, passed: bool | None, sentence: str
) -> GateVerdict:
    return GateVerdict(name=name, measured=measured, limit=limit, passed=passed, sentence=sentence)


def _shown(value: float, limit: float) -> str:
    """With four decimals, or as many as tell it from another limit."""
    for text in (f"{value:.4f}", f"{value:.8f}"):
        if value == limit or float(text) != limit:
            return text
    return repr(value)
