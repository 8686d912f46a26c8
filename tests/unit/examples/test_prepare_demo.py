"""The demo's run file is a valid run that says what the command line asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.core.run import load_run
from prepare_demo import INIT_FILES, TEMPLATE, PrepareError, prepare


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """The real template, beside a (pretended) shipped generator."""
    path = tmp_path / "examples" / "demo.yaml"
    (path.parent / "skin-64").mkdir(parents=True)
    for name in INIT_FILES:
        (path.parent / "skin-64" / name).touch()
    path.write_bytes(TEMPLATE.read_bytes())
    return path


def slides(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_relative_paths_still_lead_to_the_same_places(tmp_path: Path, template: Path) -> None:
    prepare(tmp_path / "demo" / "run.yaml", template=template)
    made, original = load_run(tmp_path / "demo" / "run.yaml"), load_run(template)
    assert made == original
    assert made.spec.slides.uri == str(tmp_path / "demo" / "slides")
    assert made.spec.gan_trainer.init_from == str(template.parent / "skin-64")


def test_from_scratch_trains_longer_from_nothing(tmp_path: Path, template: Path) -> None:
    prepare(tmp_path / "run.yaml", template=template, from_scratch=True)
    trainer = load_run(tmp_path / "run.yaml").spec.gan_trainer
    assert trainer.init_from is None
    assert trainer.kimg > load_run(template).spec.gan_trainer.kimg


@pytest.mark.parametrize(
    ("names", "holdout"),
    [(("a.svs", "notes.txt"), "spatial"), (("a.svs", "b.NDPI"), "case")],
)
def test_cases_are_held_out_only_where_there_are_several(
    tmp_path: Path, template: Path, names: tuple[str, ...], holdout: str
) -> None:
    folder = slides(tmp_path / "mine", *names)
    prepare(tmp_path / "demo" / "run.yaml", template=template, slides=folder)
    spec = load_run(tmp_path / "demo" / "run.yaml").spec
    assert (spec.slides.uri, spec.tiler.holdout) == (str(folder), holdout)


def test_slides_that_are_not_there_are_named(tmp_path: Path, template: Path) -> None:
    with pytest.raises(PrepareError, match="no such folder"):
        prepare(tmp_path / "run.yaml", template=template, slides=tmp_path / "nowhere")
    with pytest.raises(PrepareError, match="holds no slide"):
        prepare(tmp_path / "run.yaml", template=template, slides=slides(tmp_path / "e", "x.txt"))


def test_a_missing_generator_is_reported_before_anything_starts(
    tmp_path: Path, template: Path
) -> None:
    (template.parent / "skin-64" / "discriminator.safetensors").unlink()
    with pytest.raises(PrepareError, match=r"lacks discriminator\.safetensors"):
        prepare(tmp_path / "run.yaml", template=template)
    prepare(tmp_path / "run.yaml", template=template, from_scratch=True)


def test_an_unchanged_run_file_is_not_touched(tmp_path: Path, template: Path) -> None:
    run_file = tmp_path / "run.yaml"
    prepare(run_file, template=template)
    before = run_file.stat().st_mtime_ns
    prepare(run_file, template=template)
    assert run_file.stat().st_mtime_ns == before
