"""Parquet files of a few kilobytes that hold gigabytes: one long value in a dictionary, and rows that all name it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mexc_pipeline.export.parquet import SCHEMA


def _repeated(value: Any, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([value]))


def _write(path: Path, columns: dict[str, Any], said: Any) -> int:
    """Written as dictionaries, read as what ``said`` names: the bytes of the file."""
    stored = base64.b64encode(said.serialize().to_pybytes())
    table = pa.table(columns)
    limit = 1 << 30
    with pq.ParquetWriter(
        path, table.schema, compression="zstd", store_schema=False, dictionary_pagesize_limit=limit
    ) as writer:
        writer.write_table(table, row_group_size=len(table))
        writer.add_key_value_metadata({b"ARROW:schema": stored})
    return path.stat().st_size


def recorded(path: Path, rows: int, value: int) -> int:
    """One of ours by its looks, ``rows`` times a text of ``value`` bytes."""
    counted = np.arange(1, rows + 1)
    columns = {
        "ts": pa.array(counted).cast(pa.timestamp("ms", "UTC")),
        "mt": _repeated("t", rows),
        "m": _repeated("x" * value, rows),
        "rx": pa.array(counted).cast(pa.timestamp("ns", "UTC")),
        "seq": pa.array(counted.astype(np.uint64)),
    }
    return _write(path, columns, SCHEMA)


def v4(path: Path, rows: int, value: int) -> int:
    """A file of the former pipeline by its looks."""
    said = pa.schema([("ts", pa.timestamp("ms")), ("mt", pa.string()), ("m", pa.string())])
    columns = {
        "ts": pa.array(np.zeros(rows, dtype=np.int64)).cast(pa.timestamp("ms")),
        "mt": _repeated("t", rows),
        "m": _repeated("x" * value, rows),
    }
    return _write(path, columns, said)
