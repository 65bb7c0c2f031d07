"""What trades make of a candle, exactly, and in which of its fields a given candle is not made of them. Pure.

Trades are added up by the spelling of their price, so that each costs no arithmetic of decimals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import NamedTuple, cast

from mexc_pipeline.exchange.candles import MinuteCandle, Trades, number

FIELDS = ("volume", "amount", "open", "high", "low", "close")
"""What is compared."""

EXACT = Context(prec=400)
_NOISE = Decimal("1e-15")
"""Of an amount: what adding up binary floats adds to it for each trade. It shows where it has so many digits:"""
_DOUBLE_DIGITS = 15
_LATEST_MS = 10**13
_BEYOND = 10**80
"""Any id is nearer to nought."""


@dataclass(slots=True)
class Sums:
    """Trades added up: by price ``volumes`` in whole contracts, and ``parts`` of volumes that are not whole. ``opens``
    and ``closes`` are the prices of all trades with the first and the last time: their order within a millisecond is
    not known, and ids have been seen in another order than times."""

    trades: int = 0
    volumes: dict[bytes, int] = field(default_factory=dict)
    parts: dict[bytes, Decimal] = field(default_factory=dict)
    first_ms: int = _LATEST_MS
    last_ms: int = 0
    opens: set[bytes] = field(default_factory=set)
    closes: set[bytes] = field(default_factory=set)
    least: tuple[int, bytes] = (_BEYOND, b"")
    greatest: tuple[int, bytes] = (-_BEYOND, b"")
    """Least and greatest id, and their price; empty where no trade has one."""

    def add(self, trades: Trades) -> None:
        """Have trades added."""
        if not trades.times:
            return
        volumes, so_far = self.volumes, self.volumes.get
        if trades.plain:
            for price, whole in zip(trades.prices, cast(Sequence[int], trades.volumes), strict=True):
                volumes[price] = so_far(price, 0) + whole
        else:
            for price, volume in zip(trades.prices, trades.volumes, strict=True):
                if isinstance(volume, int):
                    volumes[price] = so_far(price, 0) + volume
                else:
                    self.parts[price] = EXACT.add(self.parts.get(price, Decimal(0)), volume)
        self.trades += len(trades.times)
        self._add_ends(trades)
        self._add_ids(trades)

    def _add_ends(self, trades: Trades) -> None:
        (first, opens), (last, closes) = trades.ends()
        if first <= self.first_ms:
            self.opens = {*(self.opens if first == self.first_ms else ()), *opens}
            self.first_ms = first
        if last >= self.last_ms:
            self.closes = {*(self.closes if last == self.last_ms else ()), *closes}
            self.last_ms = last

    def _add_ids(self, trades: Trades) -> None:
        keys = trades.keys
        ids = cast(Sequence[int], keys) if trades.plain else [key for key in keys if isinstance(key, int)]
        if not ids:
            return
        low, high = min(ids), max(ids)
        if low < self.least[0]:
            self.least = low, trades.prices[trades.keys.index(low)]
        if high > self.greatest[0]:
            self.greatest = high, trades.prices[trades.keys.index(high)]

    def __add__(self, other: Sums) -> Sums:
        if not self.trades or not other.trades:
            return self if self.trades else other
        first, last = min(self.first_ms, other.first_ms), max(self.last_ms, other.last_ms)
        both = (self, other)
        return Sums(
            self.trades + other.trades,
            {price: self.volumes.get(price, 0) + other.volumes.get(price, 0) for price in self.volumes | other.volumes},
            {
                price: EXACT.add(*(one.parts.get(price, Decimal(0)) for one in both))
                for price in self.parts | other.parts
            },
            first,
            last,
            {price for one in both if one.first_ms == first for price in one.opens},
            {price for one in both if one.last_ms == last for price in one.closes},
            min(self.least, other.least),
            max(self.greatest, other.greatest),
        )

    def made(self, size: Decimal | None) -> Made:
        """The candle of these trades; ``size``: how much one contract is, None where that is not known."""
        prices = {price: Decimal(number(price)) for price in (*self.volumes, *self.parts)}
        volume = gross = Decimal(0)
        for price in prices:
            contracts = EXACT.add(Decimal(self.volumes.get(price, 0)), self.parts.get(price, Decimal(0)))
            volume = EXACT.add(volume, contracts)
            gross = EXACT.fma(prices[price], contracts, gross)
        numbered = self.least[1], self.greatest[1]
        return Made(
            self.trades,
            volume,
            None if size is None else EXACT.multiply(gross, size),
            max(prices.values(), default=None),
            min(prices.values(), default=None),
            {prices[price] for price in (*self.opens, *numbered[:1]) if price},
            {prices[price] for price in (*self.closes, *numbered[1:]) if price},
        )


class Made(NamedTuple):
    """The candle that trades make: ``amount`` None where it is not known, ``high`` and ``low`` where there are none.
    ``opens``: the prices that may be the first: of the earliest trades, and of that with the least id; ``closes``
    likewise the last."""

    trades: int
    volume: Decimal
    amount: Decimal | None
    high: Decimal | None
    low: Decimal | None
    opens: set[Decimal]
    closes: set[Decimal]

    def wrong(self, candle: MinuteCandle) -> list[str]:
        """The fields in which these trades do not make that candle."""
        wrong: list[str] = []
        if self.volume != candle.volume:
            wrong.append("volume")
        if self.amount is not None and candle.amount is not None and not _same(self.amount, candle.amount, self.trades):
            wrong.append("amount")
        high, low = self.high, self.low
        if high is None or low is None or not candle.volume:  # of a candle without trades prices are those of before
            return wrong
        if not candle.real and candle.open is not None:
            high, low = max(high, candle.open), min(low, candle.open)
        elif candle.open is not None and candle.open not in self.opens:
            wrong.append("open")
        if candle.high not in (None, high):
            wrong.append("high")
        if candle.low not in (None, low):
            wrong.append("low")
        if candle.close is not None and candle.close not in self.closes:
            wrong.append("close")
        return wrong

    def fields(self, candle: MinuteCandle | None) -> dict[str, Decimal | None]:
        """The figures by field: of the prices that may be the first, or the last, that of the candle."""
        return {
            "volume": self.volume,
            "amount": self.amount,
            "open": _of(self.opens, candle.open if candle is not None and candle.real else None),
            "high": self.high,
            "low": self.low,
            "close": _of(self.closes, candle.close if candle is not None else None),
        }


def _of(prices: set[Decimal], theirs: Decimal | None) -> Decimal | None:
    return theirs if theirs in prices else min(prices, default=None)


def _same(own: Decimal, theirs: Decimal, trades: int) -> bool:
    """Whether two amounts are the same; one that was added up in binary floats may be off by its last digits."""
    if own == theirs:
        return True
    if len(theirs.as_tuple().digits) < _DOUBLE_DIGITS:
        return False
    return abs(EXACT.subtract(own, theirs)) <= abs(theirs) * _NOISE * (trades + 1)
