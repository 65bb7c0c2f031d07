"""Missing versions of a book, and what becomes of them as the exchange's commits come in. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import msgspec

from mexc_pipeline.exchange.rest import Commit
from mexc_pipeline.rows import Mt, event

MOST_TRIES = 8
"""Answers (or failures to get one) after which what is still missing of a gap is given up."""

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
        if said.event == "gap":
            open_.append((said.first, said.last))
        elif said.event in ("repaired", "unrepaired"):
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

    def add(self, first: int, last: int) -> None:
        """Versions ``first`` to ``last`` are missing."""
        self._open.append(_Hole(first, last, [(first, last)]))

    def go_on(self, unfinished: Unfinished) -> None:
        """Take up what an earlier process could not finish."""
        hole = _Hole(unfinished.first, unfinished.last, [(unfinished.first, unfinished.last)])
        for version in unfinished.repaired:
            hole.missing = _without(hole.missing, version)
            _extend(hole.filled, version)
        self._open.append(hole)

    def answer(self, commits: Sequence[Commit]) -> list[Row]:
        """The exchange's newest commits (oldest first): the rows they bring, and what is decided by them.

        What is older than the oldest of them will not come again: each later answer starts later.
        """
        rows: list[Row] = []
        for hole in self._open:
            begin = bisect_left(commits, hole.first, key=_version)
            end = bisect_right(commits, hole.last, key=_version)
            for commit in commits[begin:end]:
                if not any(first <= commit.version <= last for first, last in hole.missing):
                    continue
                rows.append((Mt.REPAIRED, commit.m))
                hole.missing = _without(hole.missing, commit.version)
                _extend(hole.filled, commit.version)
            hole.tries += 1
        oldest = commits[0].version if commits else 0
        return rows + self._decide("not among the exchange's commits in time", oldest)

    def failed(self, reason: str) -> list[Row]:
        """There was no answer: what is decided by that."""
        for hole in self._open:
            hole.tries += 1
        return self._decide(reason, 0)

    def close(self, reason: str) -> list[Row]:
        """Give everything up."""
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
        rows = [(Mt.EVENT, self._event("repaired", *span)) for span in hole.filled]
        rows += [(Mt.EVENT, self._event("unrepaired", *span, reason=reason)) for span in hole.missing]
        if hole.missing:
            self.given_up = max(self.given_up, hole.missing[-1][1])
        return rows

    def _event(self, name: str, first: int, last: int, **more: str) -> bytes:
        return event(name, **{"channel": self.channel, "from": first, "to": last, "count": last - first + 1, **more})


def _without(spans: list[tuple[int, int]], version: int) -> list[tuple[int, int]]:
    left: list[tuple[int, int]] = []
    for first, last in spans:
        if first <= version <= last:
            left += [s for s in ((first, version - 1), (version + 1, last)) if s[0] <= s[1]]
        else:
            left.append((first, last))
    return left


def _extend(spans: list[tuple[int, int]], version: int) -> None:
    """Add a version to spans; those that touch become one."""
    spans.append((version, version))
    spans.sort()
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    spans[:] = joined
