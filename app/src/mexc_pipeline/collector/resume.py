"""Where a recording stopped: what the next process must know to tell what is missing between."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import msgspec

from mexc_pipeline.exchange.depth import span
from mexc_pipeline.feed.repair import CHANNEL
from mexc_pipeline.rows import Mt
from mexc_pipeline.spool.segment import SegmentError, SegmentReader, segments

log = logging.getLogger("mexc_pipeline.collector")


class _Named(msgspec.Struct, gc=False):
    channel: str


def last_version(folder: Path) -> int:
    """The book's version after the newest frame of incremental depth in a spool folder.

    0 where the newest depth frame is of another channel, where there is none, or where it cannot be read.
    """
    for _, path in reversed(segments(folder)):
        try:
            with SegmentReader(path) as reader:
                newest = reader.tail(Mt.DEPTH, 1)
        except (SegmentError, sqlite3.Error) as error:
            log.warning("last version unknown", extra={"fields": {"segment": str(path), "error": str(error)}})
            return 0
        if len(newest):
            m = newest.m[0]
            covered = span(m) if msgspec.json.decode(m, type=_Named).channel == CHANNEL else None
            return covered.last if covered is not None else 0
    return 0
