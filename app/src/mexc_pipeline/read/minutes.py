"""The rows of exported files, held against the exchange's candles minute by minute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mexc_pipeline.export.minutes import evidence_in
from mexc_pipeline.export.order import Placed
from mexc_pipeline.export.packed import Packed
from mexc_pipeline.export.parquet import metadata
from mexc_pipeline.ledger.minutes import Minute, Minutes
from mexc_pipeline.ledger.sums import FIELDS
from mexc_pipeline.read.files import tables
from mexc_pipeline.read.numbers import PRICE, VOLUME, WIDE, decimals
from mexc_pipeline.rows import MT_CODES

BEFORE_NS = 600 * 1_000_000_000
"""So long before a stretch its recording is looked at: whether it was connected is then known."""
BEHIND_NS = 2 * 3_600 * 1_000_000_000 + BEFORE_NS
"""So long after it: the exchange's candles are asked for once an hour."""
_KINDS = {"volume": VOLUME, "amount": WIDE}


def blocks(path: Path) -> Iterator[Packed]:
    """The rows of a file; in each block seqs go up by one. Rows of types that this version does not know are passed
    over as others of no interest."""
    for table in tables([path]):
        for batch in table.to_batches():
            yield from _without_holes(_packed(batch))


def _packed(batch: Any) -> Packed:
    m = batch.column("m")
    _, offset_buffer, data = m.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[m.offset : m.offset + len(m) + 1]
    text = memoryview(data)[int(offsets[0]) : int(offsets[-1])] if data is not None and len(m) else b""
    types = batch.column("mt").dictionary_encode()
    codes = np.array([MT_CODES.get(name, 0) for name in types.dictionary.to_pylist()], dtype=np.uint8)
    return Packed(
        batch.column("seq").to_numpy(),
        batch.column("rx").cast(pa.int64()).to_numpy(),
        batch.column("ts").cast(pa.int64()).to_numpy(),
        codes[types.indices.to_numpy()] if len(codes) else codes,
        np.diff(offsets).astype(np.uint32),
        text,  # type: ignore[arg-type]  # of a file's own buffer
    )


def _without_holes(block: Packed) -> Iterator[Packed]:
    ends = [*(np.flatnonzero(np.diff(block.seq.astype(np.int64)) != 1) + 1).tolist(), len(block)]
    places = np.concatenate([[0], np.cumsum(block.length, dtype=np.int64)])
    begin = 0
    for end in ends:
        if end > begin:
            part = slice(begin, end)
            m = block.m[int(places[begin]) : int(places[end])]
            yield Packed(block.seq[part], block.rx[part], block.ts[part], block.mt[part], block.length[part], m)
        begin = end


def minutes_of(files: Sequence[Placed], low: int | None, high: int | None) -> list[Minute]:
    """The minutes that begin within ``low`` ≤ time < ``high`` (Unix ns, the exchange's clock), of files in the order of
    their rows, which may reach beyond. FileError for a file that cannot be read."""
    found: Minutes | None = None
    for file in files:
        said = metadata(file.path)
        edge = said.get("edge_ns", "")
        if low is not None and edge.isdigit() and len(edge) <= 19 and int(edge) < low - BEFORE_NS:
            continue
        symbol = said.get("symbol", file.symbol)
        found = found or Minutes(symbol)
        for block in blocks(file.path):
            found.goes_on(int(block.seq[0]), int(block.seq[-1]))
            for one in evidence_in(symbol, block):
                found.take(one)
    if found is None:
        return []
    return found.result(None if low is None else -(-low // 1_000_000), None if high is None else -(-high // 1_000_000))


def table(minutes: Iterable[Minute]) -> Any:
    """One row per minute; see :func:`mexc_pipeline.read.completeness`."""
    listed = list(minutes)
    columns: dict[str, Any] = {
        "minute": pa.array([one.start_ms for one in listed], pa.timestamp("ms", "UTC")),
        "verdict": pa.array([one.verdict for one in listed], pa.string()),
        "why": pa.array([one.why or None for one in listed], pa.string()),
        "rule": pa.array([one.rule for one in listed], pa.string()),
        "trades": pa.array([one.trades for one in listed], pa.int64()),
        "self_trades": pa.array([one.self_trades for one in listed], pa.int64()),
        "filled": pa.array([one.filled for one in listed], pa.int64()),
        "repeated": pa.array([one.repeated for one in listed], pa.int64()),
    }
    for name in FIELDS:
        kind = _KINDS.get(name, PRICE)
        columns[name] = decimals([one.own[name] for one in listed], kind)
        columns[f"candle_{name}"] = decimals([one.candle[name] for one in listed], kind)
        columns[f"{name}_difference"] = decimals([one.difference(name) for one in listed], kind)
    return pa.table(columns)
