"""What the ranking stages see of candidates: the table, what it is made of, stops on the way."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hdgan.core.artifact import Artifact, Attempt, open_artifact
from hdgan.core.pipeline import RANKING, RERANKING, STAGE_VERSIONS
from hdgan.core.request import InputRef, StageRequest
from hdgan.core.stage import run_stage
from hdgan.core.store import Store, open_store
from hdgan.desk.choosing import read_ranking
from hdgan.nets.checkpoint import weights_to_bytes
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.labelling import Labeller
from hdgan.nets.pyramid import feature_plan, render, sample_rows
from hdgan.synthesizer import looks, ranking, textures
from hdgan.synthesizer.stage import CANDIDATES, RANKINGS
from hdgan.synthesizer.textures import grid_positions, learn_textures, mass
from support.dataset_stage import tiny_ensemble
from support.tiny_synthesizer import ARCH, sampler, tiny_generator

COUNT = 12
SIDE = ARCH.resolution


def reference(artifact: Artifact) -> InputRef:
    manifest = artifact.manifest
    return InputRef(stage=manifest.stage, key=manifest.key, content_digest=manifest.content_digest)


class Bench:
    """A store with a generator, its candidates and an ensemble on its features."""

    def __init__(self, folder: Path, *, discriminator: bool = True, seed: int = 0) -> None:
        self.folder = folder
        self.store: Store = open_store((folder / "store").as_uri())
        attempt = Attempt(self.store, "gan-trainer", "0" * 64)
        attempt.add_bytes("architecture.json", ARCH.to_json())
        attempt.add_bytes("generator.safetensors", weights_to_bytes(tiny_generator()))
        if discriminator:
            torch.manual_seed(seed)
            attempt.add_bytes("discriminator.safetensors", weights_to_bytes(Discriminator(ARCH)))
        made = attempt.commit({})
        self.generator = made
        self.inputs = {"generator": reference(made)}
        request = self.request("candidates", {"generator"}, config={"count": COUNT, "seed": 5})
        assert self.run(request, (CANDIDATES,))[0] == 0
        self.candidates = self.made("candidates")
        attempt = Attempt(self.store, "classifier", "c" * 64)
        for name, data in tiny_ensemble(made.content_digest).dump().items():
            attempt.add_bytes(name, data)
        self.inputs |= {
            "candidates": reference(self.candidates),
            "ensemble": reference(attempt.commit({})),
        }

    def request(self, stage: str, inputs: set[str], **changes: Any) -> StageRequest:
        values: dict[str, Any] = {
            "run": "test",
            "stage": stage,
            "service": "synthesizer",
            "config": {"count": COUNT, "seed": 5},
            "context": {"blocks": 2, "dtype": "float16"},
            "inputs": {name: self.inputs[name] for name in sorted(inputs)},
            "key": stage.encode().hex().ljust(64, "0"),
            "stage_version": STAGE_VERSIONS[stage],
            "store": self.store.uri,
            "scratch": str(self.folder / "scratch"),
            "device": "cpu",
            "threads": 1,
        }
        return StageRequest(**(values | changes))

    def ranking(self) -> StageRequest:
        return self.request(RANKING, {"generator", "candidates"})

    def reranking(self) -> StageRequest:
        return self.request(RERANKING, {"generator", "candidates", "ensemble"})

    def run(self, request: StageRequest, stages: Any = RANKINGS) -> tuple[int, str]:
        path = self.folder / "request.json"
        path.write_text(request.model_dump_json(by_alias=True))
        out = io.StringIO()
        return run_stage(stages, {"HDGAN_REQUEST": str(path)}, out), out.getvalue()

    def made(self, stage: str) -> Artifact:
        artifact = open_artifact(self.store, stage, stage.encode().hex().ljust(64, "0"))
        assert artifact is not None
        return artifact


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def table(artifact: Artifact) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(
        io.BytesIO(artifact.read("ranking.parquet"))
    ).to_pydict()
    return found


def test_the_grid_is_even_and_inside() -> None:
    assert grid_positions(4).tolist() == list(range(16))
    y, x = np.divmod(grid_positions(64), 64)
    assert sorted(set(x.tolist())) == sorted(set(y.tolist())) == list(range(2, 64, 4))


def test_textures_tell_apart_what_differs_and_nothing_else() -> None:
    """Three kinds of pixels, a channel of other scale, and one that never changes."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 3, 900)
    vectors = np.stack(
        [
            np.eye(3)[kinds] @ [0.0, 5.0, 10.0] + 0.01 * random.standard_normal(900),
            1000.0 * (kinds == 1) + random.standard_normal(900),
            np.full(900, 7.0),
        ],
        axis=1,
    ).astype(np.float32)
    learned = learn_textures(vectors)
    found = learned.nearest(learned.positions(vectors))
    # Many textures for one kind there may be, never one for two.
    assert all(len(set(kinds[found == k])) <= 1 for k in range(learned.count))
    again = learn_textures(vectors)
    assert np.array_equal(again.centres, learned.centres)


