"""Reads what gates look at: scores, the generator's evaluation, the number of pairs, and the
release a new one is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.errors import InputMissing
from hdgan.core.gates import Evaluation, Measured, Scores, Size, Standing, finite
from hdgan.core.json_documents import MAX_BYTES, JsonError, parse_json
from hdgan.core.releases import before_it, read_release
from hdgan.core.request import InputRef
from hdgan.core.run import DatasetRun
from hdgan.core.score_documents import scores_on_test_images, within
from hdgan.core.store import Store


def measure(
    store: Store, run: DatasetRun, found: Mapping[str, InputRef], known: Measured
) -> Measured:
    """What the gates that are set look at, as far as it is there.

    found  the artifacts that exist, by stage
    known  what was read before; of artifacts, which never change, it is not read again
    """
    gates = run.spec.gates
    scores, evaluation, size, standing = known.scores, known.evaluation, known.size, None
    classifier, generator = found.get("classifier"), found.get("gan-trainer")
    dataset = found.get("dataset")
    if classifier is not None and not _same(scores, classifier):
        scores = scores_of(_opened(store, classifier))
    compared = gates.max_kid is not None or gates.max_memorisation is not None
    if compared and generator is not None and not _same(evaluation, generator):
        evaluation = evaluation_of(_opened(store, generator))
    if gates.min_pairs is not None and dataset is not None and not _same(size, dataset):
        size = size_of(_opened(store, dataset))
    if gates.max_drop_vs_latest is not None and classifier is not None:
        standing = standing_of(store, run.dataset_name, dataset)
    return Measured(scores, evaluation, size, standing)


def scores_of(classifier: Artifact) -> Scores:
    """Macro Dice, and IoU by class, on the test images."""
    found = scores_on_test_images(_document(classifier, "scores.json"))
    return Scores(classifier.content_digest, found.macro_dice, found.class_iou)


def evaluation_of(generator: Artifact) -> Evaluation:
    """What the trainer measured in the end."""
    if "evaluation.json" not in generator:
        return Evaluation(
            generator.content_digest,
            lack="nothing was measured when it was trained: ganTrainer.featureExtractor was none",
        )
    document = _document(generator, "evaluation.json")
    reason = within(document, "reason")
    name = within(document, "extractor", "name")
    return Evaluation(
        generator.content_digest,
        kid=finite(within(document, "kid", "whole", "mean")),
        kid_error=finite(within(document, "kid", "whole", "standard_error")),
        extractor=name[:200] if isinstance(name, str) else "",
        memorisation=finite(within(document, "memorisation", "share")),
        lack=reason if isinstance(reason, str) else "",
    )


def size_of(dataset: Artifact) -> Size:
    """How many pairs its index has. InputMissing if that is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with TemporaryDirectory(prefix="hdgan-index-") as folder:
        path = dataset.fetch("index.parquet", Path(folder) / "index.parquet")
        try:
            return Size(dataset.content_digest, int(pq.read_metadata(path).num_rows))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputMissing(
                f"{dataset.uri('index.parquet')} is no parquet table, or damaged: "
                f"{str(error).splitlines()[0]}"
            ) from error


def standing_of(store: Store, dataset_name: str, dataset: InputRef | None) -> Standing:
    """The release that a dataset is compared with: see `before_it`."""
    name = before_it(store, dataset_name, None if dataset is None else dataset.content_digest)
    if name is None:
        return Standing()
    try:
        release = read_release(store, dataset_name, name)
    except InputMissing:  # damaged or gone: there is nothing to compare with, so it does not pass
        return Standing(name)
    annotations = release.artifacts.get("annotations")
    return Standing(
        name,
        finite(release.macro_dice),
        None if annotations is None else annotations.content_digest,
    )


def _same(known: Scores | Evaluation | Size | None, artifact: InputRef) -> bool:
    return known is not None and known.of == artifact.content_digest


def _opened(store: Store, reference: InputRef) -> Artifact:
    artifact = open_artifact(store, reference.stage, reference.key)
    if artifact is None or artifact.content_digest != reference.content_digest:
        raise InputMissing(
            f"{store.url(f'artifacts/{reference.stage}/{reference.key}')}, which the gates look "
            "at, is gone or was made anew: start the run again"
        )
    return artifact


def _document(artifact: Artifact, name: str) -> Any:
    try:
        if artifact.entry(name).size > MAX_BYTES:
            raise JsonError(f"it has {artifact.entry(name).size} bytes")
        return parse_json(artifact.read(name))
    except ValueError as error:
        raise InputMissing(f"{artifact.uri(name)} is not JSON: {error}") from error
