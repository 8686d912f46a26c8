"""The run file: what is accepted, what is refused with which words, and what enters keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import Field, ValidationError

from hdgan.core.errors import RequestError
from hdgan.core.run import (
    AnnotationsConfig,
    CandidatesConfig,
    ClassConfig,
    ClassifierConfig,
    ExtractorConfig,
    GanTrainerConfig,
    RunSpec,
    Section,
    SlidesConfig,
    SynthesizerConfig,
    TilerConfig,
    load_run,
    parse_run,
    resolve,
    semantic,
)
from hdgan.core.schema import json_schema, main, markdown

MINIMAL = """\
apiVersion: hdgan.io/v1alpha1
kind: DatasetRun
metadata:
  name: skin
spec:
  slides:
    uri: my slides
  annotations:
    classes:
      - {name: glass, color: "#ffffff"}
      - {name: tissue, color: "#cc3366"}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_smallest_run_has_the_papers_numbers(write: Write) -> None:
    spec = load_run(write(MINIMAL)).spec
    assert spec.gan_trainer.kimg == 25_000
    assert (spec.candidates.count, spec.candidates.psi) == (500, 0.7)
    assert (spec.annotations.train, spec.annotations.val, spec.annotations.test) == (16, 4, 16)
    assert spec.extractor.blocks == 5
    assert (spec.classifier.members, spec.classifier.hidden) == (10, [128, 32])
    assert spec.synthesizer.psi == 0.7


def test_yaml_and_json_are_the_same_run(write: Write) -> None:
    as_json = json.dumps(yaml.safe_load(MINIMAL))
    assert load_run(write(MINIMAL)) == load_run(write(as_json, "run.json"))


def test_relative_paths_are_relative_to_the_run_file(write: Write, tmp_path: Path) -> None:
    text = MINIMAL + "  ganTrainer: {initFrom: ../init}\n"
    spec = load_run(write(text)).spec
    assert spec.slides.uri == str(tmp_path / "my slides")
    assert spec.gan_trainer.init_from == str(tmp_path.parent / "init")
    remote = load_run(write(MINIMAL.replace("my slides", "s3://b/p"))).spec
    assert remote.slides.uri == "s3://b/p"


def test_null_is_the_default(write: Write) -> None:
    text = MINIMAL + "  tiler: {folds: null, stride: null}\n  gates: null\n"
    assert load_run(write(text)) == load_run(write(MINIMAL))


def test_numbers_as_people_write_them(write: Write) -> None:
    text = MINIMAL + "  classifier: {learningRate: 1e-4}\n  ganTrainer: {kimg: 3, batch: 010}\n"
    text = text.replace("batch: 010", "batch: 08")  # YAML 1.1 would call 08 text and 010 eight
    spec = load_run(write(text)).spec
    assert spec.classifier.learning_rate == 1e-4
    assert (spec.gan_trainer.kimg, spec.gan_trainer.batch) == (3.0, 8)


