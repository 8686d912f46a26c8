"""Hostile parquet files, each with the message it must produce."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdgan.core.dataset_index import read_index
from hdgan.core.errors import DataError, RequestError
from hdgan.core.parquet_tables import ParquetError, read_parquet
from hdgan.tiler.folds import FOLDS_SCHEMA, read_folds


def written(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def zeros(rows: int) -> bytes:
    """A column of zeros: some kilobytes for any number of rows."""
    table = pa.table({"id": pa.array(np.zeros(rows, np.int32))})
    return written(table, compression="zstd", row_group_size=rows)


def one_long_text(length: int, rows: int) -> bytes:
    """One text that every row refers to."""
    texts = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["x" * length])
    return written(pa.table({"id": texts}), store_schema=False, compression="zstd")


def beginnings(length: int, rows: int) -> bytes:
    """Texts that each repeat the one before."""
    table = pa.table({"id": ["x" * length] * rows})
    return written(
        table, use_dictionary=False, column_encoding={"id": "DELTA_BYTE_ARRAY"}, compression="zstd"
    )


def lying(data: bytes, name: str) -> bytes:
    """The same file with another footer: that of a file which says less about the same columns."""
    honest = pq.read_metadata(pa.BufferReader(data))
    assert honest.row_group(0).column(0).path_in_schema == name
    footer = int.from_bytes(data[-8:-4], "little")
    old = data[-8 - footer : -8]
    size = honest.row_group(0).column(0).total_uncompressed_size
    said = _varint(size << 1)
    assert old.count(said) >= 1
    # The size of the column unpacked, as a zigzag varint of the same length: 64 bytes.
    small = _padded(64 << 1, len(said))
    return data[: -8 - footer] + old.replace(said, small) + data[-8:]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _padded(value: int, length: int) -> bytes:
    found = bytearray(_varint(value))
    while len(found) < length:
        found[-1] |= 128
        found.append(0)
    return bytes(found)


SMALL = written(pa.table({"id": ["a", "b"], "shard": ["s.tar", "s.tar"]}))
ZIPPED = written(
    pa.table({"id": ["y" * 50_000_000]}),
    compression="zstd",
    use_dictionary=False,
    write_statistics=False,
)
LIMITS = {"max_rows": 1_000_000, "max_bytes": 32 << 20}
CASES = {
    "nothing": (b"", "it is no parquet file"),
    "another file": (b"PK\x03\x04" * 10, "it is no parquet file"),
    "cut off": (SMALL[:-1], "it is no parquet file"),
    "only its ends": (b"PAR1\x00\x00\x00\x00PAR1", "is damaged, or no parquet file"),
    "a footer longer than the file": (
        b"PAR1" + b"\xff\xff\xff\x7fPAR1",
        "its footer has 2147483647 bytes, which cannot be",
    ),
    "a footer of zeros": (b"PAR1" + bytes(100) + b"\x64\0\0\0PAR1", "it is damaged"),
    "many rows in few bytes": (zeros(2_000_000), "it has 2000000 rows, at most 1000000"),
    "one long text a million times": (
        one_long_text(100_000, 1_000_000),
        "unpacked it has more than 33554432 bytes",
    ),
    "texts that repeat each other": (beginnings(1000, 1000), r"not read here \(7\)"),
    "a text of 50 MB in 2 kB": (ZIPPED, "unpacked it has more than 33554432 bytes"),
    "the same with a footer that lies": (
        lying(ZIPPED, "id"),
        "unpacked it has more than 33554432 bytes",
    ),
    "a column twice": (
        written(pa.table([["a"], ["b"]], names=["id", "id"])),
        "it has several columns 'id'",
    ),
    "a table in a column": (
        written(pa.table({"id": [{"a": [1]}]})),
        "its column 'id' has the type struct",
    ),
    "many columns": (
        written(pa.table({"id": ["a"], **{f"c{n}": [1] for n in range(2500)}})),
        "2501 columns in 1 groups; at most 2000",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_table_is_refused_with_its_reason(case: str) -> None:
    data, message = CASES[case]
    assert len(data) < 1_000_000
    with pytest.raises(ParquetError, match=message):
        read_parquet(data, ["id"], **LIMITS)


def test_the_lie_is_one_that_the_reader_below_believes() -> None:
    """Else the case above would be refused for another reason."""
    told = pq.read_metadata(pa.BufferReader(lying(ZIPPED, "id"))).row_group(0).column(0)
    assert told.total_uncompressed_size == 64
    assert len(pq.read_table(pa.BufferReader(lying(ZIPPED, "id")))["id"][0].as_py()) == 50_000_000


BOMBS = f"""
import re, sys
sys.path[:0] = {sys.path!r}
from hdgan.core.parquet_tables import ParquetError, read_parquet
def highest():
    return int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1])
