"""The sections of a run: one strict, frozen model per stage, checked when it is built.

Each field's docstring says its unit, why the default is what it is and what null means. JSON schema
and `docs/run-file.md` are generated from here, so the text exists once. In files names are
camelCase.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from hdgan.core.errors import RequestError

Noise = Literal["constant", "perSample"]
AugmentSetName = Literal[
    "histology",
    "blit",
    "geom",
    "color",
    "filter",
    "noise",
    "cutout",
    "bg",
    "bgc",
    "bgcf",
    "bgcfn",
    "bgcfnc",
]
Optimizer = Literal["adam", "sgd"]


class Section(BaseModel):
    """Base of all models of the run file: strict, frozen, unknown fields refused, null = absent."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    NOT_SEMANTIC: ClassVar[frozenset[str]] = frozenset()
    """Fields that never enter an artifact key: the output does not depend on them."""

    NEUTRAL: ClassVar[dict[str, Any]] = {}
    """Neutral values that differ from the field's default (see `semantic`)."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        """Drop nulls of known fields, so that null means the default; unknown names stay and are
        refused."""
        if not isinstance(data, dict):
            return data
        known = set(cls.model_fields) | {field_alias(cls, name) for name in cls.model_fields}
        return {
            name: value for name, value in data.items() if value is not None or name not in known
        }


def field_alias(model: type[BaseModel], name: str) -> str:
    """The name a field has in files."""
    return model.model_fields[name].alias or name


def semantic(config: BaseModel) -> dict[str, Any]:
    """The part of a (resolved) section that enters an artifact key, as JSON values under file
    names.

    Left out are the fields in `NOT_SEMANTIC` and every field at its neutral value: its default, or
    the value in `NEUTRAL`. So a new option whose default does what was done before changes no key.
    Changing a default, in turn, needs a new `stageVersion`.
    """
    hidden: frozenset[str] = getattr(config, "NOT_SEMANTIC", frozenset())
    neutral: dict[str, Any] = getattr(config, "NEUTRAL", {})
    values = config.model_dump(mode="json", by_alias=True)
    chosen: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        if name in hidden:
            continue
        value = getattr(config, name)
        if name in neutral:
            if value == neutral[name]:
                continue
        elif not field.is_required() and value == field.get_default(call_default_factory=True):
            continue
        alias = field.alias or name
        chosen[alias] = semantic(value) if isinstance(value, Section) else values[alias]
    return chosen


def _each_once(values: list[str], what: str, fold: Callable[[str], str] = str.casefold) -> None:
    seen: dict[str, str] = {}
    for value in values:
        if fold(value) in seen:
            raise ValueError(f"{what} must be unique, but {value!r} appears more than once")
        seen[fold(value)] = value


class SlidesConfig(Section):
    """Which whole-slide images the run reads and what is assumed about them."""

    # Slides, their table and their outlines enter keys by content.
    NOT_SEMANTIC = frozenset({"uri", "metadata", "outlines", "max_bad_slides"})

    uri: str = Field(min_length=1, max_length=2048)
    """Folder, single file or `s3://bucket/prefix` with the slides. A relative path is relative to
    the run file. Required."""

    metadata: str | None = Field(None, min_length=1, max_length=2048)
    """Table of what is known about slides: a CSV file or `s3://` object with a column `slide` (path
    below `uri`, file name, or file name without ending) and any of `case`, `stain`, `centre`,
    `diagnosis`, and `mpp` or `mppX` and `mppY`, which hold instead of what the slide says. Other
    columns are left alone. A relative path is relative to the run file. Null: there is none."""

    outlines: str | None = Field(None, min_length=1, max_length=2048)
    """Folder or `s3://` prefix with the outlines `tiler.compartments` needs: for each slide a
    GeoJSON file as QuPath exports it, in level-0 pixels, named like the slide with the ending
    `.geojson` (`a.svs`: `a.geojson`). A relative path is relative to the run file."""

    assume_mpp: float | None = Field(None, gt=0, le=100)
    """Micrometres per pixel to assume for a slide that does not state its own. Null: such a slide
    is refused, because a guessed scale silently ruins everything downstream."""

    assume_slide_is_case: bool = False
    """Take each slide for a case (patient) of its own where nothing else names one. Off by
    default: two slides of one patient in different folds leak, so this has to be said, not
    guessed."""

    case_pattern: str | None = Field(None, min_length=1, max_length=500)
    """Regular expression with a group named `case`, searched in the slide's file name: what it
    captures is the case, e.g. `^(?P<case>TCGA-..-....)`, unless `metadata` names one. Null: cases
    do not come from file names."""

    max_bad_slides: int = Field(0, ge=0, le=1_000_000)
    """How many slides may be unreadable before the tiler gives up (exit 65). 0: a broken slide is
    news."""

    @field_validator("case_pattern")
    @classmethod
    def _has_case_group(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            with warnings.catch_warnings(action="ignore"):  # of what some later Python may mean
                pattern = re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        if "case" not in pattern.groupindex:
            raise ValueError("needs a group named case, such as (?P<case>[^_]+)")
        return value


class TilerConfig(Section):
    """How slides are cut into training tiles."""

    tile_size: int = Field(4096, ge=32, le=4096)
    """Side of a tile and of everything generated, in pixels; a power of two from 32 to 4096. 4096
    is the largest the networks support, the scale at which whole glands fit."""

    mpp: float = Field(0.25, gt=0, le=100)
    """Scale of the tiles in micrometres per pixel. 0.25 is what a 40x scanner gives."""

    stride: int | None = Field(None, ge=1, le=65_536)
    """Distance between the corners of neighbouring tiles, in tile pixels. Null: `tileSize`, tiles
    that touch and do not overlap. Smaller values give more, overlapping tiles."""

    tissue: Literal["map", "everywhere"] = "map"
    """Where tiles are looked for. `map`: where a small picture of the slide shows tissue, every
    piece of it; the rest is not read. `everywhere`: at every place of the grid."""

    max_whitespace: float = Field(0.5, ge=0, le=1)
    """Largest share of a tile, 0 to 1, that may be glass without tissue. 0.5 keeps tissue
    borders."""

    max_pen: float | None = Field(0.02, ge=0, le=1)
    """Largest share of a tile, 0 to 1, that may be pen marks. 0.02: a mark's edge is easily
    overlooked by eye and easily learned by a network. Null: pen is not looked for."""

    min_focus: float | None = Field(None, gt=0, le=1000)
    """Least sharpness of a tile, as in the column `focus` of the index; tiles with too little
    structure to tell are kept, and all above 1.35 um per pixel. 0.3 tells 2 um of blur from sharp
    on the slides we have. Null: blurred tiles are kept, too; what is sharp enough depends on the
    scanner."""

    compartments: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default=[], max_length=100
    )
    """Classes of `slides.outlines` of interest: only tiles that show enough of them are kept.
    Empty: outlines are not looked at."""

    min_compartment: float = Field(0.1, gt=0, le=1)
    """Least share of a tile, above 0 to 1, inside outlines of `compartments`. 0.1: a glomerulus
    fills about a tenth of a tile of 1 mm."""

    colour: Literal["raw", "srgb"] = "raw"
    """`raw`: pixels as the scanner stored them. `srgb`: converted by the colour profile that is
    embedded in the slide; a slide without one stays as it is, which is recorded."""

    format: Literal["png", "jpeg"] = "png"
    """File format of tiles. `png`: lossless. `jpeg`: smaller by about ten, without chroma
    subsampling; generative networks learn its 8 px grid."""

    jpeg_quality: int = Field(95, ge=95, le=100)
    """Quality of JPEG tiles, 95 to 100. Without effect on PNG."""

    holdout: Literal["case", "spatial"] = "case"
    """How folds are made. `case`: all tiles of a case share a fold. `spatial`: contiguous blocks of
    each slide, for when there is only one case; outputs say so, because it measures less."""

    folds: int = Field(5, ge=2, le=100)
    """Number of folds. 5: one fifth of the cases can be held out."""

    shard_tiles: int = Field(1000, ge=1, le=100_000)
    """Most tiles in one tar shard. 1000: large enough to stream, small enough to hold."""

    @field_validator("tile_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("must be a power of two: 32, 64, 128, 256, 512, 1024, 2048 or 4096")
        return value

    @field_validator("compartments")
    @classmethod
    def _named_once(cls, values: list[str]) -> list[str]:
        _each_once(values, "compartments", fold=str)
        return values

    @property
    def stride_px(self) -> int:
        """The stride in tile pixels, with null resolved."""
        return self.tile_size if self.stride is None else self.stride

    @property
    def synthesis_blocks(self) -> int:
        """Synthesis blocks of a generator for this tile size: one for each resolution from 4 on."""
        return self.tile_size.bit_length() - 2


GanPreset = Literal["paper", "auto", "tile4096", "demo"]

GAN_PRESETS: dict[str, dict[str, Any]] = {
    # Karras et al. 2020b, appendix C, configuration for large images: rate 0.002, R1 weight 2,
    # augmentations up to colour, no ramp of the half-life, half of the resolutions in 16 bits.
    "paper": {
        "learning_rate": 0.002,
        "r1_gamma": 2.0,
        "augment_set": "bgc",
        "ema_rampup": 1_000_000.0,
        "precision": "bfloat16",
        "conv_clamp": 256.0,
    },
    # Everything it stands for depends on tile size and processes: see `auto_training`.
    "auto": {"precision": "bfloat16", "conv_clamp": 256.0},
    # One image of 4096 px at a time on a device; all but the lowest resolutions in 16 bits and the
    # largest four computed again in the backward pass, where nearly all of the memory is.
    "tile4096": {
        "learning_rate": 0.002,
        "batch": 32,
        "per_device_batch": 2,
        "minibatch_std_group": 2,
        "r1_gamma": 32.0,
        "mirror": True,
        "precision": "bfloat16",
        "mixed_resolutions": 8,
        "conv_clamp": 256.0,
        "recompute_resolutions": 5,
    },
    # Narrow networks, for a processor: the shipped example generator is of this size.
    "demo": {
        "kimg": 300.0,
        "channel_base": 2048,
        "channel_max": 96,
        "latent_dim": 128,
        "mapping_layers": 4,
        "r1_gamma": 0.5,
        "mirror": True,
        "augment_p": 0.2,
        "ada_kimg": 100.0,
        "precision": "bfloat16",
        "mixed_resolutions": 3,
        "snapshot_kimg": 5.0,
        "metric_kimg": 20.0,
        "metric_samples": 500,
    },
}
"""What a preset puts where the file says nothing."""


def auto_training(tile_size: int, processes: int, batch: int | None = None) -> dict[str, Any]:
    """Batch, width, learning rate and half-life by tile size (px) and number of processes.

    Source: Karras et al. 2020b, appendix C, and its published automatic configuration: batches as
    large as memory allows up to 32 per device and 64 in all, half the width below 512 px. Every
    process gets at least one whole minibatch-standard-deviation group.

    Args:
        batch: where it is given, what depends on it follows it; None: it is chosen, too.
    """
    if batch is None:
        batch = max(min(processes * min(4096 // tile_size, 32), 64), processes)
        batch -= batch % processes
    fitting = [size for size in (1, 2, 4) if batch % size == 0 and batch // size >= processes]
    return {
        "batch": batch,
        "minibatch_std_group": max(fitting, default=1),
        "path_length_batch_shrink": 2 if batch % 2 == 0 else 1,
        "channel_base": 32_768 if tile_size >= 512 else 16_384,
        "learning_rate": 0.002 if tile_size >= 1024 else 0.0025,
        "ema_kimg": batch * 10 / 32,
    }


class GanTrainerConfig(Section):
    """StyleGAN2-ADA training (Karras et al. 2020a, 2020b). kimg = thousands of real images
    shown."""

    NOT_SEMANTIC = frozenset(
        {
            "preset",  # what it stands for enters, field by field
            "snapshot_kimg",
            "keep_snapshots",
            "init_from",  # enters by content
            "per_device_batch",
            "recompute_resolutions",
            "metric_kimg",  # measuring changes no weight
            "metric_samples",
            "feature_extractor",
        }
    )

    preset: GanPreset | None = None
    """Other defaults for a purpose; fields that are given win. `paper`: StyleGAN2-ADA as published
    (set bgc, no half-life ramp). `auto`: batch, width, rate and half-life by tile size and
    `resources.processes`. `tile4096`: what tiles of 1024 to 4096 px need on one node of large GPUs.
    `demo`: narrow networks that learn on a CPU. Null: the defaults below."""

    kimg: float = Field(25_000.0, gt=0, le=1_000_000)
    """Length of training in kimg. 25,000 is the usual StyleGAN2-ADA budget."""

    batch: int = Field(32, ge=1, le=4096)
    """Images in one optimizer step, over all devices. 32 is StyleGAN2's value at 1024 px; a
    multiple of `minibatchStdGroup` and of `pathLengthBatchShrink`."""

    channel_base: int = Field(32_768, ge=64, le=1_048_576)
    """Width of the networks: a layer at resolution r has min(channelBase / r, channelMax) feature
    maps. 32,768 is StyleGAN2's config F."""

    channel_max: int = Field(512, ge=4, le=2048)
    """Most feature maps of a layer. 512 as in StyleGAN2."""

    latent_dim: int = Field(512, ge=4, le=2048)
    """Dimension of z and of w. 512 as in StyleGAN2."""

    mapping_layers: int = Field(8, ge=1, le=16)
    """Layers of the mapping network. 8 as in StyleGAN2."""

    learning_rate: float = Field(0.0025, gt=0, le=1)
    """Adam's learning rate for both networks. 0.0025 is StyleGAN2-ADA's for small batches."""

    beta1: float = Field(0.0, ge=0, lt=1)
    """Adam's beta1. 0 as in StyleGAN2: momentum hurts adversarial training."""

    beta2: float = Field(0.99, gt=0, lt=1)
    """Adam's beta2. 0.99 as in StyleGAN2."""

    mapping_lr_multiplier: float = Field(0.01, gt=0, le=1)
    """Learning-rate factor of the mapping network. 0.01 as in StyleGAN2."""

    r1_gamma: float | None = Field(None, ge=0, le=10_000)
    """Weight of the R1 gradient penalty. Null: 0.0002 * tileSize^2 / batch, the heuristic of
    StyleGAN2-ADA. 0 turns it off."""

    conv_clamp: float | None = Field(None, gt=0, le=65_504)
    """Largest magnitude of an activation behind a convolution; 256 in StyleGAN2-ADA, where it keeps
    16-bit numbers finite. Part of the networks. Null: none."""

    r1_interval: int = Field(16, ge=1, le=1024)
    """Discriminator steps from one R1 penalty to the next. 16 as in StyleGAN2 (lazy
    regularisation)."""

    path_length_weight: float = Field(2.0, ge=0, le=1000)
    """Weight of the path-length penalty. 2 as in StyleGAN2; 0 turns it off."""

    path_length_interval: int = Field(4, ge=1, le=1024)
    """Generator steps from one path-length penalty to the next. 4 as in StyleGAN2."""

    path_length_decay: float = Field(0.01, gt=0, le=1)
    """Decay of the running mean path length. 0.01 as in StyleGAN2."""

    path_length_batch_shrink: int = Field(2, ge=1, le=64)
    """The path-length penalty uses batch / this many images, to save memory. 2 as in StyleGAN2."""

    style_mixing: float = Field(0.9, ge=0, le=1)
    """Probability that a training image mixes the styles of two latents. 0.9 as in StyleGAN2."""

    ema_kimg: float = Field(10.0, ge=0, le=10_000)
    """Half-life of the generator's moving average, in kimg. 10 as in StyleGAN2; 0: no averaging."""

    ema_rampup: float = Field(0.05, gt=0, le=1_000_000)
    """The half-life is at most this share of the images shown so far, so that early averages forget
    the random start. 0.05 as in StyleGAN2-ADA; a large number such as 1000000 turns the ramp
    off, and with `initFrom` there is none: nothing is to be forgotten."""

    w_avg_beta: float = Field(0.995, ge=0, lt=1)
    """Decay, per step, of the mean w that truncation pulls towards. 0.995 as in StyleGAN2."""

    minibatch_std_group: int = Field(4, ge=1, le=256)
    """Images the discriminator's minibatch standard deviation compares. 4 as in StyleGAN2."""

    mirror: bool = False
    """Show every tile also mirrored left to right, at random: twice the data, since a slide has no
    left or right. Off by default as in StyleGAN2-ADA; turn it on for small sets."""

    augment: Literal["noaug", "ada", "fixed"] = "ada"
    """Discriminator augmentation: `ada` adapts its probability to over-fitting (Karras et al.
    2020b), `fixed` keeps `augmentP`, `noaug` is off."""

    augment_p: float = Field(0.0, ge=0, le=1)
    """Augmentation probability: where `ada` starts, what `fixed` keeps. 0: `ada` finds it."""

    augment_set: AugmentSetName = "histology"
    """Set of augmentations, named as in Karras et al. 2020b: `bgc` is blit, geom and color,
    and so on. `histology`: those a slide allows (flips, rotations, scale, mild brightness, contrast
    and saturation; no luma flip and no hue, which would invent stains)."""

    ada_target: float = Field(0.6, ge=-1, le=1)
    """Value of the over-fitting signal r_t that ADA steers to. 0.6 as in StyleGAN2-ADA."""

    ada_interval: int = Field(4, ge=1, le=1024)
    """Steps from one ADA adjustment to the next. 4 as in StyleGAN2-ADA."""

    ada_kimg: float | None = Field(None, gt=0, le=1_000_000)
    """kimg in which ADA's probability can go from 0 to 1. Null: 500 as in StyleGAN2-ADA, 100 with
    `initFrom`."""

    conditional: Literal["none", "stain"] = "none"
    """`stain`: networks are told the stain of each tile and can be asked for one. Every training
    tile then needs a stain, and there must be at least two."""

    holdout_fold: int = Field(0, ge=-1, le=99)
    """Fold that is never trained on and is compared with (0-based). -1: train on everything."""

    snapshot_kimg: float = Field(50.0, gt=0, le=100_000)
    """Training state is saved at this interval in kimg, and every 15 minutes at the latest: the
    most work a crash can cost. Does not change the result."""

    keep_snapshots: int = Field(2, ge=2, le=100)
    """Newest states that are kept while training; the best generator by KID is kept besides. 2: one
    in case the newest is damaged."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the blocks in `mixedResolutions`. float32 runs everywhere; bfloat16 is
    faster on recent GPUs."""

    mixed_resolutions: int = Field(4, ge=0, le=11)
    """How many of the highest resolutions run in `precision`; the others stay float32. 4 as in
    StyleGAN2-ADA. Without effect with `precision: float32`."""

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seed of initial weights, data order, latents and augmentation."""

    per_device_batch: int | None = Field(None, ge=1, le=4096)
    """Most images a process works on at once; its share of `batch` is done in such pieces and the
    gradients are added up. A multiple of `minibatchStdGroup`. Null: the whole share. Does not
    change the result beyond rounding."""

    recompute_resolutions: int = Field(0, ge=0, le=11)
    """How many of the highest resolutions compute their activations again in the backward pass
    instead of keeping them: less memory, about a third more time. Does not change the result."""

    freeze_d: int = Field(0, ge=0, le=10)
    """How many of the discriminator's highest resolutions stay as they are in `initFrom` (Mo et al.
    2020, FreezeD). 0: none."""

    freeze_mapping: bool = False
    """Keep the mapping network as it is in `initFrom`."""

    metric_kimg: float = Field(1000.0, ge=0, le=100_000)
    """KID against the held-out tiles is measured at this interval in kimg. 0: only at the end."""

    metric_samples: int = Field(2048, ge=16, le=1_000_000)
    """Generated images that are measured. 2048: the least for which FID is shown."""

    feature_extractor: str = Field("efficientnet-lite0", min_length=1, max_length=2048)
    """Network whose features images are compared by: `efficientnet-lite0` (ImageNet), or the path
    of an ONNX file. `none`: nothing is measured."""

    init_from: str | None = Field(None, min_length=1, max_length=2048)
    """Folder or `s3://` prefix with generator.safetensors, discriminator.safetensors and
    architecture.json to start from; identified by content. A relative path is relative to the run
    file. Null: random weights."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, data: Any) -> Any:
        """What the preset says goes where the file says nothing (or null)."""
        if not isinstance(data, dict):
            return data
        preset = GAN_PRESETS.get(str(data.get("preset")), {})
        given = {name for name, value in data.items() if value is not None}
        return data | {
            field_alias(cls, name): value
            for name, value in preset.items()
            if name not in given and field_alias(cls, name) not in given
        }

    @model_validator(mode="after")
    def _transfer_only(self) -> Self:
        if self.init_from is None and (self.freeze_d or self.freeze_mapping):
            raise ValueError(
                "freezeD and freezeMapping keep parts of initFrom as they are: name initFrom, or"
                " leave them out"
            )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch % min(self.batch, self.minibatch_std_group):
            raise ValueError(
                f"batch {self.batch} must be a multiple of minibatchStdGroup"
                f" {self.minibatch_std_group}"
            )
        if self.path_length_weight and self.batch % self.path_length_batch_shrink:
            raise ValueError(
                f"batch {self.batch} must be a multiple of pathLengthBatchShrink"
                f" {self.path_length_batch_shrink}"
            )
        group = min(self.batch, self.minibatch_std_group)
        if self.per_device_batch is not None and self.per_device_batch % group:
            raise ValueError(
                f"perDeviceBatch {self.per_device_batch} must be a multiple of minibatchStdGroup"
                f" {group}, whose images are compared with each other"
            )
        return self

    def resolve(self, tile_size: int, processes: int | None) -> GanTrainerConfig:
        """The same section with everything decided that null, or `preset: auto`, left open.

        A field of `preset: auto` that was given stays as it was given.

        Args:
            processes: that train together; None: that is not known yet.

        Raises:
            RequestError: `auto` without a number of processes, or a batch that so many processes
                cannot share.
            ValidationError: what was given does not fit what `auto` has chosen.
        """
        chosen = self
        if self.preset == "auto":
            if processes is None:
                raise RequestError(
                    "spec.ganTrainer.preset: auto goes by how many processes train, one on each"
                    " GPU: say how many in spec.resources.processes"
                )
            given = self.model_fields_set
            automatic = auto_training(
                tile_size, processes, self.batch if "batch" in given else None
            )
            values = self.model_dump(by_alias=True) | {
                field_alias(type(self), name): value
                for name, value in automatic.items()
                if name not in given
            }
            chosen = type(self).model_validate(values)
        groups = chosen.batch // min(chosen.batch, chosen.minibatch_std_group)
        if processes is not None and processes > groups:
            raise RequestError(
                f"spec.ganTrainer.batch: {chosen.batch} images are {groups} groups of"
                f" minibatchStdGroup images that stay together, too few for the {processes}"
                " processes of spec.resources.processes: use a larger batch, a smaller"
                " minibatchStdGroup or fewer processes"
            )
        ada_kimg = 500.0 if chosen.init_from is None else 100.0
        return chosen.model_copy(
            update={
                "r1_gamma": chosen.r1_gamma_at(tile_size),
                "ada_kimg": ada_kimg if chosen.ada_kimg is None else chosen.ada_kimg,
            }
        )

    def r1_gamma_at(self, resolution: int) -> float:
        """The R1 weight for images of `resolution` pixels, with null resolved (Karras et al.
        2020b)."""
        if self.r1_gamma is not None:
            return self.r1_gamma
        return 0.0002 * resolution**2 / self.batch


