"""Trades checked: each minute's recorded trades against the exchange's own candle of it. Pure; times Unix ms.

All times are the exchange's own, in its frames, so that nothing depends on how this host's clock was set. A minute
*agrees* where the candle is made of exactly the trades that were recorded, *differs* where it is not although nothing
should be missing, and is *unknown* in any other case: where there is no candle or it was not final, and where it is
not although the recording was not connected from a second before the minute to three behind it. What was connected up
to the minute's very edges, or filled where it was not, is known where it agrees: a coincidence in six figures is none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Annotated, Literal, NamedTuple

import msgspec

from mexc_pipeline.events import (
    Connected,
    Disconnected,
    GivenUp,
    Resumed,
    Stalled,
    Started,
    Stopped,
    Subscribed,
    begin,
)
from mexc_pipeline.exchange import candles
from mexc_pipeline.exchange.candles import MINUTE_MS, CountedTrade, MinuteCandle
from mexc_pipeline.exchange.channels import DEAL
from mexc_pipeline.exchange.deadletters import meant
from mexc_pipeline.rows import Mt

Verdict = Literal["agrees", "differs", "unknown"]
Rule = Literal["all", "without self-trades"]
FIELDS = ("volume", "amount", "open", "high", "low", "close")
"""What is compared."""

BEFORE_MS = 1_000
"""A trade that was made so long after a frame of a subscription came over it."""
BEHIND_MS = 3_000
"""A trade has come by the time that a frame of so long after it has: trades that are merged are pushed later than they
are made, by some tenths of a second."""
KEPT = 200_000
"""Trades that are remembered, at least, to know those that come again."""
_MOST_MINUTES = 2 * 1440
"""A hole in what was recorded that is longer has no minutes of its own in a list."""
_NOISE = Decimal("1e-15")
"""Of an amount: what adding up binary floats adds to it for each trade. It shows where it has so many digits:"""
_DOUBLE_DIGITS = 15
_EXACT = Context(prec=400)
_UNREADABLE = Decimal(0)
"""Stands for a contract's size that is said and cannot be read."""
_MINUTE_NS = MINUTE_MS * 1_000_000

_FILLED, _UNFILLED = "filled", "unfilled"
_EVENTS = (
    *(begin(kind) for kind in (Started, Stopped, Connected, Disconnected, Subscribed, Stalled, GivenUp, Resumed)),
    *(b'{"event":"%s"' % name.encode() for name in (_FILLED, _UNFILLED)),
)


class Counts(NamedTuple):
    """How many minutes agree, differ, and are unknown."""

    agree: int = 0
    differ: int = 0
    unknown: int = 0


@dataclass(slots=True)
class Sums:
    """What trades make of a candle. ``gross`` is the sum of price times contracts; ``opens`` and ``closes`` are the
    prices of all trades with the first and the last time: their order within a millisecond is not known, and ids have
    been seen in another order than times."""

    trades: int = 0
    volume: Decimal = Decimal(0)
    gross: Decimal = Decimal(0)
    high: Decimal = Decimal(0)
    low: Decimal = Decimal(0)
    first_ms: int = 0
    last_ms: int = 0
    opens: set[Decimal] = field(default_factory=set)
    closes: set[Decimal] = field(default_factory=set)
    least: tuple[int, Decimal] | None = None
    greatest: tuple[int, Decimal] | None = None
    """Least and greatest id, and their price."""

    def add(self, time_ms: int, price: Decimal, volume: Decimal, number: int | None = None) -> None:
        """Take a trade; ``number`` is its id, where that is one."""
        if not self.trades:
            self.first_ms = self.last_ms = time_ms
            self.opens, self.closes = {price}, {price}
            self.high = self.low = price
        else:
            if time_ms > self.last_ms:
                self.last_ms, self.closes = time_ms, {price}
            elif time_ms == self.last_ms:
                self.closes.add(price)
            if time_ms < self.first_ms:
                self.first_ms, self.opens = time_ms, {price}
            elif time_ms == self.first_ms:
                self.opens.add(price)
            if price > self.high:
                self.high = price
            elif price < self.low:
                self.low = price
        if number is not None:
            if self.least is None or number < self.least[0]:
                self.least = number, price
            if self.greatest is None or number > self.greatest[0]:
                self.greatest = number, price
        self.trades += 1
        self.volume = _EXACT.add(self.volume, volume)
        self.gross = _EXACT.fma(price, volume, self.gross)

    def __add__(self, other: Sums) -> Sums:
        if not self.trades or not other.trades:
            return self if self.trades else other
        first, last = min(self.first_ms, other.first_ms), max(self.last_ms, other.last_ms)
        both = (self, other)
        return Sums(
            self.trades + other.trades,
            _EXACT.add(self.volume, other.volume),
            _EXACT.add(self.gross, other.gross),
            max(self.high, other.high),
            min(self.low, other.low),
            first,
            last,
            set().union(*(one.opens for one in both if one.first_ms == first)),
            set().union(*(one.closes for one in both if one.last_ms == last)),
            min((one.least for one in both if one.least is not None), default=None),
            max((one.greatest for one in both if one.greatest is not None), default=None),
        )

    @property
    def first(self) -> set[Decimal]:
        """Prices that may be the first: of the earliest trades, and of that with the least id."""
        return self.opens | ({self.least[1]} if self.least is not None else set())

    @property
    def last(self) -> set[Decimal]:
        """Prices that may be the last."""
        return self.closes | ({self.greatest[1]} if self.greatest is not None else set())


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
        return None if own is None or theirs is None else _EXACT.subtract(own, theirs)


