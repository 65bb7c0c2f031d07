"""Counts and delays of one collector, for its log line, its status and ``collector_stats``."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from mexc_pipeline import events
from mexc_pipeline.exchange.deadletters import Letters
from mexc_pipeline.exchange.legible import JUDGED, wrong_with
from mexc_pipeline.histogram import Histogram
from mexc_pipeline.rows import FRAME_TYPES, MT_NAMES, Columns, Mt
from mexc_pipeline.text import clean

SAMPLES = 4096
RECENT_S = 600.0
"""What is judged of late: a change of shape shows within minutes however much was right before."""
_SLICES = 10
DELAY_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
DURABLE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Classes of delays. A frame is to be durable within 0.05 s for nearly all, and within 0.25 s always."""
LOOKED_AT = 64
"""Dead letters of one commit that are looked at again; of a flood the rest is counted only."""

LEGIBLE_S = 10.0
"""How often the newest frame of each type is looked at as readers would."""


class _Legible:
    """Whether readers find in the newest frames of each type what they need and what was always there: one is looked at
    now and then. One alone is an oddity, not a change of the exchange's."""

    def __init__(self) -> None:
        self._next = dict.fromkeys(JUDGED, 0.0)
        self._wrong: dict[int, tuple[float, int, str]] = {}

    def look(self, block: Columns, now: float) -> None:
        """Take a block (monotonic s)."""
        mts = block.mt
        for mt in self._next.keys() & set(mts):
            if now < self._next[mt]:
                continue
            self._next[mt] = now + LEGIBLE_S
            newest = next(m for kind, m in zip(reversed(mts), reversed(block.m), strict=True) if kind == mt)
            why = wrong_with(mt, newest)
            if why is None:
                self._wrong.pop(mt, None)
            else:
                since, times, _ = self._wrong.get(mt, (now, 0, ""))
                self._wrong[mt] = since, times + 1, clean(why)

    def snapshot(self, now: float) -> dict[str, dict[str, Any]]:
        """Types whose frames are not what they were, by name: ``why`` (what is wrong with them), and for how many
        seconds (``for_s``)."""
        return {
            MT_NAMES[mt]: {"why": why, "for_s": round(now - since, 1)}
            for mt, (since, times, why) in self._wrong.items()
            if times > 1
        }


class _Slice:
    """One part of the recent past: frames by type, and dead letters."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.frames: Counter[str] = Counter()
        self.letters = Letters()


class Statistics:
    """Counts and delays of one collector, written by the writer thread and read by others. ``symbol`` and ``channels``
    say what its frames are to be."""

    def __init__(
        self, symbol: str = "", channels: Mapping[str, Mt] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._symbol = symbol
        self._channels = channels or {}
        self._clock = clock
        self._lock = threading.Lock()
        self._rows = dict.fromkeys(MT_NAMES, 0)
        self._bytes = dict.fromkeys(MT_NAMES, 0)
        self._delay_ms: deque[float] = deque(maxlen=SAMPLES)
        self._durable_ms: deque[float] = deque(maxlen=SAMPLES)
        self._recent: deque[_Slice] = deque()
        self._legible = _Legible()
        self._dead_letters: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._delays, self._durables = Histogram(DELAY_S), Histogram(DURABLE_S)

    def committed(self, block: Columns, at_ns: int) -> None:
        """A block became durable at ``at_ns`` (Unix ns). Its oldest frame gives the time to durable, its newest one
        the feed's delay (receive time less the exchange's push time; it includes the clocks' difference)."""
        mts, sizes = block.mt, list(map(len, block.m))
        dead = [m for mt, m in zip(mts, block.m, strict=True) if mt == Mt.DEAD_LETTER] if Mt.DEAD_LETTER in mts else []
        letters = Letters()
        for m in dead[:LOOKED_AT]:
            letters.add(m, self._symbol, self._channels)
        letters.uncounted(len(dead[LOOKED_AT:]))
        told = [m for mt, m in zip(mts, block.m, strict=True) if mt == Mt.EVENT] if Mt.EVENT in mts else []
        with self._lock:
            now = self._slice()
            for mt in set(mts):
                count = mts.count(mt)
                self._rows[mt] += count
                self._bytes[mt] += sum(n for m, n in zip(mts, sizes, strict=True) if m == mt)
                if mt in FRAME_TYPES:
                    now.frames[MT_NAMES[mt]] += count
            self._legible.look(block, self._clock())
            now.letters.update(letters)
            self._dead_letters.update(letters.reasons)
            self._events.update(str((events.read(m) or {}).get("event")) for m in told)
            if mts[0] != Mt.CONTRACT:  # written again, with the time of the row it stands behind
                self._durable_ms.append(durable_ms := (at_ns - block.rx[0]) / 1e6)
                self._durables.add(durable_ms / 1e3)
            timely = _newest_timely(mts)
            if timely is not None:
                self._delay_ms.append(delay_ms := block.rx[timely] / 1e6 - block.ts[timely])
                self._delays.add(delay_ms / 1e3)

    def _slice(self) -> _Slice:
        now = self._clock()
        while self._recent and now - self._recent[0].began >= RECENT_S:
            self._recent.popleft()
        if not self._recent or now - self._recent[-1].began >= RECENT_S / _SLICES:
            self._recent.append(_Slice(now))
        return self._recent[-1]

    def snapshot(self) -> dict[str, Any]:
        """All since the start: rows and bytes per type, dead letters by reason, events by name, delays as histograms in
        s. ``recent``: frames of the market by type, dead letters by reason and by the type meant, in the last minutes.
        ``unreadable``: types whose newest frames readers would leave out, or would have no value
        for where there always was one. Of the newest samples quantiles in ms, None
        without any."""
        with self._lock:
            dead_letters, told = dict(self._dead_letters), dict(self._events)
            rows, sizes = dict(self._rows), dict(self._bytes)
            delay, durable = sorted(self._delay_ms), sorted(self._durable_ms)
            self._slice()
            began = self._recent[0].began
            frames = sum((part.frames for part in self._recent), Counter[str]())
            unreadable = self._legible.snapshot(self._clock())
            letters = Letters()
            for part in self._recent:
                letters.update(part.letters)
        return {
            "rows": {MT_NAMES[mt]: n for mt, n in rows.items()},
            "bytes": {MT_NAMES[mt]: n for mt, n in sizes.items()},
            "recent": {
                "seconds": round(self._clock() - began, 1),
                "frames": dict(frames),
                "dead_letters": dict(letters.reasons),
                "meant": dict(letters.meant),
            },
            "unreadable": unreadable,
            "delay_ms": _quantiles(delay),
            "durable_ms": _quantiles(durable),
            "dead_letters": dead_letters,
            "events": told,
            "histograms": {"delay": self._delays.snapshot(), "durable": self._durables.snapshot()},
        }


def _newest_timely(mts: list[int]) -> int | None:
    """Place of the newest row whose ``ts`` is of its moment: the first pushes of other channels may repeat what is
    old."""
    if mts[-1] <= Mt.DEPTH:
        return -1
    return next((n for n in reversed(range(len(mts))) if mts[n] <= Mt.DEPTH), None)


def _quantiles(ordered: list[float]) -> dict[str, float] | None:
    if not ordered:
        return None
    return {
        "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 3),
    }