class CandidatesConfig(Section):
    """The generated images among which an expert chooses what to label."""

    NOT_SEMANTIC = frozenset({"select"})  # the candidates are the same

    count: int = Field(500, ge=1, le=100_000)
    """Number of images. 500 as in the paper."""

    psi: float = Field(0.7, ge=0, le=1)
    """Truncation: how far w is kept from its mean, 0 to 1. 0.7 as in the paper; 1 is no
    truncation."""

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seed of the candidates' latents. Other seeds give other images."""

    noise: Noise = "constant"
    """Per-pixel noise inputs. `constant`: the same for every image, so a latent says everything;
    `perSample`: drawn for each image from its seed."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """In which pictures are rendered, here and wherever these candidates' labels are used.
    `bfloat16`: the four largest resolutions in 16 bits, which takes less memory and is faster on
    processors that have it; pictures differ slightly."""

    select: Literal["ranked", "random"] = "ranked"
    """Which candidates are labelled to train. `ranked`: first those that show most of what the
    generator draws and, once there is an ensemble, of what it is unsure of; near duplicates and
    failed pictures last. `random`: as they were drawn. Images to test and validate are always drawn
    at random."""


class ClassConfig(Section):
    """One class of the segmentation; its index in the list is its value in masks."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+/-]*$")
    """Name, as in the annotation tool. Letters, digits, spaces and ._+/- . Required."""

    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")
    """Colour in masks and figures, as "#rrggbb" (in YAML with quotes: # starts a comment).
    Required."""

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three bytes."""
        value = int(self.color[1:], 16)
        return value >> 16, (value >> 8) & 255, value & 255


class AnnotationsConfig(Section):
    """What an expert labels, and how many candidates for what."""

    NOT_SEMANTIC = frozenset(
        {"train", "val", "test"}
    )  # the annotations themselves enter by content

    classes: list[ClassConfig] = Field(min_length=2, max_length=32)
    """The classes, 2 to 32 with unique names and colours. Order matters: the index is the value in
    masks. Required."""

    train: int = Field(16, ge=1, le=10_000)
    """Annotated images that train the classifier. 16 as in the paper."""

    val: int = Field(4, ge=1, le=10_000)
    """Annotated images that decide when to stop. 4 as in the paper."""

    test: int = Field(16, ge=1, le=10_000)
    """Annotated images that only score. 16 as in the paper."""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        _each_once([c.name for c in self.classes], "class names")
        _each_once([c.color for c in self.classes], "class colours")
        return self

    @property
    def total(self) -> int:
        """Annotated images over all splits."""
        return self.train + self.val + self.test


class ExtractorConfig(Section):
    """Which of the generator's features describe a pixel."""

    blocks: int = Field(5, ge=1, le=11)
    """Last synthesis blocks whose two convolutions are used. 5 as in the paper; at most
    log2(tileSize) - 1."""

    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Number format of stored features. float16 halves the disk against float32; training and
    serving both see the rounded numbers."""


@dataclass(frozen=True)
class ClassifierTraining:
    """The classifier's training settings with the preset applied: nothing is null."""

    optimizer: Optimizer
    learning_rate: float
    batch: int
    dropout: float
    epochs: int
    epoch_pixels: int | None


