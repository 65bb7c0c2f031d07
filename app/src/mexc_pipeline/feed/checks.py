"""Looks at each depth and deal frame as it is read, and says in an event what is wrong with its place in the stream."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

from mexc_pipeline import events
from mexc_pipeline.exchange.depth import Deals, FullDepth, Gap, Incremental, Regressed, span
from mexc_pipeline.feed.repair import CHANNEL, Repairer

log = logging.getLogger("mexc_pipeline.feed")

MOST_IDS = 20
"""Repeated deal ids that are named in an event; all are counted."""
REPEATED_S = 1.0
"""Least time between two events of repeated deals: an exchange that repeats everything must not double the rows."""

Check = Callable[[bytes], bytes | None]
"""Takes a frame; gives the ``m`` of the event that is to stand before it, or None."""


class Checks:
    """One symbol's, for the reading thread; :meth:`segment_opened` may come from another. ``last_version``: the book's
    after what an earlier process recorded, 0 for none; ``deals``: its newest deal frames, oldest first."""

    def __init__(
        self, channels: Iterable[str], repairer: Repairer | None, last_version: int = 0, deals: Iterable[bytes] = ()
    ) -> None:
        self._repairer = repairer
        self._book = Incremental(last_version)
        self._since = "restart" if last_version else "reconnect"
        self._full = FullDepth()
        self._deals = Deals(deals)
        self._first = self._first_full = True
        self._snapshot_due = True
        self._repeated: list[str] = []
        self._repeats = 0
        self._next_repeated = 0.0
        known: dict[str, Check] = {CHANNEL: self._depth, "push.depth.full": self._depth_full, "push.deal": self._deal}
        self.by_channel = {channel: known[channel] for channel in channels if channel in known}

    def connected(self) -> None:
        """The next frame is the first of a connection."""
        self._first = self._first_full = True
        self._snapshot_due = True
        self._deals.connected()

    def segment_opened(self) -> None:
        """A new segment has its first row: it needs a book of its own."""
        self._snapshot_due = True

    def _depth(self, m: bytes) -> bytes | None:
        covered = span(m)
        if covered is None:
            return None
        after = self._since if self._first else None
        found = self._book.frame(covered, first_of_connection=self._first)
        self._first, self._since = False, "reconnect"
        if self._repairer is not None:
            self._repairer.newest = self._book.last
        if isinstance(found, Regressed):
            self._snapshot_due = False
            if self._repairer is not None:
                self._repairer.anew(covered.first - 1, found.seen)
            log.warning(
                "versions count anew", extra={"fields": {"channel": CHANNEL, "from": found.seen, "to": found.got}}
            )
            return _regressed(CHANNEL, found, after)
        if self._snapshot_due:
            self._snapshot_due = False
            if self._repairer is not None:
                self._repairer.snapshot(covered.first - 1)
        if found is None:
            return None
        return self._gap(found, after)

    def _gap(self, gap: Gap, after: str | None) -> bytes:
        if self._repairer is not None:
            self._repairer.gap(gap)
        count = gap.last - gap.first + 1
        fields = {"channel": CHANNEL, "from": gap.first, "to": gap.last, "count": count}
        log.warning("versions missing", extra={"fields": fields})
        return events.Gap(channel=CHANNEL, first=gap.first, last=gap.last, count=count, after=after).m

    def _depth_full(self, m: bytes) -> bytes | None:
        found = self._full.frame(m, first_of_connection=self._first_full)
        self._first_full = False
        return None if found is None else _regressed("push.depth.full", found)

    def _deal(self, m: bytes) -> bytes | None:
        found = self._deals.frame(m)
        if found is not None:
            self._repeats += len(found)
            self._repeated += [name for name in found if name][: MOST_IDS - len(self._repeated)]
        return None

    def repeated(self, now: float) -> bytes | None:
        """The event that deals came again, where they did and it is time (monotonic s) to say so."""
        if not self._repeats or now < self._next_repeated:
            return None
        said = events.Repeated(channel="push.deal", count=self._repeats, ids=self._repeated).m
        self._repeated, self._repeats = [], 0
        self._next_repeated = now + REPEATED_S if now != math.inf else 0.0
        return said


def _regressed(channel: str, found: Regressed, after: str | None = None) -> bytes:
    said = events.Regressed(channel=channel, first=found.seen, last=found.got, anew=found.anew or None, after=after)
    return said.m
