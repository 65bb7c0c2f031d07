"""A process that stands still between reading and stamping: it is said before the first row that is late."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import pytest

from mexc_pipeline import config
from mexc_pipeline.feed import feed as loop
from mexc_pipeline.feed import link, reading, session
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.rows import Frame, Mt
from support.gathering import Gathered
from support.peers import greet, serving
from support.waiting import until

FRAMES = 60


class Clock:
    """Time that stands still for the process, and goes on for all others. While a machine is suspended its monotonic
    clock stands still as well."""

    def __init__(self, *, suspended: bool) -> None:
        self.ahead_s = 0.0
        self._suspended = suspended

    def monotonic(self) -> float:
        return time.monotonic() + (0.0 if self._suspended else self.ahead_s)

    def clock_gettime(self, clock: int) -> float:
        assert clock == time.CLOCK_BOOTTIME
        return time.clock_gettime(clock) + self.ahead_s

    def time_ns(self) -> int:
        return time.time_ns() + int(self.ahead_s * 1e9)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Stopping(Gathered):
    """The process stops for so many seconds before it stamps each of the numbered frames."""

    def __init__(self, clock: Clock, stops: dict[int, float]) -> None:
        self.got: list[Frame] = []
        super().__init__(self.got.extend)
        self._process, self._stops = clock, stops
        self.clock = clock.time_ns
        self._stamped = -1

    def note(self, mt: int, m: bytes) -> None:
        self._stamped -= 1  # of what it says itself, none counts
        super().note(mt, m)

    def stamp(self) -> int:
        self._stamped += 1
        self._process.ahead_s += self._stops.pop(self._stamped, 0.0)
        return super().stamp()


def _record(
    monkeypatch: pytest.MonkeyPatch, stops: dict[int, float], *, at_once: bool, suspended: bool
) -> list[tuple[int, str | float]]:
    """Which frames and which pauses stand in which order."""
    clock = Clock(suspended=suspended)
    for part in (loop, link, reading, session):
        monkeypatch.setattr(part, "time", clock)
    texts = [b'{"symbol":"BTC_USDT","channel":"push.ticker","data":%d,"ts":1795000000000}' % n for n in range(FRAMES)]
    burst = b"".join(bytes([0x81, len(text)]) + text for text in texts)

    def serve(client: socket.socket, over: threading.Event) -> None:
        greet(client, after=burst if at_once else b"")
        if not at_once:
            client.sendall(burst)
        over.wait(60)

    intake = Stopping(clock, dict(stops))
    with serving(serve) as far:
        where = config.ExchangeTable(websocket=f"ws://127.0.0.1:{far.port}/edge")
        feed = Feed(config.parse("", None).symbols[0], where, intake)
        thread = threading.Thread(target=feed.run)
        thread.start()
        try:
            until(lambda: sum(row.mt == Mt.TICKER for row in intake.got) == FRAMES, 30, "all frames")
        finally:
            feed.stop()
            thread.join(10)
    assert not thread.is_alive()
    assert (feed.status()["paused"] is not None) == any(b'"paused"' in row.m for row in intake.got)
    assert all(a.rx <= b.rx for a, b in zip(intake.got, intake.got[1:], strict=False))
    found: list[tuple[int, str | float]] = []
    for row in intake.got:
        said = json.loads(row.m)
        if row.mt == Mt.TICKER:
            found.append((said["data"], "frame"))
        elif said["event"] == "paused":
            found.append((len([1 for _, what in found if what == "frame"]), said["for_s"]))
    return found


@pytest.mark.parametrize("suspended", [False, True], ids=["the process stops", "the machine is suspended"])
@pytest.mark.parametrize("at_once", [False, True], ids=["by itself", "with the handshake"])
@pytest.mark.parametrize(
    ("stops", "said"),
    [
        ({0: 3.0}, {0: 3.0}),
        ({17: 3.0}, {17: 3.0}),
        ({FRAMES - 1: 90.0}, {FRAMES - 1: 90.0}),
        ({3: 2.0, 30: 4.0}, {3: 2.0, 30: 4.0}),
        ({3: 0.4, 9: 0.4, 12: 0.4}, {12: 1.2}),
        ({3: 0.4, 9: 0.3}, {}),
    ],
    ids=["before the first", "between two", "before the last", "twice", "bit by bit", "hardly"],
)
def test_a_pause_is_said_before_the_first_row_that_it_makes_late(
    stops: dict[int, float], said: dict[int, float], at_once: bool, suspended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _record(monkeypatch, stops, at_once=at_once, suspended=suspended)
    assert [n for n, what in rows if what == "frame"] == list(range(FRAMES))
    pauses = {n: what for n, what in rows if what != "frame"}
    assert pauses == {n: pytest.approx(for_s, abs=0.35) for n, for_s in said.items()}
