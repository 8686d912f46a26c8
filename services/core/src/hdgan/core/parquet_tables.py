"""The one reader of parquet from outside: nothing is unpacked before its size is known.

A kilobyte of parquet can stand for a terabyte: by compression, by one long text that a million rows
refer to, by texts that repeat the beginning of the one before, by rows that are only counted. The
sizes are taken from the pages (`parquet_pages`), as the footer need not be true; rows are taken in
batches, and what texts would take is added up before they are written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hdgan.core.parquet_pages import (
    DICTIONARY,
    PLAIN,
    PLAIN_DICTIONARY,
    RLE,
    RLE_DICTIONARY,
    column_pages,
    groups,
)

MAX_FILE_BYTES: Final = 1 << 30
MAX_ROWS: Final = 50_000_000
MAX_TABLE_BYTES: Final = 2 << 30
"""Of the columns that are read, unpacked."""
MAX_COLUMNS: Final = 2000
MAX_ROW_GROUPS: Final = 10_000
MAX_FOOTER_BYTES: Final = 8 << 20

_MAGIC = b"PAR1"
_BATCH_ROWS = 65_536
# Of what pyarrow writes for columns of one value a row. The others say how a value differs from
# the one before, and a page of them can stand for any amount of text.
_ENCODINGS: Final = frozenset({PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY})


class ParquetError(ValueError):
    """The bytes are no parquet table that is read here; the message says why."""


def read_parquet(
    data: bytes,
    columns: Sequence[str],
    *,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_TABLE_BYTES,
) -> pa.Table:
    """Those of the columns that the file has, as a table of valid values.

    Texts that the file keeps as a dictionary come out as texts. ParquetError for what is damaged,
    lies about itself or is too large: rows, or bytes of the columns that are read.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ParquetError(f"it has {len(data)} bytes, at most {MAX_FILE_BYTES} are read")
    _check_footer(data)
    try:
        whole = _opened(data, [])
        schema = _chosen(whole.schema_arrow, columns)
        _check_sizes(whole.metadata.num_rows, data, set(schema.names), max_rows, max_bytes)
        # As dictionaries, so that a text that is there a million times is held once.
        texts = [field.name for field in schema if _is_text(field.type)]
        file = _opened(data, texts)
        batches = list(_batches(file, schema, max_rows, max_bytes))
        table = pa.Table.from_batches(batches, schema)
        table.validate(full=True)  # texts that are no UTF-8 would fail later
    except ParquetError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        words = str(error).strip().split("\n")[0][:300]
        raise ParquetError(f"it is damaged, or no parquet file: {words}") from None
    if schema.names and table.num_rows != whole.metadata.num_rows:
        raise ParquetError(f"it has {table.num_rows} rows and says {whole.metadata.num_rows}")
    return table


def _opened(data: bytes, texts: Sequence[str]) -> pq.ParquetFile:
    return pq.ParquetFile(
        pa.BufferReader(data),
        read_dictionary=list(texts),
        pre_buffer=False,
        arrow_extensions_enabled=False,
        thrift_string_size_limit=MAX_FOOTER_BYTES,
        thrift_container_size_limit=MAX_COLUMNS * 100,
    )


def _check_footer(data: bytes) -> None:
    if len(data) < 12 or data[:4] != _MAGIC or data[-4:] != _MAGIC:
        raise ParquetError("it is no parquet file")
    size = int.from_bytes(data[-8:-4], "little")
    if size > min(MAX_FOOTER_BYTES, len(data) - 12):
        raise ParquetError(f"its footer has {size} bytes, which cannot be")


def _chosen(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """The columns that are there, in the order asked for, with the types they are handed out in."""
    fields = []
    for name in columns:
        places = schema.get_all_field_indices(name)
        if len(places) > 1:
            raise ParquetError(f"it has several columns {name!r}")
        if places:
            field = schema.field(places[0])
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if pa.types.is_nested(kind) or pa.types.is_dictionary(kind):
                raise ParquetError(f"its column {name!r} has the type {str(kind)[:80]}")
            fields.append(pa.field(name, kind, field.nullable))
    return pa.schema(fields)


def _check_sizes(said: int, data: bytes, names: set[str], max_rows: int, max_bytes: int) -> None:
    """ParquetError if the file has more than is read, by what it says and by its pages."""
    if not 0 <= said <= max_rows:
        raise ParquetError(f"it has {said} rows, at most {max_rows} are read")
    view = memoryview(data)
    footer = int.from_bytes(data[-8:-4], "little")
    found = groups(view[len(data) - 8 - footer : len(data) - 8])
    columns = max((len(one.chunks) for one in found), default=0)
    if columns > MAX_COLUMNS or len(found) > MAX_ROW_GROUPS:
        raise ParquetError(
            f"it has {columns} columns in {len(found)} groups; at most {MAX_COLUMNS} in "
            f"{MAX_ROW_GROUPS} are read"
        )
    rows = total = 0
    for group in found:
        if group.rows == 0:
            continue  # has no pages
        rows += group.rows
        if group.rows < 0 or rows > said:
            raise ParquetError("its groups have more rows than it says")
        for chunk in group.chunks:
            if chunk.name not in names:
                continue
            if chunk.values != group.rows:
                raise ParquetError(f"its column {chunk.name!r} has another length")
            for page in column_pages(view, chunk.start, chunk.length):
                total += page.unpacked
                if total > max_bytes:
                    raise ParquetError(f"unpacked it has more than {max_bytes} bytes")
                if page.encoding not in _ENCODINGS and page.kind != DICTIONARY:
                    raise ParquetError(
                        f"its column {chunk.name!r} is encoded in a way that is not read here "
                        f"({page.encoding})"
                    )


def _batches(
    file: pq.ParquetFile, schema: pa.Schema, max_rows: int, max_bytes: int
) -> Iterator[pa.RecordBatch]:
    rows = taken = 0
    found = file.iter_batches(_BATCH_ROWS, columns=schema.names, use_threads=False)
    for batch in found:
        rows += batch.num_rows
        if rows > max_rows:
            raise ParquetError(f"it has more than {max_rows} rows")
        arrays = []
        for field in schema:
            array = batch.column(field.name)
            taken += _bytes(array)
            if taken > max_bytes:
                raise ParquetError(f"unpacked it has more than {max_bytes} bytes")
            arrays.append(_plain(array, field.type))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _bytes(array: pa.Array) -> int:
    """What a column of a batch takes when it is written out."""
    if not pa.types.is_dictionary(array.type):
        return int(array.nbytes)
    if not _is_text(array.type.value_type):
        return 8 * len(array)
    lengths = pc.cast(pc.binary_length(array.dictionary), pa.int64())
    return 5 * len(array) + int(pc.sum(pc.take(lengths, array.indices)).as_py() or 0)


def _plain(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array.cast(kind)


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )
