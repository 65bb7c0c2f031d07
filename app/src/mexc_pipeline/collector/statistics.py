"""Counts and delays of one collector, for its log line, its status and ``collector_stats``."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from mexc_pipeline.rows import MT_NAMES, Columns

SAMPLES = 4096


class Statistics:
    """Written by the writer thread, read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = dict.fromkeys(MT_NAMES, 0)
        self._bytes = dict.fromkeys(MT_NAMES, 0)
        self._delay_ms: deque[float] = deque(maxlen=SAMPLES)
        self._durable_ms: deque[float] = deque(maxlen=SAMPLES)

    def committed(self, block: Columns, at_ns: int) -> None:
        """A block became durable at ``at_ns`` (Unix ns). Its oldest frame gives the time to durable, its newest one
        the feed's delay (receive time less the exchange's push time; it includes the clocks' difference)."""
        mts, sizes = block.mt, list(map(len, block.m))
        with self._lock:
            for mt in set(mts):
                self._rows[mt] += mts.count(mt)
                self._bytes[mt] += sum(n for m, n in zip(mts, sizes, strict=True) if m == mt)
            self._durable_ms.append((at_ns - block.rx[0]) / 1e6)
            if mts[-1] <= 3:
                self._delay_ms.append(block.rx[-1] / 1e6 - block.ts[-1])

    def snapshot(self) -> dict[str, Any]:
        """Rows and bytes per type since start; quantiles in ms of the newest samples, None without any."""
        with self._lock:
            rows, sizes = dict(self._rows), dict(self._bytes)
            delay, durable = sorted(self._delay_ms), sorted(self._durable_ms)
        return {
            "rows": {MT_NAMES[mt]: n for mt, n in rows.items()},
            "bytes": {MT_NAMES[mt]: n for mt, n in sizes.items()},
            "delay_ms": _quantiles(delay),
            "durable_ms": _quantiles(durable),
        }


def _quantiles(ordered: list[float]) -> dict[str, float] | None:
    if not ordered:
        return None
    return {
        "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 3),
    }
