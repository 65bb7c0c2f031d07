"""Asks the exchange, before or beside recording: whether it lists a symbol, and what time it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mexc_pipeline.egress.dial import EgressError
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.exchange.rest import PING_PATH, Listing, read_time

ANSWER_S = 5.0

AGAIN_S = 5.0
AGAIN_MOST_S = 600.0
"""An answer that does not list the symbol is asked for again after the first, twice that, … the second."""

log = logging.getLogger("mexc_pipeline.collector")


def until_listed(
    name: str,
    ask: Callable[[], Listing],
    take: Callable[[Listing], None],
    stop: threading.Event,
    patience_s: Callable[[], float] = lambda: 0.0,
) -> None:
    """Ask until REST lists the symbol, or until told to stop; each answer is handed on, and a new one logged.
    ``patience_s``: for how long the exchange is not to be asked."""
    pause, said = AGAIN_S, ""
    while True:
        if not patience_s():
            listing = ask()
            take(listing)
            if listing.verdict == "listed":
                return
            if listing.said != said:
                said = listing.said
                log.warning("symbol not confirmed by REST", extra={"fields": {"symbol": name, "exchange_said": said}})
        if stop.wait(max(pause, patience_s())):
            return
        pause = min(2 * pause, AGAIN_MOST_S)


def ask_time(rest: RestClient) -> tuple[int, int, int, int]:
    """The exchange's time (Unix ms), this host's when the answer was there (Unix ns; monotonic ns), and how long it
    took (ns). EgressError where there is no such answer."""
    answer = rest.get(PING_PATH, ANSWER_S)
    time_ms = read_time(answer.status, answer.body)
    if time_ms is None:
        raise EgressError(f"{answer.url}{PING_PATH}: HTTP {answer.status} without the exchange's time")
    return time_ms, answer.received_ns, time.monotonic_ns(), answer.received_ns - answer.sent_ns
