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

from decimal import Decimal
from typing import NamedTuple

import msgspec

from mexc_pipeline.exchange.protocol import content

MINUTE_MS = 60_000
INTERVAL = "Min1"
MOST_CANDLES = 2_000
"""In one answer of REST."""
_LONGEST = 76
"""Digits of a number that is read, and how far its first one may be from the point."""
_FIRST_MS, _END_MS = 10**12, 10**13


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


class CountedTrade(NamedTuple):
    """A trade: ``time_ms`` Unix ms, ``volume`` in contracts, ``own``: the exchange marks it as one with oneself
    (``M`` 1). ``key``: what it is known by, its id where it has one (``named``), else time, price, volume and side."""

    time_ms: int
    price: Decimal
    volume: Decimal
    own: bool
    key: object
    named: bool


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


class _Deal(msgspec.Struct, gc=False):
    p: Decimal
    v: Decimal
    t: int
    T: int | str | None = None
    M: int | str | None = None
    i: int | str | None = None
    version: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _DealFrame(msgspec.Struct, gc=False):
    data: list[_Deal] | _Deal


class _Sized(msgspec.Struct, gc=False, rename="camel"):
    contract_size: Decimal | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_pushed = msgspec.json.Decoder(_PushedFrame).decode
_decode_fetched = msgspec.json.Decoder(_Fetched).decode
_decode_deals = msgspec.json.Decoder(_DealFrame).decode
_decode_deal = msgspec.json.Decoder(_Deal).decode
_decode_sized = msgspec.json.Decoder(_Sized).decode
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


def deals(m: bytes) -> list[CountedTrade] | None:
    """The trades of a ``push.deal`` frame; None where one of them cannot be read."""
    try:
        data = _decode_deals(content(m)).data
    except _UNREADABLE:
        return None
    found: list[CountedTrade] = []
    for said in data if isinstance(data, list) else (data,):
        if not (_FIRST_MS <= said.t < _END_MS and _is_fit(said.p) and _is_fit(said.v)):
            return None
        found.append(_deal(said))
    return found


def deal(m: bytes) -> CountedTrade | None:
    """The trade that was fetched by itself; None for what is none, such as a change of a book."""
    try:
        said = _decode_deal(content(m))
    except _UNREADABLE:
        return None
    if said.version is not msgspec.UNSET or not (_FIRST_MS <= said.t < _END_MS and _is_fit(said.p) and _is_fit(said.v)):
        return None
    return _deal(said)


def _deal(said: _Deal) -> CountedTrade:
    own = said.M == 1 or said.M == "1"
    number = said.i
    if number is None:
        return CountedTrade(said.t, said.p, said.v, own, (said.t, said.p, said.v, str(said.T)), False)
    return CountedTrade(said.t, said.p, said.v, own, int(number) if _is_number(number) else number, True)


def _is_number(text: int | str) -> bool:
    return isinstance(text, int) or (len(text) <= _LONGEST and text.isascii() and text.isdigit())


def _is_fit(number: Decimal) -> bool:
    return number.is_finite() and -_LONGEST // 2 <= number.adjusted() <= _LONGEST // 2


def contract_size(m: bytes) -> Decimal | None:
    """How much of the base currency one contract is, by its specification as REST gives it, or in a ``push.contract``;
    None where that does not say."""
    try:
        said = _decode_sized(content(m))
        if said.contract_size is None and isinstance(said.data, msgspec.Raw):
            said = _decode_sized(said.data)
    except _UNREADABLE:
        return None
    size = said.contract_size
    return size if size is not None and _is_fit(size) and size > 0 else None
