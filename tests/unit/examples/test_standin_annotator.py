"""The stand-in annotator: compartments, not cells; the same masks every time; honest output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import standin_annotator as standin
from hdgan.core.masks import decode_mask
from hdgan.desk.png_text import read_candidate_id, with_candidate_id
from support.desk_run import png

GLASS, PINK, PURPLE = (243, 243, 243), (225, 130, 170), (120, 75, 125)
ID = "ab" * 16


def skin() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Glass, then collagen with scattered nuclei, then a band of epidermis, with some noise."""
    rgb = np.empty((64, 64, 3), dtype=np.uint8)
    rgb[:, :16], rgb[:, 16:40], rgb[:, 40:] = GLASS, PINK, PURPLE
    for y in (8, 30, 52):
        rgb[y : y + 4, 26:30] = (70, 40, 110)
    noise = np.random.default_rng(0).normal(0, 6, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def test_compartments_follow_the_stain_and_nuclei_stay_in_their_dermis() -> None:
    labels = standin.label_stains(skin())
    expected = np.repeat([0, 1, 2], [16, 24, 24])
    inner = np.r_[0:12, 20:35, 45:64]
    assert (labels[:, inner] == expected[inner]).all()
    assert (labels == expected).mean() > 0.95


def test_islands_smaller_than_a_compartment_take_their_surroundings() -> None:
    labels = np.ones((32, 32), dtype=np.uint8)
    labels[4:8, 4:8] = 2
    labels[16:28, 16:28] = 0
    cleaned = standin.remove_islands(labels, 48)
    assert (cleaned[4:8, 4:8] == 1).all()
    assert (cleaned[16:28, 16:28] == 0).all()


def test_deconvolution_separates_the_two_stains_it_is_given() -> None:
    eosin_vector = np.asarray(standin.EOSIN) / np.linalg.norm(standin.EOSIN)
    vector = np.asarray(standin.HAEMATOXYLIN) / np.linalg.norm(standin.HAEMATOXYLIN)
    density = (0.7 * vector + 0.4 * eosin_vector)[None, None]
    haematoxylin, eosin = standin.stain_concentrations(density)
    assert haematoxylin == pytest.approx(0.7)
    assert eosin == pytest.approx(0.4)


def export(folder: Path, names: tuple[str, ...] = standin.CLASS_ORDER) -> Path:
    folder.mkdir()
    classes = [{"name": n, "color": f"#0000{i + 1:02x}"} for i, n in enumerate(names)]
    (folder / "classes.json").write_text(json.dumps(classes))
    (folder / f"train-{ID}.png").write_bytes(with_candidate_id(png(skin()), ID))
    (folder / "contact-sheet.png").write_bytes(png(skin()))
    return folder


def test_masks_carry_the_id_and_come_out_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = export(tmp_path / "out")
    for name in ("one", "two"):
        standin.main([str(source), str(tmp_path / name)])
    assert [path.name for path in (tmp_path / "one").iterdir()] == [f"{ID}.png"]
    data = (tmp_path / "one" / f"{ID}.png").read_bytes()
    assert data == (tmp_path / "two" / f"{ID}.png").read_bytes()
    assert read_candidate_id(data) == ID
    np.testing.assert_array_equal(decode_mask(data, classes=3), standin.label_stains(skin()))
    assert "NOT a pathologist" in capsys.readouterr().out


def test_other_classes_than_the_rule_knows_are_refused(tmp_path: Path) -> None:
    source = export(tmp_path / "out", ("stroma", "tumour"))
    with pytest.raises(SystemExit, match="label other classes by hand"):
        standin.main([str(source), str(tmp_path / "masks")])
