"""Where a recording stopped: what the next process must know to tell what is missing between."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import msgspec

from mexc_pipeline.exchange.depth import span
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.feed.feed import Before
from mexc_pipeline.feed.holes import Unfinished, unfinished
from mexc_pipeline.feed.repair import CHANNEL
from mexc_pipeline.rows import Mt
from mexc_pipeline.spool.segment import InOrder, SegmentError, SegmentReader, in_order

log = logging.getLogger("mexc_pipeline.collector")


NEWEST_SEGMENTS = 2
NEWEST_ROWS = 100_000
"""In each: a start must not wait for the whole of a large hour to be read."""


class _Commit(msgspec.Struct, gc=False):
    version: int


class _Named(msgspec.Struct, gc=False):
    channel: str


def before(folder: Path) -> Before:
    """What the newest segments of a spool folder say of incremental depth; see :class:`Before`."""
    return Before(last_version(folder), tuple(interrupted(folder)))


def interrupted(folder: Path) -> list[Unfinished]:
    """The gaps whose repair was cut short. A repair takes a minute at most, so only the newest rows are looked at."""
    events: list[bytes] = []
    fetched: list[int] = []
    found = in_order(folder)
    if _doubtful("interrupted repairs unknown", found):
        return []
    for path in [segment.path for segment in found.readable[-NEWEST_SEGMENTS:]]:
        try:
            with SegmentReader(path) as reader:
                events += reader.tail(Mt.EVENT, NEWEST_ROWS, NEWEST_ROWS).m
                repaired = reader.tail(Mt.REPAIRED, NEWEST_ROWS, NEWEST_ROWS).m
                fetched += [version for m in repaired if (version := _version(m)) is not None]
        except (SegmentError, sqlite3.Error) as error:
            log.warning("interrupted repairs unknown", extra={"fields": {"segment": str(path), "error": str(error)}})
            return []
    return unfinished(CHANNEL, events, fetched)


def _doubtful(what: str, found: InOrder) -> bool:
    """Whether there is a segment that cannot be read: it may be the newest."""
    for path, error in found.unreadable:
        log.warning(what, extra={"fields": {"segment": str(path), "error": str(error)}})
    return bool(found.unreadable)


def _version(m: bytes) -> int | None:
    try:
        return msgspec.json.decode(m, type=_Commit).version
    except (msgspec.MsgspecError, RecursionError):  # of another shape than those that can be told apart
        return None


def last_version(folder: Path) -> int:
    """The book's version after the newest frame of incremental depth in a spool folder.

    0 where the newest depth frame is of another channel, where there is none, or where it cannot be read.
    """
    found = in_order(folder)
    if _doubtful("last version unknown", found):
        return 0
    for path in [segment.path for segment in reversed(found.readable)]:
        try:
            with SegmentReader(path) as reader:
                newest = reader.tail(Mt.DEPTH, 1)
        except (SegmentError, sqlite3.Error) as error:
            log.warning("last version unknown", extra={"fields": {"segment": str(path), "error": str(error)}})
            return 0
        if len(newest):
            m = content(newest.m[0])
            covered = span(m) if msgspec.json.decode(m, type=_Named).channel == CHANNEL else None
            return covered.last if covered is not None else 0
    return 0
