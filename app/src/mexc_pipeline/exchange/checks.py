"""What continues what: looks at each depth and deal frame as it comes, and says what is wrong with its place in the
stream and what is to be fetched for it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mexc_pipeline import events
from mexc_pipeline.exchange.channels import DEAL, DEPTH, FULL_DEPTH
from mexc_pipeline.exchange.depth import Deals, FullDepth, Incremental, LowerVersion, MissingVersions, span
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.exchange.trades import trade_of
from mexc_pipeline.rows import Mt

MOST_IDS = 20
"""Repeated deal ids that are named in an event; all are counted."""
UNVERSIONED = 10
"""So many frames of depth in succession without a version that can be read are no accident."""
REPEATED_S = 1.0
"""Least time between two events of repeated deals: an exchange that repeats everything must not double the rows."""

CONNECTED, REPEATED = events.begin(events.Connected), events.begin(events.Repeated)
FILLED = events.begin(events.Filled)


class FollowUp(NamedTuple):
    """What a frame's place in its stream asks for. ``said`` is to stand before the frame; ``gap`` are versions to be
    fetched; a snapshot of version ``book`` or a later one is wanted. Where ``reset_after`` is not 0, it is the version
    that the exchange had come to before a version reset."""

    said: events.Event | None = None
    gap: MissingVersions | None = None
    book: int | None = None
    reset_after: int = 0


Check = Callable[[bytes], FollowUp | None]
"""Takes a frame; None where it is in its place."""


class Checks:
    """Follows one symbol, for the reading thread; :meth:`segment_opened` may come from another. ``last_version``: the
    book's after what an earlier process recorded, 0 for none; ``deals``: its newest deal frames and fetched trades as
    (``mt``, ``m``), oldest first, with the ``connected``, ``repeated`` and ``filled`` events among them. What came
    again and no event of those says is said by the next one: the process was killed before it could say so."""

    def __init__(self, channels: Iterable[str], last_version: int = 0, deals: Iterable[tuple[int, bytes]] = ()) -> None:
        self._book = Incremental(last_version)
        self._since = "restart" if last_version else "reconnect"
        self._full = FullDepth()
        self.deals = Deals()
        """Which deals came."""
        self._first = self._first_full = True
        self._snapshot_due = True
        self.unversioned: dict[str, int] = {}
        """Of each channel of depth, the newest frames in succession whose version cannot be read."""
        self._repeated: list[str] = []
        self._repeats = 0
        self._next_repeated = 0.0
        for mt, m in deals:
            self._recorded(mt, m)
        known: dict[str, Check] = {DEPTH: self._depth, FULL_DEPTH: self._depth_full, DEAL: self._deal}
        self.by_channel = {channel: known[channel] for channel in channels if channel in known}

    def connected(self) -> None:
        """The next frame is the first of a connection."""
        self._first = self._first_full = True
        self._snapshot_due = True
        self.deals.connected()

    def segment_opened(self) -> None:
        """A new segment has its first row: it needs a book of its own."""
        self._snapshot_due = True

    @property
    def repairable(self) -> bool:
        """Whether what is missing can be fetched at all."""
        return DEPTH in self.by_channel

    @property
    def newest(self) -> int:
        """Version of the newest frame of incremental depth, 0 before the first."""
        return self._book.last

    def _depth(self, m: bytes) -> FollowUp | None:
        covered = span(m)
        if covered is None:
            return self._without_version(DEPTH)
        self.unversioned[DEPTH] = 0
        after = self._since if self._first else None
        found = self._book.frame(covered, first_of_connection=self._first)
        self._first, self._since = False, "reconnect"
        if isinstance(found, LowerVersion):
            self._snapshot_due = False
            return FollowUp(_regressed(DEPTH, found, after), None, covered.first - 1, found.seen)
        due, self._snapshot_due = self._snapshot_due, False
        if found is None and not due:
            return None
        return FollowUp(None if found is None else _missing(found, after), found, covered.first - 1 if due else None)

    def _depth_full(self, m: bytes) -> FollowUp | None:
        found = self._full.frame(m, first_of_connection=self._first_full)
        self._first_full = False
        if not self._full.read:
            return self._without_version(FULL_DEPTH)
        self.unversioned[FULL_DEPTH] = 0
        return None if found is None else FollowUp(_regressed(FULL_DEPTH, found))

    def _without_version(self, channel: str) -> FollowUp | None:
        count = self.unversioned[channel] = self.unversioned.get(channel, 0) + 1
        return FollowUp(events.Unversioned(channel=channel, count=count)) if count == UNVERSIONED else None

    def _deal(self, m: bytes) -> FollowUp | None:
        unique = self.deals.unique
        found = self.deals.frame(m)
        if found is not None:
            self._repeats += len(found)
            self._repeated += [name for name in found if name][: MOST_IDS - len(self._repeated)]
        return FollowUp(events.IdsShared(channel=DEAL)) if unique and not self.deals.unique else None

    def _recorded(self, mt: int, m: bytes) -> None:
        if mt == Mt.REPAIRED:
            trade = trade_of(content(m))
            self.deals.fetch(trade.key, trade.m)
        elif mt != Mt.EVENT:
            self._deal(m)
        elif m.startswith(CONNECTED):
            self.deals.connected()
            self.deals.in_doubt(connection=True)
        elif m.startswith(REPEATED):
            self._repeated, self._repeats = [], 0
        elif m.startswith(FILLED):
            self.deals.settled()

    def repeated(self, now: float) -> bytes | None:
        """The event that deals came again, where they did and it is time (monotonic s) to say so."""
        if not self._repeats or now < self._next_repeated:
            return None
        said = events.Repeated(channel=DEAL, count=self._repeats, ids=self._repeated).m
        self._repeated, self._repeats = [], 0
        self._next_repeated = now + REPEATED_S if now != math.inf else 0.0
        return said


def _missing(gap: MissingVersions, after: str | None) -> events.Gap:
    return events.Gap(channel=DEPTH, first=gap.first, last=gap.last, count=gap.last - gap.first + 1, after=after)


def _regressed(channel: str, found: LowerVersion, after: str | None = None) -> events.Regressed:
    return events.Regressed(channel=channel, first=found.seen, last=found.got, anew=found.is_reset or None, after=after)
