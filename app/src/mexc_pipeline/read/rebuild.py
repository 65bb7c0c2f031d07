"""A book at an instant, put together from a snapshot and the incremental frames after it. Pure.

Rule (official futures WebSocket page, 2026-04; observed on the wire, 2026-09): levels carry absolute sizes and size 0
deletes one, so a frame that covers the versions ``first`` to ``last`` may be applied whole to any book whose version is
at least ``first - 1``. Prices are compared as numbers: the wire spells one price in several ways.

Where full depth is recorded beside incremental depth, the book is the rebuilt one, which has every level, as long as
incremental frames come and nothing is missing in it; else the newest full-depth frame, which has the best levels alone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, TypeVar

import msgspec

from mexc_pipeline.errors import UserError
from mexc_pipeline.events import Connected, Regressed, Snapshot, begin
from mexc_pipeline.exchange.channels import DEPTH, FULL_DEPTH
from mexc_pipeline.exchange.depth import Span, span
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.exchange.rest import version_of
from mexc_pipeline.read.numbers import NULL, NotExactError, exact, is_ms

FULL_KEPT = 100
"""Full-depth frames of which one is sure to be readable where others are not and that is accepted."""
AHEAD = 10
"""So many full-depth frames without an incremental one among them: incremental depth does not come any more."""
BESIDE_NS = 10_000_000_000
"""A full-depth frame that is older than the newest incremental one by more says nothing of the book any more."""
Level = tuple[Decimal, Decimal | None]
"""Volume in contracts, and number of orders where the exchange says it."""


class GapError(UserError):
    """Versions that the book needs are in no file, or in a frame that cannot be read."""


class Stored(NamedTuple):
    """A row as the files hold it: ``rx`` Unix ns, ``ts`` Unix ms; ``m`` is the frame's text, whatever way it came;
    ``file`` is the name of its file."""

    seq: int
    rx: int
    ts: int
    mt: str
    m: bytes
    file: str = ""

    @property
    def place(self) -> str:
        """Where a row is, for a message."""
        return f"seq {self.seq} in {self.file}" if self.file else f"seq {self.seq}"


_Levels = list[list[msgspec.Raw]] | None
"""None is a side without levels: null, or not there at all."""


class _Sides(msgspec.Struct, gc=False):
    asks: _Levels | msgspec.UnsetType = msgspec.UNSET
    bids: _Levels | msgspec.UnsetType = msgspec.UNSET
    cts: msgspec.Raw = NULL


class _Frame(msgspec.Struct, gc=False):
    data: _Sides


class _Snapshot(msgspec.Struct, gc=False):
    book: msgspec.Raw


class _Event(msgspec.Struct, rename={"before": "from"}, gc=False):
    event: str = ""
    channel: str = ""
    anew: bool = False
    before: int = 0


class _Channel(msgspec.Struct, gc=False):
    channel: str


_T = TypeVar("_T")


def _lenient(kind: type[_T]) -> Callable[[bytes], _T | None]:
    """A decoder that gives None for what it cannot read."""
    decode = msgspec.json.Decoder(kind).decode

    def read(text: bytes) -> _T | None:
        try:
            return decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    return read


_frame = msgspec.json.Decoder(_Frame).decode
_sides = msgspec.json.Decoder(_Sides).decode
_snapshot = msgspec.json.Decoder(_Snapshot).decode
_event = _lenient(_Event)
_SAID = (begin(Snapshot), begin(Regressed))
_CONNECTED = begin(Connected)
_channel = _lenient(_Channel)
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(slots=True)
class RebuiltBook:
    """A book: price to volume and orders per side. ``row`` is the newest row in it, ``base`` the version of its
    snapshot, ``gaps`` the missing versions it was put together across; ``channel`` tells whether it was rebuilt from
    incremental depth or is a full-depth frame."""

    version: int
    row: Stored
    base: int
    cts: int | None = None
    asks: dict[Decimal, Level] = field(default_factory=dict)
    bids: dict[Decimal, Level] = field(default_factory=dict)
    gaps: list[Span] = field(default_factory=list)
    channel: str = DEPTH
    updates: int = 0
    """Frames and changes put in since its snapshot."""
    absent: Counter[str] = field(default_factory=Counter)
    """How many of them are without a side."""
    since: int = field(init=False)
    """seq of the row it was begun with."""

    def __post_init__(self) -> None:
        self.since = self.row.seq

    def apply(self, sides: _Sides) -> None:
        """Put absolute levels in. ValueError naming what cannot be read; then nothing was put in."""
        levels = (_levels("asks", sides.asks), _levels("bids", sides.bids))
        cts = exact(sides.cts)
        if cts is not None and (cts != int(cts) or cts < 0):
            raise ValueError(f"cts: {cts} is no time in milliseconds")
        self.updates += 1
        self.absent.update(name for name in ("asks", "bids") if getattr(sides, name) is msgspec.UNSET)
        for held, side in zip((self.asks, self.bids), levels, strict=True):
            for price, level in side:
                if level[0]:
                    held[price] = level
                else:
                    held.pop(price, None)
        if cts is not None:
            self.cts = int(cts) if is_ms(cts) else None

    def miss(self, missing: Span, before: Stored, accepted: bool) -> None:
        """Note versions that are missing before a row, GapError unless that is accepted."""
        if not accepted:
            raise GapError(
                f"versions {missing.first} to {missing.last} of the book are in no file (at {before.place}); "
                "across_gaps=True builds on as if nothing were missing"
            )
        self.gaps.append(missing)

    def cannot_read(self, covered: Span, row: Stored, why: Exception, accepted: bool) -> None:
        """Note versions that are in a row which cannot be read, GapError unless that is accepted."""
        if not accepted:
            raise GapError(
                f"versions {covered.first} to {covered.last} of the book are in a frame that cannot be read "
                f"({row.place}: {str(why)[:200]}); across_gaps=True goes on without it"
            ) from why
        self.gaps.append(covered)


class History:
    """What rows, given in seq order, say of the book up to one of them (its seq, inclusive).

    Rows after it count only where they repair what was before it: commits, and snapshots that lag.
    """

    def __init__(self, last_seq: int) -> None:
        self._last_seq = last_seq
        self._frames: list[tuple[Span, Stored]] = []
        self._commits: dict[int, Stored] = {}
        self._snapshots: dict[int, Stored] = {}
        self._full: deque[Stored] = deque(maxlen=FULL_KEPT)
        self._ahead = 0  # full-depth frames since the newest incremental one
        self.without_snapshot = False
        """Whether the book is a full-depth frame for want of a snapshot alone, which an earlier file may hold."""
        self._version = 0
        self._fresh = False  # the next incremental frame is the first of a connection
        self._fresh_full = False  # no full-depth frame has come over the present connection
        self._over = False  # there was a version reset after the instant: what follows fits nothing before it
        self._stale = False  # frames have come since the newest in the book that are below it
        self._unread: Stored | None = None
        """A depth frame of no version that can be read, after which none has come that can."""

    def add(self, rows: Iterable[Stored]) -> History:
        """Take rows of the types dp, r and ev."""
        for row in rows:
            if row.mt == "dp":
                self._depth(row)
            elif self._over:
                continue
            elif row.mt == "r":
                version = self._version_of(row)
                if version is not None:
                    self._commits.setdefault(version, row)
            elif row.m.startswith(_SAID):
                self._said(row)
            elif row.m.startswith(_CONNECTED):
                self._fresh = True
                if row.seq <= self._last_seq:
                    self._fresh_full = True
        return self

    def _depth(self, row: Stored) -> None:
        late = row.seq > self._last_seq
        if late and not self._fresh:
            return
        said = _channel(row.m)
        if said is not None and said.channel == FULL_DEPTH:
            if not late:
                self._full.append(row)
                self._ahead = AHEAD if self._fresh else self._ahead + 1
                self._fresh_full = False
            return
        if self._full and not late and (said is None or said.channel != DEPTH):
            self._full.append(row)  # it may have been one: those before it are no longer the newest
        fresh, self._fresh = self._fresh, False
        covered = span(row.m)
        if covered is None:
            if not late:
                self._unread = row
                self._goes_on()
            return
        if fresh and self._frames and covered.last < self._frames[-1][0].last:
            self._reset(late)  # as its recorder says today, and those of 2026-11 and before did only later
        if late:
            return
        self._stale = bool(self._frames) and covered.last <= self._frames[-1][0].last
        self._goes_on()
        if not self._stale:
            self._frames.append((covered, row))
            self._unread = None

    def _goes_on(self) -> None:
        """Incremental depth came. Where its connection has brought no full depth yet, what came of that before it is of
        a recording that had it, or soon comes again."""
        self._ahead = 0
        if self._fresh_full:
            self._full.clear()

    def _version_of(self, row: Stored) -> int | None:
        try:
            return version_of(row.m)
        except ValueError:  # a snapshot or change of a shape to come: what needs it will find it missing
            return None

    def _said(self, row: Stored) -> None:
        said = _event(row.m)
        if said is None or said.channel != DEPTH:
            return
        if said.event == Snapshot.name():
            version = self._version_of(row)
            if version is None:
                return
            self._snapshots[version] = row
            if row.seq <= self._last_seq:
                self._version = max(self._version, version)
        elif said.anew and not (self._frames and self._frames[-1][0].last < said.before):  # else it was seen before
            # Said after some frames: those below the book belong to the new one, also where it is said later.
            self._reset(row.seq > self._last_seq and not self._stale)

    def _reset(self, late: bool) -> None:
        """Take a version reset: nothing before fits what follows."""
        if late:
            self._over = True
            return
        self._frames.clear()
        self._commits.clear()
        self._snapshots.clear()
        self._version = 0
        self._stale = False

    def book(self, *, across_gaps: bool = False) -> RebuiltBook | None:
        """The book at the instant; None where these rows hold no snapshot to build it on.

        GapError where versions are missing between the two, unless ``across_gaps``.
        """
        full = self._full[-1] if self._full else None
        incremental = self._unread or (self._frames[-1][1] if self._frames else None)
        if full is None or (incremental is not None and incremental.rx - full.rx > BESIDE_NS):
            return self._rebuilt(across_gaps)
        if incremental is None or self._ahead >= AHEAD:
            return self._whole(across_gaps)
        self.without_snapshot = False
        try:
            book = self._rebuilt(False)
        except GapError:
            book = None
        else:
            self.without_snapshot = book is None
        if book is not None:
            return book
        try:
            return self._whole(False)
        except GapError:
            if not across_gaps:
                raise
            return self._rebuilt(True) or self._whole(True)

    def _rebuilt(self, across_gaps: bool) -> RebuiltBook | None:
        """The book put together from a snapshot and incremental frames."""
        if self._unread is not None and not across_gaps:
            raise unreadable(self._unread, ValueError("data has no version"))
        newest = max(self._version, self._frames[-1][0].last if self._frames else 0)
        base = max((v for v in self._snapshots if v <= newest), default=None)
        if base is None:
            return None
        book = RebuiltBook(base, self._snapshots[base], base)
        try:
            book.apply(_sides(content(bytes(_snapshot(book.row.m).book))))
            book.updates, book.absent = 0, Counter()
        except _UNREADABLE as error:
            raise unreadable(book.row, error) from error
        updates = [*self._frames, *((Span(v, v), row) for v, row in self._commits.items())]
        for covered, row in sorted(updates, key=lambda update: update[0].last):
            if not book.version < covered.last <= newest:
                continue
            if covered.first > book.version + 1:
                book.miss(Span(book.version + 1, covered.first - 1), row, across_gaps)
            try:
                book.apply(_sides(row.m) if row.mt == "r" else _frame(row.m).data)
            except _UNREADABLE as error:
                book.cannot_read(covered, row, error, across_gaps)
            book.version = covered.last
            if row.mt == "dp":
                book.row = row
        if book.row.seq > self._last_seq and self._frames:  # a snapshot that came later, of a version that was there
            book.row = self._frames[-1][1]
        return book

    def _whole(self, across_gaps: bool) -> RebuiltBook | None:
        """The newest full-depth frame; where gaps are accepted, the newest that can be read."""
        for row in reversed(self._full):
            try:
                version = version_of_frame(row.m)
                book = RebuiltBook(version, row, version, channel=FULL_DEPTH)
                book.apply(_frame(row.m).data)
            except _UNREADABLE as error:
                if not across_gaps:
                    raise unreadable(row, error) from error
            else:
                return book
        return None


def unreadable(row: Stored, why: Exception) -> GapError:
    """The error that a book needs what a row does not tell."""
    return GapError(f"the frame of {row.place} cannot be read: {str(why)[:200]}; across_gaps=True goes on without it")


def version_of_frame(text: bytes) -> int:
    """The version of a full-depth frame's book. ValueError where it has none."""
    covered = span(text)
    if covered is None:
        raise ValueError("data.version is no version")
    return covered.last


def _levels(side: str, levels: _Levels | msgspec.UnsetType) -> list[tuple[Decimal, Level]]:
    """Price, volume and orders of each. ValueError naming the level that cannot be read."""
    found: list[tuple[Decimal, Level]] = []
    for n, level in enumerate([] if isinstance(levels, msgspec.UnsetType) else levels or ()):
        if len(level) < 2:
            raise ValueError(f"{side}[{n}] has no price and volume")
        try:
            price, volume = exact(level[0]), exact(level[1])
            orders = exact(level[2]) if len(level) > 2 else None
        except NotExactError as error:
            raise ValueError(f"{side}[{n}]: {error}") from error
        if price is None or volume is None or price < 0 or volume < 0:
            raise ValueError(f"{side}[{n}] has no price and volume")
        found.append((price, (volume, orders)))
    return found
