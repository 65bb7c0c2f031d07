"""Reads a segment's rows at the speed an export needs, in blocks bounded by rows and by bytes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from mexc_pipeline.rows import Columns
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, connect

BLOCK_ROWS = 2048
BLOCK_BYTES = 4 << 20


def blocks(info: SegmentInfo, max_rows: int = BLOCK_ROWS, max_bytes: int = BLOCK_BYTES) -> Iterator[Columns]:
    """The rows ``first_seq`` to ``last_seq`` of a segment, block by block; no statement stays open between blocks.

    SegmentError where the segment cannot be read or one of these rows is missing.
    """
    try:
        db = connect(info.path, readonly=True)
        try:
            after = info.first_seq - 1
            while after < info.last_seq:
                block = _block(db, info, after, min(after + max_rows, info.last_seq), max_bytes)
                yield block
                after = block.seq[-1]
        finally:
            db.close()
    except sqlite3.Error as error:
        raise SegmentError(f"{info.path}: cannot be read: {error}") from error


def _block(db: sqlite3.Connection, info: SegmentInfo, after: int, until: int, max_bytes: int) -> Columns:
    rows: list[tuple[int, int, int, bytes]] = []
    size = 0
    for row in db.execute("SELECT rx, ts, mt, m FROM rows WHERE seq > ? AND seq <= ? ORDER BY seq", (after, until)):
        rows.append(row)
        size += len(row[3])
        if size >= max_bytes:
            break
    # seq is the key: as many rows as there are numbers in a range are exactly these numbers, so it is not fetched
    held = len(rows)
    if size >= max_bytes:
        until = after + held
        (held,) = db.execute("SELECT count(*) FROM rows WHERE seq > ? AND seq <= ?", (after, until)).fetchone()
    if not held or held != until - after:
        raise SegmentError(f"{info.path}: rows are missing between seq {after} and {until + 1}")
    rx, ts, mt, m = zip(*rows, strict=True)
    return Columns(list(range(after + 1, until + 1)), list(rx), list(ts), list(mt), list(m))
