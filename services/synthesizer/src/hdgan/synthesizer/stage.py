"""The two stages of this service: images for the expert, and the finished dataset."""

from __future__ import annotations

from hdgan.core.pipeline import STAGE_VERSIONS
from hdgan.core.run import CandidatesConfig, SynthesizerConfig
from hdgan.core.stage import Stage
from hdgan.synthesizer.candidates import make_candidates
from hdgan.synthesizer.dataset import make_dataset

CANDIDATES = Stage(
    name="candidates",
    version=STAGE_VERSIONS["candidates"],
    config=CandidatesConfig,
    run=make_candidates,
)
DATASET = Stage(
    name="dataset",
    version=STAGE_VERSIONS["dataset"],
    config=SynthesizerConfig,
    run=make_dataset,
    parts=True,
)
