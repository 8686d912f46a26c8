"""Sampling and the training loop: even classes, nothing unlabelled, resume bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hdgan.classifier.labelled_pixels import labelled_pixels, require_every_class
from hdgan.classifier.sampling import DROPOUT_STREAM, RowPool, SegmentPlan, even_shares
from hdgan.classifier.training import Training, TrainingSettings
from hdgan.core.errors import DataError, RequestError
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, FoldedEnsemble, PixelEnsemble, fold
from hdgan.nets.pyramid import FeatureMap, FeaturePlan, sample_rows
from hdgan.nets.shards import ImageFeatures

PLAN = FeaturePlan(16, (FeatureMap("b8.conv1", 8, 3), FeatureMap("b16.conv1", 16, 3)))
SETTINGS = TrainingSettings(
    optimizer="adam", learning_rate=0.01, batch=60, epochs=4, patience=10, seed=5, feature_noise=0.1
)


def image(seed: int, labels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> ImageFeatures:
    stream = torch.Generator().manual_seed(seed)
    fine = torch.randn(16, 16, 3, generator=stream)
    fine[..., 0] = torch.from_numpy(labels.astype(np.float32)).clamp(max=3.0) * 2
    return ImageFeatures(
        f"image{seed}",
        "train",
        (torch.randn(8, 8, 3, generator=stream), fine),
        labels,
        np.zeros((16, 16, 3), dtype=np.uint8),
    )


def labelled_image(seed: int) -> ImageFeatures:
    """Classes 0, 1 and 2 unevenly, a few unlabelled pixels."""
    drawn = np.random.default_rng(seed).choice([0, 1, 2, 255], (16, 16), p=[0.7, 0.15, 0.1, 0.05])
    return image(seed, drawn.astype(np.uint8))


IMAGES = tuple(labelled_image(seed) for seed in range(3))
PIXELS = labelled_pixels([one.labels for one in IMAGES], 3)


def ensemble(members: int = 3, dropout: float = 0.2) -> PixelEnsemble:
    spec = EnsembleSpec(
        plan=PLAN,
        blocks=2,
        dtype="float32",
        classes=tuple(ClassLabel(name, "#000000") for name in "abc"),
        hidden=(8, 6),
        members=members,
        dropout=dropout,
        mean=np.zeros(6),
        std=np.ones(6),
        log_prior_correction=np.zeros(3),
        generator="g" * 64,
    )
    return PixelEnsemble(spec, seed=5)


def training(
    settings: TrainingSettings = SETTINGS,
    *,
    members: int = 3,
    budget: int = 2**30,
    validate: Callable[[FoldedEnsemble], float] | None = None,
) -> Training:
    made = ensemble(members)
    pool = RowPool(made, IMAGES, PIXELS, seed=settings.seed, batch=settings.batch, budget=budget)
    return Training(made, pool, settings, epoch_pixels=sum(PIXELS.counts), validate=validate)


def test_the_index_holds_every_labelled_pixel_once_and_no_other() -> None:
    seen = np.zeros((3, 256), dtype=int)
    for value in range(3):
        chunks = PIXELS.chunks(value, size=5)
        for number in range(chunks.count):
            index, pixels = chunks.read(number)
            assert 1 <= len(pixels) <= 5
            assert (IMAGES[index].labels.reshape(-1)[pixels] == value).all()
            seen[index, pixels] += 1
    for one, count in zip(IMAGES, seen, strict=True):
        assert np.array_equal(count, one.labels.reshape(-1) != 255)


def test_a_class_without_pixels_is_named() -> None:
    with pytest.raises(RequestError, match="class 'b', 'c'") as caught:
        require_every_class([5, 0, 0], ["a", "b", "c"])
    assert caught.value.exit_code == 64


def test_classes_share_a_batch_evenly_and_take_turns_with_the_remainder() -> None:
    assert even_shares(9, 3, 0) == [3, 3, 3]
    assert [even_shares(7, 3, step) for step in range(3)] == [[3, 2, 2], [2, 3, 2], [2, 2, 3]]


@pytest.mark.parametrize("budget", [2**30, 4 * 6 * 90])
def test_drawn_rows_carry_their_own_class(budget: int) -> None:
    made = ensemble()
    pool = RowPool(made, IMAGES, PIXELS, seed=1, batch=60, budget=budget)
    for step in range(5):
        batch = pool.draw(step)
        assert batch.rows.shape == (3, 60, 6)
        assert torch.equal(batch.rows[..., 3], batch.labels * 2.0)  # channel 3 tells the class
        assert torch.bincount(batch.labels[0]).tolist() == [20, 20, 20]
        assert not torch.equal(batch.rows[0], batch.rows[1])


def test_a_draw_depends_on_its_step_alone() -> None:
    for budget in (2**30, 4 * 6 * 90):
        one = RowPool(ensemble(), IMAGES, PIXELS, seed=1, batch=60, budget=budget)
        other = RowPool(ensemble(), IMAGES, PIXELS, seed=1, batch=60, budget=budget)
        for step in range(4):
            one.draw(step)
        assert torch.equal(one.draw(4).rows, other.draw(4).rows)
        assert not torch.equal(one.draw(4).rows, one.draw(5).rows)


def test_a_small_pool_still_reaches_every_pixel() -> None:
    pool = RowPool(ensemble(1), IMAGES, PIXELS, seed=1, batch=30, budget=4 * 6 * 60)
    seen = {tuple(row.tolist()) for step in range(600) for row in pool.draw(step).rows[0]}
    assert len(seen) == sum(PIXELS.counts)


def test_a_pass_reads_every_chunk_once_and_passes_differ() -> None:
    plan = SegmentPlan(seed=3, chunks=(12, 4), per_segment=3)
    passes = [np.concatenate([plan.chosen(4 * p + n)[0] for n in range(4)]) for p in range(2)]
    for one in passes:
        assert sorted(one.tolist()) == list(range(12))
    assert passes[0].tolist() != passes[1].tolist()
    rare = np.concatenate([plan.chosen(n)[1] for n in range(4)])
    assert np.bincount(rare).tolist() == [3, 3, 3, 3]


def test_a_small_pool_gives_each_pixel_of_a_class_the_same_chance() -> None:
    pool = RowPool(ensemble(1), IMAGES, PIXELS, seed=1, batch=30, budget=4 * 6 * 60)
    seen = Counter(
        tuple(row.tolist()) for step in range(3000) for row in pool.draw(step).rows[0][:10]
    )
    drawn = np.array(list(seen.values()))
    assert len(drawn) == PIXELS.counts[0]
    assert drawn.std() < 0.25 * drawn.mean()


def test_a_members_rows_do_not_depend_on_the_other_members() -> None:
    few = RowPool(ensemble(2), IMAGES, PIXELS, seed=1, batch=60).draw(3)
    many = RowPool(ensemble(4), IMAGES, PIXELS, seed=1, batch=60).draw(3)
    assert torch.equal(few.rows, many.rows[:2])


@pytest.mark.parametrize("stop_at", [1, 7, 11])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_resumed_training_ends_the_same_bit_for_bit(stop_at: int, optimizer: str) -> None:
    settings = replace(SETTINGS, optimizer=optimizer)

    def score(folded: FoldedEnsemble) -> float:
        rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
        return float(folded.logits(rows).std())

    whole = training(settings, validate=score)
    assert whole.run()
    first = training(settings, validate=score)
    assert not first.run(stop=lambda: first.state.step == stop_at)
    tensors, counters = first.save()
    second = training(settings, validate=score)
    second.restore(tensors, counters)
    assert second.run()
    assert second.state == whole.state
    for name, value in whole.ensemble.state_dict().items():
        assert torch.equal(value, second.ensemble.state_dict()[name]), name


def test_training_is_deterministic_and_the_seed_matters() -> None:
    runs = [training(one) for one in (SETTINGS, SETTINGS, replace(SETTINGS, seed=6))]
    for one in runs:
        one.run()
    weights = [one.ensemble.weights[0] for one in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_label_smoothing_spreads_a_share_of_the_target_over_all_classes() -> None:
    settings = replace(SETTINGS, feature_noise=0.0, label_smoothing=0.3)
    made = training(settings)
    batch = made.pool.draw(0)
    logits = made.ensemble.train_logits(batch.rows, made._stream(DROPOUT_STREAM, 0))
    minus_log_p = -logits.log_softmax(dim=2)
    of_class = minus_log_p.gather(2, batch.labels[..., None])[..., 0]
    expected = (0.7 * of_class + 0.3 * minus_log_p.mean(dim=2)).mean()
    assert made.step(0) == pytest.approx(expected.item(), rel=1e-5)


def test_feature_noise_has_its_deviation_and_other_values_at_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.Tensor] = []
    original = PixelEnsemble.train_logits

    def train_logits(self: PixelEnsemble, x: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        seen.append(x.clone())
        return original(self, x, stream)

    monkeypatch.setattr(PixelEnsemble, "train_logits", train_logits)
    made = training(replace(SETTINGS, feature_noise=0.5))
    noise = []
    for step in range(2):
        made.step(step)
        noise.append(seen[step] - made.pool.draw(step).rows)
    for one in noise:
        assert one.std().item() == pytest.approx(0.5, rel=0.1)
    assert not torch.equal(noise[0], noise[1])


def test_a_member_trains_as_it_would_alone() -> None:
    settings = replace(SETTINGS, optimizer="sgd", feature_noise=0.0, epochs=2)
    plain = [training(settings, members=members) for members in (1, 3)]
    for one in plain:
        one.ensemble.spec = replace(one.ensemble.spec, dropout=0.0)
        one.run()
    alone, together = (one.ensemble.weights[0][0] for one in plain)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-6)


def test_the_best_epoch_is_kept_and_patience_ends_training() -> None:
    scores = iter([0.2, 0.8, 0.5, 0.6, 0.7, 0.9])
    weights: list[torch.Tensor] = []

    def score(folded: FoldedEnsemble) -> float:
        weights.append(folded.first_bias.clone())
        return next(scores)

    made = training(replace(SETTINGS, epochs=6, patience=3), validate=score)
    made.run()
    assert [one.val_macro_dice for one in made.state.history] == [0.2, 0.8, 0.5, 0.6, 0.7]
    assert made.state.best_epoch == 1
    assert torch.equal(fold(made.ensemble).first_bias, weights[1])


def test_without_validation_the_last_epoch_is_kept() -> None:
    made = training()
    made.run()
    assert len(made.state.history) == 4
    assert made.state.best_epoch == 3


def test_it_learns() -> None:
    made = training(replace(SETTINGS, epochs=20))
    made.run()
    assert made.state.history[-1].loss < made.state.history[0].loss / 2
    pixels = torch.arange(16 * 16)
    vectors = torch.cat([sample_rows(one.maps, pixels, 16) for one in IMAGES])
    labels = torch.cat([torch.from_numpy(one.labels.reshape(-1)) for one in IMAGES])
    found = fold(made.ensemble).logits(vectors).mean(dim=0).argmax(dim=1)
    labelled = labels != 255
    assert (found == labels)[labelled].float().mean() > 0.95


def test_divergence_says_what_to_change() -> None:
    made = training(replace(SETTINGS, optimizer="sgd", learning_rate=1e30))
    with pytest.raises(DataError, match=r"spec\.classifier\.learningRate"):
        made.run()


def test_unlabelled_pixels_are_in_no_class() -> None:
    nothing = labelled_pixels([np.full((4, 4), 255, dtype=np.uint8)], 2)
    assert nothing.counts == (0, 0)
