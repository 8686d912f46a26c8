"""The tables of a dataset: index.parquet and classes.json."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hdgan.core.sections import ClassConfig


def index_table(rows: Sequence[dict[str, Any]], classes: Sequence[ClassConfig]) -> bytes:
    """The bytes of index.parquet, one row per pair in the order of the shards.

    The types are given, because whole numbers among the values may have lost their point on the
    way through a saved state.
    """
    whole, number, text = pa.int64(), pa.float64(), pa.string()
    columns: list[tuple[str, pa.DataType]] = [
        ("id", text),
        ("shard", text),
        ("index", whole),
        ("width", whole),
        ("height", whole),
        ("mpp", number),
        ("uncertainty", number),
        ("acceptance_probability", number),
        ("ignored", number),
        *((f"fraction_{one.name}", number) for one in classes),
        ("image_sha256", text),
        ("mask_sha256", text),
        ("uncertainty_sha256", text),
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=pa.schema(columns)), buffer)
    return buffer.getvalue()


def classes_document(classes: Sequence[ClassConfig]) -> bytes:
    """The bytes of classes.json."""
    document = {
        "classes": [
            {"index": i, "name": one.name, "color": one.color} for i, one in enumerate(classes)
        ]
    }
    return (json.dumps(document, indent=1) + "\n").encode()
