"""How well the classifier segments, measured: macro Dice by block count, members and baselines.

python examples/quality.py [--generator NAME ...] [--out docs] [--work demo/quality] [--threads N]

For each generator shipped in examples/ it draws candidates, labels them by the stand-in's rule and
runs extractor and classifier once for every row of the tables, through one store: what is there
already is not made again. Writes quality.json, and quality.md from that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hdgan.core.artifact import Artifact, Attempt, artifact_key, open_artifact
from hdgan.core.atomic_file import sha256_file
from hdgan.core.errors import HdganError, InputMissing
from hdgan.core.local import EXIT_INTERRUPTED, exit_code, failure_message
from hdgan.core.masks import encode_mask
from hdgan.core.observe import reference
from hdgan.core.pipeline import BY_NAME, STAGE_VERSIONS, External, Observed, stage_request
from hdgan.core.process import StopFlag, run_stage_process
from hdgan.core.progress_view import View, open_view
from hdgan.core.request import StageRequest
from hdgan.core.run import (
    AnnotationsConfig,
    CandidatesConfig,
    ClassifierConfig,
    DatasetRun,
    ExtractorConfig,
    ResourcesConfig,
    load_run,
    resolve,
)
from hdgan.core.store import Store, open_store
from hdgan.desk.candidates import Candidates
from hdgan.desk.intake import import_annotations
from hdgan.desk.png_text import with_candidate_id
from quality_page import render
from quality_scores import (
    Predictions,
    baseline_scores,
    block_scores,
    read_predictions,
    smoothing_scores,
)
from standin_annotator import CLASS_ORDER, label_stains

EXAMPLES = Path(__file__).parent
SHIPPED = ("architecture.json", "generator.safetensors")

# The paper labels 16 + 4 + 16. A rule labels for nothing, so more images can test, which is what
# makes the intervals narrow; training and validation stay as few as an expert's.
SPLITS = {"train": 16, "val": 4, "test": 80}
CANDIDATES = sum(SPLITS.values())
MEMBERS = 10
SINGLE_SEEDS = (0, 1, 2)  # one network alone depends on its seed
PAPER_BLOCKS = 5
SMOOTHING_UM = (2.0, 4.0, 8.0)  # radii, micrometres
LABEL_MPP = 2.0  # micrometres per pixel that the stand-in's lengths are written for


@dataclass(frozen=True)
class Study:
    """What is measured with one generator."""

    blocks: tuple[int, ...]
    epochs: int | None = None
    """Most epochs of the classifier; None: the classifier's default."""
    remark: str = ""
    """What a reader of the table has to know about this generator."""


STUDIES: Mapping[str, Study] = {
    "skin-64": Study(blocks=(1, 2, 3, 4, 5)),
    "skin-256": Study(
        blocks=(3, 5, 7),
        epochs=2,
        remark="This generator is far from trained: collagen and nuclei are only hinted at.",
    ),
}


