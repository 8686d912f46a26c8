"""Images by seed: the same seed, the same image; files that say what made them; clear refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.core.artifact import Attempt
from hdgan.core.errors import DataError, InputMissing, RequestError, StoreError
from hdgan.core.store import open_store
from hdgan.nets.checkpoint import ARCHITECTURE, GENERATOR
from hdgan.nets.latents import draw_z
from hdgan.nets.tools import output_folder
from hdgan.nets.tools.generate import images_of_seeds, parse_seeds
from hdgan.nets.tools.pictures import MAX_SHEET_SIDE, ContactSheet, Rgb
from hdgan.nets.tools.source import open_networks
from support.trained_networks import call, write_networks


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-3,7", [0, 1, 2, 3, 7]), ("5", [5]), (" 2 - 3 , 1,2", [2, 3, 1]), ("2147483647", None)],
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: list[int] | None) -> None:
    assert parse_seeds(text) == (seeds or [2**31 - 1])


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-4", "2147483648", "0-100000", "1.5"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--seeds"):
        parse_seeds(text)


def test_a_seed_is_sample_zero_of_its_stream_truncated_to_psi(tmp_path: Path) -> None:
    generator = write_networks(tmp_path / "g")
    call("generate", tmp_path / "g", tmp_path / "out", "--seeds", "4,9", "--psi", "0.6")
    with torch.no_grad():
        w = generator.mapping.w(torch.from_numpy(draw_z(9, "generate", 0, 8))[None])
        w = generator.mapping.w_avg + 0.6 * (w - generator.mapping.w_avg)
        image = generator.synthesis(w[:, None].expand(-1, generator.arch.num_ws, -1))[0]
    expected = np.rint(np.clip(image.permute(1, 2, 0).numpy() * 127.5 + 127.5, 0, 255))
    with Image.open(tmp_path / "out/seed0009.png") as picture:
        assert np.abs(np.asarray(picture).astype(float) - expected).max() <= 1
        assert picture.info["hdgan-seed"] == "9"
        assert picture.info["hdgan-psi"] == "0.6"
        assert len(picture.info["hdgan-generator"]) == 64


def test_neither_order_nor_company_changes_an_image(tmp_path: Path) -> None:
    generator = write_networks(tmp_path / "g")

    def images(seeds: list[int], batch: int) -> dict[int, Rgb]:
        made = images_of_seeds(
            generator, seeds, psi=0.7, label=None, noise="perSample", batch=batch
        )
        return dict(zip(seeds, made, strict=True))

    alone, together = images([1, 2, 3], 1), images([3, 1, 2], 3)
    for seed in (1, 2, 3):
        assert np.abs(alone[seed].astype(int) - together[seed].astype(int)).max() <= 1
    assert not np.array_equal(alone[1], alone[2])


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    write_networks(tmp_path / "g")
    arguments = ("generate", tmp_path / "g", tmp_path / "out", "--seeds", "0-4", "--grid")
    assert "grid.png" in call(*arguments)
    with Image.open(tmp_path / "out/grid.png") as sheet:
        assert sheet.size == (3 * 16, 2 * 16)
        with Image.open(tmp_path / "out/seed0004.png") as last:
            assert np.array_equal(np.asarray(sheet)[16:32, 16:32], np.asarray(last))
    before = (tmp_path / "out/seed0000.png").read_bytes()
    with pytest.raises(RequestError, match=r"grid\.png and 5 more exists.*--force"):
        call(*arguments)
    call(*arguments, "--force")
    assert (tmp_path / "out/seed0000.png").read_bytes() == before
    # Nothing but the pictures: no trace of the look at the folder.
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_a_folder_that_cannot_be_written_or_is_too_full_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"OUT .*file"):
        output_folder.claim(tmp_path / "file", ["a"], force=False, size=1)
    with pytest.raises(StoreError, match="are free"):
        output_folder.claim(tmp_path / "out", ["a"], force=False, size=1 << 62)


def test_a_conditional_generator_wants_one_of_its_labels(tmp_path: Path) -> None:
    write_networks(tmp_path / "g", labels=("H&E", "PAS"))
    base = ("generate", tmp_path / "g", tmp_path / "out", "--seeds", "1")
    for more in ((), ("--label", "Ki67")):
        with pytest.raises(RequestError, match="H&E, PAS"):
            call(*base, *more)
    call(*base, "--label", "PAS")
    he = ("generate", tmp_path / "g", tmp_path / "he", "--seeds", "1", "--label", "H&E")
    call(*he)
    pictures = [(tmp_path / name / "seed0001.png").read_bytes() for name in ("out", "he")]
    assert pictures[0] != pictures[1]


def test_an_artifact_is_the_same_generator_as_its_files_in_a_folder(tmp_path: Path) -> None:
    write_networks(tmp_path / "g")
    store = open_store(str(tmp_path / "store"))
    attempt = Attempt(store, "gan-trainer", "a" * 64)
    for name in (ARCHITECTURE, GENERATOR):
        attempt.add_bytes(name, (tmp_path / "g" / name).read_bytes())
    attempt.commit({})
    folder = tmp_path / "store/artifacts/gan-trainer" / ("a" * 64)
    assert (
        open_networks(str(folder), "cpu").digest
        == open_networks(folder.as_uri() + "/", "cpu").digest
        == open_networks((tmp_path / "g").as_uri(), "cpu").digest
    )
    with pytest.raises(InputMissing, match="no finished artifact"):
        open_networks(str(folder.with_name("b" * 64)), "cpu")
    with pytest.raises(InputMissing, match=r"architecture\.json does not exist"):
        open_networks(str(tmp_path), "cpu")


def test_a_diverged_generator_is_refused(tmp_path: Path) -> None:
    generator = write_networks(tmp_path / "g")
    generator.synthesis.const.fill_(float("nan"))
    with pytest.raises(DataError, match="NaN"):
        next(images_of_seeds(generator, [0], psi=1, label=None, noise="none", batch=1))


def test_a_sheet_of_many_stays_small() -> None:
    assert ContactSheet(10_000, 4096).pixels().shape[0] <= MAX_SHEET_SIDE


def test_help_explains_and_costs_no_torch() -> None:
    code = (
        "import sys, typer; from hdgan.nets.tools import commands; app = typer.Typer();"
        "commands.register(app); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    generate = call("generate", "--help")
    for word in ("--seeds", "--psi", "Truncation", "--latent", "--grid", "run file"):
        assert word in generate
    project = call("project", "--help")
    for word in ("--steps", "--space", "not perceptual", "--resize"):
        assert word in project
