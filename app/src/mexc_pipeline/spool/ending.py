"""When the recording in a spool folder was stopped in order."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mexc_pipeline.events import Sealed, Stopped, begin, read
from mexc_pipeline.rows import Mt
from mexc_pipeline.spool.pending import is_left
from mexc_pipeline.spool.segment import SegmentError, SegmentReader
from mexc_pipeline.spool.walk import in_order


def stopped_at(folder: Path) -> int | None:
    """Time (Unix ns) of the orderly stop that is a folder's newest row, ``sealed`` aside; None where something else is:
    it goes on, ended otherwise, left rows without a seq, or cannot be read."""
    try:
        if is_left(folder):
            return None
        there = in_order(folder)
        newest = next((found for found in reversed(there.readable) if found.rows), None)
        if newest is None or there.unreadable:  # one of which may be newer
            return None
        with SegmentReader(newest.path) as reader:
            rows = list(reader.read(newest.last_seq - 2).rows())
    except (SegmentError, sqlite3.Error, OSError):
        return None  # whoever looks at its rows says why
    rows = [row for row in rows if not (row.mt == Mt.EVENT and row.m.startswith(begin(Sealed)))]
    if not rows or rows[-1].mt != Mt.EVENT or not rows[-1].m.startswith(begin(Stopped)):
        return None
    return None if (read(rows[-1].m) or {}).get("reason") else rows[-1].rx
