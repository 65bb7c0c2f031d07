"""A book at an instant, put together from a snapshot and the incremental frames after it. Pure.

Rule (official futures WebSocket page, 2026-04; observed on the wire, 2026-09): levels carry absolute sizes and size 0
deletes one, so a frame that covers the versions ``first`` to ``last`` may be applied whole to any book whose version is
at least ``first - 1``. Prices are compared as numbers: the wire spells one price in several ways.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

import msgspec

from mexc_pipeline.errors import UserError
from mexc_pipeline.exchange.depth import Span, span

CHANNEL = "push.depth"
Level = tuple[Decimal, Decimal | None]
"""Volume in contracts, and number of orders where the exchange says it."""


class GapError(UserError):
    """Versions that the book needs are in no file."""


class Stored(NamedTuple):
    """A row as the files hold it: ``rx`` Unix ns, ``ts`` Unix ms."""

    seq: int
    rx: int
    ts: int
    mt: str
    m: bytes


class _Sides(msgspec.Struct, gc=False):
    asks: list[list[msgspec.Raw]] = []
    bids: list[list[msgspec.Raw]] = []
    cts: int | None = None
    version: int = 0


class _Frame(msgspec.Struct, gc=False):
    data: _Sides


class _Snapshot(msgspec.Struct, gc=False):
    book: _Sides
    version: int


class _Event(msgspec.Struct, gc=False):
    event: str = ""
    channel: str = ""
    anew: bool = False


class _Version(msgspec.Struct, gc=False):
    version: int


class _Channel(msgspec.Struct, gc=False):
    channel: str


_frame = msgspec.json.Decoder(_Frame, strict=False).decode
_sides = msgspec.json.Decoder(_Sides, strict=False).decode
_snapshot = msgspec.json.Decoder(_Snapshot, strict=False).decode
_event = msgspec.json.Decoder(_Event).decode
_version = msgspec.json.Decoder(_Version).decode
_channel = msgspec.json.Decoder(_Channel).decode


@dataclass(slots=True)
class Book:
    """Price to volume and orders per side. ``row`` is the newest row in it, ``base`` the version of its snapshot,
    ``gaps`` the missing versions it was put together across."""

    version: int
    row: Stored
    base: int
    cts: int | None = None
    asks: dict[Decimal, Level] = field(default_factory=dict)
    bids: dict[Decimal, Level] = field(default_factory=dict)
    gaps: list[Span] = field(default_factory=list)

    def apply(self, sides: _Sides) -> None:
        """Put absolute levels in."""
        for held, levels in ((self.asks, sides.asks), (self.bids, sides.bids)):
            for level in levels:
                price, volume = _number(level[0]), _number(level[1])
                if volume:
                    held[price] = (volume, _number(level[2]) if len(level) > 2 else None)
                else:
                    held.pop(price, None)
        self.cts = sides.cts if sides.cts is not None else self.cts

    def miss(self, missing: Span, before: Stored, accepted: bool) -> None:
        """Note versions that are missing before a row, GapError unless that is accepted."""
        if not accepted:
            raise GapError(
                f"versions {missing.first} to {missing.last} of the book are in no file (at seq {before.seq}); "
                "across_gaps=True builds on as if nothing were missing"
            )
        self.gaps.append(missing)


class History:
    """What rows, given in seq order, say of the book up to one of them (its seq, inclusive).

    Rows after it count only where they repair what was before it: commits, and snapshots that lag.
    """

    def __init__(self, last_seq: int) -> None:
        self._last_seq = last_seq
        self._frames: list[tuple[Span, Stored]] = []
        self._commits: dict[int, Stored] = {}
        self._snapshots: dict[int, Stored] = {}
        self._full: Stored | None = None
        self._version = 0
        self.unreadable: list[int] = []
        """seq of depth rows that could not be read."""

    def add(self, rows: Iterable[Stored]) -> History:
        """Take rows of the types dp, r and ev."""
        for row in rows:
            if row.mt == "dp":
                if row.seq <= self._last_seq:
                    self._depth(row)
            elif row.mt == "r":
                self._commits.setdefault(self._version_of(row), row)
            elif row.m.startswith((b'{"event":"snapshot"', b'{"event":"regressed"')):
                self._said(row)
        return self

    def _depth(self, row: Stored) -> None:
        try:
            channel = _channel(row.m).channel
        except msgspec.MsgspecError:
            channel = ""
        if channel == "push.depth.full":
            self._full = row
            self._frames.clear()
            return
        covered = span(row.m)
        if covered is None:
            self.unreadable.append(row.seq)
        elif not self._frames or covered.last > self._frames[-1][0].last:  # else stale
            self._full = None
            self._frames.append((covered, row))

    def _version_of(self, row: Stored) -> int:
        try:
            return _version(row.m).version
        except msgspec.MsgspecError:
            self.unreadable.append(row.seq)
            return 0

    def _said(self, row: Stored) -> None:
        said = _event(row.m)
        if said.channel != CHANNEL:
            return
        if said.event == "snapshot":
            version = self._version_of(row)
            self._snapshots[version] = row
            if row.seq <= self._last_seq:
                self._version = max(self._version, version)
        elif said.anew and row.seq <= self._last_seq:  # the exchange counts anew: nothing before fits
            self._frames.clear()
            self._commits.clear()
            self._snapshots.clear()
            self._version = 0

    def book(self, *, across_gaps: bool = False) -> Book | None:
        """The book at the instant; None where these rows hold no whole book to build it on.

        GapError where versions are missing between the two, unless ``across_gaps``.
        """
        if self._full is not None:
            data = _frame(self._full.m).data
            book = Book(data.version, self._full, data.version)
            book.apply(data)
            return book
        newest = max(self._version, self._frames[-1][0].last if self._frames else 0)
        base = max((v for v in self._snapshots if v <= newest), default=None)
        if base is None:
            return None
        book = Book(base, self._snapshots[base], base)
        book.apply(_snapshot(book.row.m).book)
        updates = [*self._frames, *((Span(v, v), row) for v, row in self._commits.items())]
        for covered, row in sorted(updates, key=lambda update: update[0].last):
            if not book.version < covered.last <= newest:
                continue
            if covered.first > book.version + 1:
                book.miss(Span(book.version + 1, covered.first - 1), row, across_gaps)
            try:
                book.apply(_sides(row.m) if row.mt == "r" else _frame(row.m).data)
            except (msgspec.MsgspecError, ArithmeticError, IndexError):
                book.miss(covered, row, across_gaps)
            book.version = covered.last
            if row.mt == "dp":
                book.row = row
        return book


def _number(raw: msgspec.Raw) -> Decimal:
    return Decimal(bytes(raw).decode().strip('"'))
