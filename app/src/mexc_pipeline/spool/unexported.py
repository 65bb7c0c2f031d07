"""Since when a symbol's oldest period without a file waits for it, asked again and again by who may look into its
spool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from mexc_pipeline.spool.segment import SegmentInfo, ended_ns
from mexc_pipeline.spool.walk import Unreadable, looked_at, segments

LOOK_S = 10.0
"""However often it is asked, the folder is looked at once in so long: who asks must not hold up who records."""


class Unexported:
    """The segments of a folder without a file; one that has its own once is not opened again. ``clock``: monotonic."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._exported: set[Path] = set()
        self._lock = threading.Lock()
        self._next = 0.0
        self._since: int | None = None

    def since_ns(self, now_ns: int) -> int | None:
        """The end of the oldest period (Unix ns) that has rows and no file; None where each has. UnavailableError where
        the folder cannot be listed."""
        with self._lock:
            if self._clock() >= self._next:
                self._since = self._look(now_ns)
                self._next = self._clock() + LOOK_S
            return self._since

    def _look(self, now_ns: int) -> int | None:
        there = [path for _, path in segments(self._folder)]
        self._exported.intersection_update(there)
        ends: list[int] = []
        for segment in looked_at(path for path in there if path not in self._exported):
            if isinstance(segment, Unreadable):
                continue  # said by who loads, exports or verifies it
            if segment.state == "exported":
                self._exported.add(segment.path)
            elif (at := _end(segment, now_ns)) is not None:
                ends.append(at)
        return min(ends, default=None)


def _end(segment: SegmentInfo, now_ns: int) -> int | None:
    return ended_ns(segment, now_ns) if segment.rows else None