def test_no_is_a_name_not_a_boolean(write: Write) -> None:
    assert load_run(write(MINIMAL.replace("name: skin", "name: no"))).metadata.name == "no"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("  tiler: {tileSise: 64}", r"spec\.tiler\.tileSise: unknown field; did you mean tileSize"),
        ("  tiler: {tile_size: 64}", r"spec\.tiler\.tile_size: unknown .* did you mean tileSize"),
        ("  tiler: {xyz: null}", r"spec\.tiler\.xyz: unknown field; allowed here: .*maxWhite"),
        ("  tilr: {}", r"spec\.tilr: unknown field; did you mean tiler"),
        ("  tiler: {tileSize: 100}", r"spec\.tiler\.tileSize: 100: must be a power of two"),
        ("  extractor: {blocks: 12}", r"extractor\.blocks: 12 .* at least 1 and at most 11"),
        ("  candidates: {count: '9'}", r"candidates\.count: '9' .* integer, at least 1"),
        ("  candidates: {psi: .nan}", r"candidates\.psi: '\.nan'"),
        ("  candidates: {noise: red}", r"noise: 'red' .* use 'constant' or 'perSample'"),
        ("  candidates: 3", r"spec\.candidates: 3 .* mapping of fields"),
        ("  candidates: {count: 35}", r"annotations ask for 36 .* candidates\.count is 35"),
        ("  tiler: {tileSize: 32}", r"blocks is 5, .*tileSize 32 has 4 synthesis blocks"),
        ("  ganTrainer: {batch: 6}", r"batch 6 must be a multiple of minibatchStdGroup 4"),
        ("  ganTrainer: {holdoutFold: 5}", r"holdoutFold is 5, but tiler\.folds is 5"),
        ("  classifier: {hidden: [0]}", r"hidden\[0\]: 0 .* greater than or equal to 1"),
        ("  classifier: {hidden: [8, 4097]}", r"hidden\[1\]: 4097 .* less than or equal to 4096"),
        ("  tiler: {compartments: ['']}", r"tiler\.compartments\[0\]: '' .* at least 1 char"),
        (f"  tiler: {{compartments: [{201 * 'a'}]}}", r"compartments\[0\]: .* at most 200 char"),
        ("  rerun: {tiler: ''}", r"spec\.rerun\.tiler: '' .* at least 1 char"),
        (f"  rerun: {{gan-trainer: {65 * 'a'}}}", r"rerun\.gan-trainer: .* at most 64 char"),
        ("  rerun: {tilr: a}", r"spec\.rerun"),
        ("  tiler: {}\n  tiler: {}", r"line 13, column 3: 'tiler' is given twice"),
        ("  tiler: &a {}\n  gates: *a", "aliases"),
        ("  tiler: [", "line 1"),
    ],
)
def test_errors_name_file_path_value_and_what_is_allowed(
    write: Write, extra: str, says: str
) -> None:
    path = write(MINIMAL + extra + "\n")
    with pytest.raises(RequestError, match=says) as caught:
        load_run(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_all_errors_come_at_once(write: Write) -> None:
    with pytest.raises(RequestError) as caught:
        load_run(write(MINIMAL + "  tiler: {mpp: 0, folds: 1}\n  gates: {minMacroDice: 2}\n"))
    assert len(str(caught.value).splitlines()) == 3


def test_a_colour_without_quotes_is_explained(write: Write) -> None:
    text = MINIMAL.replace(
        '- {name: glass, color: "#ffffff"}', "- name: glass\n        color: #fff"
    )
    with pytest.raises(RequestError, match=r"classes\[0\]\.color: required.*needs quotes"):
        load_run(write(text))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (1 << 20) + b"x", "larger than"),
        (b"\xff\xfe", "not UTF-8"),
        (b"- a", "must be a mapping"),
        (b"", "must be a mapping"),
        (b"a: b: c", "line 1"),
        (b"a: !!python/object/apply:os.system [ls]", "line 1"),
        (b"a: !!timestamp tomorrow", "line 1, column 4: tags"),
        (b"a: !!bool perhaps", "line 1, column 4: tags"),
        (b'a: {b: ["x\\0y"]}', r"'x\\x00y' contains a NUL"),
        (b'a: "\\uD800"', "half a surrogate pair"),
    ],
)
def test_what_is_no_run_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=says):
        load_run(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"nowhere\.yaml: no such file"):
        load_run(tmp_path / "nowhere.yaml")


def test_class_names_and_colours_are_unique() -> None:
    red = ClassConfig(name="a", color="#ff0000")
    for other in (ClassConfig(name="A", color="#00ff00"), ClassConfig(name="b", color="#FF0000")):
        with pytest.raises(ValidationError, match="must be unique"):
            AnnotationsConfig(classes=[red, other])


def test_case_pattern_needs_its_group() -> None:
    assert SlidesConfig(uri="x", case_pattern="^(?P<case>[^_]+)").case_pattern
    with pytest.raises(ValidationError, match="group named case"):
        SlidesConfig(uri="x", case_pattern="(.*)")
    with pytest.raises(ValidationError, match="not a regular expression"):
        SlidesConfig(uri="x", case_pattern="(?P<case>")
    with pytest.raises(ValidationError, match="not a regular expression: the repetition number"):
        SlidesConfig(uri="x", case_pattern="(?P<case>a{4294967295})")
    assert SlidesConfig(uri="x", case_pattern="(?P<case>[[a]])")  # and no warning


def test_resolve_fills_in_what_null_left_open(write: Write) -> None:
    run = resolve(load_run(write(MINIMAL + "  tiler: {tileSize: 64}\n  ganTrainer: {batch: 16}\n")))
    assert run.spec.tiler.stride == 64
    # Karras et al. 2020b: 0.0002 * N / M with N pixels and minibatch M.
    assert run.spec.gan_trainer.r1_gamma == pytest.approx(0.0002 * 4096 / 16)
    assert run.spec.classifier.optimizer == "adam"
    assert resolve(run) == run
    document = run.model_dump(mode="json", by_alias=True)
    assert parse_run(json.loads(json.dumps(document))) == run


