"""Where rows get their time and wait for their commit, in one step: whatever is stamped is in the queue.

Bounded, so that a slow disk slows the reading down instead of losing rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import NamedTuple

from mexc_pipeline.periods import following
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.segment import SegmentInfo

MAX_BYTES = 32 << 20

Cut = Future[SegmentInfo | None]


class Mark(NamedTuple):
    """A moment in the queue: what was stamped before ``rx`` (Unix ns) stands before it, later rows have ``rx`` or more.
    ``cut``: the open segment is to end here."""

    rx: int
    cut: Cut | None


class Inbox:
    """A bounded queue of rows that wait for their commit. Any thread stamps and adds, one writer thread takes; the
    order of stamps is the order of the queue.

    ``clock`` gives Unix nanoseconds. ``rx = max(clock, last rx)``; where the clock is behind by more than
    :data:`~mexc_pipeline.periods.PINNED_NS` it goes back with the clock, and the spool says so.

    A thread that adds frame by frame holds :attr:`lock` from :meth:`stamp` to :meth:`add` and calls :meth:`hand_over`
    when it has no more for the moment: at some tens of frames a second what a frame costs is waking the writer.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, clock: Callable[[], int] | None = None) -> None:
        self.clock = clock or time.time_ns
        self.lock = threading.Lock()
        self._last_rx = 0
        self._added: list[Frame] = []
        self.add = self._added.append
        """Queue a frame that was stamped under the same hold of :attr:`lock`."""
        self._queue: SimpleQueue[list[Frame] | Mark] = SimpleQueue()
        self._closed = False
        self.refused = 0
        """Frames that came after :meth:`close`."""
        self._room = threading.Condition()  # holds _bytes; notified when there is room again; taken last
        self._bytes = 0
        self._max_bytes = max_bytes
        self._taken = 0

    def follow(self, last_rx: int) -> None:
        """Go on after a row recorded before, of that time; before anything is stamped."""
        self._last_rx = last_rx

    # -- for those who receive

    def stamp(self) -> int:
        """The ``rx`` (Unix ns) of what has just been received. The caller holds :attr:`lock`."""
        self._last_rx = rx = following(self._last_rx, self.clock())
        return rx

    def note(self, mt: int, m: bytes) -> None:
        """Stamp and queue one row; the writer is not woken for it."""
        with self.lock:
            self.add(Frame(self.stamp(), None, mt, m))

    def put(self, rows: Iterable[tuple[int, bytes]], *, wait: bool = True) -> None:
        """Stamp, queue and hand over rows of one moment as (``mt``, ``m``)."""
        with self.lock:
            for mt, m in rows:
                self.add(Frame(self.stamp(), None, mt, m))
        self.hand_over(wait=wait)

    def hand_over(self, *, wait: bool = True, coming: int = 0) -> None:
        """Wake the writer for what was added; then wait while more than ``max_bytes`` are not committed, but for a
        thread that must not be held up. ``coming``: bytes of a frame that is about to be put together; it waits until
        it fits in beside what is there, or until nothing is. What is added after :meth:`close` is counted and
        dropped: the recording has ended."""
        with self.lock:
            self._hand_over()
        most = max(0, self._max_bytes - coming)
        if wait and self._bytes > most:
            with self._room:
                self._room.wait_for(lambda: self._bytes <= most or self._closed)

    def _hand_over(self) -> None:
        if not self._added:
            return
        batch = self._added.copy()
        self._added.clear()  # the same list all along: the reading loop holds its append
        if self._closed:
            self.refused += sum(frame.mt != Mt.EVENT for frame in batch)
            return
        with self._room:
            self._bytes += sum(len(frame.m) for frame in batch)
        self._queue.put(batch)

    # -- for those who end segments and recordings

    def mark(self, cut: Cut | None = None) -> bool:
        """Queue the present moment behind all that was stamped so far; returns False once the queue is closed."""
        with self.lock:
            rx = self.stamp()
            self._hand_over()
            if not self._closed:
                self._queue.put(Mark(rx, cut))
            return not self._closed

    def close(self, *last: tuple[int, bytes]) -> None:
        """Take no more rows after the ``last`` ones (``mt``, ``m``); what is queued can still be taken."""
        with self.lock:
            for mt, m in last:
                self.add(Frame(self.stamp(), None, mt, m))
            self._hand_over()
            self._closed = True
        with self._room:
            self._room.notify_all()
        self.wake()

    # -- for the writer

    def take(self, timeout_s: float, most: int) -> tuple[list[Frame], Mark | None]:
        """All that is queued, whole batches up to about ``most`` frames, and no further than the next mark; waits up to
        ``timeout_s`` for the first. What was taken before is committed by now and no longer counted."""
        with self._room:
            self._bytes -= self._taken
            self._taken = 0
            self._room.notify_all()
        taken: list[Frame] = []
        mark = None
        wait = 0.0 if self._closed else timeout_s
        try:
            while mark is None and len(taken) < most:
                item = self._queue.get(timeout=wait)
                if isinstance(item, Mark):
                    mark = item
                else:
                    taken += item
                    if not item and self._queue.empty():
                        break  # only woken
                wait = 0.0
        except Empty:
            pass
        self._taken = sum(len(frame.m) for frame in taken)
        return taken, mark

    def discard(self) -> int:
        """Drop what is queued; returns how many frames that were."""
        dropped = 0
        while not self._queue.empty():
            frames, _ = self.take(0.0, 1 << 62)
            dropped += len(frames)
        return dropped

    def wake(self) -> None:
        """Let a waiting :meth:`take` return."""
        self._queue.put([])

    @property
    def drained(self) -> bool:
        """Whether the queue is closed and empty."""
        with self.lock:
            return self._closed and self._queue.empty()

    @property
    def bytes(self) -> int:
        """Bytes of frames that are not committed."""
        return self._bytes
