"""Reads a segment's rows at the speed an export needs, in blocks bounded by rows and by bytes.

SQLite itself joins a block's values to one text a column: a row as a Python object costs as much as all the rest, and
gives up the interpreter's lock and takes it again, so that nothing could go on beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np

from mexc_pipeline.export.packed import Packed
from mexc_pipeline.rows import MT_NAMES
from mexc_pipeline.spool.blobs import MOST, TooLargeError, fetch
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, connect, failed

BLOCK_ROWS = 2048
BLOCK_BYTES = 4 << 20

_SIZE = "SELECT count(*), ifnull(sum(length(m)), 0) FROM rows WHERE seq > ? AND seq <= ?"
_ROWS = """
SELECT group_concat(rx), group_concat(ts), group_concat(mt), group_concat(length(m)), group_concat(m, '')
FROM (SELECT rx, ts, mt, m FROM rows WHERE seq > ? AND seq <= ? ORDER BY seq)
"""
"""In the order of the subquery. SQLite does not promise that; the digests that the collector recorded would tell."""

_ROW = "SELECT group_concat(rx), group_concat(ts), group_concat(mt), group_concat(length(m)) FROM rows WHERE seq = ?"


def blocks(info: SegmentInfo, max_rows: int = BLOCK_ROWS, max_bytes: int = BLOCK_BYTES) -> Generator[Packed]:
    """The rows ``first_seq`` to ``last_seq`` of a segment, block by block; no statement stays open between blocks.

    A block is no larger than ``max_bytes`` unless a single frame is. SegmentError where the segment cannot be read or
    one of these rows is missing.
    """
    try:
        db = connect(info.path, readonly=True)
        try:
            db.text_factory = bytes
            after = info.first_seq - 1
            while after < info.last_seq:
                block = _block(db, info, after, min(after + max_rows, info.last_seq), max_bytes)
                after += len(block)
                yield block
                del block  # it may be large: not beside the next one
        finally:
            db.close()
    except (sqlite3.Error, UnicodeDecodeError, TooLargeError) as error:
        raise failed(info.path, "cannot be read", error) from error


def ahead(found: Generator[Packed]) -> Generator[Packed]:
    """The blocks, each read while the one before is used, unless that is a large frame: there is room for one."""
    with closing(found), ThreadPoolExecutor(1, "read ahead") as beside:
        coming = beside.submit(next, found, None)
        while (block := coming.result()) is not None:
            if is_small := len(block.m) <= BLOCK_BYTES:
                coming = beside.submit(next, found, None)
            yield block
            del block
            if not is_small:
                coming = beside.submit(next, found, None)


def _block(db: sqlite3.Connection, info: SegmentInfo, after: int, until: int, max_bytes: int) -> Packed:
    while True:
        held, size = db.execute(_SIZE, (after, until)).fetchone()
        # seq is the key: as many rows as there are numbers in a range are exactly these numbers, so it is not fetched
        if held != until - after:
            raise SegmentError(f"{info.path}: rows are missing between seq {after} and {until + 1}")
        if size <= max_bytes or held == 1:
            break
        until = after + held // 2
    if size > MOST:
        raise SegmentError(f"{info.path}: the frame of seq {until} has {size:,} bytes, which nobody stored")
    if size > max_bytes:  # a large frame by itself, and no copy of it
        texts, m = db.execute(_ROW, (until,)).fetchone(), fetch(db, until)
    else:
        *texts, m = db.execute(_ROWS, (after, until)).fetchone()
    rx, ts, mt, length = map(_numbers, texts)
    m = m or b""
    sound = len(rx) == len(ts) == len(mt) == len(length) == held and int(length.sum()) == len(m)
    if not sound or int(mt.min()) not in MT_NAMES or int(mt.max()) not in MT_NAMES:
        raise SegmentError(f"{info.path}: rows after seq {after} hold what no row has")
    seq = np.arange(after + 1, until + 1, dtype=np.uint64)
    return Packed(seq, rx, ts, mt.astype(np.uint8), length.astype(np.uint32), m)


def _numbers(text: bytes | None) -> Any:
    """The numbers of a text with commas between them, i64; fewer where it holds anything else."""
    try:
        return np.fromstring(text or b"", dtype=np.int64, sep=",")
    except (ValueError, DeprecationWarning):  # as it is to become, and as it is where warnings are errors
        return np.zeros(0, dtype=np.int64)