@pytest.mark.parametrize("preset", ["paper", "auto", "tile4096", "demo"])
def test_gan_presets_are_valid_and_give_way_to_what_is_said(preset: str) -> None:
    config = GanTrainerConfig.model_validate({"preset": preset, "channelMax": 77, "batch": 24})
    assert (config.channel_max, config.batch) == (77, 24)
    resolved = config.resolve(512, 2)
    assert (resolved.channel_max, resolved.batch) == (77, 24)
    # What was resolved reads back as the same, and only what it stands for is in the key.
    again = GanTrainerConfig.model_validate(resolved.model_dump(by_alias=True))
    assert again == resolved
    assert again.resolve(512, 2) == resolved
    assert "preset" not in semantic(resolved)


def test_a_run_file_names_a_preset(write: Write) -> None:
    run = load_run(write(MINIMAL + "  ganTrainer: {preset: demo, kimg: 5, r1Gamma: null}\n"))
    trainer = run.spec.gan_trainer
    assert (trainer.kimg, trainer.channel_base, trainer.r1_gamma) == (5, 2048, 0.5)


def test_null_takes_the_presets_value_and_presets_differ_from_defaults() -> None:
    config = GanTrainerConfig.model_validate({"preset": "tile4096", "perDeviceBatch": None})
    assert config.per_device_batch == 2
    assert config.recompute_resolutions == 5
    assert GanTrainerConfig().per_device_batch is None


@pytest.mark.parametrize(
    ("side", "processes", "batch", "base", "rate"),
    [
        (256, 1, 16, 16_384, 0.0025),
        (256, 8, 64, 16_384, 0.0025),
        (1024, 8, 32, 32_768, 0.002),
        (4096, 8, 8, 32_768, 0.002),
    ],
)
def test_auto_chooses_by_tile_size_and_processes(
    side: int, processes: int, batch: int, base: int, rate: float
) -> None:
    chosen = GanTrainerConfig(preset="auto").resolve(side, processes)
    assert (chosen.batch, chosen.channel_base, chosen.learning_rate) == (batch, base, rate)
    assert chosen.r1_gamma == pytest.approx(0.0002 * side**2 / batch)
    assert chosen.ema_kimg == batch * 10 / 32


@pytest.mark.parametrize("side", [64, 256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("processes", [1, 2, 3, 6, 8, 32, 64])
def test_what_auto_chooses_can_be_shared_by_the_processes(side: int, processes: int) -> None:
    chosen = GanTrainerConfig(preset="auto").resolve(side, processes)
    assert chosen.batch % chosen.minibatch_std_group == 0
    assert chosen.batch // chosen.minibatch_std_group >= processes
    assert chosen.batch % processes == 0


def test_auto_follows_what_is_given() -> None:
    chosen = GanTrainerConfig(preset="auto", batch=32).resolve(4096, 1)
    assert (chosen.batch, chosen.minibatch_std_group, chosen.ema_kimg) == (32, 4, 10)
    with pytest.raises(ValidationError, match="multiple of minibatchStdGroup"):
        GanTrainerConfig(preset="auto", minibatch_std_group=8).resolve(1024, 3)


def test_auto_without_a_number_of_gpus_and_batches_too_small_are_refused_before_anything_runs(
    write: Write,
) -> None:
    auto = "  ganTrainer: {preset: auto}\n"
    with pytest.raises(RequestError, match=r"resources\.processes"):
        resolve(load_run(write(MINIMAL + auto)))
    assert resolve(load_run(write(MINIMAL + auto + "  resources: {device: cpu}\n")))
    small = "  ganTrainer: {batch: 8}\n  resources: {processes: 3}\n"
    with pytest.raises(RequestError, match="8 images are 2 groups"):
        resolve(load_run(write(MINIMAL + small)))
    unfit = "  ganTrainer: {preset: auto, minibatchStdGroup: 8}\n  resources: {processes: 3}\n"
    with pytest.raises(RequestError, match=r"spec\.ganTrainer.*multiple of minibatchStdGroup"):
        resolve(load_run(write(MINIMAL + "  tiler: {tileSize: 1024}\n" + unfit)))


def test_ada_is_faster_after_transfer() -> None:
    assert GanTrainerConfig().resolve(64, None).ada_kimg == 500
    assert GanTrainerConfig(init_from="/networks").resolve(64, None).ada_kimg == 100
    assert GanTrainerConfig(init_from="/networks", ada_kimg=7).resolve(64, None).ada_kimg == 7


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"freezeD": 1}, "name initFrom"),
        ({"freezeMapping": True}, "name initFrom"),
        ({"perDeviceBatch": 6}, "multiple of minibatchStdGroup"),
        ({"augmentSet": "stains"}, "histology"),
    ],
)
def test_gan_settings_that_cannot_be_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        GanTrainerConfig.model_validate(fields)


