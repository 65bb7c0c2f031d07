"""Fetches over REST what the socket did not bring: missing versions of a book, and snapshots to build on.

A thread of its own asks; the reading thread only says what is missing. What is asked for, and what an answer decides,
is :class:`~mexc_pipeline.exchange.recovery.Recovery`'s.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from mexc_pipeline.backoff import Backoff
from mexc_pipeline.egress.dial import EgressError
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.exchange.checks import FollowUp
from mexc_pipeline.exchange.holes import Row
from mexc_pipeline.exchange.recovery import THROTTLED_S, Allowance, Recovery, Request, Step
from mexc_pipeline.exchange.rest import RestRefusedError

log = logging.getLogger("mexc_pipeline.feed")

ANSWER_S = 10.0
PAUSE_S = 0.2
"""Least time between two rounds of requests."""


class Repairer:
    """Repairs the recording of one symbol, ``symbol_id`` in the log. ``keep`` takes rows and may block; requests go to
    ``rest``; ``newest`` is the version of the newest frame."""

    def __init__(
        self,
        symbol_id: str,
        rest: RestClient,
        keep: Callable[[list[Row]], None],
        newest: Callable[[], int],
        recovery: Recovery,
    ) -> None:
        self._symbol_id = symbol_id
        self._rest = rest
        self._keep = keep
        self._newest = newest
        self._backoff = Backoff(random.Random(), first_s=0.25, most_s=8.0)  # noqa: S311 - jitter, not a secret
        self._allowance = Allowance()
        self._changed = threading.Condition()  # guards what follows
        self._recovery = recovery
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
            self._no_book = None
            return self._recovery.give_up(reason)

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
            since = self._no_book if self._recovery.wants_book else None
            return {
                "seen": self._recovery.seen,
                "open": self._recovery.still_open,
                "trouble": self.trouble,
                "no_book": None if since is None else {"for_s": round(time.monotonic() - since[0], 1), "why": since[1]},
            }

    def run(self) -> None:
        """Ask until closed."""
        while True:
            with self._changed:
                while not self._closed and not self._due():
                    wanted = self._recovery.requests()
                    self._changed.wait(max(0.0, self._book_at - time.monotonic()) if wanted else None)
                if self._closed:
                    return
                requests, ended = self._due(), self._recovery.ended()
            self._keep(ended)
            pause = max(PAUSE_S, *(self.ask(request) for request in requests))
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause)

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
            if put_off_s:
                now = time.monotonic()
                self._book_at = now + put_off_s
                self._no_book = (self._no_book or (now, ""))[0], self.trouble or "it lags behind the socket"
            elif not self._recovery.wants_book:
                self._no_book = None
            return put_off_s

    def _asked(self, request: Request) -> float:
        least = 0.0
        try:
            got = self._rest.get(request.path, ANSWER_S)
            answer = request.read(got.status, got.body)
            with self._changed:
                step = Step([]) if self._closed else self._recovery.answered(answer, self._newest())
            self._take(step, log.warning)
        except (EgressError, RestRefusedError) as error:
            reason = str(error)
            least = THROTTLED_S if isinstance(error, RestRefusedError) and error.throttled else 0.0
        except Exception as error:  # whatever an answer holds, later gaps must be repaired; it is logged whole
            log.exception("repair failed unexpectedly")
            reason = f"{type(error).__name__}: {error}"
        else:
            self.trouble = None
            if step.done:
                self._backoff.reset()
                return 0.0
            return self._backoff.next_s()  # the answer lags behind the socket
        self.trouble = reason
        log.warning("nothing to repair with", extra={"fields": {"symbol": self._symbol_id, "why": reason}})
        with self._changed:
            step = Step([]) if self._closed else self._recovery.failed(request, reason)
        self._take(step, log.error)
        return max(least, self._backoff.next_s())

    def _take(self, step: Step, say: Callable[..., None]) -> None:
        if step.warning is not None:
            say(step.warning, extra={"fields": {"symbol": self._symbol_id, **(step.fields or {})}})
        if step.rows:
            self._keep(step.rows)
