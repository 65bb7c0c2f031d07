"""The exchange's candles of one minute, and what of its frames is needed to make them again from its trades. Pure.

Sources: the official futures WebSocket page (2026-04) for ``push.kline``; the official futures REST page (market
endpoints, "Get K-line data", 2025-04 and 2026-04) for ``GET /api/v1/contract/kline/{symbol}``: ``interval``, ``start``
and ``end`` in Unix seconds, at most 2,000 candles, the newest of them where there are more, up to now where only
``start`` is named; the answer has parallel lists ``time open close high low vol amount`` and, undocumented,
``realOpen realClose realHigh realLow``. Captures of 2022, 2026-02 and 2026-09 (socket ``o h l c q a`` and
``ro rh rl rc``) show what the two kinds of prices are: ``open`` is the close of the candle before and ``high`` and
``low`` reach to it, the real ones are those of the minute's own trades. ``q`` and ``vol`` are contracts, ``a`` and
``amount`` the turnover in the quote currency.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from itertools import chain, compress
from operator import not_
from typing import Annotated, NamedTuple

import msgspec

from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.exchange.trades import is_trade

MINUTE_MS = 60_000
INTERVAL = "Min1"
MOST_CANDLES = 2_000
"""In one answer of REST."""
_LONGEST = 76
"""Digits of a number that is read, and how far its first one may be from the point."""
_FIRST_MS, _END_MS = 10**12, 10**13


_NO_DIGITS = " \t\r\n-.eE"
"""What may be in a JSON number, or around it, other than digits."""


class MinuteCandle(NamedTuple):
    """A candle of the minute that begins at ``start_ms`` (Unix ms). ``volume`` in contracts, ``amount`` in the quote
    currency, prices in the quote currency; None: the exchange does not say. ``real``: the prices are those of the
    minute's own trades; otherwise ``open`` is the close before, and ``high`` and ``low`` reach to it."""

    start_ms: int
    volume: Decimal
    amount: Decimal | None
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    close: Decimal | None
    real: bool


End = tuple[int, set[bytes]]
"""A time (Unix ms), and prices as they are spelled."""

_Row = tuple[int, bytes, int | Decimal, object, bool]


class Trades(NamedTuple):
    """Trades by columns, as there are thousands a second: times (Unix ms), prices as they are spelled (:func:`number`
    reads them), volumes in contracts, what they are known by, and whether the exchange marks them as ones with oneself
    (``M`` 1). Known a trade is by its id, a number or else text, where it has one; otherwise by a tuple of time, price,
    volume and side. ``plain``: all volumes are whole and all ids numbers: nobody need look at each."""

    times: Sequence[int] = ()
    prices: Sequence[bytes] = ()
    volumes: Sequence[int | Decimal] = ()
    keys: Sequence[object] = ()
    own: Sequence[bool] = ()
    plain: bool = False

    @classmethod
    def of(cls, rows: Sequence[_Row]) -> Trades:
        """Trades that are given one by one."""
        return cls(
            [row[0] for row in rows],
            [row[1] for row in rows],
            [row[2] for row in rows],
            [row[3] for row in rows],
            [row[4] for row in rows],
        )

    def where(self, which: Sequence[bool]) -> Trades:
        """The trades for which it says so."""
        return Trades(
            list(compress(self.times, which)),
            list(compress(self.prices, which)),
            list(compress(self.volumes, which)),
            list(compress(self.keys, which)),
            list(compress(self.own, which)),
            self.plain,
        )

    def parted(self) -> tuple[Trades, Trades]:
        """Give the trades with oneself, and the others; neither says of each of its trades which it is."""
        every = self._replace(own=())
        if not any(self.own):
            return Trades(), every
        return every.where(self.own), every.where(list(map(not_, self.own)))

    def at(self, places: Sequence[int]) -> Trades:
        """The trades at these places."""
        return Trades(
            [self.times[place] for place in places],
            [self.prices[place] for place in places],
            [self.volumes[place] for place in places],
            [self.keys[place] for place in places],
            [self.own[place] for place in places],
            self.plain,
        )

    def ends(self) -> tuple[End, End]:
        """The first and the last time, and the prices of all trades of that millisecond. There must be a trade."""
        ordered = sorted(self.times)  # they nearly always are, which makes this the cheapest way to both ends
        first, last = ordered[0], ordered[-1]
        opens = slice(0, bisect_right(ordered, first))
        closes = slice(bisect_left(ordered, last), len(ordered))
        return (
            (first, self._prices_at(first, opens, ordered)),
            (last, self._prices_at(last, closes, ordered)),
        )

    def _prices_at(self, time_ms: int, part: slice, ordered: list[int]) -> set[bytes]:
        if self.times[part] == ordered[part]:
            return set(self.prices[part])
        return set(compress(self.prices, map(time_ms.__eq__, self.times)))