def test_the_preset_fills_only_what_is_null() -> None:
    paper = ClassifierConfig(preset="paper", dropout=0.5).resolve()
    assert (paper.optimizer, paper.learning_rate, paper.batch) == ("sgd", 1e-4, 65_536)
    assert paper.dropout == 0.5


def test_semantic_leaves_out_defaults_and_what_changes_no_output() -> None:
    assert semantic(TilerConfig()) == {}
    assert semantic(TilerConfig(tile_size=64, mpp=0.25)) == {"tileSize": 64}
    assert semantic(GanTrainerConfig(snapshot_kimg=1, init_from="/a", seed=3)) == {"seed": 3}
    assert semantic(SlidesConfig(uri="anywhere", max_bad_slides=9, assume_mpp=0.5)) == {
        "assumeMpp": 0.5
    }
    spelled = ClassifierConfig(optimizer="sgd", learning_rate=1e-4, batch=65_536, epochs=100)
    assert semantic(ClassifierConfig(preset="paper").resolve()) == semantic(
        spelled.model_copy(update={"dropout": 0.1})
    )


def test_a_new_option_at_its_neutral_value_changes_nothing() -> None:
    class Later(ExtractorConfig):
        extra_option: int = 0
        other: int = Field(7)
        NEUTRAL = {"other": 1}  # noqa: RUF012 - as the base class declares it

    assert semantic(Later(blocks=3, other=1)) == semantic(ExtractorConfig(blocks=3))
    assert semantic(Later(blocks=3, extra_option=1, other=1))["extraOption"] == 1
    assert semantic(Later())["other"] == 7


def test_defaults_are_part_of_every_key() -> None:
    """A default that is left out of a key is known only by its absence. Whoever changes one of
    these gives the stage a new version; a new option is added here with its neutral value."""
    found = {}
    for model, example in EXAMPLES.items():
        for name, field in model.model_fields.items():
            if name not in model.NOT_SEMANTIC and not field.is_required():
                found[f"{model.__name__}.{name}"] = model.NEUTRAL.get(name, getattr(example, name))
    assert found == NEUTRAL_VALUES


EXAMPLES: dict[type[Section], Section] = {
    SlidesConfig: SlidesConfig(uri="x"),
    TilerConfig: TilerConfig(),
    GanTrainerConfig: GanTrainerConfig(),
    CandidatesConfig: CandidatesConfig(),
    ExtractorConfig: ExtractorConfig(),
    ClassifierConfig: ClassifierConfig(),
    SynthesizerConfig: SynthesizerConfig(),
}

