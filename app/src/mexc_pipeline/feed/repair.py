"""Fetches over REST what the socket did not bring: missing versions of a book, snapshots to build on, and trades.

A thread of its own asks; the reading thread only says what is missing or in doubt. What is asked for, and what an
answer decides, is :class:`~mexc_pipeline.exchange.recovery.Recovery`'s, of trades
:class:`~mexc_pipeline.exchange.fills.Fills`'.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mexc_pipeline.backoff import Backoff
from mexc_pipeline.egress.dial import EgressError
from mexc_pipeline.egress.http import HttpAnswer, RestClient
from mexc_pipeline.exchange.checks import FollowUp
from mexc_pipeline.exchange.fills import Fills
from mexc_pipeline.exchange.holes import MOST_TRIES, Row
from mexc_pipeline.exchange.recovery import THROTTLED_S, Allowance, Recovery, Request, Step
from mexc_pipeline.exchange.rest import MOST_DEALS, RestRefusedError, deals_path, read_deals
from mexc_pipeline.text import clean

log = logging.getLogger("mexc_pipeline.feed")
T = TypeVar("T")

ANSWER_S = 10.0
PAUSE_S = 0.2
"""Least time between two rounds of requests."""


class Repairer:
    """Repairs the recording of one symbol, ``symbol_id`` in the log. ``keep`` takes rows and may block; requests go to
    ``rest``; ``newest`` is the version of the newest frame. ``fills``: what may be missing of the trades of the
    contract ``symbol``, None where they are not recorded."""

    def __init__(
        self,
        symbol_id: str,
        rest: RestClient,
        keep: Callable[[list[Row]], None],
        newest: Callable[[], int],
        recovery: Recovery,
        fills: Fills | None = None,
        symbol: str = "",
    ) -> None:
        self._symbol_id = symbol_id
        self._rest = rest
        self._keep = keep
        self._newest = newest
        self._backoff = Backoff(random.Random(), first_s=0.25, most_s=8.0)  # noqa: S311 - jitter, not a secret
        self._allowance = Allowance()
        self._changed = threading.Condition()  # guards what follows
        self._recovery = recovery
        self._fills = fills
        self._deals_path = deals_path(symbol, MOST_DEALS)
        self._trades_backoff = Backoff(random.Random(), first_s=0.25, most_s=8.0)  # noqa: S311 - jitter, not a secret
        self._trades_at = 0.0  # not before then (monotonic s) are trades asked for
        self._closed = False
        self._book_at = 0.0  # not before then (monotonic s) is a book asked for
        self._no_book: tuple[float, str] | None = None  # since when there is none to build on, and why
        self.trouble: str | None = None
        """Why the last request brought nothing of use; None where it did."""

    def found(self, found: FollowUp) -> None:
        """Have fetched what a frame's place in its stream asks for; from the reading thread."""
        with self._changed:
            if not self._closed:
                self._recovery.found(found)
                if found.book is not None:
                    self._book_at = 0.0
                self._changed.notify_all()

    def give_up(self, reason: str) -> list[Row]:
        """Ask for nothing more of what was missing so far; returns the rows that say so."""
        with self._changed:
            return self._recovery.give_up(reason)

    def connected(self) -> None:
        """A connection begins; from the reading thread, as are the next three."""
        with self._changed:
            if self._fills is not None and not self._closed:
                self._fills.connected()

    def subscribed(self, ts_ms: int | None) -> None:
        """Deals are delivered, as the exchange said at that time of its own (Unix ms), or as they themselves show."""
        with self._changed:
            if self._fills is not None and not self._closed:
                self._fills.subscribed(time.monotonic(), ts_ms)
                self._trades_at = 0.0
                self._changed.notify_all()

    def in_doubt(self) -> None:
        """Deals may be missing although the connection goes on."""
        with self._changed:
            if self._fills is not None and not self._closed:
                self._fills.in_doubt()
                self._changed.notify_all()

    def disconnected(self) -> list[Row]:
        """A connection is over; returns rows to be kept."""
        with self._changed:
            return self._fills.disconnected() if self._fills is not None and not self._closed else []

    def close(self) -> list[Row]:
        """Stop; what is not repaired yet is given up, and the rows that say so are returned."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._recovery.give_up("stopped")

    def status(self) -> dict[str, Any]:
        """Gaps seen and still open since start, and what is in the way; ``no_book``: for how many seconds there has
        been none to build on although it was asked for again and again, and why."""
        with self._changed:
            since = self._no_book if self._recovery.wants_book and self._recovery.vain >= MOST_TRIES else None
            return {
                "seen": self._recovery.seen,
                "open": self._recovery.still_open,
                "trouble": self.trouble,
                "no_book": None if since is None else {"for_s": round(time.monotonic() - since[0], 1), "why": since[1]},
            }

    def trades(self) -> dict[str, Any] | None:
        """Return how many trades were fetched, how often some may be missing that could not be, and whether that is
        being found out; None where they are not recorded."""
        with self._changed:
            return None if self._fills is None else self._fills.status._asdict()

    def run(self) -> None:
        """Ask until closed."""
        while True:
            with self._changed:
                rows: list[Row] = []
                while not (self._closed or rows or self._due() or self._trades_due()):
                    self._changed.wait(self._wait_s())
                    rows = self._fills.look(time.monotonic()) if self._fills is not None and not self._closed else []
                if self._closed:
                    return
                requests, trades_due = self._due(), self._trades_due()
                rows += self._recovery.ended()
            self._keep(rows)
            if not requests and not trades_due:
                continue
            pause = max([PAUSE_S, *(self.ask(request) for request in requests)])
            if trades_due:
                pause = max(pause, self.ask_trades())
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause)

    def _wait_s(self) -> float | None:
        """Seconds until something is due or may have been decided; None: until something is said."""
        waits = [self._fills.wait_s] if self._fills is not None else []
        if self._recovery.requests():
            waits.append(max(0.0, self._book_at - time.monotonic()))
        return min((wait for wait in waits if wait is not None), default=None)

    def _trades_due(self) -> bool:
        now = time.monotonic()
        return self._fills is not None and now >= self._trades_at and self._fills.wants(now)

    def ask_trades(self) -> float:
        """Ask for the newest trades once; returns the seconds to wait before the next request. Trades that are asked
        for in vain hold up nothing else."""
        if patience_s := self._rest.patience_s:
            return patience_s
        fills = self._fills
        assert fills is not None

        def take(got: HttpAnswer) -> tuple[list[Row], bool]:
            trades = read_deals(got.status, got.body)
            with self._changed:
                return ([], False) if self._closed else fills.answered(trades, time.monotonic())

        taken, why, least = self._get(self._deals_path, take)
        rows, again = taken or ([], True)
        if why:
            log.warning("no trades to fill with", extra={"fields": {"symbol": self._symbol_id, "why": why}})
            with self._changed:
                rows = [] if self._closed else fills.failed(why)
        if again:
            self._trades_at = time.monotonic() + self._trades_backoff.next_s()
        else:
            self._trades_backoff.reset()
        self._keep(rows)
        return max(least, self._rest.patience_s, self._allowance.take(time.monotonic()))

    def _due(self) -> list[Request]:
        early = time.monotonic() < self._book_at
        return [request for request in self._recovery.requests() if not (request.book and early)]

    def ask(self, request: Request) -> float:
        """Make one request; returns the seconds to wait before the next. While the exchange asks for patience there is
        none: nothing is given up for that."""
        patience_s = self._rest.patience_s
        if patience_s:
            self.trouble = f"{self._rest.url} asks for patience"
            return patience_s
        pause = max(self._asked(request), self._rest.patience_s)
        if request.book and (put_off_s := self._put_book_off()):
            self._backoff.reset()  # what else goes missing meanwhile need not wait for it
            pause = max(THROTTLED_S, self._rest.patience_s)
            log.info("book asked for again", extra={"fields": {"symbol": self._symbol_id, "in_s": put_off_s}})
        return max(pause, self._allowance.take(time.monotonic()))

    def _put_book_off(self) -> float:
        """How long no book is asked for, after one was; 0 where it came, or may still come at once."""
        with self._changed:
            put_off_s = self._recovery.book_pause_s
            now = time.monotonic()
            if put_off_s:
                self._book_at = now + put_off_s
            if self._recovery.vain:  # however often a connection, or what it lost, asked for another one meanwhile
                self._no_book = (self._no_book or (now, ""))[0], self.trouble or "it lags behind the socket"
            else:
                self._no_book = None
            return put_off_s

    def _asked(self, request: Request) -> float:
        def take(got: HttpAnswer) -> Step:
            answer = request.read(got.status, got.body)
            with self._changed:
                step = Step([]) if self._closed else self._recovery.answered(answer, self._newest())
            self._take(step, log.warning)
            return step

        taken, reason, least = self._get(request.path, take)
        if taken is not None:
            self.trouble = None
            if taken.done:
                self._backoff.reset()
                return 0.0
            return self._backoff.next_s()  # the answer lags behind the socket
        self.trouble = reason
        log.warning("nothing to repair with", extra={"fields": {"symbol": self._symbol_id, "why": reason}})
        with self._changed:
            step = Step([]) if self._closed else self._recovery.failed(request, reason)
        self._take(step, log.error)
        return max(least, self._backoff.next_s())

    def _get(self, path: str, take: Callable[[HttpAnswer], T]) -> tuple[T | None, str, float]:
        """What ``take`` makes of the answer, None where nothing can be made of it; then why, and the seconds for which
        nothing is to be asked."""
        try:
            return take(self._rest.get(path, ANSWER_S)), "", 0.0
        except (EgressError, RestRefusedError) as error:
            throttled = isinstance(error, RestRefusedError) and error.throttled
            return None, clean(error), THROTTLED_S if throttled else 0.0
        except Exception as error:  # whatever an answer holds, the rest is asked for; it is logged whole
            log.exception("answer not understood", extra={"fields": {"symbol": self._symbol_id, "path": path}})
            return None, clean(f"{type(error).__name__}: {error}"), 0.0

    def _take(self, step: Step, say: Callable[..., None]) -> None:
        if step.warning is not None:
            say(step.warning, extra={"fields": {"symbol": self._symbol_id, **(step.fields or {})}})
        if step.rows:
            self._keep(step.rows)
