"""Missing versions of a book, and what becomes of them as the exchange's commits come in. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import merge
from operator import attrgetter

import msgspec

from mexc_pipeline.events import Gap, Repaired, Unrepaired
from mexc_pipeline.exchange.rest import DepthCommit
from mexc_pipeline.rows import Mt

MOST_TRIES = 8
"""Answers (or failures to get one) after which what is still missing of a gap is given up."""

MOST_EVENTS = 100
"""Stretches of one gap that are told one by one when it ends; what lies scattered beyond them is told in one event."""

MOST_OPEN = 1000
"""Gaps that are followed at a time: where versions go missing faster than they can be asked for, most of them are gone
before their turn comes, and what it costs to follow them must not grow with the trouble."""

_version = attrgetter("version")

Row = tuple[Mt, bytes]
"""``mt`` and ``m`` of a row to be kept."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A gap whose repair was interrupted: its versions, both ends included, and those of them that were fetched."""

    first: int
    last: int
    repaired: tuple[int, ...] = ()


class _Event(msgspec.Struct, rename={"first": "from", "last": "to"}, gc=False):
    event: str
    channel: str = ""
    first: int = 0
    last: int = 0


def unfinished(channel: str, events: Iterable[bytes], fetched: Iterable[int]) -> list[Unfinished]:
    """The gaps among the newest ``event`` rows of a recording (oldest first) that neither ``repaired`` nor
    ``unrepaired`` ends. ``fetched``: versions of the newest repaired rows."""
    open_: list[tuple[int, int]] = []
    for m in events:
        try:
            said = msgspec.json.decode(m, type=_Event)
        except (msgspec.MsgspecError, RecursionError):  # an event of another shape
            continue
        if said.channel != channel:
            continue
        if said.event == Gap.name():
            open_.append((said.first, said.last))
        elif said.event in (Repaired.name(), Unrepaired.name()):
            open_ = [span for span in open_ if not span[0] <= said.first <= span[1]]
    versions = sorted(set(fetched))
    return [Unfinished(a, b, tuple(versions[bisect_left(versions, a) : bisect_right(versions, b)])) for a, b in open_]


@dataclass(slots=True)
class _Hole:
    first: int
    last: int
    missing: list[tuple[int, int]] = field(default_factory=list)
    filled: list[tuple[int, int]] = field(default_factory=list)
    tries: int = 0

    def fill(self, versions: Sequence[int]) -> list[int]:
        """Versions (ascending, each once) came; those that were missing. Linear in what came and what is missing."""
        came: list[int] = []
        still: list[tuple[int, int]] = []
        at = 0
        for first, last in self.missing:
            while at < len(versions) and versions[at] < first:
                at += 1
            while at < len(versions) and (version := versions[at]) <= last:
                came.append(version)
                if first < version:
                    still.append((first, version - 1))
                first = version + 1
                at += 1
            if first <= last:
                still.append((first, last))
        if came:
            self.missing = still
            self.filled = _join(merge(self.filled, ((version, version) for version in came)))
        return came


@dataclass(slots=True)
class Holes:
    """The gaps of one channel that are being repaired, oldest first. Versions are inclusive at both ends."""

    channel: str
    most_tries: int = MOST_TRIES
    given_up: int = 0
    """Newest version that was given up, 0 for none."""
    _open: list[_Hole] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, first: int, last: int) -> list[Row]:
        """Add a gap: versions ``first`` to ``last`` are missing. Returns the rows that say so where the oldest gap is
        given up for it."""
        self._open.append(_Hole(first, last, [(first, last)]))
        if len(self._open) <= MOST_OPEN:
            return []
        return self._end(self._open.pop(0), f"more than {MOST_OPEN:,} gaps at a time")

    def go_on(self, unfinished: Unfinished) -> None:
        """Take up what an earlier process could not finish."""
        hole = _Hole(unfinished.first, unfinished.last, [(unfinished.first, unfinished.last)])
        hole.fill(unfinished.repaired)
        self._open.append(hole)

    def answer(self, commits: Sequence[DepthCommit]) -> list[Row]:
        """Take the exchange's newest commits (oldest first); returns the rows they bring, and those that say what is
        decided.

        What is older than the oldest of them will not come again: each later answer starts later.
        """
        rows: list[Row] = []
        for hole in self._open:
            begin = bisect_left(commits, hole.first, key=_version)
            end = bisect_right(commits, hole.last, key=_version)
            within = {commit.version: commit.m for commit in reversed(commits[begin:end])}
            rows += ((Mt.REPAIRED, within[version]) for version in hole.fill(sorted(within)))
            hole.tries += 1
        oldest = commits[0].version if commits else 0
        return rows + self._decide("not among the exchange's commits in time", oldest)

    def failed(self, reason: str) -> list[Row]:
        """Note that no answer came, for that ``reason``; returns the rows that say what is decided by it."""
        for hole in self._open:
            hole.tries += 1
        return self._decide(reason, 0)

    def close(self, reason: str) -> list[Row]:
        """Give everything up for that ``reason``; returns the rows that say so."""
        rows = [row for hole in self._open for row in self._end(hole, reason)]
        self._open.clear()
        return rows

    def _decide(self, reason: str, oldest: int) -> list[Row]:
        rows: list[Row] = []
        still: list[_Hole] = []
        for hole in self._open:
            if hole.missing and hole.missing[-1][1] < oldest:
                rows += self._end(hole, "no longer among the exchange's commits")
            elif hole.missing and hole.tries < self.most_tries:
                still.append(hole)
            else:
                rows += self._end(hole, reason)
        self._open = still
        return rows

    def _end(self, hole: _Hole, reason: str) -> list[Row]:
        if hole.missing:
            self.given_up = max(self.given_up, hole.missing[-1][1])
        filled = [Repaired(channel=self.channel, first=a, last=b, count=n) for a, b, n in _told(hole.filled)]
        missing = [
            Unrepaired(channel=self.channel, first=a, last=b, count=n, reason=reason) for a, b, n in _told(hole.missing)
        ]
        return [(Mt.EVENT, said.m) for said in (*filled, *missing)]


def _told(spans: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Spans as they are told, with the number of versions in each."""
    whole = spans if len(spans) <= MOST_EVENTS else spans[: MOST_EVENTS - 1]
    told = [(first, last, last - first + 1) for first, last in whole]
    scattered = spans[len(whole) :]
    if scattered:
        told.append((scattered[0][0], scattered[-1][1], sum(last - first + 1 for first, last in scattered)))
    return told


def _join(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that touch as one."""
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
