"""The run: one strict model of the run file, read with errors a person can act on.

`load_run` reads YAML or JSON, `resolve` fills in everything that was left to a default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from hdgan.core.errors import RequestError, StoreError
from hdgan.core.resources import ResourcesConfig
from hdgan.core.run_errors import explain
from hdgan.core.run_file import parse_document
from hdgan.core.sections import (
    AnnotationsConfig,
    CandidatesConfig,
    ClassConfig,
    ClassifierConfig,
    ClassifierTraining,
    ExtractorConfig,
    GanTrainerConfig,
    GatesConfig,
    Section,
    SlidesConfig,
    SynthesizerConfig,
    TilerConfig,
    semantic,
)
from hdgan.core.uris import file_path, is_path, split_uri

__all__ = [
    "API_VERSION",
    "AnnotationsConfig",
    "CandidatesConfig",
    "ClassConfig",
    "ClassifierConfig",
    "ClassifierTraining",
    "DatasetRun",
    "ExtractorConfig",
    "GanTrainerConfig",
    "GatesConfig",
    "Metadata",
    "ResourcesConfig",
    "RunSpec",
    "Section",
    "SlidesConfig",
    "SynthesizerConfig",
    "TilerConfig",
    "load_run",
    "parse_run",
    "resolve",
    "semantic",
]

API_VERSION = "hdgan.io/v1alpha1"
RerunStage = Literal["tiler", "gan-trainer", "candidates", "classifier", "dataset"]


class Metadata(Section):
    """What Kubernetes calls metadata."""

    name: str = Field(min_length=1, max_length=52, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    """Name of the run: lower-case letters, digits and -, at most 52 characters (Job names are made
    from it). Required."""


class RunSpec(Section):
    """Everything a run is told, one section per stage."""

    NOT_SEMANTIC: ClassVar[frozenset[str]] = frozenset(
        {"dataset", "generator", "resources", "gates", "suspend", "retry"}
    )

    dataset: str | None = Field(
        None, min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
    )
    """Name of the dataset that this run makes a release of; runs of one name follow each other.
    Null: the run's name."""

    generator: Literal["train", "pinned"] = "train"
    """`train`: train one on the tiles. `pinned`: go on with the generator, the candidates and the
    annotations of the dataset's latest release; slides are tiled, but train nothing."""

    slides: SlidesConfig
    """The slides. Required."""

    tiler: TilerConfig = TilerConfig()
    """Slides to tiles."""

    gan_trainer: GanTrainerConfig = GanTrainerConfig()
    """Tiles to generator."""

    candidates: CandidatesConfig = CandidatesConfig()
    """Generator to the images an expert labels."""

    annotations: AnnotationsConfig
    """Classes and how many images are labelled. Required."""

    extractor: ExtractorConfig = ExtractorConfig()
    """Generator and annotations to features."""

    classifier: ClassifierConfig = ClassifierConfig()
    """Features to an ensemble of pixel classifiers."""

    synthesizer: SynthesizerConfig = SynthesizerConfig()
    """Generator and ensemble to the dataset."""

    gates: GatesConfig = GatesConfig()
    """What has to hold before a dataset is released."""

    resources: ResourcesConfig = ResourcesConfig()
    """What the run may use."""

    rerun: dict[RerunStage, Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        {}, max_length=8
    )
    """Computes a stage again although its artifact exists: stage name to a token of your choice,
    such as a date. The token enters the key; the same token is reused like anything else."""

    suspend: bool = False
    """On a cluster: true ends what is running, its state saved, until it is false again."""

    retry: str | None = Field(None, min_length=1, max_length=64)
    """On a cluster: a new value, such as a date, makes a run that failed go on, with new attempts.
    """

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.extractor.blocks > self.tiler.synthesis_blocks:
            raise ValueError(
                f"extractor.blocks is {self.extractor.blocks}, but a generator for tiler.tileSize"
                f" {self.tiler.tile_size} has {self.tiler.synthesis_blocks} synthesis blocks:"
                " use at most that many"
            )
        if self.tiler.compartments and self.slides.outlines is None:
            raise ValueError(
                "tiler.compartments names classes, but slides.outlines does not say where their"
                " outlines are"
            )
        if self.gan_trainer.holdout_fold >= self.tiler.folds:
            raise ValueError(
                f"ganTrainer.holdoutFold is {self.gan_trainer.holdout_fold}, but tiler.folds is"
                f" {self.tiler.folds}: use -1 (none) to {self.tiler.folds - 1}"
            )
        again = {"gan-trainer", "candidates"} & set(self.rerun)
        if self.generator == "pinned" and again:
            raise ValueError(
                f"rerun names {', '.join(sorted(again))}, but generator is pinned: the release's is"
                " used. Leave one of them out"
            )
        if self.annotations.total > self.candidates.count:
            raise ValueError(
                f"annotations ask for {self.annotations.total} labelled images (train + val"
                f" + test), but candidates.count is {self.candidates.count}: ask for fewer, or"
                " make more"
            )
        return self

    @model_validator(mode="after")
    def _gates_can_be_passed(self) -> Self:
        """A gate that nothing could pass is better known before anything is computed."""
        gates, trainer = self.gates, self.gan_trainer
        names = [one.name for one in self.annotations.classes]
        for name in gates.min_class_iou:
            if name not in names:
                raise ValueError(
                    f"gates.minClassIou.{name}: there is no class {name!r} in annotations.classes;"
                    f" there are {', '.join(names)}"
                )
        if gates.min_pairs is not None and gates.min_pairs > self.synthesizer.count:
            raise ValueError(
                f"gates.minPairs is {gates.min_pairs}, but synthesizer.count is"
                f" {self.synthesizer.count}: ask for fewer, or make more"
            )
        trains = self.generator == "train"
        for name, limit, compared in (
            ("maxKid", gates.max_kid, True),
            ("maxMemorisation", gates.max_memorisation, trains),
        ):
            if limit is None:
                continue
            if compared and trainer.feature_extractor == "none":
                raise ValueError(
                    f"gates.{name} is {limit}, but ganTrainer.featureExtractor is none, so nothing"
                    " is measured: name an extractor, or leave the gate out"
                )
            if trains and trainer.holdout_fold < 0:
                raise ValueError(
                    f"gates.{name} is {limit}, but ganTrainer.holdoutFold is"
                    f" {trainer.holdout_fold}, so there are no tiles to compare with: hold a fold"
                    " out, or leave the gate out"
                )
        return self


