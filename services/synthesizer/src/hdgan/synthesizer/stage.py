"""The stages of this service: images for the expert, which to label, and the finished dataset."""

from __future__ import annotations

from hdgan.core.pipeline import RANKING, RERANKING, STAGE_VERSIONS
from hdgan.core.run import CandidatesConfig, SynthesizerConfig
from hdgan.core.stage import Stage
from hdgan.synthesizer.candidates import make_candidates
from hdgan.synthesizer.dataset import make_dataset
from hdgan.synthesizer.ranking import rank_candidates

CANDIDATES = Stage(
    name="candidates",
    version=STAGE_VERSIONS["candidates"],
    config=CandidatesConfig,
    run=make_candidates,
)
RANKINGS = tuple(
    Stage(name=name, version=STAGE_VERSIONS[name], config=CandidatesConfig, run=rank_candidates)
    for name in (RANKING, RERANKING)
)
DATASET = Stage(
    name="dataset",
    version=STAGE_VERSIONS["dataset"],
    config=SynthesizerConfig,
    run=make_dataset,
    parts=True,
)
