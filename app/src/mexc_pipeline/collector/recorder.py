"""The writing loop: takes rows from the inbox, commits them, ends segments where the inbox says that it is time."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from mexc_pipeline.collector.inbox import Cut, Inbox, Mark
from mexc_pipeline.collector.statistics import Statistics
from mexc_pipeline.errors import UserError
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.disk_level import no_room
from mexc_pipeline.spool.lock import LockedError
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo
from mexc_pipeline.spool.writer import Spool

log = logging.getLogger("mexc_pipeline.collector")

MOST_FRAMES = 4096
PRUNE_S = 60.0
T = TypeVar("T")

_TROUBLE = (sqlite3.Error, OSError, SegmentError, UserError)


class _GivenUpError(Exception):
    """The process has to end before the disk let it be done."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The recorder's pauses, in seconds."""

    idle_s: float = 0.25
    """How long it waits for frames before it looks at the clock: the most by which a quiet segment closes late."""
    retry_s: float = 0.5
    """Between two attempts at what the disk refuses."""
    prune_s: float = PRUNE_S


@dataclass(frozen=True, slots=True)
class RecorderState:
    """What the writing thread says of itself to the others at one moment. ``spool_id`` is empty until the spool is
    open; ``last_rx`` in Unix ns; ``segment`` is the open one's file name."""

    spool_id: str = ""
    last_seq: int = 0
    last_rx: int = 0
    segment: str | None = None
    pending: int = 0
    """Rows that are committed and have no seq yet."""
    trouble: str | None = None
    """What keeps rows from the spool."""
    refusal: str | None = None
    """Why commits are refused, where it is not for want of room."""
    refused_since: float | None = None
    """Since when commits have been refused (monotonic s); None while they are not."""

    def refused_s(self, now: float) -> float:
        """Seconds for which commits have been refused; 0 while they are not."""
        return 0.0 if self.refused_since is None else max(0.001, now - self.refused_since)