@dataclass(slots=True)
class _Tally:
    own: Sums = field(default_factory=Sums)
    """Of those that are marked as self-trades."""
    others: Sums = field(default_factory=Sums)
    filled: int = 0
    repeated: int = 0
    sizes: set[Decimal] = field(default_factory=set)
    """Of a contract, as they were said before its trades came."""


class _Held(NamedTuple):
    candle: MinuteCandle
    fetched: bool
    final: bool
    at_ms: int


class _Event(msgspec.Struct, gc=False):
    event: str
    channel: str = ""
    reason: str = ""
    first: int | None = msgspec.field(default=None, name="from")
    last: int | None = msgspec.field(default=None, name="to")


_decode_event = msgspec.json.Decoder(_Event).decode


class FrameSaid(NamedTuple):
    """The exchange's time of a frame that says no more here."""

    ts: int


class DealsSaid(NamedTuple):
    """Trades that came, with their frame's time, None where it has none; ``deals`` None: they cannot be read."""

    ts: int | None
    deals: list[CountedTrade] | None
    filled: bool = False


class CandlesSaid(NamedTuple):
    """Candles in the order of time; ``ts`` the time of a pushed one's frame."""

    ts: int | None
    candles: list[MinuteCandle]
    fetched: bool


class SizeSaid(NamedTuple):
    """How much of the base currency one contract is; None: it is said and cannot be read."""

    size: Decimal | None


class EventSaid(NamedTuple):
    """What happened to the recording of deals."""

    event: _Event


Said = FrameSaid | DealsSaid | CandlesSaid | SizeSaid | EventSaid


def said(symbol: str, rx: int, ts: int, mt: int, m: bytes) -> Said | None:
    """What a row says of trades and candles of the exchange's ``symbol``; None where that is nothing. ``m`` of tickers
    and depth is not looked at."""
    own_ts = None if ts == rx // 1_000_000 else ts  # else the row has none of its own, or happens to have the same
    match mt:
        case Mt.TICKER | Mt.DEPTH:
            return FrameSaid(ts) if own_ts is not None else None
        case Mt.DEAL:
            return DealsSaid(own_ts, candles.deals(m))
        case Mt.EVENT:
            return _event(m)
        case Mt.KLINE:
            pushed = candles.pushed(m)
            return CandlesSaid(ts, [pushed], False) if pushed is not None else None
        case Mt.REPAIRED:
            one = candles.deal(m)
            if one is not None:
                return DealsSaid(None, [one], True)
            found = candles.fetched(m)
            return CandlesSaid(None, found, True) if found is not None else None
        case Mt.CONTRACT:
            return SizeSaid(candles.contract_size(m))
        case Mt.DEAD_LETTER if meant(m, symbol) == DEAL:
            return DealsSaid(None, candles.deals(m))
    return None


def _event(m: bytes) -> EventSaid | None:
    if not m.startswith(_EVENTS):
        return None
    try:
        return EventSaid(_decode_event(m))
    except (msgspec.MsgspecError, RecursionError):  # none of ours
        return None


