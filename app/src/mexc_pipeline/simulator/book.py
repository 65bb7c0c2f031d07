"""One symbol's order book, changed one level and one version at a time, that remembers its past.

Prices are integer ticks. Any version still in the history can be rebuilt by undoing commits.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

Side = Literal["asks", "bids"]
Level = tuple[int, int]
"""(quantity in contracts, number of orders)"""

ABSENT: Level = (0, 0)


class Commit(NamedTuple):
    """One change of one level: what the exchange calls one `version`.

    `cts` is Unix milliseconds; quantity 0 deletes; `before` is what stood there (0, 0 if nothing).
    """

    version: int
    cts: int
    side: Side
    tick: int
    quantity: int
    orders: int
    before: Level


class Levels(NamedTuple):
    """A snapshot of a book at one version; each side maps tick to (quantity, orders)."""

    version: int
    asks: dict[int, Level]
    bids: dict[int, Level]


class Book:
    """The owner of one symbol's levels, version and history of commits."""

    def __init__(self, version: int, retain: int) -> None:
        self.version = version
        self._levels: dict[Side, dict[int, Level]] = {"asks": {}, "bids": {}}
        self._ticks: dict[Side, list[int]] = {"asks": [], "bids": []}
        self._history: deque[Commit] = deque(maxlen=retain)

    def seed(self, side: Side, tick: int, quantity: int, orders: int) -> None:
        """Put a level into the opening book, without a version."""
        self._put(side, tick, (quantity, orders))

    def commit(self, side: Side, tick: int, quantity: int, orders: int, cts: int) -> Commit:
        """Set one level (quantity 0 deletes it) as the next version."""
        before = self._levels[side].get(tick, ABSENT)
        self._put(side, tick, (quantity, orders))
        self.version += 1
        change = Commit(self.version, cts, side, tick, quantity, orders, before)
        self._history.append(change)
        return change

    def reset_versions(self, version: int) -> None:
        """Go on from that version with the levels there are, and forget the past."""
        self.version = version
        self._history.clear()

    def level(self, side: Side, tick: int) -> Level:
        """Return a level, (0, 0) where there is none."""
        return self._levels[side].get(tick, ABSENT)

    def size(self, side: Side) -> int:
        """Return how many levels a side has."""
        return len(self._ticks[side])

    def best(self, side: Side) -> int:
        """Return the best tick of a side."""
        return self._ticks[side][0 if side == "asks" else -1]

    def nth(self, side: Side, n: int) -> int:
        """Return the tick of the n-th level counted from the best (0)."""
        return self._ticks[side][n if side == "asks" else -1 - n]

    def top(self, side: Side, limit: int) -> list[tuple[int, int, int]]:
        """Return up to `limit` levels as (tick, quantity, orders), best first."""
        ticks = self._ticks[side][:limit] if side == "asks" else self._ticks[side][-limit:][::-1]
        levels = self._levels[side]
        return [(tick, *levels[tick]) for tick in ticks]

    def commits(self) -> Iterator[Commit]:
        """Iterate over the retained commits, newest first."""
        return reversed(self._history)

    def oldest(self) -> int:
        """Return the oldest version that can still be rebuilt."""
        return self.version - len(self._history)

    def at(self, version: int) -> Levels:
        """Return the snapshot of `version`.

        Raises LookupError where the version is in the future or no longer retained.
        """
        if not self.oldest() <= version <= self.version:
            raise LookupError(f"version {version} is not within {self.oldest()}..{self.version}")
        sides: dict[Side, dict[int, Level]] = {s: dict(levels) for s, levels in self._levels.items()}
        for change in islice(self.commits(), self.version - version):
            if change.before == ABSENT:
                sides[change.side].pop(change.tick, None)  # deleting what was not there is a version too
            else:
                sides[change.side][change.tick] = change.before
        return Levels(version, sides["asks"], sides["bids"])

    def _put(self, side: Side, tick: int, level: Level) -> None:
        levels, ticks = self._levels[side], self._ticks[side]
        if level[0] == 0:
            if levels.pop(tick, None) is not None:
                del ticks[bisect_left(ticks, tick)]
        else:
            if tick not in levels:
                insort(ticks, tick)
            levels[tick] = level
