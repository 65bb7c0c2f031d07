"""Row 9: what each codec makes of the same rows: size, and time to write and to read."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.material import DAY_START_NS, batches, pool
from bench.model import Result
from bench.site import Place
from mexc_pipeline.export.parquet import GROUP_ROWS, SCHEMA
from mexc_pipeline.rows import MT_NAMES

TITLE = "File size and speed by codec, the same rows and the same file layout"
CODECS: dict[str, tuple[str, int | None]] = {
    "Snappy": ("snappy", None),
    "gzip 6": ("gzip", 6),
    "Zstd 1 (ours)": ("zstd", 1),
    "Zstd 3": ("zstd", 3),
    "Zstd 6": ("zstd", 6),
    "Zstd 9": ("zstd", 9),
}
OURS = "Zstd 1 (ours)"


def run(place: Place) -> Result:
    result = Result("codec", TITLE)
    rows = 2 * GROUP_ROWS if place.quick else 4 * GROUP_ROWS
    table = _table(rows)
    raw = sum(len(m) for m in table.column("m").to_pylist())
    sizes: dict[str, int] = {}
    written: dict[str, list[float]] = {name: [] for name in CODECS}
    read: dict[str, list[float]] = {name: [] for name in CODECS}
    for _ in range(1 if place.quick else 2):
        for name, (codec, level) in CODECS.items():
            began = time.monotonic()
            file = _write(table, codec, level)
            written[name].append(rows / (time.monotonic() - began))
            began = time.monotonic()
            pq.read_table(io.BytesIO(file), use_threads=False)
            read[name].append(rows / (time.monotonic() - began))
            sizes[name] = len(file)
    for name in CODECS:
        least = 1.8 if name == OURS else None
        result.add("smaller than Snappy", name, sizes["Snappy"] / sizes[name], "×", at_least=least)
    for name in CODECS:
        result.add("raw JSON divided by the file", name, raw / sizes[name], "×")
    for name in CODECS:
        result.add("written", name, written[name], "rows/s", at_least=200_000 if name == OURS else None)
    for name in CODECS:
        result.add("read", name, read[name], "rows/s")
    result.curves["codecs"] = [
        {"codec": n, "ratio": raw / sizes[n], "written": result.value("written", n)} for n in CODECS
    ]
    result.notes.append(
        "frames are the simulator's: the ratio measures how it makes up books too; the order is what counts"
    )
    return result


def _table(rows: int) -> Any:
    frames = [f for batch in batches(rows, pool(), DAY_START_NS) for f in batch]
    codes = np.array([int(f.mt) - 1 for f in frames], dtype=np.int32)
    return pa.table(
        [
            pa.array([f.ts for f in frames], SCHEMA.field("ts").type),
            pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([MT_NAMES[n] for n in sorted(MT_NAMES)])),
            pa.array([f.m.decode() for f in frames]),
            pa.array([f.rx for f in frames], SCHEMA.field("rx").type),
            pa.array(range(1, rows + 1), pa.uint64()),
        ],
        schema=SCHEMA,
    )


def _write(table: Any, codec: str, level: int | None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=GROUP_ROWS,
        version="2.6",
        compression=codec,
        compression_level=level,
        use_dictionary=["mt"],
        column_encoding=dict.fromkeys(("ts", "rx", "seq"), "DELTA_BINARY_PACKED"),
        write_statistics=["ts", "mt", "rx", "seq"],
    )
    return sink.getvalue()