def test_mass_is_shares_and_weighted_shares() -> None:
    of = np.array([0, 0, 2, 2])
    assert mass(of, 3).tolist() == [0.5, 0.0, 0.5]
    assert mass(of, 3, np.array([0.0, 1.0, 0.5, 0.5])).tolist() == [0.25, 0.0, 0.25]


def test_the_table_has_what_is_seen_of_every_candidate(bench: Bench) -> None:
    code, out = bench.run(bench.ranking())
    assert code == 0, out
    made = bench.made(RANKING)
    rows = table(made)
    document = json.loads(bench.candidates.read("candidates.json"))
    assert rows["id"] == [image["id"] for image in document["images"]]
    seen = read_ranking(made, bench.candidates)
    assert seen.textures.sum(axis=1) == pytest.approx(np.ones(COUNT))
    assert (seen.unsure, seen.uncertainty) == (None, None)
    # By hand, for one of them: the table is about these pictures and these features.
    generator = tiny_generator()
    drawn = sampler("candidates", seed=5)
    plan = feature_plan(ARCH, 2)
    positions = torch.from_numpy(grid_positions(SIDE))
    vectors, contrast = [], []
    for index in range(COUNT):
        sample = drawn.sample(index)
        rendered = render(generator, sample.ws, sample.noise, plan, "float16")
        vectors.append(sample_rows(rendered.maps, positions, SIDE).numpy())
        contrast.append(rendered.image.mean(axis=2).std())
    assert seen.contrast == pytest.approx(contrast, rel=1e-5)
    learned = learn_textures(np.concatenate(vectors))
    one = learned.positions(vectors[3])
    assert seen.textures[3] == pytest.approx(mass(learned.nearest(one), learned.count))
    assert seen.place[3] == pytest.approx(
        np.concatenate([one.mean(axis=0), one.std(axis=0)]), abs=1e-4
    )
    assert np.isfinite(seen.realism).all()
    assert len(set(seen.realism.tolist())) > 1


def test_an_ensemble_says_where_it_is_unsure(bench: Bench) -> None:
    code, out = bench.run(bench.reranking())
    assert code == 0, out
    seen = read_ranking(bench.made(RERANKING), bench.candidates)
    labeller = Labeller(tiny_ensemble(bench.generator.content_digest))
    sample = sampler("candidates", seed=5).sample(4)
    labelled = labeller.label(tiny_generator(), sample.ws, sample.noise)
    assert seen.uncertainty is not None
    assert seen.unsure is not None
    assert seen.uncertainty[4] == pytest.approx(labelled.image_uncertainty, rel=1e-4)
    on_grid = labelled.uncertainty.reshape(-1)[grid_positions(SIDE)]
    assert seen.unsure[4].sum() == pytest.approx(on_grid.mean(), rel=1e-4)


def test_a_generator_without_a_discriminator_is_ranked_as_well(tmp_path: Path) -> None:
    bench = Bench(tmp_path, discriminator=False)
    assert bench.run(bench.ranking())[0] == 0
    seen = read_ranking(bench.made(RANKING), bench.candidates)
    assert np.isnan(seen.realism).all()


def test_another_generator_s_ensemble_is_refused(bench: Bench) -> None:
    attempt = Attempt(bench.store, "classifier", "e" * 64)
    for name, data in tiny_ensemble("ef" * 32).dump().items():
        attempt.add_bytes(name, data)
    bench.inputs["ensemble"] = reference(attempt.commit({}))
    code, out = bench.run(bench.reranking())
    assert code == 64
    assert "run extractor and classifier again" in out


@pytest.mark.parametrize("stop_after", [2, 7, COUNT - 1])
def test_stopped_and_started_again_it_ends_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """While textures are not learned yet, just after, and near the end; and it does not look at
    what it has seen."""
    monkeypatch.setattr(ranking, "REFERENCE_IMAGES", 5)
    whole = bench.reranking()
    assert bench.run(whole)[0] == 0
    expected = bench.made(RERANKING).content_digest

    looked: list[str] = []
    original = looks.Looker.look

    def look(self: looks.Looker, candidate: Any) -> looks.Look:
        looked.append(candidate.id)
        if len(looked) == stop_after:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, candidate)

    monkeypatch.setattr(looks.Looker, "look", look)
    request = whole.model_copy(update={"key": "9" * 64})
    code, out = bench.run(request)
    assert code == 75, out
    assert f"stopped after {stop_after} of {COUNT}" in out
    code, out = bench.run(request)
    assert code == 0, out
    assert len(looked) == len(set(looked)) == COUNT
    again = open_artifact(bench.store, RERANKING, "9" * 64)
    assert again is not None
    assert again.content_digest == expected


def test_one_candidate_is_enough(tmp_path: Path) -> None:
    assert textures.learn_textures(np.zeros((1, 4), np.float32)).count == 1