class Recorder:
    """Commits what the inbox holds: where there is ``pending``, at first as pending rows; from the moment that
    :meth:`number` has been called and those have been moved, to the spool. :meth:`run` is its one thread; others ask
    through :meth:`number`, :meth:`cut` and :meth:`give_up`."""

    def __init__(
        self,
        pending: Pending | None,
        inbox: Inbox,
        statistics: Statistics,
        keep_ns: int,
        keep_lock: Callable[[], object],
        trusted_ns: Callable[[], int | None],
        segment_opened: Callable[[], None] = lambda: None,
        contract_pushed: Callable[[bytes], None] = lambda _m: None,
        timing: Timing = Timing(),
    ) -> None:
        self._timing = timing
        self._pending = pending
        self._inbox = inbox
        self._statistics = statistics
        self._keep_ns = keep_ns
        self._keep_lock = keep_lock
        self._segment_opened = segment_opened
        self._contract_pushed = contract_pushed
        self._trusted_ns = trusted_ns
        self._opened: Spool | None = None
        self._spool: Spool | None = None  # from when on rows go there at once
        self._segment: str | None = None
        self._early_cuts: list[Cut] = []
        self._contract: bytes | None = None
        self._give_up = threading.Event()
        self._next_prune = 0.0
        self.beat = time.monotonic()
        self.lost = 0
        """Frames received that could not be committed before the process had to end."""
        self.state = RecorderState()
        """What the writing thread last said of itself; each moment is a new one, to be taken once and read whole."""
        self._publish()

    def number(self, spool: Spool) -> None:
        """The next seq is known: the spool is open, and the recorder's from now on."""
        if self._pending is None:
            self._spool = spool
        self._opened = spool
        self._inbox.wake()

    def specify(self, contract: bytes | None) -> None:
        """Let each segment have that specification of the contract from now on, the open one at once; None: it is not
        known. From any thread."""
        self._contract = contract
        self._inbox.mark()

    def run(self) -> None:
        """Commit until the inbox is closed and empty. What is pending then and cannot be numbered stays so."""
        self._publish()
        while not self._inbox.drained or self._is_moving():
            moving = self._is_moving()
            frames, mark = self._inbox.take(0.0 if moving else self._timing.idle_s, MOST_FRAMES)
            self.beat = time.monotonic()
            if not self._write(frames):
                self.lost += self._inbox.discard()
                break
            if mark is not None:
                self._reach(mark)
            elif not frames and self._is_over():
                self._inbox.mark()
            del frames  # they may be large, and the next ones may be long in coming
            if moving:
                self._move()
            if self._spool is not None and self.beat >= self._next_prune and (now_ns := self._trusted_ns()) is not None:
                self._next_prune = self.beat + self._timing.prune_s
                with suppress(_GivenUpError):
                    self._attempt(partial(self._spool.prune, now_ns, self._keep_ns))
        self._close()

    def _is_moving(self) -> bool:
        return self._opened is not None and self._spool is None and not self._give_up.is_set()

    def _move(self) -> None:
        """Number some of the pending rows, between two commits of new ones; with the last, go over to the spool."""
        spool, pending = self._opened, self._pending
        assert spool is not None
        assert pending is not None
        spool.contract = self._contract
        try:
            if self._attempt(lambda: pending.move(spool)) != 0:
                self._look_at_segment(spool)
                return
            self._attempt(pending.remove)
        except _GivenUpError:
            return
        self._spool = spool
        if self._contract is not None:
            self._inbox.mark()  # it may have become known meanwhile
        cuts, self._early_cuts = self._early_cuts, []
        for cut in cuts:
            self._inbox.mark(cut)

    def _close(self) -> None:
        for cut in self._early_cuts:
            cut.set_exception(UserError("the recording has ended before its rows could be numbered"))
        if self._spool is None and self._pending is not None:
            self._pending.close()
        if self._opened is not None:
            self._opened.close()
        self._publish()

    def _publish(
        self, trouble: str | None = None, refusal: str | None = None, refused_since: float | None = None
    ) -> None:
        """After each commit, and wherever one is refused."""
        spool, pending = self._opened, self._pending
        waiting = 0 if self._spool is not None or pending is None else pending.waiting
        if spool is None:
            self.state = RecorderState("", 0, 0, None, waiting, trouble, refusal, refused_since)
        else:
            at = spool.spool_id, spool.last_seq, spool.last_rx, spool.segment
            self.state = RecorderState(*at, waiting, trouble, refusal, refused_since)

    def _is_over(self) -> bool:
        """Whether the clock has passed the open segment's edge. Rows that come tell by themselves."""
        edge = self._spool.edge if self._spool is not None else None
        return edge is not None and self._inbox.clock() >= edge

    def _reach(self, mark: Mark) -> None:
        """All that was stamped before the mark is committed: end the segment there where it is time or wanted."""
        spool, cut = self._spool, mark.cut
        if spool is None:
            if cut is not None:
                self._early_cuts.append(cut)
        elif cut is None:
            spool.contract = self._contract
            with suppress(_GivenUpError):
                self._attempt(lambda: spool.tick(mark.rx))
                self._attempt(lambda: spool.describe(mark.rx))
            self._count_described(spool)
        else:
            try:
                cut.set_result(self._attempt(lambda: spool.cut(mark.rx)))
            except _GivenUpError:
                cut.set_exception(UserError("the recording has ended before the disk let its segment be cut"))

    def cut(self, timeout_s: float) -> SegmentInfo | None:
        """End the open segment now, after all that was received before the call; from any thread. None where nothing
        was recorded since the last cut. Raises UserError where the recording ends, TimeoutError."""
        cut: Cut = Future()
        if not self._inbox.mark(cut):
            raise UserError("the recording is ending: its segment stays open")
        return cut.result(timeout_s)

    def give_up(self) -> None:
        """Stop trying to commit: the process has to end."""
        self._give_up.set()

    def _write(self, frames: list[Frame]) -> bool:
        """Commit the frames however long the disk refuses; False where it was told to give up."""
        to = self._spool or self._pending
        assert to is not None
        commit = to.append
        if self._spool is not None:
            self._spool.contract = self._contract
        while frames:
            try:
                block = self._attempt(partial(commit, frames))
            except _GivenUpError:
                self.lost += len(frames)
                return False
            self._statistics.committed(block, self._inbox.clock())
            if Mt.CONTRACT in block.mt:
                self._contract_pushed(block.m[len(block) - 1 - block.mt[::-1].index(Mt.CONTRACT)])
            if self._spool is not None:
                self._look_at_segment(self._spool)
            frames = frames[len(block) :]
        return True

    def _look_at_segment(self, spool: Spool) -> None:
        self._count_described(spool)
        before, self._segment = self._segment, spool.segment
        if before not in (None, self._segment):
            self._segment_opened()

    def _count_described(self, spool: Spool) -> None:
        for block in spool.described():
            self._statistics.committed(block, self._inbox.clock())

    def _attempt(self, action: Callable[[], T]) -> T:
        """What the disk lets be done sooner or later; _GivenUpError where the process has to end before, and where the
        folder has another writer by now: this process may have stood still for any time since its last look."""
        since: float | None = None
        while True:
            try:
                self._keep_lock()
                result = action()
            except LockedError as error:
                log.error("spool has another writer, ending", extra={"fields": {"error": str(error)}})
                self.give_up()
                raise _GivenUpError from error
            except _TROUBLE as error:
                since = time.monotonic() if since is None else since
                self._publish(f"spool: {error}", None if no_room(error) else str(error), since)
                log.error("spool refuses, trying again", extra={"fields": {"error": str(error)}})
                if self._give_up.wait(self._timing.retry_s):
                    raise _GivenUpError from error
                self.beat = time.monotonic()  # waiting for the disk is not being stuck
            else:
                self._publish()
                return result
