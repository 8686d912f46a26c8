"""Parquet: damaged files, and files whose footer was told to lie."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.dataset_index import read_index
from hdgan.core.parquet_pages import column_pages
from hdgan.core.parquet_tables import ParquetError, read_parquet
from hdgan.tiler.folds import FoldRow, read_folds, write_folds
from support.fuzzing import damaged, examples, survives

NAMES = ["id", "shard", "width", "mpp", "flag"]


def written(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def index(rows: int = 20) -> pa.Table:
    return pa.table(
        {
            "id": [f"{number:016x}" for number in range(rows)],
            "shard": ["shard-00000.tar"] * rows,
            "width": np.full(rows, 64),
            "mpp": np.linspace(0.25, 0.5, rows),
            "flag": [None if number % 3 else True for number in range(rows)],
        }
    )


VALID = [
    written(index()),
    written(index(), compression="none", use_dictionary=False),
    written(index(), compression="zstd", data_page_version="2.0"),
    written(index(), row_group_size=4, write_statistics=False),
]


@examples(300, 20_000)
@given(st.sampled_from(VALID).flatmap(damaged))
def test_a_damaged_table_is_read_or_refused(data: bytes) -> None:
    found = survives(lambda: read_parquet(data, NAMES), ParquetError)
    if not isinstance(found, ParquetError):
        assert found.num_rows <= 50_000_000
        found.to_pylist()
    survives(lambda: read_index(data, "dataset"))


@examples(100)
@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_refused(data: bytes, framed: bool) -> None:
    if framed:
        data = b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1"
    assert isinstance(survives(lambda: read_parquet(data, NAMES), ParquetError), ParquetError)
    survives(lambda: list(column_pages(memoryview(data), 0, len(data))), ValueError)


@examples(100)
@given(damaged(write_folds([FoldRow("case", "a", 0), FoldRow("case", "b", 1, "HE", "x")])))
def test_damaged_folds_are_read_or_refused(data: bytes) -> None:
    survives(lambda: read_folds(data, "folds.parquet"))
