"""Fetches over REST what the socket did not bring: missing versions of a book, and whole books to build on.

A thread of its own asks; the reading thread only says what is missing.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mexc_pipeline import config, events
from mexc_pipeline.backoff import Backoff
from mexc_pipeline.egress.dial import EgressError
from mexc_pipeline.egress.http import Rest
from mexc_pipeline.exchange.depth import CHANNEL, Gap
from mexc_pipeline.exchange.holes import MOST_TRIES, Holes, Row, Unfinished
from mexc_pipeline.exchange.protocol import TEXT
from mexc_pipeline.exchange.rest import RefusedError, commits_path, depth_path, read_commits, read_snapshot
from mexc_pipeline.rows import Mt, is_utf8, wrap

log = logging.getLogger("mexc_pipeline.feed")

ANSWER_S = 10.0
PAUSE_S = 0.2
"""Least time between two rounds of requests."""
BURST = 20
EACH_S = 1.0
"""So many requests may follow one another, then one in this time: of what is allowed to an address (20 commits and 10
books in 2 s, official futures page, 2026-04; 4 a second went well, 2026-10) a symbol whose versions go missing without
end leaves the others their share."""
THROTTLED_S = 2.0
"""The window in which requests are counted; the next one succeeds (observed, 2026-10)."""


class Allowance:
    """How soon requests may follow one another: :data:`BURST` of them at will, then one in :data:`EACH_S`. Pure."""

    def __init__(self) -> None:
        self._spent_until = 0.0

    def take(self, now: float) -> float:
        """A request was made at that time (monotonic s); seconds until the next may be."""
        self._spent_until = max(self._spent_until, now) + EACH_S
        return max(0.0, self._spent_until - now - (BURST - 1) * EACH_S)


class Repairer:
    """Repairs one symbol's incremental depth. ``keep`` takes rows and may block; requests go to ``rest``;
    ``newest`` is the version of the newest frame. ``interrupted``: what an earlier process did not come to the end
    of."""

    def __init__(
        self,
        symbol: config.Symbol,
        rest: Rest,
        keep: Callable[[list[Row]], None],
        newest: Callable[[], int],
        interrupted: Sequence[Unfinished] = (),
    ) -> None:
        self._symbol = symbol
        self._rest = rest
        self._keep = keep
        self._newest = newest
        self._backoff = Backoff(random.Random(), first_s=0.25, most_s=8.0)  # noqa: S311 - jitter, not a secret
        self._allowance = Allowance()
        self._changed = threading.Condition()  # guards what follows
        self._holes = Holes(CHANNEL, MOST_TRIES)
        for left in interrupted:
            self._holes.go_on(left)
        self._wanted: int | None = None
        self._before = 0
        """Version that the socket had come to before it counted anew; 0 once it is settled which count holds."""
        self._ended: list[Row] = []
        self._snapshot_tries = 0
        self._closed = False
        self.trouble: str | None = None
        """Why the last request brought nothing of use; None where it did."""
        self.seen = 0
        """Gaps so far."""

    def gap(self, gap: Gap) -> None:
        """Versions are missing; from the reading thread."""
        with self._changed:
            self.seen += 1
            self._ended += self._holes.add(gap.first, gap.last)
            self._changed.notify_all()

    def snapshot(self, version: int) -> None:
        """A whole book of that version or a later one is wanted."""
        with self._changed:
            if not self._closed:
                self._wanted = version if self._wanted is None else max(version, self._wanted)
                self._snapshot_tries = 0
                self._changed.notify_all()

    def anew(self, version: int, seen: int) -> None:
        """The exchange counts anew, after having come to ``seen``: a book of that version or a later one of the new
        count is wanted, and what was missing of the old one will not come any more."""
        with self._changed:
            if not self._closed:
                self._ended += self._holes.close("the exchange counts anew")
                self._holes.given_up = 0
                self._wanted, self._before = version, seen
                self._snapshot_tries = 0
                self._changed.notify_all()

    def give_up(self, reason: str) -> list[Row]:
        """Ask for nothing more of what was missing so far; the rows that say so are returned."""
        with self._changed:
            self._wanted = None
            rows = self._ended + self._holes.close(reason)
            self._ended = []
            self._holes.given_up = 0
            return rows

    def close(self) -> list[Row]:
        """Stop; what is not repaired yet is given up, and the rows that say so are returned."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self.give_up("stopped")

    def status(self) -> dict[str, Any]:
        """Gaps seen and still open since start, and what is in the way."""
        with self._changed:
            return {"seen": self.seen, "open": len(self._holes), "trouble": self.trouble}

    def run(self) -> None:
        """Ask until closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._holes) or self._wanted is not None)
                if self._closed:
                    return
                commits, book = bool(len(self._holes)), self._wanted is not None
                ended, self._ended = self._ended, []
            self._keep(ended)
            pauses = [PAUSE_S]
            if commits:
                pauses.append(self._step(self._ask_commits, self._no_commits))
            if book:
                pauses.append(self._step(self._ask_snapshot, self._no_snapshot))
            with self._changed:
                self._changed.wait_for(lambda: self._closed, max(pauses))

    def _step(self, ask: Callable[[], bool], failed: Callable[[str], list[Row]]) -> float:
        """One request; seconds to wait before the next. While the exchange asks for patience there is none: nothing is
        given up for that."""
        patience_s = self._rest.patience_s
        if patience_s:
            self.trouble = f"{self._rest.url} asks for patience"
            return patience_s
        pause = max(self._asked_for(ask, failed), self._rest.patience_s)
        return max(pause, self._allowance.take(time.monotonic()))

    def _asked_for(self, ask: Callable[[], bool], failed: Callable[[str], list[Row]]) -> float:
        least = 0.0
        try:
            done = ask()
        except (EgressError, RefusedError) as error:
            reason = str(error)
            least = THROTTLED_S if isinstance(error, RefusedError) and error.throttled else 0.0
        except Exception as error:  # whatever an answer holds, later gaps must be repaired; it is logged whole
            log.exception("repair failed unexpectedly")
            reason = f"{type(error).__name__}: {error}"
        else:
            self.trouble = None
            if done:
                self._backoff.reset()
                return 0.0
            return self._backoff.next_s()  # the answer lags behind the socket
        self.trouble = reason
        log.warning("nothing to repair with", extra={"fields": {"symbol": self._symbol.id, "why": reason}})
        with self._changed:
            rows = [] if self._closed else failed(reason)
        if rows:
            self._keep(rows)
        return max(least, self._backoff.next_s())

    def _ask_commits(self) -> bool:
        commits = read_commits(*self._get(commits_path(self._symbol.name)))
        with self._changed:
            if self._closed:
                return True
            rows = self._holes.answer(commits)
            self._build_on_after_loss()
            done = not len(self._holes)
        if rows:
            self._keep(rows)
        return done

    def _no_commits(self, reason: str) -> list[Row]:
        rows = self._holes.failed(reason)
        self._build_on_after_loss()
        return rows

    def _build_on_after_loss(self) -> None:
        """What could not be repaired ends the book; a new one goes on after it."""
        lost, self._holes.given_up = self._holes.given_up, 0
        if lost:
            self._wanted = max(lost, self._wanted or 0)
            self._snapshot_tries = 0

    def _ask_snapshot(self) -> bool:
        snapshot = read_snapshot(*self._get(depth_path(self._symbol.name)))
        with self._changed:
            wanted = self._wanted
            if self._closed or wanted is None:
                return True
            self._snapshot_tries += 1
            if snapshot.version < wanted and self._snapshot_tries < MOST_TRIES:
                return False
            newest = self._newest()
            if snapshot.version >= self._before > newest:  # still of the count that the socket has left
                if self._snapshot_tries < MOST_TRIES:
                    return False
                raise RefusedError(f"a book of version {snapshot.version}, where the socket counts at {newest}")
            self._wanted, self._before = None, 0
        if snapshot.version < wanted:
            log.warning(
                "book lags behind the socket",
                extra={"fields": {"symbol": self._symbol.id, "version": snapshot.version, "wanted": wanted}},
            )
        book = snapshot.book if is_utf8(snapshot.book) else wrap(TEXT, snapshot.book)
        said = events.Snapshot(channel=CHANNEL, version=snapshot.version, book=msgspec.Raw(book))
        self._keep([(Mt.EVENT, said.m)])
        return True

    def _no_snapshot(self, reason: str) -> list[Row]:
        self._snapshot_tries += 1
        if self._snapshot_tries >= MOST_TRIES:
            log.error("no book to build on", extra={"fields": {"symbol": self._symbol.id, "why": reason}})
            self._wanted = None
        return []

    def _get(self, path: str) -> tuple[int, bytes]:
        answer = self._rest.get(path, ANSWER_S)
        return answer.status, answer.body