PRESETS: dict[Literal["default", "paper"], ClassifierTraining] = {
    # Many small steps of Adam: on the demo, batches of 1024 gave a better Dice after as many rows
    # than batches of 8192, and it stopped rising within ten epochs.
    # In a large picture neighbouring pixels say the same: an epoch need not draw them all.
    "default": ClassifierTraining("adam", 1e-3, 1024, 0.1, 10, 1_000_000),
    # Optimizer, rate and batch as published; dropout and epochs are our choice.
    "paper": ClassifierTraining("sgd", 1e-4, 65_536, 0.1, 100, None),
}


class ClassifierConfig(Section):
    """The ensemble of pixel classifiers on generator features."""

    NOT_SEMANTIC = frozenset({"preset"})  # what it stands for enters, field by field

    preset: Literal["default", "paper"] = "default"
    """Fills in `optimizer`, `learningRate`, `batch`, `dropout`, `epochs` and `epochPixels` where
    they are null. `default`: adam, 0.001, 1024, 0.1, 10, 1000000. `paper`: sgd, 0.0001, 65536, 0.1,
    100, all."""

    members: int = Field(10, ge=1, le=100)
    """Networks in the ensemble. 10 as in the paper."""

    hidden: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        [128, 32], min_length=1, max_length=8
    )
    """Widths of the hidden layers, each 1 to 4096. [128, 32] as in the paper."""

    optimizer: Optimizer | None = None
    """Optimizer. Null: the preset's."""

    learning_rate: float | None = Field(None, gt=0, le=10)
    """Learning rate. Null: the preset's."""

    batch: int | None = Field(None, ge=2, le=16_777_216)
    """Pixels in one step; at least 2, which batch normalisation needs. Null: the preset's."""

    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of hidden units dropped in training, 0 to 1. Null: the preset's."""

    epochs: int | None = Field(None, ge=1, le=100_000)
    """Most epochs. Null: the preset's."""

    epoch_pixels: int | None = Field(None, ge=1, le=1_000_000_000_000)
    """Pixels an epoch draws for each member, at most as many as are labelled for training. Null:
    the preset's."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target spread over all classes, 0 to 1. 0: off, as in the paper."""

    feature_noise: float = Field(0.0, ge=0, le=10)
    """Standard deviation of Gaussian noise added to standardised features in training. 0: off, as
    in the paper."""

    patience: int = Field(3, ge=1, le=100_000)
    """Epochs without a better macro Dice on the validation images before training stops; the best
    epoch is kept. 3: the score of a few images wavers for an epoch or two."""

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seed of weights and pixel order; member m uses its own stream of it."""

    boundary_tolerance_um: float = Field(2.0, gt=0, le=1000)
    """How far a predicted boundary may lie from the true one in the boundary F-score, in
    micrometres. 2 is well below the width of a nucleus."""

    @property
    def training(self) -> ClassifierTraining:
        """What the preset and the fields that are given come to."""
        preset = PRESETS[self.preset]
        return ClassifierTraining(
            optimizer=preset.optimizer if self.optimizer is None else self.optimizer,
            learning_rate=(
                preset.learning_rate if self.learning_rate is None else self.learning_rate
            ),
            batch=preset.batch if self.batch is None else self.batch,
            dropout=preset.dropout if self.dropout is None else self.dropout,
            epochs=preset.epochs if self.epochs is None else self.epochs,
            epoch_pixels=preset.epoch_pixels if self.epoch_pixels is None else self.epoch_pixels,
        )

    def resolve(self) -> ClassifierConfig:
        """The same section with the preset written into the fields that were null."""
        chosen = self.training
        return self.model_copy(
            update={
                "optimizer": chosen.optimizer,
                "learning_rate": chosen.learning_rate,
                "batch": chosen.batch,
                "dropout": chosen.dropout,
                "epochs": chosen.epochs,
                "epoch_pixels": chosen.epoch_pixels,
            }
        )


class QuotaConfig(Section):
    """A demand on the dataset's mix: `share` of its images show enough of a class."""

    class_name: str = Field(alias="class", min_length=1, max_length=64)
    """Name of one of `annotations.classes`. Required."""

    min_fraction: float = Field(gt=0, le=1)
    """Least share of an image's pixels that show the class, above 0 to 1, for the image to count.
    Required."""

    share: float = Field(gt=0, le=1)
    """Least share of the dataset's images that must count, above 0 to 1. Required."""