Cut = tuple[int, int]
"""Where a frame begins in many, and where it ends."""


class FrameTrades(NamedTuple):
    """The trades of frames in succession, and how many each has."""

    counts: list[int]
    trades: Trades


class _Pushed(msgspec.Struct, gc=False):
    t: int
    q: Decimal
    interval: str = INTERVAL
    a: Decimal | None = None
    o: Decimal | None = None
    h: Decimal | None = None
    l: Decimal | None = None  # noqa: E741 - the exchange's name
    c: Decimal | None = None
    ro: Decimal | None = None
    rh: Decimal | None = None
    rl: Decimal | None = None
    rc: Decimal | None = None


class _PushedFrame(msgspec.Struct, gc=False):
    data: _Pushed


class _Fetched(msgspec.Struct, gc=False, rename="camel"):
    time: list[int]
    vol: list[Decimal]
    amount: list[Decimal | None] | None = None
    open: list[Decimal | None] | None = None
    high: list[Decimal | None] | None = None
    low: list[Decimal | None] | None = None
    close: list[Decimal | None] | None = None
    real_open: list[Decimal | None] | None = None
    real_high: list[Decimal | None] | None = None
    real_low: list[Decimal | None] | None = None
    real_close: list[Decimal | None] | None = None


_Small = Annotated[int, msgspec.Meta(le=2**63 - 1)]
_Time = Annotated[int, msgspec.Meta(ge=_FIRST_MS, lt=_END_MS)]


class _Usual(msgspec.Struct, gc=False):
    """A trade as it is sent since 2026."""

    p: msgspec.Raw
    v: int
    t: _Time
    i: str
    M: int = 0


class _UsualFrame(msgspec.Struct, gc=False):
    data: tuple[_Usual, ...]


class _Deal(msgspec.Struct, gc=False):
    p: msgspec.Raw
    v: msgspec.Raw
    t: _Time
    T: int | str | None = None
    M: int | str | None = None
    i: int | str | None = None


class _DealFrame(msgspec.Struct, gc=False):
    data: list[_Deal] | _Deal


_decode_pushed = msgspec.json.Decoder(_PushedFrame).decode
_decode_fetched = msgspec.json.Decoder(_Fetched).decode
_decode_usual = msgspec.json.Decoder(_UsualFrame).decode
_decode_deals = msgspec.json.Decoder(_DealFrame).decode
_decode_numbers = msgspec.json.Decoder(list[_Small]).decode
_decode_deal = msgspec.json.Decoder(_Deal).decode
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


def pushed(m: bytes) -> MinuteCandle | None:
    """The candle of a ``push.kline`` frame; None for one of another interval, and for what is none."""
    try:
        said = _decode_pushed(content(m)).data
    except _UNREADABLE:
        return None
    if said.interval != INTERVAL:
        return None
    return _candle(said.t, said.q, said.a, (said.ro, said.rh, said.rl, said.rc), (said.o, said.h, said.l, said.c))


def fetched(m: bytes) -> list[MinuteCandle] | None:
    """The candles in what REST gave, in the order of time; None for anything else."""
    try:
        said = _decode_fetched(content(m))
    except _UNREADABLE:
        return None
    rows = len(said.time)
    columns = (
        said.amount,
        *(said.real_open, said.real_high, said.real_low, said.real_close),
        *(said.open, said.high, said.low, said.close),
    )
    if rows > MOST_CANDLES or len(said.vol) != rows or any(c is not None and len(c) != rows for c in columns):
        return None
    found: dict[int, MinuteCandle] = {}
    for n, time in enumerate(said.time):
        amount, *prices = (None if column is None else column[n] for column in columns)
        candle = _candle(time, said.vol[n], amount, tuple(prices[:4]), tuple(prices[4:]))
        if candle is None:
            return None
        found[candle.start_ms] = candle
    return [found[start] for start in sorted(found)]


