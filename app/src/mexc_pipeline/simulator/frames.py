"""Renders one symbol's activity as the exchange's frames: wire key order, unstable number spelling.

Which frames are rendered never changes the market itself: each stream has its own random source.
Key order and spelling: observed on the wire, 2024-11 to 2026-09 (fixtures/README.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from mexc_pipeline.simulator import samples
from mexc_pipeline.simulator.book import Commit, Side
from mexc_pipeline.simulator.market import Activity, Candle, Contract, Deal, Market, MarketSettings, Merged
from mexc_pipeline.simulator.numbers import respell, spell

FULL_LIMITS = (5, 10, 20, 50)
INTERVALS = {
    **{f"Min{n}": 60 * n for n in (1, 5, 15, 30, 60)},
    **{f"Hour{n}": 3600 * n for n in (4, 8)},
    "Day1": 86_400,
    "Week1": 604_800,
    "Month1": 2_592_000,
}
"""Of candles, in seconds."""

_TIMES = re.compile(rb'"(ts|ct)":\d{13}')
_SYMBOL = re.compile(rb'"symbol":"[A-Z_0-9]+"')
_WINDOW = re.compile(rb'"t":\d{10}\b')
_INTERVAL = re.compile(rb'"interval":"\w+"')


class Push(NamedTuple):
    """One market-data frame. `stream` names the subscription variant, `channel` lacks `push.`."""

    symbol: str
    stream: str
    channel: str
    payload: bytes


DealId = Literal["string", "int", "absent"]
"""How a trade says its id."""


@dataclass(frozen=True)
class Style:
    """Spellings and shapes the exchange has used.

    `respelled` is the share of frames with unusual number spellings. `deal_form`: a list since
    2025-08-21, one object before. `deal_id`: a string of digits since 2026, absent before, an
    integer in the documentation. `deal_cts`: present since 2026-06. `rest_deal_id`: ids of the trades of REST, of which
    the documentation has none. `candle_self_trades`: whether volume and amount of candles count trades with oneself
    (`M` 1), of which no documentation tells. `candle_real`: with the prices of the minute's own trades (`ro` …); the
    others reach to the close before (both as captured in 2026).
    """

    respelled: float = 0.25
    deal_form: Literal["list", "object"] = "list"
    deal_id: DealId = "string"
    deal_cts: bool = True
    rest_deal_id: DealId = "absent"
    candle_self_trades: bool = True
    candle_real: bool = True


class Renderer:
    """Turns values of one contract into frames. Owns the spelling's random sources, nothing else."""

    def __init__(self, spec: Contract, seed: int, style: Style) -> None:
        self._spec = spec
        self._seed = seed
        self._style = style
        self._sources: dict[str, Random] = {}

    def source(self, stream: str) -> Random:
        """Return the random source that belongs to one stream of this symbol."""
        if stream not in self._sources:
            self._sources[stream] = Random(f"frames:{self._seed}:{self._spec.symbol}:{stream}")
        return self._sources[stream]

    def _varied(self, stream: str) -> Random | None:
        rng = self.source(stream)
        return rng if rng.random() < self._style.respelled else None

    def price(self, tick: int, rng: Random | None = None) -> str:
        """Spell a price; with a random source, one in three is spelled in an unusual way."""
        text = spell(tick, self._spec.scale)
        return respell(text, rng) if rng is not None and rng.random() < 0.33 else text

    def levels(self, levels: Iterable[tuple[int, int, int]], rng: Random | None = None) -> str:
        """Render levels as the exchange does: price, quantity, orders."""
        return ",".join(f"[{self.price(tick, rng)},{quantity},{orders}]" for tick, quantity, orders in levels)

    def envelope(self, channel: str, data: str, now_ms: int) -> bytes:
        """Render a whole frame around its `data`."""
        return f'{{"symbol":"{self._spec.symbol}","data":{data},"channel":"push.{channel}","ts":{now_ms}}}'.encode()

    def ticker_data(self, market: Market, rng: Random | None = None) -> str:
        """Return the `data` object of `push.ticker`: the real frame's keys in its order."""
        spec, t = self._spec, market.ticker
        change = t.last - t.open24
        rate = spell(change * 10_000 // t.open24, 4)
        values: dict[str, str] = {
            "symbol": f'"{spec.symbol}"',
            "lastPrice": self.price(t.last, rng),
            "riseFallRate": rate,
            "fairPrice": self.price(t.fair, rng),
            "indexPrice": self.price(t.index, rng),
            "volume24": str(t.volume24) if rng is None else respell(str(t.volume24), rng),
            "amount24": spell(t.amount24 * spec.size_units, spec.scale + spec.size_scale),
            "maxBidPrice": self.price(t.last * 11 // 10, rng),
            "minAskPrice": self.price(t.last * 9 // 10, rng),
            "lower24Price": self.price(t.low24, rng),
            "high24Price": self.price(t.high24, rng),
            "timestamp": str(t.last_time),
            "bid1": self.price(market.book.best("bids"), rng),
            "ask1": self.price(market.book.best("asks"), rng),
            "holdVol": str(t.hold),
            "riseFallValue": spell(change, spec.scale),
            "fundingRate": spell(t.funding, 6),
            "zone": '"UTC+8"',
            "riseFallRates": f"[{rate},0.1008,0.2262,0.2628,0.2439,1.0564]",
            "riseFallRatesOfTimezone": f"[0.0065,-0.0013,{rate}]",
        }
        return "{" + ",".join(f'"{key}":{value}' for key, value in values.items()) + "}"

    def deal(self, deal: Deal, rng: Random | None = None) -> str:
        """Return one deal item."""
        text = self._deal(deal, self._style.deal_id, rng)
        if self._style.deal_cts:
            text += f',"cts":"{deal.time}"'
        return text + "}"

    def rest_deal(self, deal: Deal) -> str:
        """Return one trade as REST gives it."""
        return self._deal(deal, self._style.rest_deal_id) + "}"

    def _deal(self, deal: Deal, with_id: DealId, rng: Random | None = None) -> str:
        text = (
            f'{{"p":{self.price(deal.tick, rng)},"v":{deal.quantity},"T":{deal.taker},"O":{deal.opens},'
            f'"M":{deal.own},"t":{deal.time}'
        )
        if with_id != "absent":
            text += f',"i":"{deal.number}"' if with_id == "string" else f',"i":{deal.number}'
        return text

    def deals(self, group: list[Deal], stream: str, now_ms: int) -> list[bytes]:
        """Render deals given oldest first: merged frames hold them newest first (wire, 2026-09-02)."""
        rng = self._varied(stream)
        items = [self.deal(deal, rng) for deal in group]
        if self._style.deal_form == "object":
            return [self.envelope("deal", item, now_ms) for item in items]
        if stream == "deal.each":
            return [self.envelope("deal", f"[{item}]", now_ms) for item in items]
        return [self.envelope("deal", f"[{','.join(reversed(items))}]", now_ms)]

    def merged(self, merged: Merged, now_ms: int) -> bytes:
        """Render all changes of `begin`..`end`, in no order; `version` equals `end`."""
        rng = self.source("depth")
        changes = list(merged.changes.items())
        rng.shuffle(changes)
        varied = self._varied("depth")
        sides: dict[Side, str] = {
            wanted: self.levels(((tick, *level) for (side, tick), level in changes if side == wanted), varied)
            for wanted in ("asks", "bids")
        }
        return self.envelope(
            "depth",
            f'{{"cts":{merged.cts},"asks":[{sides["asks"]}],"bids":[{sides["bids"]}],'
            f'"end":{merged.end},"begin":{merged.begin},"version":{merged.end}}}',
            now_ms,
        )

    def commit_data(self, commit: Commit, rng: Random | None = None) -> str:
        """Return one version as the object of `depth_commits` and of unmerged `push.depth`."""
        level = self.levels([(commit.tick, commit.quantity, commit.orders)], rng)
        asks, bids = (level, "") if commit.side == "asks" else ("", level)
        return f'{{"cts":{commit.cts},"asks":[{asks}],"bids":[{bids}],"version":{commit.version}}}'

    def full(self, market: Market, limit: int, cts: int, now_ms: int) -> bytes:
        """Render the whole top of the book, best first."""
        rng = self._varied(f"depth.full.{limit}")
        asks = self.levels(market.book.top("asks", limit), rng)
        bids = self.levels(market.book.top("bids", limit), rng)
        return self.envelope(
            "depth.full",
            f'{{"cts":{cts},"asks":[{asks}],"bids":[{bids}],"version":{market.book.version}}}',
            now_ms,
        )

    def candle(self, candle: Candle, interval: str) -> dict[str, str]:
        """Return a candle's figures under their names in `push.kline`."""
        spec, others = self._spec, not self._style.candle_self_trades
        amount = (candle.amount_others if others else candle.amount) * spec.size_units
        shown = {
            "o": candle.before,
            "c": candle.close,
            "h": max(candle.high, candle.before),
            "l": min(candle.low, candle.before),
        }
        real = {"ro": candle.open, "rc": candle.close, "rh": candle.high, "rl": candle.low}
        return {
            "symbol": f'"{spec.symbol}"',
            "interval": f'"{interval}"',
            "t": str(candle.start),
            **{name: self.price(tick) for name, tick in shown.items()},
            "a": spell(amount, spec.scale + spec.size_scale),
            "q": str(candle.volume_others if others else candle.volume),
            **({name: self.price(tick) for name, tick in real.items()} if self._style.candle_real else {}),
        }

    def kline(self, candle: Candle, interval: str, now_ms: int) -> bytes:
        """Render a whole `push.kline`, its keys in the order of the captured one."""
        data = ",".join(f'"{name}":{value}' for name, value in sorted(self.candle(candle, interval).items()))
        symbol = self._spec.symbol
        return f'{{"channel":"push.kline","data":{{{data}}},"symbol":"{symbol}","ts":{now_ms}}}'.encode()

    def sampled(self, channel: str, now_ms: int, option: str) -> bytes:
        """Return a real frame of a channel the market does not model, with our symbol and times."""
        frame = samples.of_channel(f"push.{channel}")[0]
        frame = _SYMBOL.sub(b'"symbol":"%b"' % self._spec.symbol.encode(), frame)
        frame = _TIMES.sub(rb'"\1":%d' % now_ms, frame)
        frame = _WINDOW.sub(b'"t":%d' % (now_ms // 60_000 * 60), frame)
        return _INTERVAL.sub(b'"interval":"%b"' % option.encode(), frame)


class SymbolFeed:
    """One symbol's market together with its frames: tick it and get what its subscribers are owed."""

    def __init__(self, spec: Contract, seed: int, settings: MarketSettings, style: Style, now_ms: int) -> None:
        self.spec = spec
        self._changes = 0
        self.market = Market(spec, seed, settings, now_ms)
        self.renderer = Renderer(spec, seed, style)

    def tick(self, seconds: float, now_ms: int, wanted: Iterable[str]) -> list[Push]:
        """Advance the market and render the `wanted` streams, in a fixed order."""
        activity = self.market.tick(seconds, now_ms)
        pushes: list[Push] = []
        for stream in sorted(wanted):
            channel = channel_of(stream)
            pushes += [
                Push(self.spec.symbol, stream, channel, payload)
                for payload in self._render(stream, channel, activity, now_ms)
            ]
        return pushes

    def _render(self, stream: str, channel: str, activity: Activity, now_ms: int) -> list[bytes]:
        render = self.renderer
        if stream == "depth.each":
            rng = render.source(stream)
            return [
                render.envelope("depth", render.commit_data(c, rng if rng.random() < 0.1 else None), now_ms)
                for c in activity.commits
            ]
        if stream == "depth":
            return [render.merged(activity.merged, now_ms)] if activity.merged else []
        if channel == "deal":
            return [f for group in activity.deals for f in render.deals(group, stream, now_ms)]
        if channel == "kline":
            return self._klines(stream.rpartition(".")[2], activity, now_ms)
        return [self._snapshot(stream, channel, now_ms) for _ in range(activity.due[channel])]

    def _klines(self, interval: str, activity: Activity, now_ms: int) -> list[bytes]:
        """The candle that runs, as often as it is due; one that is over once more before the next."""
        newest = self.market.candles[-1].start
        windows = [newest - newest % INTERVALS[interval]] * activity.due["kline"]
        if activity.minute_over and newest % INTERVALS[interval] == 0:
            before = newest - 60
            windows.insert(0, before - before % INTERVALS[interval])
        return [self.renderer.kline(self.candle_of(start, interval), interval, now_ms) for start in windows]

    def candle_of(self, start: int, interval: str) -> Candle:
        """Return the candle of an interval that begins at `start` (Unix s), of the minutes that are there."""
        end = start + INTERVALS[interval]
        inside = [minute for minute in self.market.candles if start <= minute.start < end]
        traded = [minute for minute in inside if minute.volume]
        first = inside[0] if inside else self.market.candles[0]
        return Candle(
            start,
            first.before,
            traded[0].open if traded else first.open,
            max((minute.high for minute in traded), default=first.high),
            min((minute.low for minute in traded), default=first.low),
            (inside or [first])[-1].close,
            sum(minute.volume for minute in inside),
            sum(minute.amount for minute in inside),
            sum(minute.volume_others for minute in inside),
            sum(minute.amount_others for minute in inside),
        )

    def specification(self) -> str:
        """Return the contract's description as REST has it, with keys of the documentation (2026-04)."""
        spec = self.spec
        base, _, quote = spec.symbol.partition("_")
        settle = base if quote == "USD" else quote
        return (
            f'{{"symbol":"{spec.symbol}","displayName":"{spec.symbol} PERPETUAL","baseCoin":"{base}",'
            f'"quoteCoin":"{quote}","settleCoin":"{settle}","contractSize":{spell(spec.size_units, spec.size_scale)},'
            f'"minLeverage":1,"maxLeverage":200,"priceScale":{spec.scale},"volScale":0,'
            f'"priceUnit":{spell(1, spec.scale)},"volUnit":1,"minVol":1,"maxVol":{2_000_000 - self._changes},'
            f'"takerFeeRate":0.0002,"makerFeeRate":0,"maintenanceMarginRate":0.004,"initialMarginRate":0.005,'
            f'"state":0,"isHidden":false,"apiAllowed":true,"openingTime":1591242684000}}'
        )

    def change_specification(self, now_ms: int) -> Push:
        """Change one figure of the contract, and return what is pushed of it: the symbol stands inside of `data` alone
        (official futures WebSocket page, 2026-04; no capture of it is public)."""
        self._changes += 1
        text = f'{{"channel":"push.contract","data":{self.specification()},"ts":{now_ms}}}'
        return Push("", "contract", "contract", text.encode())

    def of_then(self, stream: str, then_ms: int) -> Push:
        """Return a push of a price stamped as one of an earlier time."""
        channel = channel_of(stream)
        return Push(self.spec.symbol, stream, channel, self._snapshot(stream, channel, then_ms))

    def _snapshot(self, stream: str, channel: str, now_ms: int) -> bytes:
        render, market, symbol = self.renderer, self.market, self.spec.symbol
        figures = market.ticker
        if channel == "ticker":
            rng = render.source(stream)
            varied = rng if rng.random() < 0.25 else None
            return render.envelope(channel, render.ticker_data(market, varied), now_ms)
        if channel == "depth.full":
            return render.full(market, int(stream.rpartition(".")[2]), now_ms - 4, now_ms)
        if channel in ("index.price", "fair.price"):
            price = render.price(figures.index if channel == "index.price" else figures.fair)
            return render.envelope(channel, f'{{"symbol":"{symbol}","price":{price}}}', now_ms)
        if channel == "funding.rate":
            settle = (now_ms // 28_800_000 + 1) * 28_800_000
            rate = spell(figures.funding, 6)
            return render.envelope(channel, f'{{"symbol":"{symbol}","rate":{rate},"nextSettleTime":{settle}}}', now_ms)
        return render.sampled(channel, now_ms, stream.rpartition(".")[2])


CHANNELS = (
    "ticker",
    "deal",
    "depth.full",
    "depth.step",
    "depth",
    "index.price",
    "fair.price",
    "funding.rate",
    "kline",
)
UNLINKED = ("tickers", "contract")
"""Channels without a symbol."""


def channel_of(stream: str) -> str:
    """Return the channel a stream belongs to: `depth.full` for `depth.full.20`."""
    for channel in CHANNELS:
        if stream == channel or stream.startswith(channel + "."):
            return channel
    raise ValueError(f"unknown stream {stream}")


def stream_of(method: str, param: dict[str, object]) -> str | None:
    """Return the stream a `sub.` or `unsub.` topic means, None for a topic without symbol or unknown.

    `compress` means merging of updates and defaults to true; `depth.full` without a limit is 20
    (official futures WebSocket page, 2025-04).
    """
    if method in ("deal", "depth"):
        return f"{method}.each" if param.get("compress") is False else method
    if method == "depth.full":
        limit = param.get("limit", 20)
        return f"depth.full.{limit}" if limit in FULL_LIMITS and not isinstance(limit, bool) else None
    if method == "depth.step":
        return f"depth.step.{param.get('step', '10')}"
    if method == "kline":
        interval = param.get("interval", "Min1")
        return f"kline.{interval}" if interval in INTERVALS else None
    return method if method in CHANNELS else None
