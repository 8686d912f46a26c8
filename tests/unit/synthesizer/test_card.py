"""The dataset card says what the dataset is, from the numbers it is given."""

from __future__ import annotations

from typing import Any

from hdgan.core.sections import QuotaConfig, SynthesizerConfig
from hdgan.synthesizer.calibration import AcceptanceRule
from hdgan.synthesizer.card import dataset_card
from hdgan.synthesizer.quotas import solve
from support.tiny_synthesizer import CLASSES

SCORES: dict[str, Any] = {
    "test": {"dice": {"macro": 0.91234, "perClass": {"dark": 0.8, "light": None}}}
}


def row(dark: float, ignored: float = 0.0) -> dict[str, Any]:
    light = 1 - ignored - dark
    size = {"width": 64, "height": 32, "mpp": 0.5}
    return {**size, "ignored": ignored, "fraction_dark": dark, "fraction_light": light}


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
    assert "Quotas" not in card
    assert "255 where" not in card


def test_the_card_says_what_was_done_to_masks_and_to_the_mix() -> None:
    quota = QuotaConfig.model_validate({"class": "dark", "minFraction": 0.5, "share": 0.4})
    config = SynthesizerConfig(
        quotas=[quota], ignore_above=0.25, smoothing="majority", smoothing_radius=2.0
    )
    acceptance = solve([(0,)] + [()] * 4, [quota])
    rule = AcceptanceRule(0.5, 0.45, (quota,), acceptance)
    rows = [row(0.5, 0.2), row(0.1, 0.2), row(0.3, 0.2)]
    card = dataset_card(config, CLASSES, rule, rows, SCORES, "a" * 64, "b" * 64)
    assert "thinned for quotas (45% of the calibration draw)" in card
    assert "smoothed (majority within 2 um), then 255 where uncertainty > 0.25" in card
    assert "20.00% of all pixels" in card
    # 0.3 of all pixels are 0.375 of the 0.8 that are labelled.
    assert "| 0 | dark | #203040 | 37.5% | 0.800 |" in card
    assert "| dark, at least 0.5 of the pixels | 40% | 40.0% | 33.3% |" in card
    assert "acceptance_probability" in card