_Prices = tuple[Decimal | None, ...]


def _candle(time_s: int, volume: Decimal, amount: Decimal | None, real: _Prices, shown: _Prices) -> MinuteCandle | None:
    """None where a number is none that is reckoned with, or the time begins no minute."""
    start_ms = time_s * 1000
    is_real = all(price is not None for price in real)
    opened, high, low, close = real if is_real else shown
    numbers = [n for n in (volume, amount, opened, high, low, close) if n is not None]
    if start_ms % MINUTE_MS or not _FIRST_MS <= start_ms < _END_MS or not all(map(_is_fit, numbers)):
        return None
    return MinuteCandle(start_ms, volume, amount, opened, high, low, close, is_real)


def deals(m: bytes | memoryview, cuts: Sequence[Cut]) -> list[FrameTrades | None]:
    """What ``push.deal`` frames in succession hold, which are there in ``m``: of as many at once as can be, None for
    one with a trade that cannot be read."""
    try:
        return [_usual(m, cuts)]
    except _UNREADABLE:
        half = len(cuts) // 2
        return deals(m, cuts[:half]) + deals(m, cuts[half:]) if half else [_unusual(bytes(m[slice(*cuts[0])]))]


def _usual(m: bytes | memoryview, cuts: Sequence[Cut]) -> FrameTrades:
    frames = [_decode_usual(m[begin:end]).data for begin, end in cuts]
    trades = list(chain.from_iterable(frames))
    if not trades:
        return FrameTrades([0] * len(frames), Trades())
    prices = b",".join([one.p for one in trades]).split(b",")
    if len(prices) != len(trades):
        raise ValueError("a price has a comma in it")
    for price in set(prices):
        number(price)
    names = [one.i for one in trades]
    keys = _numbers(names)
    return FrameTrades(
        list(map(len, frames)),
        Trades(
            [one.t for one in trades],
            prices,
            [one.v for one in trades],
            keys if keys is not None else [_id(name) for name in names],
            [one.M == 1 for one in trades],
            keys is not None,
        ),
    )


def _numbers(names: list[str]) -> list[int] | None:
    """Ids as numbers, None where one is none."""
    text = ",".join(names)
    if not any(other in text for other in _NO_DIGITS):
        with suppress(msgspec.MsgspecError):  # of a leading nought, or of many digits
            keys = _decode_numbers(f"[{text}]")
            if len(keys) == len(names):
                return keys
    return None


def _id(name: str) -> int | str:
    return int(name) if name.isdecimal() and len(name) <= _LONGEST else name


def _unusual(m: bytes) -> FrameTrades | None:
    """The same of a frame of any other form, such as a compressed one."""
    try:
        data = _decode_deals(content(m)).data
        trades = [_row(said) for said in (data if isinstance(data, list) else (data,))]
    except _UNREADABLE:
        return None
    return FrameTrades([len(trades)], Trades.of(trades))


def deal(m: bytes) -> Trades | None:
    """The trade that was fetched by itself; None for what is none, such as a change of a book."""
    text = content(m)
    if not is_trade(text):
        return None
    try:
        return Trades.of([_row(_decode_deal(text))])
    except _UNREADABLE:
        return None


def _row(said: _Deal) -> _Row:
    price, volume, name = bytes(said.p), number(bytes(said.v)), said.i
    key: object = _id(name) if isinstance(name, str) else name
    if name is None:
        key = (said.t, number(price), volume, str(said.T))
    number(price)
    return said.t, price, volume, key, said.M in (1, "1")


@lru_cache(maxsize=1 << 15)
def number(text: bytes) -> int | Decimal:
    """The number in a JSON text, quoted or not, exactly. ValueError where it is none that is reckoned with."""
    digits = text.strip(b'"')
    if digits.isdigit() and len(digits) <= _LONGEST // 2:
        return int(digits)
    try:
        found = Decimal(digits.decode("ascii"))
    except ArithmeticError as error:
        raise ValueError(f"{text[:_LONGEST]!r} is no number") from error
    if len(digits) > _LONGEST or not _is_fit(found):
        raise ValueError(f"{text[:_LONGEST]!r} is no number that is reckoned with")
    return found


def _is_fit(number: Decimal) -> bool:
    return number.is_finite() and -_LONGEST // 2 <= number.adjusted() <= _LONGEST // 2
