"""Where a recording stopped: what the next process must know to tell what is missing between."""

from __future__ import annotations

import logging
import sqlite3
from functools import partial
from pathlib import Path

from mexc_pipeline.exchange import resumption
from mexc_pipeline.exchange.holes import Unfinished
from mexc_pipeline.exchange.resumption import MOST_DEALS, Resumption
from mexc_pipeline.rows import Columns, Mt
from mexc_pipeline.spool.pending import newest
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader
from mexc_pipeline.spool.walk import InOrder, in_order

log = logging.getLogger("mexc_pipeline.collector")

NEWEST_ROWS = 100_000
"""In a segment: a start must not wait for the whole of a large hour to be read."""
NEWEST = 2 * NEWEST_ROWS
"""In all that are looked at: two large ones, or many small ones where periods are short or were cut."""
NEWEST_DEAD = 20
"""Dead letters among which one of depth is looked for whose only fault is its ``ts``."""
NEWEST_DEPTH = 200
"""Frames of depth among which one of incremental depth is looked for: as many of full depth may have come after it."""
NEWEST_BYTES = 8 << 20
"""Of deals, of depth, and of dead letters: a start must not take the memory for frames of unusual size."""


def read_resumption(folder: Path) -> Resumption:
    """What the newest segments of a spool folder say of depth and deals."""
    return Resumption(last_version(folder), tuple(interrupted(folder)), tuple(newest_deals(folder)))


def newest_deals(folder: Path) -> list[tuple[int, bytes]]:
    """The newest deal frames as (``mt``, ``m``), oldest first, with the fetched trades and the events that
    :class:`Checks` looks at among them; fewer than :data:`MOST_DEALS` where they are of unusual size."""
    segments = _newest_of(in_order(folder))
    symbol = segments[-1].symbol if segments else ""
    moved = {file: n for segment in segments for file, n in segment.moved.items()}
    found: list[tuple[int, bytes]] = []
    left, room = MOST_DEALS, NEWEST_BYTES
    pending = partial(newest, folder, moved=moved)
    for path, rows in [(folder, pending), *((s.path, partial(_newest, s.path)) for s in reversed(segments))]:
        try:
            deals, dead = rows(Mt.DEAL, left, room), rows(Mt.DEAD_LETTER, left, room)
            repaired, events = rows(Mt.REPAIRED, NEWEST_ROWS, room), rows(Mt.EVENT, NEWEST_ROWS)
        except (SegmentError, sqlite3.Error) as error:
            log.warning("newest deals unknown", extra={"fields": {"path": str(path), "error": str(error)}})
            break
        frames = resumption.deal_frames(symbol, deals.rows(), dead.rows(), left)
        found[:0] = resumption.in_place(frames, repaired.rows(), events.rows())
        left -= len(frames)
        room -= sum(len(row.m) for row in frames)
        if left <= 0 or room <= 0:
            break
    return found


def _newest_of(found: InOrder) -> list[SegmentInfo]:
    """The newest segments, oldest first: as many as together have about as many rows as are looked at."""
    rows, taken = 0, 0
    for segment in reversed(found.readable):
        if rows >= NEWEST:
            break
        rows += min(NEWEST_ROWS, segment.last_seq - segment.first_seq + 1)
        taken += 1
    return list(found.readable[len(found.readable) - taken :])


def _newest(path: Path, mt: int, limit: int, max_bytes: int = 1 << 62) -> Columns:
    with SegmentReader(path) as reader:
        return reader.tail(mt, limit, NEWEST_ROWS, max_bytes)


def interrupted(folder: Path) -> list[Unfinished]:
    """The gaps whose repair was cut short. A repair takes a minute at most, so only the newest rows are looked at."""
    events: list[bytes] = []
    fetched: list[int] = []
    found = in_order(folder)
    if _doubtful("interrupted repairs unknown", found):
        return []
    for path in [segment.path for segment in _newest_of(found)]:
        try:
            with SegmentReader(path) as reader:
                events += reader.tail(Mt.EVENT, NEWEST_ROWS, NEWEST_ROWS).m
                fetched += resumption.versions(reader.tail(Mt.REPAIRED, NEWEST_ROWS, NEWEST_ROWS).m)
        except (SegmentError, sqlite3.Error) as error:
            log.warning("interrupted repairs unknown", extra={"fields": {"segment": str(path), "error": str(error)}})
            return []
    try:
        events += newest(folder, Mt.EVENT, NEWEST_ROWS).m
        fetched += resumption.versions(newest(folder, Mt.REPAIRED, NEWEST_ROWS).m)
    except sqlite3.Error as error:
        log.warning("interrupted repairs unknown", extra={"fields": {"pending": True, "error": str(error)}})
        return []
    return resumption.interrupted(events, fetched)


def _doubtful(what: str, found: InOrder) -> bool:
    """Whether there is a segment that cannot be read: it may be the newest. Why it cannot is said when the spool is
    opened."""
    if found.unreadable:
        log.warning(what, extra={"fields": {"unreadable_segments": len(found.unreadable)}})
    return bool(found.unreadable)


def last_version(folder: Path) -> int:
    """The book's version after the newest frame of incremental depth in a spool folder.

    0 where there is none among the newest of depth, or where it cannot be read.
    """
    found = in_order(folder)
    if _doubtful("last version unknown", found):
        return 0
    symbol = found.readable[-1].symbol if found.readable else ""
    sources = [partial(newest, folder), *(partial(_tail, segment.path) for segment in reversed(found.readable))]
    left = NEWEST_DEPTH
    for rows in sources:  # pending rows are newer than any segment's
        try:
            depth, dead = rows(Mt.DEPTH, left, NEWEST_BYTES), rows(Mt.DEAD_LETTER, NEWEST_DEAD, NEWEST_BYTES)
        except (SegmentError, sqlite3.Error) as error:
            log.warning("last version unknown", extra={"fields": {"folder": str(folder), "error": str(error)}})
            return 0
        version = resumption.last_version(symbol, depth.rows(), dead.rows())
        if version is not None:
            return version
        left -= len(depth)
        if left <= 0:
            break
    return 0


def _tail(path: Path, mt: int, limit: int, max_bytes: int) -> Columns:
    with SegmentReader(path) as reader:
        return reader.tail(mt, limit, NEWEST_ROWS if mt == Mt.DEAD_LETTER else 1 << 62, max_bytes)
