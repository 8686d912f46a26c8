"""The dataset card says what the dataset is, from the numbers it is given."""

from __future__ import annotations

from typing import Any

from hdgan.core.sections import SynthesizerConfig
from hdgan.synthesizer.calibration import AcceptanceRule
from hdgan.synthesizer.card import dataset_card
from support.tiny_synthesizer import CLASSES

SCORES: dict[str, Any] = {
    "test": {"dice": {"macro": 0.91234, "perClass": {"dark": 0.8, "light": None}}}
}


def row(dark: float) -> dict[str, Any]:
    size = {"width": 64, "height": 32, "mpp": 0.5}
    return {**size, "fraction_dark": dark, "fraction_light": 1 - dark}


def test_the_card_states_numbers_and_origin() -> None:
    config = SynthesizerConfig(count=2, psi=0.75, seed=9, noise="perSample")
    rule = AcceptanceRule(0.0123456, 0.905)
    card = dataset_card(config, CLASSES, rule, [row(0.2), row(0.3)], SCORES, "a" * 64, "b" * 64)
    assert "# Synthetic histology: 2 image + mask pairs" in card
    assert "2, 64 x 32 px at 0.5 um/px" in card
    assert "| 9, 0.75, perSample |" in card
    assert "<= 0.01235 (90% of the calibration draw)" in card
    assert "a" * 64 in card
    assert "b" * 64 in card
    # Mean of the rows' shares; a class that could not be scored shows no number.
    assert "| 0 | dark | #203040 | 25.0% | 0.800 |" in card
    assert "| 1 | light | #e0d0c0 | 75.0% | - |" in card
    assert "generated images: 0.912" in card