class StageFailed(Exception):
    """A stage ended with an exit code that ends the measurement; the message says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stages:
    """Runs single stages through a store, as `hdgan run` does; finished ones are only opened."""

    def __init__(self, work: Path, view: View, stop: StopFlag) -> None:
        self.store: Store = open_store((work / "store").absolute().as_uri())
        self._scratch = (work / "scratch").absolute()
        self._view = view
        self._stop = stop

    def artifact(self, name: str, run: DatasetRun, inputs: Mapping[str, Artifact]) -> Artifact:
        """What node `name` of the pipeline makes of `inputs` (by node). Raises StageFailed."""
        request = self._request(name, run, inputs)
        found = open_artifact(self.store, request.stage, request.key)
        if found is None:
            if name == "classifier":
                self._run(self._request("extractor", run, inputs))
            self._run(request)
            found = open_artifact(self.store, request.stage, request.key)
        if found is None:
            raise StageFailed(70, f"{name} ended well but its artifact is not in the store")
        return found

    def _request(self, name: str, run: DatasetRun, inputs: Mapping[str, Artifact]) -> StageRequest:
        observed = Observed({node: reference(artifact) for node, artifact in inputs.items()})
        return stage_request(
            BY_NAME[name],
            run,
            External(slides_key="", slides_digest=""),  # the generator is there: no slide is read
            observed,
            store=self.store.uri,
            scratch=str(self._scratch),
        )

    def _run(self, request: StageRequest) -> None:
        label = f"{request.run} {request.stage}"
        started = time.monotonic()
        self._view.started(label)
        if self._stop:
            raise StageFailed(EXIT_INTERRUPTED, "stopped; the same command goes on")
        ended = run_stage_process(
            request,
            grace=60.0,
            stop=self._stop,
            on_event=lambda event: self._view.event(label, event),
            on_stopping=lambda: self._view.say(f"stopping: {label} saves its state"),
        )
        if ended.stopped and ended.code != 0:
            raise StageFailed(EXIT_INTERRUPTED, "stopped; the same command goes on")
        if ended.code != 0:
            raise StageFailed(exit_code(ended.code), failure_message(label, ended))
        self._view.finished(label, time.monotonic() - started)


def study_run(
    base: DatasetRun,
    study: Study,
    blocks: int,
    *,
    members: int = MEMBERS,
    seed: int = 0,
    threads: int | None = None,
) -> DatasetRun:
    """The run that gives one row: tiles and classes of `base`, everything else stated here."""
    update = {
        "candidates": CandidatesConfig(count=CANDIDATES),
        "annotations": AnnotationsConfig(classes=base.spec.annotations.classes, **SPLITS),
        "extractor": ExtractorConfig(blocks=blocks),
        "classifier": ClassifierConfig(members=members, seed=seed, epochs=study.epochs),
        "resources": ResourcesConfig(threads=threads, processes=1),
    }
    name = f"{base.metadata.name}-b{blocks}-m{members}-s{seed}"
    metadata = base.metadata.model_copy(update={"name": name})
    spec = base.spec.model_copy(update=update)
    return resolve(base.model_copy(update={"metadata": metadata, "spec": spec}))


def put_generator(store: Store, folder: Path) -> Artifact:
    """The generator in `folder` as the gan-trainer's artifact, bytes as they are.

    Its key is that of no training run, so it is never taken for one's result.
    """
    missing = [name for name in SHIPPED if not (folder / name).is_file()]
    if missing:
        raise InputMissing(
            f"{folder}: lacks {', '.join(missing)}: there is no generator to measure"
        )
    digests = {name: sha256_file(folder / name) for name in SHIPPED}
    version = STAGE_VERSIONS["gan-trainer"]
    key = artifact_key("gan-trainer", version, {"shipped": True}, digests)
    found = open_artifact(store, "gan-trainer", key)
    if found is not None:
        return found
    attempt = Attempt(store, "gan-trainer", key, stage_version=version)
    for name in SHIPPED:
        attempt.add_file(name, folder / name)
    return attempt.commit({})


def label_factor(mpp: float) -> int:
    """How many times finer than the stand-in's rule pictures of `mpp` um/px are."""
    return max(1, round(LABEL_MPP / mpp))


def label_at(rgb: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """The stand-in's mask of a picture `factor` times finer than its rule is written for.

    The picture is averaged down to the rule's scale. The mask is enlarged class by class with
    bilinear weights, so that its outlines stay smooth.
    """
    if factor == 1:
        return label_stains(rgb)
    height, width = rgb.shape[:2]
    labels = label_stains(np.asarray(Image.fromarray(rgb).reduce(factor)))
    weights = []
    for value in range(len(CLASS_ORDER)):
        plane = Image.fromarray((labels == value).astype(np.float32))
        weights.append(np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)))
    winner: npt.NDArray[np.uint8] = np.stack(weights).argmax(axis=0).astype(np.uint8)
    return winner


def annotate(store: Store, candidates: Artifact, config: AnnotationsConfig, mpp: float) -> Artifact:
    """Label the candidates by the stand-in's rule and publish the masks as an import does."""
    names = tuple(one.name for one in config.classes)
    if names != CLASS_ORDER:
        raise InputMissing(f"the stand-in labels {', '.join(CLASS_ORDER)}, not {', '.join(names)}")
    view = Candidates(candidates)
    with tempfile.TemporaryDirectory() as folder:
        for identity in view.assign(config):
            labels = label_at(view.rgb(identity), label_factor(mpp))
            mask = with_candidate_id(encode_mask(labels, config.classes), identity)
            Path(folder, f"{identity}.png").write_bytes(mask)
        author = {"author": "examples/standin_annotator.py"}
        return import_annotations(store, view, config, [Path(folder)], run_info=author).artifact


