"""Hostile pickles and archives of torch, each with the message it must produce. Nothing is run."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from hdgan.core.errors import RequestError
from hdgan.nets.convert.restricted_pickle import InertDict, Named, NumpyType, restricted_load
from hdgan.nets.convert.run_converter import convert_stylegan2_pickle
from hdgan.nets.convert.stylegan2_names import architecture_of
from hdgan.nets.convert.stylegan2_pickle import _stand_ins, read_pickle
from hdgan.nets.convert.torch_archive import LazyTensor, Storage, read_archive_object
from support.official_pickle import Call, dumps, legacy_storage, module

STAND_INS = _stand_ins()
CHANGES = "the pickle changes an object after it was made: it is refused"
ASKS = "the pickle asks for {}, which is not among the names"


def name(place: str, what: str) -> bytes:
    return b"c" + place.encode() + b"\n" + what.encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def build(thing: bytes, state: bytes) -> bytes:
    """The opcode BUILD: a state for what is on top."""
    return b"\x80\x02" + thing + state + b"b."


def slots(attribute: str, value: bytes) -> bytes:
    """A state by which BUILD calls setattr."""
    return b"N}(" + text(attribute) + value + b"u\x86"


RECORD = name("torch_utils.persistence", "_reconstruct_persistent_obj")
SETTER = slots("__defaults__", b"K\x01\x85")
PICKLES = {
    "REDUCE": (b"cos\nsystem\n(S'id'\ntR.", ASKS.format("os.system")),
    "INST": (b"(S'id'\nios\nsystem\n.", ASKS.format("os.system")),
    "OBJ": (b"(cos\nsystem\nS'id'\no.", ASKS.format("os.system")),
    "NEWOBJ": (b"\x80\x02cbuiltins\nobject\n)\x81.", ASKS.format("builtins.object")),
    "NEWOBJ_EX": (b"\x80\x04cos\nsystem\n)}\x92.", ASKS.format("os.system")),
    "STACK_GLOBAL": (b"\x80\x04" + b"\x8c\x02os" + b"\x8c\x06system" + b"\x93.", "os.system"),
    "a dotted name": (b"\x80\x04\x8c\x05torch\x8c\x0ahub.load()\x93.", "asks for torch.hub"),
    "attributes of a name we know": (
        b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
        "asks for collections.OrderedDict.__init__",
    ),
    "getattr": (b"cbuiltins\ngetattr\n(S'a'\nS'b'\ntR.", ASKS.format("builtins.getattr")),
    "a codec": (b"c_codecs\nencode\n(S'a'\nS'idna'\ntR.", ASKS.format("_codecs.encode")),
    "copyreg": (b"ccopyreg\n_reconstructor\n.", ASKS.format("copyreg._reconstructor")),
    "an extension": (b"\x80\x02\x82\x01.", "unregistered extension code 1"),
    "a persistent id": (b"S'x'\nQ.", "refers to objects outside of it"),
    "a buffer out of band": (b"\x80\x05\x97.", "buffers"),
    "BUILD of a function": (build(RECORD, SETTER), CHANGES),
    "BUILD of a function's dictionary": (build(RECORD, b"}(" + text("a") + b"K\x01u"), CHANGES),
    "BUILD of a class": (
        build(name("dnnlib.util", "EasyDict"), slots("__getitem__", RECORD)),
        "damaged or malformed: TypeError",
    ),
    "BUILD of numpy's class": (
        build(name("numpy", "dtype"), slots("__call__", RECORD)),
        "damaged or malformed: TypeError",
    ),
    "BUILD of a mere name": (
        build(name("torch", "FloatStorage"), b"}(" + text("name") + text("DoubleStorage") + b"u"),
        CHANGES,
    ),
    "BUILD of a dictionary": (
        build(name("dnnlib.util", "EasyDict") + b")\x81", slots("__class__", RECORD)),
        CHANGES,
    ),
    "a call of a mere name": (
        b"\x80\x02" + name("torch", "FloatStorage") + b")R.",
        "not callable",
    ),
    "a frame that lies": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "damaged or malformed"),
    "a text that lies": (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fx.", "damaged|more memory"),
    "bytes that lie": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fx.", "damaged|more memory"),
    "a negative size": (b"\x80\x02T\xff\xff\xff\xffx.", "damaged or malformed"),
    "a stack that is empty": (b"\x80\x02R.", "damaged or malformed"),
    "a memo that is empty": (b"\x80\x02h\x05.", "damaged or malformed"),
    "a protocol of tomorrow": (b"\x80\xffN.", "unsupported pickle protocol: 255"),
    "a set of sets": (
        b"\x80\x02" + name("builtins", "set") + b"]" + b"]" + b"a\x85R.",
        "unhashable",
    ),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_hostile_pickle_is_refused_with_its_reason(case: str) -> None:
    data, message = PICKLES[case]
    with pytest.raises(RequestError, match=message):
        restricted_load(io.BytesIO(data), STAND_INS)


def test_nothing_of_ours_was_changed_by_any_of_them() -> None:
    for data, _ in PICKLES.values():
        with pytest.raises(RequestError):
            restricted_load(io.BytesIO(data), STAND_INS)
    assert STAND_INS["torch", "FloatStorage"] == Named("torch", "FloatStorage")
    assert "__getitem__" not in vars(InertDict)
    assert "__call__" not in vars(NumpyType)
    for inert in (Storage(torch.float32, 1), LazyTensor(Storage(torch.float32, 1), 0, (), ())):
        with pytest.raises(RequestError, match="changes an object"):
            inert.__setstate__({"size": 10**9})


def test_a_tensor_is_not_moved_after_it_was_checked() -> None:
    """A view that is checked, and then told to lie elsewhere."""
    stored = Call("torch.storage", "_load_from_bytes", legacy_storage(torch.arange(4.0)))
    tensor = dumps(Call("torch._utils", "_rebuild_tensor_v2", stored, 0, (4,), (1,), False, {}))
    found = restricted_load(io.BytesIO(tensor), STAND_INS)
    assert found.tensor().tolist() == [0.0, 1.0, 2.0, 3.0]
    moved = tensor[:-1] + b"}(" + text("offset") + b"J\xff\xff\xff\x7fub."
    with pytest.raises(RequestError, match=CHANGES):
        restricted_load(io.BytesIO(moved), STAND_INS)


def archive(entries: list[tuple[str, bytes]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file:
        for entry, data in entries:
            file.writestr(entry, data)
    return buffer.getvalue()


def marked(data: bytes, flag: int) -> bytes:
    """Every entry with a bit of its flags set: 1 is `with a password`."""
    changed = bytearray(data)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(signature)
        while at >= 0:
            changed[at + place] |= flag
            at = changed.find(signature, at + 4)
    return bytes(changed)


EMPTY = b"\x80\x02}."
TENSOR = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89}tR."
)
ARCHIVES = {
    "a bomb": (
        archive([("a/data.pkl", bytes(50_000_000))], compression=zipfile.ZIP_DEFLATED),
        "is compressed, which torch.save never does",
    ),
    "two pickles": (archive([("a/data.pkl", EMPTY), ("b/data.pkl", EMPTY)]), "none that torch"),
    "no pickle": (archive([("../../etc/data", EMPTY)]), "none that torch.save makes"),
    "a password": (marked(archive([("a/data.pkl", EMPTY)]), 1), "the zip file is damaged"),
    "cut off": (archive([("a/data.pkl", EMPTY)])[:-30], "the zip file is damaged"),
    "another byte order": (
        archive([("a/data.pkl", EMPTY), ("a/byteorder", b"big")]),
        "a machine of another byte order",
    ),
    "a call": (archive([("a/data.pkl", PICKLES["REDUCE"][0])]), "asks for os.system"),
    "a storage upwards": (
        archive([("a/data.pkl", TENSOR), ("a/data/../0", bytes(16))]),
        "a storage is not in the file",
    ),
    "a storage too short": (
        archive([("a/data.pkl", TENSOR), ("a/data/0", bytes(15))]),
        "a storage is shorter than it says",
    ),
    "a storage larger than the file": (
        archive([("a/data.pkl", TENSOR.replace(b"K\x04tQ", b"J\xff\xff\xff\x7ftQ"))]),
        "a storage is larger than the file it is in",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_hostile_archive_is_refused_with_its_reason(case: str) -> None:
    data, message = ARCHIVES[case]
    with pytest.raises(RequestError, match=message):
        read_archive_object(data)


def test_a_good_archive_is_read() -> None:
    """Else the cases above would say nothing."""
    found = read_archive_object(archive([("a/data.pkl", TENSOR), ("a/data/0", bytes(16))]))
    assert found.tensor().tolist() == [0.0] * 4


def doubling(levels: int) -> Any:
    value: Any = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize("setting", ["img_resolution", "z_dim", "img_channels", "c_dim"])
@pytest.mark.parametrize("value", ["doubling", 10**30, -1, "x" * 100_000, 1.5])
def test_a_setting_of_another_kind_is_refused_in_few_words(setting: str, value: Any) -> None:
    """A list that holds itself twice, forty times over, has a terabyte of text."""
    settings = {"img_resolution": 8, "w_dim": 4, "z_dim": 4, "c_dim": 0, "img_channels": 3}
    settings[setting] = doubling(40) if value == "doubling" else value
    generator = module("Generator", **settings)
    found = read_pickle(dumps({"G_ema": generator, "D": module("Discriminator")}))
    with pytest.raises(RequestError) as error:
        architecture_of(found["G_ema"], found["D"])
    assert len(str(error.value)) < 200


def test_whatever_is_wrong_with_a_network_is_told_by_the_converter(tmp_path: Path) -> None:
    source = tmp_path / "network.pkl"
    source.write_bytes(dumps({"G_ema": module("Generator"), "D": module("Discriminator")}))
    with pytest.raises(RequestError, match=r"network\.pkl: its img_resolution is None, which"):
        convert_stylegan2_pickle(source, tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["network.pkl"]
