"""What is missing of one symbol's incremental depth, what is asked for it over REST, and what the answers decide.

A state machine: what goes missing and what comes goes in, requests and rows come out. Pure. Whoever drives it makes
the requests, keeps the rows in the order in which they are returned, and lets one thread in at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from mexc_pipeline import events
from mexc_pipeline.exchange.channels import DEPTH
from mexc_pipeline.exchange.checks import FollowUp
from mexc_pipeline.exchange.holes import MOST_TRIES, Holes, Row, Unfinished
from mexc_pipeline.exchange.protocol import TEXT
from mexc_pipeline.exchange.rest import (
    BookSnapshot,
    DepthCommit,
    RestRefusedError,
    commits_path,
    depth_path,
    read_commits,
    read_snapshot,
)
from mexc_pipeline.rows import Mt, is_utf8, wrap

BURST = 20
EACH_S = 1.0
"""So many requests may follow one another, then one in this time: of what is allowed to an address (20 commits and 10
books in 2 s, official futures page, 2026-04; 4 a second went well, 2026-10) a symbol whose versions go missing without
end leaves the others their share."""
BOOK_S = 30.0
BOOK_MOST_S = 300.0
"""A book that was asked for in vain so often that nothing else would be is asked for again after the first, then after
twice that, up to once in the second."""
THROTTLED_S = 2.0
"""The window in which requests are counted; the next one succeeds (observed, 2026-10)."""


class Allowance:
    """How soon requests may follow one another: :data:`BURST` of them at will, then one in :data:`EACH_S`."""

    def __init__(self) -> None:
        self._spent_until = 0.0

    def take(self, now: float) -> float:
        """Note a request at that time (monotonic s); returns the seconds until the next may be made."""
        self._spent_until = max(self._spent_until, now) + EACH_S
        return max(0.0, self._spent_until - now - (BURST - 1) * EACH_S)


Answer = Sequence[DepthCommit] | BookSnapshot


class Request(NamedTuple):
    """What is to be asked: a path, and how the answer (status, body) is read; that raises RestRefusedError.
    ``book``: it is for a snapshot of the book."""

    path: str
    read: Callable[[int, bytes], Answer]
    book: bool = False


class Step(NamedTuple):
    """What an answer, or that there was none, decides: ``rows`` to be kept; ``done``, or the same is asked for once
    more because the answer lags behind the socket; ``warning`` and its fields for the log."""

    rows: list[Row]
    done: bool = True
    warning: str | None = None
    fields: dict[str, object] | None = None


class Recovery:
    """Follows what one symbol lacks. ``interrupted``: what an earlier process did not come to the end of."""

    def __init__(self, symbol: str, interrupted: Sequence[Unfinished] = ()) -> None:
        self._commits = Request(commits_path(symbol), read_commits)
        self._snapshot = Request(depth_path(symbol), read_snapshot, book=True)
        self._holes = Holes(DEPTH, MOST_TRIES)
        for left in interrupted:
            self._holes.go_on(left)
        self._wanted: int | None = None
        self._reset_after = 0
        """Version that the socket had come to before it began another count; 0 once it is settled which one holds."""
        self._ended: list[Row] = []
        self._snapshot_tries = 0
        self._warned = False  # of a book that is late
        self.vain = 0
        """How often a book was asked for since there was one, whatever was wanted and lost meanwhile."""
        self.seen = 0
        """Gaps so far."""

    @property
    def still_open(self) -> int:
        """Gaps that are being repaired."""
        return len(self._holes)

    def found(self, found: FollowUp) -> None:
        """Take what the place of a frame asks for."""
        if found.reset_after and found.book is not None:
            # What was missing of the old count will not come any more.
            self._ended += self._holes.close("the exchange counts anew")
            self._holes.given_up = 0
            self._want(found.book)
            self._reset_after = found.reset_after
        elif found.book is not None:
            self._want(found.book if self._wanted is None else max(found.book, self._wanted))
        if found.gap is not None:
            self.seen += 1
            self._ended += self._holes.add(found.gap.first, found.gap.last)

    def _want(self, version: int) -> None:
        self._wanted, self._snapshot_tries, self._warned = version, 0, False

    def give_up(self, reason: str) -> list[Row]:
        """Ask for nothing more of what was missing so far; returns the rows that say so."""
        self._wanted = None
        rows = self.ended() + self._holes.close(reason)
        self._holes.given_up = 0
        return rows

    def ended(self) -> list[Row]:
        """Rows of what was given up since the last call without being asked for."""
        rows, self._ended = self._ended, []
        return rows

    def requests(self) -> list[Request]:
        """What is to be asked for; none where nothing is missing."""
        wanted = [self._commits] if len(self._holes) else []
        return wanted if self._wanted is None else [*wanted, self._snapshot]

    @property
    def wants_book(self) -> bool:
        """Whether a book is to come."""
        return self._wanted is not None

    @property
    def book_pause_s(self) -> float:
        """How long not to ask for a book again: 0 until it was asked for ``MOST_TRIES`` times in vain. It is never
        given up: without one, no frame of the segment can be built on."""
        vain = self._snapshot_tries - MOST_TRIES
        return 0.0 if self._wanted is None or vain < 0 else min(BOOK_S * 2.0 ** min(vain, 30), BOOK_MOST_S)

    def answered(self, answer: Answer, newest: int) -> Step:
        """Take what :attr:`Request.read` made of an answer; ``newest``: the version of the newest frame.
        RestRefusedError for a book that is of no use."""
        if isinstance(answer, BookSnapshot):
            return self._take_snapshot(answer, newest)
        rows = self._holes.answer(answer)
        self._build_on_after_loss()
        return Step(rows, not len(self._holes))

    def failed(self, request: Request, reason: str) -> Step:
        """There was no answer of use."""
        if request is self._commits:
            rows = self._holes.failed(reason)
            self._build_on_after_loss()
            return Step(rows)
        self._snapshot_tries += 1
        self.vain += 1
        if self._snapshot_tries < MOST_TRIES or self._warned:
            return Step([])
        self._warned = True
        return Step([], True, "no book to build on", {"why": reason})

    def _build_on_after_loss(self) -> None:
        """What could not be repaired ends the book; a new one goes on after it."""
        lost, self._holes.given_up = self._holes.given_up, 0
        if lost:
            self._want(max(lost, self._wanted or 0))

    def _take_snapshot(self, snapshot: BookSnapshot, newest: int) -> Step:
        wanted = self._wanted
        if wanted is None:
            return Step([])
        self._snapshot_tries += 1
        self.vain += 1
        again = self._snapshot_tries < MOST_TRIES
        if snapshot.version < wanted and (again or self._warned):
            return Step([], False)
        if snapshot.version >= self._reset_after > newest:  # still of the count that the socket has left
            if again:
                return Step([], False)
            raise RestRefusedError(f"a book of version {snapshot.version}, where the socket counts at {newest}")
        book = snapshot.book if is_utf8(snapshot.book) else wrap(TEXT, snapshot.book)
        said = events.Snapshot(channel=DEPTH, version=snapshot.version, book=msgspec.Raw(book))
        rows: list[Row] = [(Mt.EVENT, said.m)]
        if snapshot.version >= wanted:
            self._wanted, self._reset_after, self.vain = None, 0, 0
            return Step(rows)
        self._warned = True  # kept, as it may do; one that surely does is asked for all the same
        return Step(rows, True, "book lags behind the socket", {"version": snapshot.version, "wanted": wanted})
