"""Trades checked: each minute's recorded trades against the exchange's own candle of it. Pure; times Unix ms.

All times are the exchange's own, in its frames, so that nothing depends on how this host's clock was set. A minute
*agrees* where the candle is made of exactly the trades that were recorded, *differs* where it is not although nothing
should be missing, and is *unknown* in any other case: where there is no candle or it was not final, and where it is
not although the recording was not connected from a second before the minute to three behind it. What was connected up
to the minute's very edges, or filled where it was not, is known where it agrees: a coincidence in six figures is none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NamedTuple

from mexc_pipeline.events import Connected, Filled, GivenUp, Resumed, Stalled, Started, Subscribed, Unfilled
from mexc_pipeline.exchange.candles import MINUTE_MS, MinuteCandle, Trades
from mexc_pipeline.exchange.channels import DEAL
from mexc_pipeline.ledger.evidence import (
    CandleEvidence,
    EventEvidence,
    Evidence,
    FrameEvidence,
    SizeEvidence,
    TradeEvidence,
)
from mexc_pipeline.ledger.shares import Shares
from mexc_pipeline.ledger.sums import EXACT, FIELDS, Sums

Verdict = Literal["agrees", "differs", "unknown"]
Rule = Literal["all", "without self-trades"]

BEFORE_MS = 1_000
"""A trade that was made so long after a frame of a subscription came over it."""
BEHIND_MS = 3_000
"""A trade has come by the time that a frame of so long after it has: trades that are merged are pushed later than they
are made, by some tenths of a second."""
KEPT = 200_000
"""Trades that are remembered, at least, to know those that come again."""
_MOST_MINUTES = 2 * 1440
"""A hole in what was recorded that is longer has no minutes of its own in a list."""
SIZE_KNOWN_MS = 86_400_000
"""A contract's size is known so long after it changed, at most: a copy of the exchange's list may be so old."""
_UNREADABLE = Decimal(0)
"""Stands for a contract's size that is said and cannot be read."""


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute's verdict. ``why``: of one that is unknown, the reason; of one that differs, the fields that do.

    ``rule``: which trades make the candle, where one of the two does. ``own`` and ``candle`` are both sides by field,
    under the rule that agrees or else of all trades; None: not known, or of no trades. ``trades`` were counted, of
    them ``self_trades`` marked so and ``filled`` fetched over REST; ``repeated`` came once more and were not.
    """

    start_ms: int
    verdict: Verdict
    why: str
    rule: Rule | None
    own: dict[str, Decimal | None]
    candle: dict[str, Decimal | None]
    trades: int
    self_trades: int
    filled: int
    repeated: int

    def difference(self, name: str) -> Decimal | None:
        """What was recorded less what the candle has."""
        own, theirs = self.own[name], self.candle[name]
        return None if own is None or theirs is None else EXACT.subtract(own, theirs)


@dataclass(slots=True)
class _Tally:
    own: Sums = field(default_factory=Sums)
    """Of those that are marked as self-trades."""
    others: Sums = field(default_factory=Sums)
    filled: int = 0
    repeated: int = 0
    sizes: set[Decimal] = field(default_factory=set)
    """Of a contract, as they were said before its trades came."""


class _Seen(NamedTuple):
    """What the trades of a minute are known by: ids, and, of those without, over which connection they came first."""

    ids: set[object]
    others: dict[object, int]

    def size(self) -> int:
        return len(self.ids) + len(self.others)


class _Held(NamedTuple):
    candle: MinuteCandle
    fetched: bool
    final: bool
    at_ms: int


class Minutes:
    """Takes what rows say, in the order of their seq, and judges the minutes of one symbol.

    ``symbol``: the exchange's name, by which a contract whose amounts are not in its quote currency is told; ``size``:
    how much of the base currency one contract is, where that is known beforehand.
    """

    def __init__(self, symbol: str, size: Decimal | None = None) -> None:
        self._inverse = symbol.endswith("_USD")
        self._size = size
        self._sizes: set[Decimal] = set() if size is None else {size}
        self._size_told = 0
        """The time by which the size was last said."""
        self._resized: list[tuple[int, int]] = []
        """Within each of these stretches the size changed, at a time that is not known."""
        self._tallies: dict[int, _Tally] = {}
        self._held: dict[int, _Held] = {}
        self._later_push = 0
        """The newest window that was pushed."""
        self._seq = 0
        self._seen: dict[int, _Seen] = {}
        self._connection = 0
        self._on = False
        self._since: int | None = None
        self._made = 0
        """The time of the first trade in the frame at ``_since``, or its own."""
        self._last = 0
        self._edge = 0
        """The time of the last frame before the present connection's."""
        self._spans: list[tuple[int, int, int]] = []
        """Time of the first frame, of the first trade in it, and of the last frame."""
        self._filled: list[tuple[int, int]] = []
        self._doubts: list[tuple[int, int]] = []

    def goes_on(self, first_seq: int, last_seq: int) -> None:
        """Rows of these seqs, all that there are between them, come next. Where rows are missing before them the
        recording ended with the last."""
        if first_seq != self._seq + 1 and self._seq:
            self._end()
        self._seq = last_seq

    def take(self, what: Evidence | None) -> None:
        """Take what the next row says, or the next ones."""
        match what:
            case None:
                pass
            case FrameEvidence():
                self._frames(what)
            case TradeEvidence():
                self._deals(what)
            case CandleEvidence():
                self._candles(what)
            case SizeEvidence(size):
                self._sized(size or _UNREADABLE)
            case EventEvidence():
                self._happened(what)

    def _sized(self, size: Decimal) -> None:
        if self._size is not None and size != self._size:
            self._resized.append((min(self._size_told, self._last - SIZE_KNOWN_MS), self._last))
        self._size, self._size_told = size, self._last
        self._sizes.add(size)

    # -- what was recorded when

    def _frames(self, what: FrameEvidence) -> None:
        times = what.times
        if not self._on and what.places:
            self._on = True
            times = times[what.places[0] :]
        if self._on:
            at = 0
            if self._since is None:
                at = next((n for n, ts in enumerate(times) if ts > self._edge), len(times))
                if at < len(times):
                    self._since = times[at]
                    self._made = min([times[at], *what.made_at(at + len(what.times) - len(times))])
            if self._since is not None:
                self._last = _last(times[at:]) or self._last
        self._count(what.deals.trades)

    def _end(self) -> None:
        if self._since is not None:
            self._spans.append((self._since, self._made, self._last))
            self._edge = max(self._edge, self._last)
        self._on, self._since = False, None

    def _happened(self, event: EventEvidence) -> None:
        name = event.event
        if name in (Subscribed.name(), Resumed.name()):
            self._on = self._on or event.channel == DEAL
        elif name in (Filled.name(), Unfilled.name()):
            if event.channel == DEAL and event.first is not None and event.last is not None:
                (self._filled if name == Filled.name() else self._doubts).append((event.first, event.last))
        elif name in (Stalled.name(), GivenUp.name()):
            if event.channel in ("", DEAL):
                self._end()
        else:
            self._end()
            if name in (Started.name(), Connected.name()):
                self._connection += 1

    # -- trades

    def _deals(self, what: TradeEvidence) -> None:
        if what.trades is None:
            self._end()  # what is in it is not known
        elif what.filled:
            self._count(what.trades, filled=True)
        else:
            self._on = True
            self._count(what.trades)

    def _count(self, trades: Trades, *, filled: bool = False) -> None:
        """Have trades added up, those of a minute at once."""
        for start, some in _by_minute(trades):
            new = self._unseen(start, some)
            tally = self._tally(start)
            own, others = new.parted()
            tally.own.add(own)
            tally.others.add(others)
            tally.repeated += len(some.times) - len(new.times)
            tally.filled += filled * len(new.times)
            if self._size is not None:
                tally.sizes.add(self._size)

    def _unseen(self, start: int, trades: Trades) -> Trades:
        """Those of a minute's trades that have not come before; they are remembered."""
        ids, others = self._seen_in(start)
        if trades.plain or tuple not in set(map(type, trades.keys)):
            new = set(trades.keys)
            if len(new) == len(trades.keys) and ids.isdisjoint(new):
                ids |= new
                return trades
        unseen = list[bool]()
        for key in trades.keys:
            if isinstance(key, tuple):
                # Two may well agree in everything within a connection; across one they are the same.
                unseen.append(others.setdefault(key, self._connection) == self._connection)
            else:
                unseen.append(key not in ids)
                ids.add(key)
        return trades.where(unseen)

    def _tally(self, start: int) -> _Tally:
        if start not in self._tallies:
            self._tallies[start] = _Tally()
        return self._tallies[start]

    def _seen_in(self, start: int) -> _Seen:
        if start not in self._seen:
            while len(self._seen) > 2 and sum(map(_Seen.size, self._seen.values())) > KEPT:
                del self._seen[min(self._seen)]
            self._seen[start] = _Seen(set(), {})
        return self._seen[start]

    # -- candles

    def _candles(self, what: CandleEvidence) -> None:
        for n, candle in enumerate(what.candles):
            # One that another follows is over, by the exchange's own clock.
            over = n + 1 < len(what.candles) if what.fetched else candle.start_ms < self._later_push
            self._hold(_Held(candle, what.fetched, over, what.ts or 0))
            if not what.fetched and candle.start_ms > self._later_push:
                before = self._held.get(self._later_push)
                if before is not None and not before.fetched:
                    self._held[self._later_push] = before._replace(final=True)
                self._later_push = candle.start_ms

    def _hold(self, new: _Held) -> None:
        old = self._held.get(new.candle.start_ms)
        if old is None or not old.final or (new.final and new.fetched >= old.fetched):
            self._held[new.candle.start_ms] = new

    # -- verdicts

    def result(self, first_ms: int | None = None, end_ms: int | None = None) -> list[Minute]:
        """The minutes that begin within a stretch, in order: those of which there are trades or a candle, or in which
        the recording was connected, and all between them."""
        spans = [*self._spans, *([(self._since, self._made, self._last)] if self._since is not None else [])]
        known = {*self._tallies, *self._held}
        for since, _, last in spans:
            if 0 <= last - since <= _MOST_MINUTES * MINUTE_MS:
                known.update(range(since - since % MINUTE_MS, last + 1, MINUTE_MS))
        low = -(-first_ms // MINUTE_MS) * MINUTE_MS if first_ms is not None else 0
        chosen = sorted(start for start in known if start >= low and (end_ms is None or start < end_ms))
        strict = _Cover((since + BEFORE_MS, last - BEHIND_MS) for since, _, last in spans)
        loose = _Cover([*((made, last) for _, made, last in spans), *self._filled])
        return [self._judge(start, strict, loose) for start in _without_holes(chosen)]

    def _judge(self, start: int, strict: _Cover, loose: _Cover) -> Minute:
        end = start + MINUTE_MS
        tally = self._tallies.get(start) or _Tally()
        size = self._size_for(start, tally)
        made = everything = (tally.own + tally.others).made(size)
        held = self._held.get(start)
        candle = held.candle if held is not None else None
        rule: Rule | None = None
        wrong = list[str]()
        if candle is not None:
            wrong = made.wrong(candle)
            if not wrong:
                rule = "all"
            elif tally.own.trades and not (others := tally.others.made(size)).wrong(candle):
                rule, made, wrong = "without self-trades", others, []
        verdict: Verdict = "unknown"
        if held is None:
            why = "no candle"
        elif not held.final:
            why = "the candle was not final"
        elif any(first < end and last >= start for first, last in self._doubts):
            why = "trades may be missing, and could not be fetched"
        elif strict.has(start, end):
            stopped_growing = (
                not held.fetched and held.at_ms < end and held.at_ms <= max(tally.own.last_ms, tally.others.last_ms)
            )
            if not wrong:
                verdict, why = "agrees", ""
            elif stopped_growing:
                why = "the last push of the candle came before the last trade"
            else:
                verdict, why = "differs", ", ".join(wrong)
        elif loose.has(start, end) and not wrong:
            verdict, why = "agrees", ""
        else:
            why = "not connected throughout"
        return Minute(
            start,
            verdict,
            why,
            rule if held is not None and held.final else None,
            made.fields(candle),
            {name: getattr(candle, name) if candle is not None else None for name in FIELDS},
            everything.trades,
            tally.own.trades,
            tally.filled,
            tally.repeated,
        )

    def _size_for(self, start: int, tally: _Tally) -> Decimal | None:
        """None also where it may have changed: which trades were made before is not certain."""
        if any(first < start + MINUTE_MS and last >= start for first, last in self._resized):
            return None
        sizes = tally.sizes or self._sizes
        size = next(iter(sizes)) if len(sizes) == 1 and not self._inverse else None
        return size or None


def counted(minutes: Iterable[Minute], expected: int | None = None) -> Shares:
    """How many there are of each verdict; of ``expected`` ones all are unknown that neither agree nor differ."""
    verdicts = [minute.verdict for minute in minutes]
    agree, differ = verdicts.count("agrees"), verdicts.count("differs")
    unknown = verdicts.count("unknown") if expected is None else max(0, expected - agree - differ)
    return Shares(agree, differ, unknown)


def _by_minute(trades: Trades) -> Iterator[tuple[int, Trades]]:
    """The trades of each minute, and when it begins."""
    if not trades.times:
        return
    ordered = sorted(trades.times)  # cheaper than least and greatest where they are in order already
    minute = ordered[0] // MINUTE_MS
    if ordered[-1] < (minute + 1) * MINUTE_MS:
        yield minute * MINUTE_MS, trades
        return
    places: dict[int, list[int]] = defaultdict(list)
    for place, time in enumerate(trades.times):
        places[time // MINUTE_MS].append(place)
    for minute, of in places.items():
        yield minute * MINUTE_MS, trades.at(of)


def _last(times: list[int]) -> int:
    """The last of the times that frames have; 0 where none has."""
    return next((ts for ts in reversed(times) if ts), 0)


def _without_holes(starts: list[int]) -> Iterator[int]:
    """The minutes and those between them, but for holes that are too long."""
    before: int | None = None
    for start in starts:
        if before is not None and start - before <= _MOST_MINUTES * MINUTE_MS:
            yield from range(before + MINUTE_MS, start, MINUTE_MS)
        yield start
        before = start


class _Cover:
    """Stretches of time, joined where they overlap."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        joined: list[list[int]] = []
        for first, last in sorted(span for span in spans if span[0] <= span[1]):
            if joined and first <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], last)
            else:
                joined.append([first, last])
        self._firsts = [first for first, _ in joined]
        self._lasts = [last for _, last in joined]

    def has(self, first: int, last: int) -> bool:
        """Whether all of a stretch lies within one of them."""
        at = bisect_right(self._firsts, first) - 1
        return at >= 0 and last <= self._lasts[at]