class SynthesizerConfig(Section):
    """The dataset that is generated in the end."""

    count: int = Field(1000, ge=1, le=100_000_000)
    """Accepted image + mask pairs."""

    psi: float = Field(0.7, ge=0, le=1)
    """Truncation, 0 to 1. 0.7 as in the paper, and as the candidates the classifier learned
    from."""

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seed of the dataset's latents. Other seeds give other images."""

    noise: Noise = "constant"
    """Per-pixel noise inputs, as in `candidates.noise`."""

    shard_size: int = Field(100, ge=1, le=100_000)
    """Pairs in one tar shard (the last may hold fewer)."""

    drop_most_uncertain: float = Field(0.1, ge=0, lt=1)
    """Share of images, the most uncertain ones, that is dropped, 0 to 1; the threshold comes from
    the calibration draw. 0.1 as in DatasetGAN; 0 keeps all."""

    calibration: int = Field(200, ge=1, le=1_000_000)
    """Images drawn first to fix the threshold and what quotas accept. 200 places the 90th
    percentile within about 2 %; a quota on images that are rarer than 1 in 20 needs more."""

    quotas: list[QuotaConfig] = Field([], max_length=8)
    """Demands for images rich in a class. Images that no quota asks for are dropped at random, as
    few as possible; every pair says the probability with which its like were kept. Quotas hold in
    expectation, as far as the calibration draw tells. Empty: the generator's own mix."""

    ignore_above: float | None = Field(None, ge=0, lt=1)
    """Pixels of a higher uncertainty, 0 to 1, become 255 (unlabelled) in the mask. Null: every
    pixel has a class."""

    smoothing: Literal["none", "majority"] = "none"
    """What is done to the contours of masks. `majority`: a pixel takes the class that most pixels
    within `smoothingRadius` have. It removes specks, and structures thinner than the radius, too.
    Done before `ignoreAbove`."""

    smoothing_radius: float | None = Field(None, gt=0, le=1000)
    """Radius of smoothing in micrometres, 1 to 64 pixels of the generator's. Required with
    `smoothing: majority`; null otherwise."""

    @model_validator(mode="after")
    def _smoothing_is_whole(self) -> Self:
        if (self.smoothing == "none") != (self.smoothing_radius is None):
            raise ValueError(
                "smoothingRadius and smoothing: majority go together: give both, or neither"
            )
        return self

    @model_validator(mode="after")
    def _quotas_agree(self) -> Self:
        for number, one in enumerate(self.quotas):
            for other in self.quotas[:number]:
                if one.class_name == other.class_name:
                    if one.min_fraction == other.min_fraction:
                        raise ValueError(
                            f"two quotas ask for {one.min_fraction:g} of {one.class_name}: keep"
                            " the one with the larger share"
                        )
                elif one.min_fraction + other.min_fraction > 1 and one.share + other.share > 1:
                    raise ValueError(
                        f"quotas of {other.class_name} and {one.class_name} cannot both hold: no"
                        f" image has room for both ({other.min_fraction:g} + {one.min_fraction:g}"
                        f" of its pixels), and the shares sum to {one.share + other.share:g}"
                    )
        return self


