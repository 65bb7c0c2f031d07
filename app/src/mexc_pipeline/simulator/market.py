"""The market of one symbol: a book that lives, trades that eat it, and when each channel pushes.

A pure function of the seed and of the sequence of ticks: it reads no clock and does no I/O.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from mexc_pipeline.simulator.book import Book, Commit, Side

NATURAL_RATE = 0.36 + 4.7 + 3.75
"""Frames/s of ticker, deal and depth.full together for BTC_USDT (measured on the wire, 2026-09)."""

_NATURAL: dict[str, float] = {
    "ticker": 0.36,
    "deal": 4.7,
    "depth": 5.0,
    "depth.full": 3.75,
    "index.price": 1.8,
    "fair.price": 1.2,
    "funding.rate": 1 / 40,
    "kline": 1.0,
    "depth.step": 1.0,
}


class Contract(NamedTuple):
    """What distinguishes one contract: price scale, opening mid price in ticks, contract size."""

    symbol: str
    scale: int
    mid: int
    size_units: int
    size_scale: int


_KNOWN = {
    "BTC_USDT": (1, 763_761, 1, 4),
    "ETH_USDT": (2, 238_459, 1, 2),
    "SOL_USDT": (3, 141_220, 1, 1),
    "DOGE_USDT": (5, 8_010, 100, 0),
    "LINK_USDT": (3, 14_022, 1, 1),
    "RIF_USDT": (5, 8_055, 10, 0),
    "INIT_USDT": (4, 7_542, 1, 0),
}


def contract(symbol: str) -> Contract:
    """Return the contract of a symbol; one that is not known gets figures derived from its name."""
    if symbol in _KNOWN:
        return Contract(symbol, *_KNOWN[symbol])
    digest = hashlib.sha256(symbol.encode()).digest()
    return Contract(symbol, 1 + digest[0] % 5, 5_000 + int.from_bytes(digest[1:3], "big"), 1, digest[3] % 3)


@dataclass(frozen=True)
class MarketSettings:
    """How busy a symbol is.

    `rate` is frames/s of ticker, deal and depth.full together; all other channels scale with it.
    `commit_rate` is book versions per second at the natural rate. `levels` is levels per side,
    `retain` the number of versions the book can be rebuilt for. `keep_deals`: remember all trades.
    """

    rate: float = NATURAL_RATE
    commit_rate: float = 50.0
    levels: int = 200
    retain: int = 200_000
    keep_deals: bool = False


_RECENT = 1000
"""Trades that are remembered; REST shows the newest 100 of those it has come to."""


class Deal(NamedTuple):
    """One trade; `time` in Unix ms; taker 1 buys, 2 sells; opens 1 opens, 2 reduces, 3 unchanged; `version` is the
    book's after it."""

    tick: int
    quantity: int
    taker: int
    opens: int
    own: int
    time: int
    number: int
    version: int


class Merged(NamedTuple):
    """Everything that changed between two merged depth pushes: (side, tick) to (quantity, orders)."""

    begin: int
    end: int
    cts: int
    changes: dict[tuple[Side, int], tuple[int, int]]


@dataclass
class Ticker:
    """Figures of the ticker; prices in ticks, volumes in contracts, amount in tick-contracts."""

    last: int
    last_time: int
    open24: int
    high24: int
    low24: int
    volume24: int
    amount24: int
    hold: int
    index: int
    fair: int
    funding: int  # units of 1e-6


@dataclass
class Candle:
    """A candle of the minute that begins at `start` (Unix s): prices in ticks, volume in contracts, amount in
    tick-contracts; those that end in `others` without trades with oneself. `before` is the close of the one before;
    `first` and `last` are the times of its first and last trade."""

    start: int
    before: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    amount: int = 0
    volume_others: int = 0
    amount_others: int = 0
    first: int = 0
    last: int = 0

    def add(self, tick: int, quantity: int, own: bool, time: int) -> None:
        """Take a trade of that time (Unix ms)."""
        if not self.volume:
            self.high = self.low = tick
        if not self.volume or time < self.first:
            self.open, self.first = tick, time
        if time >= self.last:
            self.close, self.last = tick, time
        self.high, self.low = max(self.high, tick), min(self.low, tick)
        self.volume += quantity
        self.amount += quantity * tick
        if not own:
            self.volume_others += quantity
            self.amount_others += quantity * tick

    def follow(self, close: int) -> None:
        """Begin after this close."""
        self.before = close
        if not self.volume:
            self.open = self.high = self.low = self.close = close


