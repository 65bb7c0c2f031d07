"""How often a duration was how long, since the process began: what a percentile of any stretch can be told from later,
which those of the newest samples cannot."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


class Histogram:
    """Counts of seconds by upper bound (``bounds``, ascending; a last class holds what is longer); from any thread."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Count one. Less than nothing, as a delay by two clocks that differ, is in the first class and adds nothing to
        the sum, which never falls."""
        with self._lock:
            self._counts[bisect_left(self._bounds, seconds)] += 1
            self._sum += max(0.0, seconds)

    def snapshot(self) -> dict[str, Any]:
        """``bounds`` in s, ``counts`` of each class alone (one more than bounds), ``sum`` in s."""
        with self._lock:
            return {"bounds": list(self._bounds), "counts": list(self._counts), "sum": round(self._sum, 6)}