before = highest()
for name in sys.argv[1:]:
    try:
        read_parquet(open(name, "rb").read(), ["id"], max_rows=10**6, max_bytes=32 << 20)
    except ParquetError:
        continue
    raise SystemExit("it was read")
print(highest() - before)
"""


def test_bombs_take_no_memory(tmp_path: Any) -> None:
    """Unpacked they have 100 GB and 50 MB; in a process of their own, by its highest memory."""
    bombs = {"text": one_long_text(100_000, 1_000_000), "lie": lying(ZIPPED, "id")}
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, *(str(tmp_path / name) for name in bombs)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 40 << 10, "in kilobytes"


FOOTERS = f"""
import sys
sys.path[:0] = {sys.path!r}
from hdgan.core.parquet_tables import ParquetError, read_parquet
data = open(sys.argv[1], "rb").read()
for place in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data) - 8):
    for bit in (1, 2, 4):
        changed = bytearray(data)
        changed[place] ^= bit
        try:
            read_parquet(bytes(changed), ["id"])
        except ParquetError:
            pass
print("survived")
"""


def test_no_bit_of_a_footer_ends_the_process(tmp_path: Any) -> None:
    """Some that do when pyarrow is asked what a damaged footer says: an exception of C++ that
    nobody catches."""
    (tmp_path / "file").write_bytes(written(pa.table({"id": ["a", None, "b"]})))
    done = subprocess.run(
        [sys.executable, "-c", FOOTERS, str(tmp_path / "file")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr[-500:]


def test_texts_that_are_no_text_are_refused() -> None:
    table = pa.table({"id": pa.array([b"\xff\xfe"]).view(pa.string()), "shard": ["s.tar"]})
    with pytest.raises(DataError, match=r"x/index\.parquet: it is damaged.*(UTF8|utf8)"):
        read_index(written(table), "x")


GOOD = {"id": "a", "shard": "shard-00000.tar"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "../a", "shard": "s.tar"}, "an id has up to 80 letters"),
        ({"id": "a", "shard": "../s.tar"}, "is no name of a shard"),
        ({"id": "a", "shard": "/etc/s.tar"}, "is no name of a shard"),
        ({"id": "a\nb", "shard": "s.tar"}, "an id has up to 80 letters"),
        ({"id": "x" * 81, "shard": "s.tar"}, "an id has up to 80 letters"),
        ({"id": "a", "shard": None}, "has no column 'shard' of texts"),
        ({"id": 3, "shard": "s.tar"}, "has no column 'id' of texts"),
        (GOOD | {"width": "64"}, "column 'width' is of string, not of numbers"),
        (
            GOOD | {"mpp": datetime(2026, 1, 1)},
            r"column 'mpp' is of timestamp\[us\], not of numbers",
        ),
        (GOOD | {"mpp": date(2026, 1, 1)}, r"column 'mpp' is of date32\[day\], not of numbers"),
        (GOOD | {"image_sha256": 1}, "column 'image_sha256' is of int64, not of texts"),
    ],
)
def test_an_index_names_no_other_place(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_index(written(pa.Table.from_pylist([row])), "x")


def test_folds_of_another_kind_are_refused() -> None:
    row = {"holdout": "case", "case": "a", "fold": 0}
    for change, message in (
        ({"holdout": "x" * 500}, r"is no folds\.parquet \(holdout 'x{40}'"),
        ({"axis": "z"}, r"is no folds\.parquet .*axis 'z'"),
        ({"fold": None}, r"is no folds\.parquet"),
    ):
        table = pa.Table.from_pylist(
            [row | change], schema=pa.schema([one.with_nullable(True) for one in FOLDS_SCHEMA])
        )
        with pytest.raises(RequestError, match=message):
            read_folds(written(table), "folds")