class Minutes:
    """Takes what rows say, in the order of their seq, and judges the minutes of one symbol.

    ``symbol``: the exchange's name, by which a contract whose amounts are not in its quote currency is told; ``size``:
    how much of the base currency one contract is, where that is known beforehand.
    """

    def __init__(self, symbol: str, size: Decimal | None = None) -> None:
        self._inverse = symbol.endswith("_USD")
        self._size = size
        self._sizes: set[Decimal] = set() if size is None else {size}
        self._tallies: dict[int, _Tally] = {}
        self._held: dict[int, _Held] = {}
        self._later_push = 0
        """The newest window that was pushed."""
        self._seq = 0
        self._seen: dict[int, dict[object, int]] = {}
        """By minute: what its trades are known by, and over which connection they came first."""
        self._remembered = 0
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
        self.first_ms: int | None = None
        """The exchange's time in the first frame of all."""
        self.last_ms = 0
        """That of the last one."""

    def goes_on(self, first_seq: int, last_seq: int) -> None:
        """Rows of these seqs, all that there are between them, come next. Where rows are missing before them the
        recording ended with the last."""
        if first_seq != self._seq + 1 and self._seq:
            self._end()
        self._seq = last_seq

    def take(self, what: Said | None) -> None:
        """Take what the next row says. Of tickers and depth in succession the first and the last are enough."""
        match what:
            case None:
                pass
            case FrameSaid(ts):
                self._frame(ts)
            case DealsSaid():
                self._deals(what)
            case CandlesSaid():
                self._candles(what)
            case SizeSaid(size):
                self._size = size or _UNREADABLE
                self._sizes.add(self._size)
            case EventSaid(event):
                self._happened(event)

    # -- what was recorded when

    def _frame(self, ts: int, made: int | None = None) -> None:
        self.first_ms = ts if self.first_ms is None else self.first_ms
        self.last_ms = ts
        if self._on:
            if self._since is None and ts > self._edge:
                self._since, self._made = ts, ts if made is None else min(ts, made)
            if self._since is not None:
                self._last = ts

    def _end(self) -> None:
        if self._since is not None:
            self._spans.append((self._since, self._made, self._last))
            self._edge = max(self._edge, self._last)
        self._on, self._since = False, None

    def _happened(self, event: _Event) -> None:
        name = event.event
        if name in (Subscribed.name(), Resumed.name()):
            self._on = self._on or event.channel == DEAL
        elif name in (_FILLED, _UNFILLED):
            if event.channel in ("", DEAL) and event.first is not None and event.last is not None:
                (self._filled if name == _FILLED else self._doubts).append((event.first, event.last))
        elif name in (Stalled.name(), GivenUp.name()):
            if event.channel in ("", DEAL):
                self._end()
        else:
            self._end()
            if name in (Started.name(), Connected.name()):
                self._connection += 1

    # -- trades

    def _deals(self, what: DealsSaid) -> None:
        if what.deals is None:
            self._end()  # what is in it is not known
            return
        if not what.filled:
            self._on = True
            if what.ts is not None:
                self._frame(what.ts, min((one.time_ms for one in what.deals), default=None))
        for one in what.deals:
            start = one.time_ms - one.time_ms % MINUTE_MS
            tally = self._tallies.get(start)
            if tally is None:
                tally = self._tallies[start] = _Tally()
            if self._came_before(start, one):
                tally.repeated += 1
                continue
            tally.filled += what.filled
            if self._size is not None:
                tally.sizes.add(self._size)
            number = one.key if one.named and isinstance(one.key, int) else None
            (tally.own if one.own else tally.others).add(one.time_ms, one.price, one.volume, number)

    def _came_before(self, start: int, one: CountedTrade) -> bool:
        seen = self._seen.get(start)
        if seen is None:
            while self._remembered > KEPT and len(self._seen) > 2:
                self._remembered -= len(self._seen.pop(min(self._seen)))
            seen = self._seen[start] = {}
        first = seen.get(one.key)
        if first is None:
            seen[one.key] = self._connection
            self._remembered += 1
            return False
        # Two trades without ids may well agree in everything within a connection; across one they are the same.
        return one.named or first != self._connection

    # -- candles

    def _candles(self, what: CandlesSaid) -> None:
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
        everything = tally.own + tally.others
        size = self._size_for(tally)
        held = self._held.get(start)
        candle = held.candle if held is not None else None
        rule: Rule | None = None
        sums, wrong = everything, list[str]()
        if candle is not None:
            wrong = self._wrong(candle, everything, size)
            if not wrong:
                rule = "all"
            elif tally.own.trades and not self._wrong(candle, tally.others, size):
                rule, sums, wrong = "without self-trades", tally.others, []
        verdict: Verdict = "unknown"
        if held is None:
            why = "no candle"
        elif not held.final:
            why = "the candle was not final"
        elif any(first < end and last >= start for first, last in self._doubts):
            why = "trades may be missing, and could not be fetched"
        elif strict.has(start, end):
            stopped_growing = not held.fetched and held.at_ms < end and held.at_ms <= everything.last_ms
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
            _side(sums, candle, size),
            {name: getattr(candle, name) if candle is not None else None for name in FIELDS},
            everything.trades,
            tally.own.trades,
            tally.filled,
            tally.repeated,
        )

    def _size_for(self, tally: _Tally) -> Decimal | None:
        """None also where it changed: which trades were made before is not certain."""
        sizes = tally.sizes or self._sizes
        size = next(iter(sizes)) if len(sizes) == 1 and not self._inverse else None
        return size or None

    @staticmethod
    def _wrong(candle: MinuteCandle, sums: Sums, size: Decimal | None) -> list[str]:
        """The fields in which these trades do not make the candle."""
        wrong: list[str] = []
        if sums.volume != candle.volume:
            wrong.append("volume")
        amount = _amount(sums, size)
        if amount is not None and candle.amount is not None and not _same(amount, candle.amount, sums.trades):
            wrong.append("amount")
        if not sums.trades or not candle.volume:  # of a candle without trades the prices are those of before
            return wrong
        high, low = sums.high, sums.low
        if not candle.real and candle.open is not None:
            high, low = max(high, candle.open), min(low, candle.open)
        elif candle.open is not None and candle.open not in sums.first:
            wrong.append("open")
        if candle.high not in (None, high):
            wrong.append("high")
        if candle.low not in (None, low):
            wrong.append("low")
        if candle.close is not None and candle.close not in sums.last:
            wrong.append("close")
        return wrong


