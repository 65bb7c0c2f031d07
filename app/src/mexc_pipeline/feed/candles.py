"""Fetches the exchange's candles over REST, once an hour, so that what was recorded can be checked by them.

They become a row like everything that is received; what they say of the trades is found out by whoever reads the rows.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import zlib
from collections.abc import Callable

from mexc_pipeline.backoff import Backoff
from mexc_pipeline.egress.dial import EgressError
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.exchange.recovery import THROTTLED_S
from mexc_pipeline.exchange.rest import RestRefusedError, kline_path, read_klines

log = logging.getLogger("mexc_pipeline.feed")

ANSWER_S = 10.0
LEAD_S = 52.0
"""So long before each end of an hour the candles are asked for: all but that of the hour's last minute are in the
hour's own file then."""
SPREAD_S = 40.0
"""In this time after it the symbols of a host ask one after another, each always at the same second."""
SHORT_S = 300.0
"""Where it is asked for more often than this it is not before an end, but at it."""
TRY_S = 600.0
"""For how long it is tried again; what was in vain the next answer has as well."""
MARGIN_S = 600
LOOK_S = 60.0
"""The clock may be set meanwhile."""


def due_s(now: float, every_s: float, symbol_id: str) -> float:
    """When candles are asked for next, after ``now`` (Unix s)."""
    early = 0.0
    if every_s >= SHORT_S:
        early = LEAD_S - zlib.crc32(symbol_id.encode()) % 1000 / 1000 * SPREAD_S
    return ((now + early) // every_s + 1) * every_s - early


class Candles:
    """Asks ``rest`` for the candles of one minute of a symbol every ``every_s`` seconds, and hands the exchange's JSON
    for them to ``keep``, which must not wait. Nothing is asked while it is not ``connected``. ``clock``: Unix s."""

    def __init__(
        self,
        symbol: str,
        symbol_id: str,
        rest: RestClient,
        keep: Callable[[bytes], None],
        connected: Callable[[], bool],
        every_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._symbol = symbol
        self._id = symbol_id
        self._rest = rest
        self._keep = keep
        self._connected = connected
        self._every_s = every_s
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        due = due_s(self._clock(), self._every_s, self._id)
        while not stop.wait(min(LOOK_S, max(0.0, due - self._clock()))):
            now = self._clock()
            if now >= due and self._connected():
                self._ask(stop)
                now = self._clock()
            if now >= due or due - now > self._every_s:
                due = due_s(now, self._every_s, self._id)

    def _ask(self, stop: threading.Event) -> None:
        """One answer, or several tries for it."""
        backoff = Backoff(random.Random(), first_s=1.0, most_s=60.0)  # noqa: S311 - jitter, not a secret
        until = time.monotonic() + min(TRY_S, self._every_s)
        while True:
            pause = backoff.next_s()
            try:
                m = self.fetch()
                if not stop.is_set():  # nothing is taken any more
                    self._keep(m)
            except (EgressError, RestRefusedError) as error:
                why = str(error)
                if isinstance(error, RestRefusedError) and error.throttled:
                    pause = max(pause, THROTTLED_S)
            except Exception:  # whatever an answer holds, the next one is asked for; it is logged whole
                log.exception("candles not fetched")
                return
            else:
                return
            pause = max(pause, self._rest.patience_s)
            over = time.monotonic() + pause >= until
            log.warning("no candles", extra={"fields": {"symbol": self._id, "why": why, "again": not over}})
            if over or stop.wait(pause):
                return

    def fetch(self) -> bytes:
        """The candles of the last two times, as the exchange has them now. EgressError and RestRefusedError where it
        does not give them."""
        start = int(self._clock() - 2 * self._every_s) - MARGIN_S
        answer = self._rest.get(kline_path(self._symbol, start - start % 60), ANSWER_S)
        return read_klines(answer.status, answer.body)