class GatesConfig(Section):
    """What has to hold before a dataset is released. Gates on the generator are decided as soon as
    it is there, all others but `minPairs` before the dataset is made. What cannot be measured does
    not pass a gate that is set."""

    NOT_SEMANTIC = frozenset(  # they decide whether, not what
        {
            "min_macro_dice",
            "min_iou",
            "min_class_iou",
            "max_kid",
            "max_memorisation",
            "min_pairs",
            "max_drop_vs_latest",
        }
    )

    min_macro_dice: float | None = Field(None, ge=0, le=1)
    """Least macro Dice on the test images, 0 to 1. Null: no gate."""

    min_iou: float | None = Field(None, ge=0, le=1)
    """Least IoU on the test images, 0 to 1, of every class that `minClassIou` does not name. A
    class that is in no test image, neither labelled nor predicted, has no IoU and does not pass.
    Null: no gate."""

    min_class_iou: dict[
        Annotated[str, Field(min_length=1, max_length=64)], Annotated[float, Field(ge=0, le=1)]
    ] = Field({}, max_length=32)
    """Least IoU on the test images, 0 to 1, by name of the class. Empty: no gate."""

    max_kid: float | None = Field(None, ge=0, le=1000)
    """Largest KID of the generator's samples against the tiles that its training held out (whole
    images, as in `evaluation.json`). KIDs of different `ganTrainer.featureExtractor` cannot be
    compared: one by another extractor does not pass. Null: no gate."""

    max_memorisation: float | None = Field(None, ge=0, le=1)
    """Largest share, 0 to 1, of the generator's samples that are nearer to a training tile than the
    nearest 1 % of held-out tiles are (`memorisation` in `evaluation.json`). Samples of a generator
    that copies nothing give about 0.01. Null: no gate."""

    min_pairs: int | None = Field(None, ge=1, le=100_000_000)
    """Least number of pairs in the dataset, counted once it is there; at most `synthesizer.count`.
    Null: no gate."""

    max_drop_vs_latest: float | None = Field(None, ge=0, le=1)
    """Largest drop of macro Dice, 0 to 1, below that of the dataset's latest release (0.02: from
    0.90 to 0.88). Passes where there is no release yet. Null: no gate."""
