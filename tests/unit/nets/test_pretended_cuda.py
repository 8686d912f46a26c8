"""What a GPU computes with, and when the host waits for it, looked at without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from hdgan.classifier.labelled_pixels import labelled_pixels
from hdgan.classifier.sampling import RowPool
from hdgan.classifier.training import Training as ClassifierTraining
from hdgan.classifier.training import TrainingSettings
from hdgan.gan_trainer.training import Training
from hdgan.nets.architecture import Architecture
from hdgan.nets.checkpoint import load_weights, weights_to_bytes
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, PixelEnsemble
from hdgan.nets.generator import Generator
from hdgan.nets.labelling import Labeller
from hdgan.nets.latents import draw_z
from hdgan.nets.layers import channels_last
from hdgan.nets.pyramid import feature_plan
from hdgan.nets.shards import ImageFeatures
from support.gan_training import SIDE, config, labelled, run, tensors
from support.pretended_cuda import pretended_cuda

ARCH = Architecture(16, latent_dim=8, mapping_layers=2, channel_base=128, channel_max=12)
PLAN = feature_plan(ARCH, 2)


def ensemble() -> PixelEnsemble:
    spec = EnsembleSpec(
        plan=PLAN,
        blocks=2,
        dtype="float16",
        classes=tuple(ClassLabel(name, "#000000") for name in "abc"),
        hidden=(8, 6),
        members=3,
        dropout=0.2,
        mean=np.full(PLAN.channels, 0.2),
        std=np.full(PLAN.channels, 0.7),
        log_prior_correction=np.array([0.1, -0.3, 0.2]),
        generator="g" * 64,
    )
    return PixelEnsemble(spec, seed=3)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda gpu, cpu: gpu + cpu,
        lambda gpu, cpu: torch.cat([gpu, cpu]),
        lambda gpu, cpu: gpu.numpy(),
        lambda gpu, cpu: gpu.normal_(generator=torch.Generator()),
        lambda gpu, cpu: cpu.normal_(generator=torch.Generator("cuda")),
    ],
)
def test_what_a_gpu_refuses_is_refused(
    mistake: Callable[[torch.Tensor, torch.Tensor], object],
) -> None:
    with pretended_cuda():
        gpu, cpu = torch.ones(3, device="cuda"), torch.ones(3)
        assert (gpu.device.type, (gpu * 2).device.type) == ("cuda", "cuda")
        with pytest.raises((RuntimeError, TypeError)):
            mistake(gpu, cpu)


@pytest.mark.parametrize(
    "wait",
    [
        lambda gpu: gpu.sum().item(),
        lambda gpu: bool(gpu.any()),
        lambda gpu: gpu.tolist(),
        lambda gpu: gpu.cpu(),
        lambda gpu: gpu.nonzero(),
        lambda gpu: gpu[gpu > 0],
        lambda gpu: gpu[torch.tensor([0])],
        lambda gpu: torch.ones(3).to("cuda"),
        lambda gpu: torch.tensor([1.0], device="cuda"),
        lambda gpu: gpu.copy_(torch.ones(3)),
    ],
)
def test_a_wait_is_seen(wait: Callable[[torch.Tensor], object]) -> None:
    with pretended_cuda() as waits:
        gpu = torch.ones(3, device="cuda")
        gpu.mul_(2).add_(torch.ones(3).to(gpu.device, non_blocking=True))
        assert waits == []
        wait(gpu)
    assert len(waits) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"augment_set": "bgcfnc", "augment_p": 0.8},
        {"precision": "bfloat16", "recompute_resolutions": 2},
        {"batch": 8, "per_device_batch": 4, "labels": 3},
    ],
    ids=["augmentations", "bfloat16", "accumulating"],
)
def test_a_training_step_waits_for_gradients_and_measures_alone(changes: dict[str, object]) -> None:
    more = labelled(int(str(changes.pop("labels", 0))))
    expected = Training(config(**changes), SIDE, **more)
    run(expected, 2)
    with pretended_cuda() as waits:
        training = Training(config(**changes), SIDE, "cuda", **more)
        waits.clear()
        run(training, 1)  # the first one has all regularisers
        seen = Counter(waits)
        run(training, 1)
        found = {name: value.cpu() for name, value in tensors(training).items()}
    assert seen == {
        "gan_trainer.training._apply: aten._local_scalar_dense": 4,
        "gan_trainer.training._measured: tolist": 1,
    }
    for name, value in tensors(expected).items():
        # Adam is another program on a GPU, and in 16 bits that is seen.
        close = 1e-2 if "precision" in changes else 1e-4
        assert torch.allclose(value, found[name], rtol=close, atol=close), name


def test_labelling_waits_for_its_results_alone() -> None:
    network = channels_last(Generator(ARCH).eval().requires_grad_(False))
    ws = network.mapping(torch.from_numpy(draw_z(1, "dataset", 0, 8))[None])
    expected = Labeller(ensemble(), "cpu").label(network, ws, "constant")
    with pretended_cuda() as waits:
        there = channels_last(Generator(ARCH).to("cuda").eval().requires_grad_(False))
        load_weights(there, weights_to_bytes(network), "test")
        labeller, ws = Labeller(ensemble(), "cuda"), ws.to("cuda")
        waits.clear()
        found = labeller.label(there, ws, "constant")
    assert Counter(waits) == {
        "nets.pyramid.__call__: aten._local_scalar_dense": len(PLAN.maps),  # is it finite?
        "nets.pyramid.render: to the host": 1,
        "nets.labelling.iter_dense: to the host": 3,
    }
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_allclose(found.uncertainty, expected.uncertainty, atol=1e-5)
    np.testing.assert_array_equal(found.mask, expected.mask)


def test_stored_maps_are_sent_to_a_gpu_without_a_wait() -> None:
    maps = [
        np.random.default_rng(index).standard_normal((one.resolution, one.resolution, one.channels))
        for index, one in enumerate(PLAN.maps)
    ]
    labels = np.random.default_rng(9).choice([0, 1, 2, 255], (16, 16)).astype(np.uint8)
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    image = ImageFeatures(
        "a", "train", tuple(one.astype(np.float16) for one in maps), labels, picture
    )
    pixels = labelled_pixels([labels], 3)
    settings = TrainingSettings("adam", 1e-2, batch=16, epochs=2, patience=2, seed=0)
    with pretended_cuda() as waits:
        training = ClassifierTraining(
            (model := ensemble().to("cuda")),
            RowPool(model, [image], pixels, seed=0, batch=16, device="cuda"),
            settings,
            epoch_pixels=64,
            validate=None,
        )
        training.step(0)  # fills the pool
        waits.clear()
        training.step(1)
        saved = training.save()
        assert Counter(waits)["classifier.training.step: aten._local_scalar_dense"] == 1
        assert not [one for one in waits if one.endswith("to the device")]
        training.restore(*saved)
        training.step(2)
        training.pool.close()
