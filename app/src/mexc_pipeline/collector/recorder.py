"""The writing loop: takes rows from the inbox, commits them, ends segments where the inbox says that it is time."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mexc_pipeline.collector.inbox import Cut, Inbox, Mark
from mexc_pipeline.collector.statistics import Statistics
from mexc_pipeline.errors import UserError
from mexc_pipeline.rows import Frame
from mexc_pipeline.spool.room import no_room
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo
from mexc_pipeline.spool.writer import Spool

log = logging.getLogger("mexc_pipeline.collector")

IDLE_S = 0.25
"""How long the loop waits for frames before it looks at the clock: the most by which a quiet segment closes late."""
MOST_FRAMES = 4096
PRUNE_S = 60.0
RETRY_S = 0.5
T = TypeVar("T")

_TROUBLE = (sqlite3.Error, OSError, SegmentError)


class Recorder:
    """Owns the spool's writer. :meth:`run` is its one thread; other threads ask through :meth:`cut`."""

    def __init__(
        self,
        spool: Spool,
        inbox: Inbox,
        statistics: Statistics,
        keep_ns: int,
        segment_opened: Callable[[], None] = lambda: None,
        clock_trusted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._spool = spool
        self._inbox = inbox
        self._statistics = statistics
        self._keep_ns = keep_ns
        self._segment_opened = segment_opened
        self._clock_trusted = clock_trusted
        self._segment = spool.segment
        self._give_up = threading.Event()
        self._next_prune = 0.0
        self.beat = time.monotonic()
        self.trouble: str | None = None
        self._no_room_since: float | None = None
        self.lost = 0
        """Frames received that could not be committed before the process had to end."""

    def run(self) -> None:
        """Commit until the inbox is closed and empty."""
        while not self._inbox.drained:
            frames, mark = self._inbox.take(IDLE_S, MOST_FRAMES)
            self.beat = time.monotonic()
            if not self._write(frames):
                return
            if mark is not None:
                self._reach(mark)
            elif not frames and self._is_over():
                self._inbox.mark()
            del frames  # they may be large, and the next ones may be long in coming
            if self.beat >= self._next_prune and self._clock_trusted():
                self._next_prune = self.beat + PRUNE_S
                self._attempt(lambda: self._spool.prune(self._inbox.clock(), self._keep_ns))

    def _is_over(self) -> bool:
        """Whether the clock has passed the open segment's edge. Rows that come tell by themselves."""
        edge = self._spool.edge
        return edge is not None and self._inbox.clock() >= edge

    def _reach(self, mark: Mark) -> None:
        """All that was stamped before the mark is committed: end the segment there where it is time or wanted."""
        if mark.cut is None:
            self._attempt(lambda: self._spool.tick(mark.rx))
        else:
            mark.cut.set_result(self._attempt(lambda: self._spool.cut(mark.rx)))

    def cut(self, timeout_s: float) -> SegmentInfo | None:
        """End the open segment now, after all that was received before the call; from any thread. None where nothing
        was recorded since the last cut. Raises UserError where the recording ends, TimeoutError."""
        cut: Cut = Future()
        if not self._inbox.mark(cut):
            raise UserError("the recording is ending: its segment stays open")
        return cut.result(timeout_s)

    @property
    def refused_s(self) -> float:
        """Seconds for which writes have been refused for want of room; 0 while they are not."""
        since = self._no_room_since
        return 0.0 if since is None else max(0.001, time.monotonic() - since)

    def give_up(self) -> None:
        """Stop trying to commit: the process has to end."""
        self._give_up.set()

    def _write(self, frames: list[Frame]) -> bool:
        """Commit the frames however long the disk refuses; False where it was told to give up."""
        while frames:
            rest = frames
            block = self._attempt(lambda rest=rest: self._spool.append(rest))  # type: ignore[misc]
            if block is None:
                self.lost += len(frames)
                return False
            self._statistics.committed(block, self._inbox.clock())
            if self._spool.segment != self._segment:
                self._segment = self._spool.segment
                self._segment_opened()
            frames = frames[len(block) :]
        return True

    def _attempt(self, action: Callable[[], T]) -> T | None:
        while True:
            try:
                result = action()
            except _TROUBLE as error:
                self.trouble = f"spool: {error}"
                if not no_room(error):
                    self._no_room_since = None
                elif self._no_room_since is None:
                    self._no_room_since = time.monotonic()
                log.error("spool refuses, trying again", extra={"fields": {"error": str(error)}})
                if self._give_up.wait(RETRY_S):
                    return None
                self.beat = time.monotonic()  # waiting for the disk is not being stuck
            else:
                self.trouble = self._no_room_since = None
                return result
