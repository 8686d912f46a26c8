"""NVIDIA's pickles: taken apart exactly, nothing in them is run, everything else is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hdgan.core.errors import RequestError
from hdgan.core.initial_networks import FILES
from hdgan.nets import checkpoint
from hdgan.nets.architecture import Architecture
from hdgan.nets.convert.restricted_pickle import PLAIN as NAMES
from hdgan.nets.convert.restricted_pickle import restricted_load
from hdgan.nets.convert.run_converter import convert_stylegan2_pickle
from hdgan.nets.convert.stylegan2_names import (
    architecture_of,
    discriminator_weights,
    generator_weights,
)
from hdgan.nets.convert.stylegan2_pickle import read_pickle
from support.official_pickle import (
    Call,
    discriminator,
    dumps,
    generator,
    legacy_storage,
    module,
    networks,
)

PLAIN = Architecture(16, latent_dim=8, mapping_layers=2, channel_base=128, channel_max=8)
CLAMPED = Architecture(
    32, latent_dim=8, mapping_layers=3, channel_base=128, channel_max=16, conv_clamp=256.0
)
LABELLED = Architecture(
    8,
    latent_dim=8,
    mapping_layers=2,
    channel_base=64,
    channel_max=8,
    labels=("label 0", "label 1", "label 2"),
)


def official(arch: Architecture, **changes: Any) -> dict[str, Any]:
    made, judge = networks(arch)
    average = generator(made, **changes)
    return {
        "training_set_kwargs": Call("dnnlib.util", "EasyDict"),
        "G": average,
        "D": discriminator(judge),
        "G_ema": average,
        "augment_pipe": None,
    }


def convert(data: bytes) -> None:
    """All that the converter does with a pickle, in this process."""
    found = read_pickle(data)
    arch = architecture_of(found["G_ema"], found["D"])
    generator_weights(found["G_ema"], arch)
    discriminator_weights(found["D"], arch)


@pytest.mark.parametrize("arch", [PLAIN, CLAMPED, LABELLED], ids=["plain", "clamped", "labelled"])
def test_every_weight_arrives_under_our_names(arch: Architecture, tmp_path: Path) -> None:
    source = tmp_path / "network.pkl"
    source.write_bytes(dumps(official(arch)))
    described = convert_stylegan2_pickle(source, tmp_path / "out")
    assert Architecture.from_json(json.dumps(described).encode()) == arch
    made, judge = networks(arch)

    def read(name: str) -> bytes:
        return (tmp_path / "out" / name).read_bytes()

    for found, expected in (
        (checkpoint.load_generator(read), made),
        (checkpoint.load_discriminator(read), judge),
    ):
        for name, tensor in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor), name
    assert set(FILES) <= set(os.listdir(tmp_path / "out"))
    about = json.loads(read("source.json"))
    assert (about["bytes"], len(about["sha256"])) == (source.stat().st_size, 64)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o666 & ~_umask()}


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def _touch(path: Path) -> list[Call]:
    """Calls that would make a file, by several ways in."""
    command = f"touch {path}"
    return [
        Call("os", "system", command),
        Call("posix", "system", command),
        Call("builtins", "eval", f"open({str(path)!r}, 'w')"),
        Call("builtins", "exec", f"open({str(path)!r}, 'w')"),
        Call("__builtin__", "getattr", "os", "system"),
        Call("subprocess", "check_call", ["touch", str(path)]),
        Call("pickle", "loads", dumps(Call("os", "system", command))),
        Call("torch", "load", str(path)),
        Call("torch.hub", "load", command),
        Call("importlib", "import_module", "os"),
        Call("hdgan.core.store", "open_store", str(path)),
    ]


@pytest.mark.parametrize("way", range(11))
@pytest.mark.parametrize("place", ["top", "buffer", "storage"])
def test_nothing_in_a_pickle_is_run(way: int, place: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    evil: Any = _touch(touched)[way]
    found = official(PLAIN)
    if place == "storage":
        # Inside the stream of a tensor inside the pickle.
        evil = Call("torch.storage", "_load_from_bytes", dumps(evil))
        evil = Call("torch._utils", "_rebuild_tensor_v2", evil, 0, (1,), (1,), False, {})
    if place == "top":
        found["augment_pipe"] = evil
    else:
        found["D"] = module("Discriminator", _buffers={"x": evil})
    with pytest.raises(RequestError, match=r"refused|none that torch\.save makes"):
        read_pickle(dumps(found))
    assert not touched.exists()


def test_source_text_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    found = official(PLAIN)
    source = f"open({str(touched)!r}, 'w')"
    found["augment_pipe"] = module("AugmentPipe", source)
    read_pickle(dumps(found))
    assert not touched.exists()


def test_a_damaged_pickle_is_refused_with_a_reason_wherever_it_ends() -> None:
    data = dumps(official(PLAIN))
    chance = random.Random(0)
    ends = [0, 1, 2, 3, len(data) - 1, *(chance.randrange(len(data)) for _ in range(40))]
    for end in ends:
        with pytest.raises(RequestError):
            read_pickle(data[:end])


def test_a_pickle_with_changed_bytes_is_read_or_refused_and_never_anything_else() -> None:
    data = dumps(official(PLAIN))
    chance = random.Random(1)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 2, 8])):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        with contextlib.suppress(RequestError):
            convert(bytes(changed))


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((2, 2), (2, 2), 0),
        ((4,), (1,), 1),
        ((-1,), (1,), 0),
        ((1 << 40,), (0,), 0),
    ],
)
def test_tensors_that_reach_beyond_their_numbers_are_refused(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    stored = Call("torch.storage", "_load_from_bytes", _four_numbers())
    tensor = Call("torch._utils", "_rebuild_tensor_v2", stored, offset, shape, stride, False, {})
    found = official(PLAIN)
    found["D"] = module("Discriminator", _buffers={"x": tensor})
    with pytest.raises(RequestError, match="refused"):
        read_pickle(dumps(found))


def _four_numbers() -> bytes:
    return legacy_storage(torch.arange(4.0))


def test_bombs_end_in_the_converter_and_leave_nothing(tmp_path: Path) -> None:
    bombs = {
        # Asks the unpickler for a table of 2^31 entries.
        "table": b"\x80\x03Nr\xff\xff\xff\x7f0" + b".",
        "nested": b"\x80\x03" + b"(" * 200_000 + b"t" * 200_000 + b".",
        "long string": b"\x80\x03B\xff\xff\xff\x7f.",
        "endless references": b"\x80\x03]q\x00" + b"(h\x00h\x00lq\x00" * 20_000 + b".",
        "no pickle": b"PK\x03\x04" + bytes(100),
        "empty": b"",
    }
    for name, data in bombs.items():
        source = tmp_path / "network.pkl"
        source.write_bytes(data)
        with pytest.raises(RequestError, match=r"network\.pkl: "):
            convert_stylegan2_pickle(source, tmp_path / "out")
        assert sorted(os.listdir(tmp_path)) == ["network.pkl"], name


def test_networks_that_ours_cannot_express_are_refused_by_what_differs(tmp_path: Path) -> None:
    def refused(found: dict[str, Any], why: str) -> None:
        with pytest.raises(RequestError, match=why):
            convert(dumps(found))

    refused(official(PLAIN, z_dim=16), "z has 16 dimensions and its w 8")
    refused(official(PLAIN, img_channels=1), "makes 1 channels")
    refused(official(PLAIN, img_resolution="large"), "img_resolution is 'large'")
    refused(official(PLAIN, img_resolution=32), r"lacks synthesis\.b32")
    made, judge = networks(PLAIN)
    refused(
        {"G_ema": generator(made), "D": discriminator(judge, architecture="orig")},
        "is of kind 'orig'; ours is resnet",
    )
    with torch.no_grad():
        made.synthesis.const[0, 0, 0] = float("nan")
    refused({"G_ema": generator(made), "D": discriminator(judge)}, "not finite at synthesis.const")
    wider = networks(Architecture(16, 8, 2, channel_base=256, channel_max=16))[1]
    refused({"G_ema": generator(networks(PLAIN)[0]), "D": discriminator(wider)}, "another shape at")
    with pytest.raises(RequestError, match="no network D"):
        read_pickle(dumps({"G_ema": generator(made)}))


def test_a_folder_with_files_is_never_written_to(tmp_path: Path) -> None:
    source = tmp_path / "network.pkl"
    source.write_bytes(dumps(official(PLAIN)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(RequestError, match="not an empty folder"):
        convert_stylegan2_pickle(source, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "kept"
    with pytest.raises(RequestError, match="there is no such file"):
        convert_stylegan2_pickle(tmp_path / "none.pkl", tmp_path / "other")


def test_single_numbers_of_numpy_are_read() -> None:
    for value in (np.float64(0.25), np.float32(-2), np.int64(-7), np.bool_(True)):
        for protocol in (3, 4):
            found = restricted_load(io.BytesIO(pickle.dumps(value, protocol)), NAMES)
            assert (type(found), found) == (type(value.item()), value.item())