def _amount(sums: Sums, size: Decimal | None) -> Decimal | None:
    return None if size is None else _EXACT.multiply(sums.gross, size)


def _side(sums: Sums, candle: MinuteCandle | None, size: Decimal | None) -> dict[str, Decimal | None]:
    """The candle that these trades make; of prices that may be the first or the last the candle's own."""
    return {
        "volume": sums.volume,
        "amount": _amount(sums, size),
        "open": _of(sums.first, candle.open if candle is not None and candle.real else None),
        "high": sums.high if sums.trades else None,
        "low": sums.low if sums.trades else None,
        "close": _of(sums.last, candle.close if candle is not None else None),
    }


def counted(minutes: Iterable[Minute], expected: int | None = None) -> Counts:
    """How many there are of each verdict; of ``expected`` ones all are unknown that neither agree nor differ."""
    verdicts = [minute.verdict for minute in minutes]
    agree, differ = verdicts.count("agrees"), verdicts.count("differs")
    unknown = verdicts.count("unknown") if expected is None else max(0, expected - agree - differ)
    return Counts(agree, differ, unknown)


def whole(start_ns: int, end_ns: int) -> int:
    """How many minutes begin and end within a stretch (Unix ns)."""
    return max(0, end_ns // _MINUTE_NS - -(-start_ns // _MINUTE_NS))


RULE = 1
"""Grows whenever the same rows may get another verdict: what a file says of its minutes is by the rule of its time."""


class _Counts(msgspec.Struct):
    agree: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    differ: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    unknown: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    rule: int


_decode_counts = msgspec.json.Decoder(_Counts).decode
_encode = msgspec.json.Encoder().encode


def to_text(counts: Counts) -> str:
    """The counts as a file's metadata have them."""
    return _encode(_Counts(*counts, RULE)).decode()


def from_text(text: str | None) -> Counts | None:
    """What :func:`to_text` gave, by whatever rule; None for anything else."""
    try:
        found = _decode_counts(text or "")
    except (msgspec.MsgspecError, RecursionError):
        return None
    return Counts(found.agree, found.differ, found.unknown)


def is_told(text: str, counts: Counts | None) -> bool:
    """Whether a file's metadata say these counts, or others by another rule."""
    try:
        found = _decode_counts(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return found.rule != RULE or counts == (found.agree, found.differ, found.unknown)


def _of(prices: set[Decimal], theirs: Decimal | None) -> Decimal | None:
    return theirs if theirs in prices else min(prices, default=None)


def _same(own: Decimal, theirs: Decimal, trades: int) -> bool:
    """Whether two amounts are the same; one that was added up in binary floats may be off by its last digits."""
    if own == theirs:
        return True
    if len(theirs.as_tuple().digits) < _DOUBLE_DIGITS:
        return False
    return abs(_EXACT.subtract(own, theirs)) <= abs(theirs) * _NOISE * (trades + 1)


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
