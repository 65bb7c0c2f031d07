"""Whether a series grows: a line through the medians of its minutes, against a stated bound. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from soak.sampling import Sample

WARM_UP_S = 600.0
SHORTEST_S = 900.0
"""A line through less time than this says nothing about an hour; the run then judges rows alone."""
BUCKET_S = 60.0
MIB = 1 << 20
HOUR_S = 3600.0

BOUNDS: dict[str, tuple[float, float]] = {
    "rss": (2.0 * MIB, 0.03),
    "handles": (2.0, 0.1),
    "threads": (1.0, 0.1),
    "bytes": (4.0 * MIB, 0.02),
}
"""Growth per hour that is allowed: so much, or this share of the median, whichever is more. The engine opens and closes
files as it merges, so its handles and threads come and go; one lost with each period would be 60 an hour."""


@dataclass(frozen=True, slots=True)
class Trend:
    """One measure of one process or folder after the warm-up; ``slope`` and ``bound`` per hour."""

    what: str
    measure: str
    least: float
    median: float
    most: float
    slope: float
    bound: float | None

    @property
    def is_flat(self) -> bool:
        """Whether it grows by no more than its bound; what has none may grow."""
        return self.bound is None or self.slope <= self.bound


def trends(samples: Iterable[Sample], until_s: float) -> list[Trend]:
    """Every measure of every process and folder between the warm-up and ``until_s``.

    The simulator, the exports (which grow by design), exporters (which live a second) and backlogs have no bound.
    """
    warm = warm_up(until_s)
    series: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        if warm <= sample.seconds <= until_s:
            for measure in ("rss", "pss", "handles", "threads", "bytes", "rows"):
                value = getattr(sample, measure)
                if value is not None:
                    series[sample.what, measure].append((sample.seconds, float(value)))
    return [_trend(what, measure, points, until_s - warm) for (what, measure), points in series.items()]


def warm_up(until_s: float) -> float:
    """Ten minutes; a third of a run that is shorter than half an hour."""
    return min(WARM_UP_S, until_s / 3)


def _trend(what: str, measure: str, points: list[tuple[float, float]], length_s: float) -> Trend:
    values = [value for _, value in points]
    median = statistics.median(values)
    bound = None
    if length_s >= SHORTEST_S and measure in BOUNDS and what not in ("simulator", "export", "exports"):
        fixed, share = BOUNDS[measure]
        bound = max(fixed, share * median)
    return Trend(what, measure, min(values), median, max(values), slope(points), bound)


def slope(points: list[tuple[float, float]]) -> float:
    """Growth per hour of a straight line through the medians of the minutes, so that the saw's teeth of a rotation
    each minute do not tilt it; 0 where there are less than two minutes."""
    minutes: dict[int, list[float]] = defaultdict(list)
    for seconds, value in points:
        minutes[int(seconds // BUCKET_S)].append(value)
    if len(minutes) < 2:
        return 0.0
    line = statistics.linear_regression(list(minutes), [statistics.median(v) for v in minutes.values()])
    return line.slope * HOUR_S / BUCKET_S