class DatasetRun(Section):
    """A run file: the same document serves `hdgan run` and `kubectl apply`."""

    api_version: Literal["hdgan.io/v1alpha1"]
    """Version of this format. Required."""

    kind: Literal["DatasetRun"]
    """What this document is. Required."""

    metadata: Metadata
    """Name of the run. Required."""

    spec: RunSpec
    """What to do. Required."""

    @property
    def dataset_name(self) -> str:
        """Name of the dataset that the run makes a release of."""
        return self.spec.dataset or self.metadata.name


def parse_run(document: object, source: str = "run") -> DatasetRun:
    """Validate a parsed document (names as in files). `source` names it in errors
    (RequestError)."""
    if not isinstance(document, dict):
        raise RequestError(
            f"{source}: the document must be a mapping with apiVersion, kind, metadata and spec,"
            f" not {type(document).__name__}"
        )
    try:
        return DatasetRun.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        raise RequestError(explain(error, DatasetRun, source)) from None


def load_run(path: Path | str) -> DatasetRun:
    """Read a run file (YAML, or JSON by its suffix) and make its relative paths absolute.

    Raises RequestError with file, dotted path, offending value and what is allowed.
    """
    path = Path(path)
    run = parse_run(parse_document(path), str(path))
    folder = path.resolve().parent
    spec = run.spec
    places = {name: getattr(spec.slides, name) for name in ("uri", "metadata", "outlines")}
    slides = spec.slides.model_copy(
        update={
            name: place and _anchored(place, folder, f"{path}: spec.slides.{name}")
            for name, place in places.items()
        }
    )
    trainer = spec.gan_trainer
    if trainer.init_from is not None:
        init_from = _anchored(trainer.init_from, folder, f"{path}: spec.ganTrainer.initFrom")
        trainer = trainer.model_copy(update={"init_from": init_from})
    return run.model_copy(
        update={"spec": spec.model_copy(update={"slides": slides, "gan_trainer": trainer})}
    )


def _anchored(uri: str, folder: Path, where: str) -> str:
    """A URI or absolute path as it is; a relative path as seen from `folder`. RequestError, which
    names `where`, for a URI that is none or carries credentials."""
    try:
        if is_path(uri):
            return str((folder / uri).resolve())
        parts = split_uri(uri)
        if parts.scheme == "file":
            file_path(parts)
    except StoreError as error:
        raise RequestError(f"{where}: {error}") from None
    return uri


def resolve(run: DatasetRun) -> DatasetRun:
    """The run with every value that null left open filled in, except those only a machine can know.

    `resources.threads`, `resources.processes` and `slides.assumeMpp` stay null. Idempotent.

    Raises RequestError where what was left open cannot be filled in.
    """
    spec = run.spec
    tiler = spec.tiler.model_copy(update={"stride": spec.tiler.stride_px})
    resources = spec.resources
    processes = 1 if resources.device == "cpu" and not resources.processes else resources.processes
    try:
        trainer = spec.gan_trainer.resolve(tiler.tile_size, processes)
    except ValidationError as error:
        raise RequestError(explain(error, GanTrainerConfig, "spec.ganTrainer")) from None
    update = {"tiler": tiler, "gan_trainer": trainer, "classifier": spec.classifier.resolve()}
    return run.model_copy(update={"spec": spec.model_copy(update=update)})