class Activity(NamedTuple):
    """What one tick brought: commits in version order, groups of deals (oldest first), channels due, and whether a
    minute is over."""

    commits: list[Commit]
    deals: list[list[Deal]]
    merged: Merged | None
    due: dict[str, int]
    minute_over: bool = False


_MOST_CANDLES = 3000


def _empty(time: int, close: int) -> Candle:
    return Candle(time // 60_000 * 60, close, close, close, close, close)


class _Pacer:
    """Says how many pushes are due; gaps vary by `jitter` so that channels do not beat in step."""

    def __init__(self, rate: float, jitter: float) -> None:
        self._rate = rate
        self._jitter = jitter
        self._credit = 0.0
        self._need = 1.0

    def due(self, seconds: float, rng: Random) -> int:
        self._credit += seconds * self._rate
        count = 0
        while self._credit >= self._need:
            self._credit -= self._need
            if self._jitter:
                self._need = rng.uniform(1 - self._jitter, 1 + self._jitter)
            count += 1
        return count


class Market:
    """The owner of one symbol's book, trades and ticker."""

    def __init__(self, spec: Contract, seed: int, settings: MarketSettings, now_ms: int) -> None:
        self.spec = spec
        self.recent: deque[Deal] = deque(maxlen=_RECENT)
        self.made: list[Deal] | None = [] if settings.keep_deals else None
        self.candles: deque[Candle] = deque([_empty(now_ms, spec.mid)], maxlen=_MOST_CANDLES)
        """Of each minute from the beginning on, the newest last."""
        self._rng = rng = Random(f"market:{seed}:{spec.symbol}")
        self._floor = settings.levels
        self.book = Book(rng.randrange(5_000_000_000, 38_000_000_000), settings.retain)
        self._deal_number = rng.randrange(16_000_000_000, 17_000_000_000)
        half = rng.randint(0, 1)
        for side, first, step in (("asks", spec.mid + half, 1), ("bids", spec.mid - 1, -1)):
            tick = first
            for _ in range(settings.levels):
                quantity, orders = self._size()
                if tick > 0:
                    self.book.seed("asks" if side == "asks" else "bids", tick, quantity, orders)
                tick += step * rng.choice((1, 1, 1, 2, 3))
        mid = spec.mid
        turnover = rng.randrange(10_000_000, 900_000_000)
        self.ticker = Ticker(
            last=mid,
            last_time=now_ms,
            open24=mid - mid // 1600,
            high24=mid + mid // 90,
            low24=mid - mid // 100,
            volume24=turnover,
            amount24=turnover * mid,
            hold=turnover // 10,
            index=mid + mid // 8000,
            fair=mid - mid // 40000,
            funding=100,
        )
        scale = settings.rate / NATURAL_RATE
        self._commit_pacer = _Pacer(settings.commit_rate * scale, 0.4)
        self._pacers = {name: _Pacer(rate * scale, 0.0 if name == "depth" else 0.4) for name, rate in _NATURAL.items()}
        self._begin = self.book.version + 1
        self._changes: dict[tuple[Side, int], tuple[int, int]] = {}

    def tick(self, seconds: float, now_ms: int) -> Activity:
        """Let `seconds` of market time pass, all of it stamped `now_ms` (Unix ms)."""
        rng = self._rng
        minute_over = now_ms // 60_000 * 60 > self.candles[-1].start
        commits = [self._drift(now_ms - 3) for _ in range(self._commit_pacer.due(seconds, rng))]
        due = {name: pacer.due(seconds, rng) for name, pacer in self._pacers.items()}
        deals = [self._trade_burst(now_ms, commits) for _ in range(due["deal"])]
        if due["depth.full"] and not commits:
            commits.append(self._drift(now_ms - 3))
        for change in commits:
            self._changes[change.side, change.tick] = (change.quantity, change.orders)
        merged = None
        if due["depth"] and self._changes:
            merged = Merged(self._begin, self.book.version, now_ms - 3, self._changes)
            self._begin, self._changes = self.book.version + 1, {}
        self._move_ticker(due)
        self._candle(now_ms)
        return Activity(commits, deals, merged, due, minute_over)

    def reset_versions(self, version: int) -> None:
        """Let the book's versions go on from another one, as after the exchange's own restart."""
        self.book.reset_versions(version)
        self._begin, self._changes = version + 1, {}
        self.recent = deque((deal._replace(version=version) for deal in self.recent), maxlen=_RECENT)

    def _size(self) -> tuple[int, int]:
        orders = 1 + int(self._rng.expovariate(0.7))
        return orders * self._rng.randint(1, 4000) + self._rng.randint(0, 60), orders

    def _drift(self, cts: int) -> Commit:
        """Change one level near the touch; the best prices move when the best level goes or is improved."""
        rng, book = self._rng, self.book
        side: Side = rng.choice(("asks", "bids"))
        away = 1 if side == "asks" else -1
        best = book.best(side)
        spread = book.best("asks") - book.best("bids")
        chance = rng.random()
        if spread > 1 and (chance < 0.10 or spread > 12):
            return book.commit(side, best - away, *self._size(), cts)
        if chance < 0.16 and self._may_delete(side):
            return book.commit(side, best, 0, 0, cts)
        if book.size(side) < self._floor:
            tick = book.nth(side, book.size(side) - 1) + away * rng.randint(1, 3)
            if tick > 0:
                return book.commit(side, tick, *self._size(), cts)
        tick = max(1, best + away * int(rng.expovariate(1 / 8)))
        if book.level(side, tick)[0] and chance > 0.7 and self._may_delete(side):
            return book.commit(side, tick, 0, 0, cts)
        return book.commit(side, tick, *self._size(), cts)

    def _may_delete(self, side: Side) -> bool:
        return self.book.size(side) > self._floor // 2 and self.book.best("bids") > self._floor

    def _trade_burst(self, now_ms: int, commits: list[Commit]) -> list[Deal]:
        count = self._rng.choices((1, 2, 3, 5), (70, 20, 7, 3))[0]
        return [self._trade(now_ms - 2 * (count - 1 - n), now_ms - 3, commits) for n in range(count)]

    def _trade(self, time: int, cts: int, commits: list[Commit]) -> Deal:
        rng, book = self._rng, self.book
        taker = rng.randint(1, 2)
        side: Side = "asks" if taker == 1 else "bids"
        tick = book.best(side)
        quantity, orders = book.level(side, tick)
        taken = min(quantity, 1 + int(rng.expovariate(1 / 60)))
        if taken == quantity and not self._may_delete(side):
            commits.append(book.commit(side, tick, *self._size(), cts))
        elif taken == quantity:
            commits.append(book.commit(side, tick, 0, 0, cts))
        else:
            commits.append(book.commit(side, tick, quantity - taken, max(1, orders - rng.randint(0, 1)), cts))
        self._deal_number += rng.randint(1, 60)
        opens = rng.choices((1, 2, 3), (2, 2, 6))[0]
        deal = Deal(tick, taken, taker, opens, rng.choices((1, 2), (1, 3))[0], time, self._deal_number, book.version)
        self.recent.append(deal)
        if self.made is not None:
            self.made.append(deal)
        candle = self._candle(time)
        candle.add(tick, taken, deal.own == 1, time)
        if candle is not self.candles[-1]:  # a moment ago it was still that one's minute
            self.candles[-1].follow(candle.close)
        figures = self.ticker
        figures.last, figures.last_time = tick, time
        figures.high24, figures.low24 = max(figures.high24, tick), min(figures.low24, tick)
        figures.volume24 += taken
        figures.amount24 += taken * tick
        figures.hold += taken if opens == 1 else -min(taken, figures.hold) if opens == 2 else 0
        return deal

    def _candle(self, time: int) -> Candle:
        """The candle of a time; those of the minutes before it are there too."""
        start = time // 60_000 * 60
        if start - self.candles[-1].start > _MOST_CANDLES * 60:  # a clock that was set by days
            self.candles.append(_empty(time - 60_000, self.candles[-1].close))
        while self.candles[-1].start < start:
            newest = self.candles[-1]
            self.candles.append(_empty((newest.start + 60) * 1000, newest.close))
        return next((candle for candle in reversed(self.candles) if candle.start == start), self.candles[-1])

    def _move_ticker(self, due: dict[str, int]) -> None:
        rng, figures = self._rng, self.ticker
        swing = max(1, self.spec.mid // 20_000)
        if due["index.price"]:
            figures.index = max(1, figures.last + rng.randint(-swing, swing))
        if due["fair.price"]:
            figures.fair = max(1, figures.last + rng.randint(-swing, swing))
        if due["funding.rate"]:
            figures.funding += rng.randint(-5, 5)