def measure(stages: Stages, folder: Path, study: Study, threads: int | None) -> dict[str, Any]:
    """All figures of the generator in `folder`, as quality.json states them."""
    base = load_run(folder / "run.yaml")
    generator = put_generator(stages.store, folder)
    inputs = {"gan-trainer": generator}
    first = study_run(base, study, study.blocks[0], threads=threads)
    inputs["candidates"] = stages.artifact("candidates", first, inputs)
    mpp = base.spec.tiler.mpp
    inputs["annotations"] = annotate(
        stages.store, inputs["candidates"], first.spec.annotations, mpp
    )
    size = base.spec.tiler.tile_size

    def classify(blocks: int, members: int = MEMBERS, seed: int = 0) -> Predictions:
        run = study_run(base, study, blocks, members=members, seed=seed, threads=threads)
        classifier = stages.artifact("classifier", run, inputs)
        return read_predictions(classifier, inputs["annotations"])

    ensembles = {blocks: classify(blocks) for blocks in study.blocks}
    singles = {
        blocks: [classify(blocks, members=1, seed=seed) for seed in SINGLE_SEEDS]
        for blocks in study.blocks
    }
    paper = ensembles[PAPER_BLOCKS]
    return {
        "generator": generator.content_digest,
        "tileSize": size,
        "mpp": mpp,
        "images": SPLITS,
        "members": MEMBERS,
        "epochs": first.spec.classifier.epochs,
        "epochsAsked": study.epochs,
        "kimg": base.spec.gan_trainer.kimg,
        "remark": study.remark,
        "boundaryToleranceUm": first.spec.classifier.boundary_tolerance_um,
        "labelFactor": label_factor(mpp),
        "singleSeeds": list(SINGLE_SEEDS),
        "paperBlocks": PAPER_BLOCKS,
        "blocks": [
            {
                "blocks": blocks,
                "resolutions": [size >> up for up in reversed(range(blocks))],
                **block_scores(ensembles[blocks], singles[blocks], paper),
            }
            for blocks in study.blocks
        ],
        "baselines": baseline_scores(paper),
        "smoothing": smoothing_scores(paper, mpp, SMOOTHING_UM),
    }


def write_results(out: Path, measured: Mapping[str, dict[str, Any]]) -> None:
    """quality.json with the generators in `measured` replaced, others kept; quality.md from it."""
    path = out / "quality.json"
    document: dict[str, Any] = {"format": 1, "generators": {}}
    if path.is_file():
        document = json.loads(path.read_text("utf-8"))
    found = {**document["generators"], **measured}
    document["generators"] = {name: found[name] for name in STUDIES if name in found}
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (out / "quality.md").write_text(render(document), "utf-8")


def shipped_generators() -> list[str]:
    """The generators of STUDIES whose weights are in this repository."""
    return [n for n in STUDIES if all((EXAMPLES / n / name).is_file() for name in SHIPPED)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure segmentation quality; write docs.")
    parser.add_argument(
        "--generator", action="append", choices=list(STUDIES), help="default: all that are shipped"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="default: docs")
    parser.add_argument("--work", type=Path, default=Path("demo/quality"), help="store, scratch")
    parser.add_argument("--threads", type=int, help="CPU threads; default: all cores")
    options = parser.parse_args(arguments)
    view, stop = open_view(sys.stdout), StopFlag()
    try:
        with stop.listen():
            stages = Stages(options.work, view, stop)
            for name in options.generator or shipped_generators():
                measured = measure(stages, EXAMPLES / name, STUDIES[name], options.threads)
                write_results(options.out, {name: measured})
    except StageFailed as failure:
        view.say(f"quality: {failure}")
        return failure.code
    except HdganError as error:
        view.say(f"quality: {error}")
        return error.exit_code
    finally:
        view.close()
    view.say(f"quality: {options.out / 'quality.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
