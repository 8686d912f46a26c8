"""What gates look at is read from artifacts as far as it is there, and again only when it must."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.errors import InputMissing
from hdgan.core.gate_measures import evaluation_of, measure, scores_of, size_of
from hdgan.core.gates import Evaluation, Measured, Scores
from hdgan.core.request import InputRef
from hdgan.core.store import Store, open_store
from support.runs import small_run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def made(store: Store, stage: str, files: Mapping[str, bytes]) -> Artifact:
    attempt = Attempt(store, stage, "a" * 64)
    for name, data in files.items():
        attempt.add_bytes(name, data)
    return attempt.commit({})


def reference(artifact: Artifact) -> InputRef:
    manifest = artifact.manifest
    return InputRef(stage=manifest.stage, key=manifest.key, content_digest=manifest.content_digest)


def classifier(store: Store, test: Any) -> Artifact:
    return made(store, "classifier", {"scores.json": json.dumps({"test": test}).encode()})


@pytest.mark.parametrize(
    ("test", "dice", "iou"),
    [
        (
            {"dice": {"macro": 0.5}, "iou": {"perClass": {"a": 0.25, "b": None}}},
            0.5,
            {"a": 0.25, "b": None},
        ),
        ({"dice": {"macro": None}, "iou": {"perClass": "?"}}, None, None),
        ({"dice": 0.5}, None, None),
        (None, None, None),
    ],
)
def test_scores_are_those_of_the_test_images(
    store: Store, test: Any, dice: float | None, iou: Any
) -> None:
    artifact = classifier(store, test)
    assert scores_of(artifact) == Scores(artifact.content_digest, dice, iou)


def test_an_evaluation_says_what_it_lacks_and_why(store: Store) -> None:
    why = "fewer than 16 tiles are held out: nothing to compare with"
    document = {
        "kid": {"whole": None},
        "memorisation": None,
        "reason": why,
        "extractor": {"name": "x"},
    }
    artifact = made(store, "gan-trainer", {"evaluation.json": json.dumps(document).encode()})
    assert evaluation_of(artifact) == Evaluation(
        artifact.content_digest,
        extractor="x",
        lack=why,
    )


def test_a_generator_without_an_evaluation_was_not_measured(store: Store) -> None:
    found = evaluation_of(made(store, "gan-trainer", {"generator.safetensors": b"w"}))
    assert (found.kid, found.memorisation) == (None, None)
    assert "featureExtractor was none" in found.lack


@pytest.mark.parametrize("text", [b"{", b'{"kid": {"whole": {"mean": NaN}}}'])
def test_what_is_not_json_is_an_error_that_names_the_file(store: Store, text: bytes) -> None:
    artifact = made(store, "gan-trainer", {"evaluation.json": text})
    with pytest.raises(InputMissing, match=r"evaluation\.json is not JSON"):
        evaluation_of(artifact)


def test_pairs_are_the_rows_of_the_index(store: Store) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": [f"p{number}" for number in range(7)]}), buffer)
    artifact = made(store, "dataset", {"index.parquet": buffer.getvalue()})
    assert size_of(artifact).pairs == 7


def test_a_damaged_index_is_an_error_that_names_it(store: Store) -> None:
    with pytest.raises(InputMissing, match=r"index\.parquet is no parquet table"):
        size_of(made(store, "dataset", {"index.parquet": b"PAR1 not really"}))


class Counting:
    """A store that counts what is read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("get", "get_to", "head", "list"):
            return method

        def read(key: str, *rest: Any) -> Any:
            self.reads.append(key)
            return method(key, *rest)

        return read


def test_what_was_read_of_an_artifact_is_not_read_again_and_of_another_it_is(
    store: Store,
) -> None:
    artifact = classifier(store, {"dice": {"macro": 0.5}})
    counting = Counting(store)
    run = small_run("spec.gates.minMacroDice", 0.1)
    found = {"classifier": reference(artifact)}
    first = measure(counting, run, found, Measured())
    assert counting.reads
    counting.reads.clear()
    assert measure(counting, run, found, first) == first
    assert counting.reads == []
    assert first.scores is not None
    other = Measured(Scores("b" * 64, 0.9))
    assert measure(store, run, found, other).scores == first.scores


def test_nothing_is_read_for_gates_that_are_not_set(store: Store) -> None:
    artifact = classifier(store, {"dice": {"macro": 0.5}})
    counting = Counting(store)
    gone = InputRef(stage="dataset", key="b" * 64, content_digest="b" * 64)
    found = {"classifier": reference(artifact), "dataset": gone, "gan-trainer": gone}
    seen = measure(counting, small_run(), found, Measured())
    assert (seen.evaluation, seen.size, seen.standing) == (None, None, None)
    assert all("classifier" in place for place in counting.reads)


def test_an_artifact_that_is_gone_is_named(store: Store) -> None:
    gone = InputRef(stage="classifier", key="b" * 64, content_digest="b" * 64)
    with pytest.raises(InputMissing, match=f"artifacts/classifier/{'b' * 64}, which the gates"):
        measure(store, small_run(), {"classifier": gone}, Measured())
