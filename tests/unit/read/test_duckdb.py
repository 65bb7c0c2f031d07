"""What the guide to reading says of DuckDB and nanoseconds."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mexc_pipeline.export.parquet import SCHEMA

RX = 1_790_000_000_123_456_789


def test_rx_keeps_its_nanoseconds(tmp_path: Path) -> None:
    path = tmp_path / "rx.parquet"
    pq.write_table(pa.table({"rx": pa.array([RX], SCHEMA.field("rx").type)}), path)
    with duckdb.connect() as db:
        ((kind, shown),) = db.sql(f"SELECT typeof(rx), rx::TIMESTAMP_NS::VARCHAR FROM '{path}'").fetchall()
    assert kind == "TIMESTAMPTZ_NS"
    assert shown.endswith(".123456789")