NEUTRAL_VALUES = {
    "SlidesConfig.assume_mpp": None,
    "SlidesConfig.assume_slide_is_case": False,
    "SlidesConfig.case_pattern": None,
    "TilerConfig.tile_size": 4096,
    "TilerConfig.mpp": 0.25,
    "TilerConfig.stride": None,
    "TilerConfig.max_whitespace": 0.5,
    "TilerConfig.tissue": "map",
    "TilerConfig.max_pen": 0.02,
    "TilerConfig.min_focus": None,
    "TilerConfig.compartments": [],
    "TilerConfig.min_compartment": 0.1,
    "TilerConfig.colour": "raw",
    "TilerConfig.format": "png",
    "TilerConfig.jpeg_quality": 95,
    "TilerConfig.holdout": "case",
    "TilerConfig.folds": 5,
    "TilerConfig.shard_tiles": 1000,
    "GanTrainerConfig.kimg": 25000.0,
    "GanTrainerConfig.batch": 32,
    "GanTrainerConfig.channel_base": 32768,
    "GanTrainerConfig.channel_max": 512,
    "GanTrainerConfig.latent_dim": 512,
    "GanTrainerConfig.mapping_layers": 8,
    "GanTrainerConfig.learning_rate": 0.0025,
    "GanTrainerConfig.beta1": 0.0,
    "GanTrainerConfig.beta2": 0.99,
    "GanTrainerConfig.mapping_lr_multiplier": 0.01,
    "GanTrainerConfig.r1_gamma": None,
    "GanTrainerConfig.r1_interval": 16,
    "GanTrainerConfig.path_length_weight": 2.0,
    "GanTrainerConfig.path_length_interval": 4,
    "GanTrainerConfig.path_length_decay": 0.01,
    "GanTrainerConfig.path_length_batch_shrink": 2,
    "GanTrainerConfig.style_mixing": 0.9,
    "GanTrainerConfig.ema_kimg": 10.0,
    "GanTrainerConfig.ema_rampup": 0.05,
    "GanTrainerConfig.w_avg_beta": 0.995,
    "GanTrainerConfig.minibatch_std_group": 4,
    "GanTrainerConfig.mirror": False,
    "GanTrainerConfig.augment": "ada",
    "GanTrainerConfig.augment_p": 0.0,
    "GanTrainerConfig.augment_set": "histology",
    "GanTrainerConfig.ada_target": 0.6,
    "GanTrainerConfig.ada_interval": 4,
    "GanTrainerConfig.ada_kimg": None,
    "GanTrainerConfig.conditional": "none",
    "GanTrainerConfig.conv_clamp": None,
    "GanTrainerConfig.freeze_d": 0,
    "GanTrainerConfig.freeze_mapping": False,
    "GanTrainerConfig.holdout_fold": 0,
    "GanTrainerConfig.precision": "float32",
    "GanTrainerConfig.mixed_resolutions": 4,
    "GanTrainerConfig.seed": 0,
    "CandidatesConfig.count": 500,
    "CandidatesConfig.psi": 0.7,
    "CandidatesConfig.seed": 0,
    "CandidatesConfig.noise": "constant",
    "CandidatesConfig.precision": "float32",
    "ExtractorConfig.blocks": 5,
    "ExtractorConfig.dtype": "float16",
    "ClassifierConfig.members": 10,
    "ClassifierConfig.hidden": [128, 32],
    "ClassifierConfig.optimizer": None,
    "ClassifierConfig.learning_rate": None,
    "ClassifierConfig.batch": None,
    "ClassifierConfig.dropout": None,
    "ClassifierConfig.epochs": None,
    "ClassifierConfig.epoch_pixels": None,
    "ClassifierConfig.label_smoothing": 0.0,
    "ClassifierConfig.feature_noise": 0.0,
    "ClassifierConfig.patience": 3,
    "ClassifierConfig.seed": 0,
    "ClassifierConfig.boundary_tolerance_um": 2.0,
    "SynthesizerConfig.count": 1000,
    "SynthesizerConfig.psi": 0.7,
    "SynthesizerConfig.seed": 0,
    "SynthesizerConfig.noise": "constant",
    "SynthesizerConfig.shard_size": 100,
    "SynthesizerConfig.drop_most_uncertain": 0.1,
    "SynthesizerConfig.calibration": 200,
    "SynthesizerConfig.quotas": [],
    "SynthesizerConfig.ignore_above": None,
    "SynthesizerConfig.smoothing": "none",
    "SynthesizerConfig.smoothing_radius": None,
}


def test_every_field_is_described_and_the_page_is_up_to_date(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = Path(__file__).parents[3] / "docs" / "run-file.md"
    assert main([str(page), "--check"]) == 0, "python -m hdgan.core.schema docs/run-file.md"
    for line in markdown().splitlines():
        if line.startswith("| `"):
            assert len(line.split(" | ")[3].strip(" |")) > 20, f"no description: {line}"
    stale = tmp_path / "page.md"
    assert main([str(stale), "--check"]) == 1
    assert "is stale" in capsys.readouterr().out
    assert main([str(stale)]) == 0
    assert main([str(stale), "--check"]) == 0


def test_the_schema_speaks_the_names_of_files() -> None:
    schema = json_schema()
    spec = schema["$defs"]["RunSpec"]["properties"]
    assert set(spec) == {field.alias for field in RunSpec.model_fields.values()}
    tile_size = schema["$defs"]["TilerConfig"]["properties"]["tileSize"]
    assert (tile_size["minimum"], tile_size["maximum"]) == (32, 4096)
    assert schema["$defs"]["TilerConfig"]["additionalProperties"] is False
