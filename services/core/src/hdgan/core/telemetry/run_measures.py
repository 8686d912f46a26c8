"""What the artifacts of runs say for their series: scores, KID, pairs, time and cost.

An artifact never changes, so each is read once. Whatever is damaged or gone has no value; only a
store that does not answer is an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.errors import InputMissing, KeyMissing, NoSpace, RequestError, WrongContent
from hdgan.core.gate_measures import evaluation_of, size_of
from hdgan.core.json_documents import MAX_BYTES, parse_object
from hdgan.core.observe import drift_kid
from hdgan.core.pipeline import BY_NAME
from hdgan.core.request import InputRef
from hdgan.core.score_documents import ImageScores, scores_on_test_images
from hdgan.core.stage_cost import StageCost, read_cost
from hdgan.core.store import Store

T = TypeVar("T")

MAX_INDEX_BYTES: Final = 256 << 20
"""Longest table of pairs that is read only to count them: more than a million pairs."""
AGAIN_SECONDS: Final = 3600.0
"""After which one that could not be read is looked for again: somebody may have restored it."""

_LACKING = (InputMissing, KeyMissing, WrongContent, RequestError, ValueError)
"""What is damaged, gone, or names nothing. All other errors are the store's, but for these:"""
_OURS = (NoSpace, OSError)
"""There is no room on this machine to look at it."""


@dataclass(frozen=True)
class Measures:
    """What one artifact says; None or empty where it has nothing of the kind."""

    cost: StageCost = field(default_factory=StageCost)
    scores: ImageScores = field(default_factory=ImageScores)
    kid: float | None = None
    """Of a generator, against held-out tiles."""
    drift_kid: float | None = None
    """Of tiles, against a pinned generator's samples."""
    pairs: int | None = None


NOTHING: Final = Measures()


def read_measures(store: Store, reference: InputRef) -> Measures:
    """Read one artifact. InputMissing if it is not there or is another one by now; StoreError if
    the store does not answer. Of files in it that are damaged there is no value."""
    artifact = open_artifact(store, reference.stage, reference.key)
    if artifact is None or artifact.content_digest != reference.content_digest:
        raise InputMissing(f"{reference.stage} {reference.key} is not in {store.uri}")
    stage = reference.stage
    scores = _value(lambda: _scores(artifact)) if stage == "classifier" else None
    return Measures(
        cost=read_cost(artifact.run_info()),
        scores=scores or ImageScores(),
        kid=_value(lambda: evaluation_of(artifact).kid) if stage == "gan-trainer" else None,
        drift_kid=_value(lambda: drift_kid(artifact)) if stage == "drift" else None,
        pairs=_value(lambda: _pairs(artifact)) if stage == "dataset" else None,
    )


class KnownMeasures:
    """What has been read of artifacts. For several threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._read: dict[InputRef, Measures] = {}
        self._lacking: dict[InputRef, float] = {}
        """When to look again."""
        self._lock = threading.Lock()

    def of(self, artifacts: Mapping[str, InputRef]) -> dict[str, Measures]:
        """What is known of artifacts, by stage."""
        with self._lock:
            return {stage: self._read[one] for stage, one in artifacts.items() if one in self._read}

    def read(
        self,
        store: Store,
        artifacts: Iterable[InputRef],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Read those that are not known yet, and forget all others: these are all that count.
        StoreError if the store does not answer: what was read stays."""
        wanted = {one for one in artifacts if one.stage in BY_NAME}
        with self._lock:
            self._read = {one: found for one, found in self._read.items() if one in wanted}
            self._lacking = {one: due for one, due in self._lacking.items() if one in wanted}
            now = self._now()
            missing = [one for one in wanted if one not in self._read]
            missing = [one for one in missing if self._lacking.get(one, now) <= now]
        for one in sorted(missing, key=lambda one: (one.stage, one.key)):
            if stopped():
                return
            try:
                found = read_measures(store, one)
            except (*_LACKING, *_OURS):
                with self._lock:
                    self._lacking[one] = self._now() + AGAIN_SECONDS
                continue
            with self._lock:
                self._read[one] = found
                self._lacking.pop(one, None)


def _value(read: Callable[[], T]) -> T | None:
    """What is read; None where it is damaged or not there."""
    try:
        return read()
    except _LACKING:
        return None


def _scores(classifier: Artifact) -> ImageScores:
    if classifier.entry("scores.json").size > MAX_BYTES:
        raise ValueError("too long")
    return scores_on_test_images(parse_object(classifier.read("scores.json")))


def _pairs(dataset: Artifact) -> int | None:
    long = dataset.entry("index.parquet").size > MAX_INDEX_BYTES
    return None if long else size_of(dataset).pairs
