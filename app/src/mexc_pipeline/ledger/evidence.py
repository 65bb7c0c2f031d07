"""Evidence in rows of trades, of the exchange's candles, and of when deals were recorded: the part of a recording that
minutes are judged by. Pure; times Unix ms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from mexc_pipeline.events import (
    Connected,
    Disconnected,
    Filled,
    GivenUp,
    Resumed,
    Stalled,
    Started,
    Stopped,
    Subscribed,
    Unfilled,
    begin,
)
from mexc_pipeline.exchange import candles
from mexc_pipeline.exchange.candles import Cut, FrameTrades, MinuteCandle, Trades
from mexc_pipeline.exchange.channels import DEAL
from mexc_pipeline.exchange.contracts import contract_size
from mexc_pipeline.exchange.deadletters import Reason, meant, reason
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.rows import Mt

FRAMES = (Mt.TICKER, Mt.DEAL, Mt.DEPTH)
"""Types of rows that come by the thousand."""

_EVENTS = tuple(
    begin(kind)
    for kind in (Started, Stopped, Connected, Disconnected, Subscribed, Stalled, GivenUp, Resumed, Filled, Unfilled)
)
_OBSCURE = (Reason.NO_MESSAGE, Reason.BINARY, Reason.NOT_UTF8, Reason.TOO_LARGE, Reason.NOT_JSON, Reason.NOT_OBJECT)
"""Dead letters of which nobody knows what they are."""


class FrameEvidence(NamedTuple):
    """Frames in succession: the exchange's time of each, 0 where it has none; of those of deals the places among them
    and how many trades each has, and all these trades."""

    times: list[int]
    places: list[int]
    deals: FrameTrades

    def made_at(self, place: int) -> Sequence[int]:
        """The times of the trades in the frame at that place."""
        if place not in self.places:
            return []
        at = self.places.index(place)
        before = sum(self.deals.counts[:at])
        return self.deals.trades.times[before : before + self.deals.counts[at]]


class TradeEvidence(NamedTuple):
    """Trades that came without a time of their frame, or were fetched (``filled``); None: they cannot be read."""

    trades: Trades | None
    filled: bool = False


class CandleEvidence(NamedTuple):
    """Candles in the order of time; ``ts`` the time of a pushed one's frame."""

    ts: int | None
    candles: list[MinuteCandle]
    fetched: bool


class SizeEvidence(NamedTuple):
    """How much of the base currency one contract is; None: it is said and cannot be read."""

    size: Decimal | None


class EventEvidence(msgspec.Struct, gc=False):
    """What happened to the recording of deals, or of another channel."""

    event: str
    channel: str = ""
    first: int | None = msgspec.field(default=None, name="from")
    last: int | None = msgspec.field(default=None, name="to")


Evidence = FrameEvidence | TradeEvidence | CandleEvidence | SizeEvidence | EventEvidence

_decode_event = msgspec.json.Decoder(EventEvidence).decode


def evidence(symbol: str, rx: int, ts: int, mt: int, m: bytes) -> Evidence | None:
    """The evidence in a row of trades and candles of the exchange's ``symbol``, None where there is none. ``rx`` is in
    ns; ``m`` of tickers and depth is not looked at."""
    match mt:
        case Mt.TICKER | Mt.DEAL | Mt.DEPTH:
            return next(frames([own_ts(rx, ts)], *(([0], m, [(0, len(m))]) if mt == Mt.DEAL else ([], m, []))))
        case Mt.EVENT:
            return _event(m)
        case Mt.KLINE:
            pushed = candles.pushed(m)
            return CandleEvidence(ts, [pushed], False) if pushed is not None else None
        case Mt.REPAIRED:
            one = candles.deal(m)
            if one is not None:
                return TradeEvidence(one, True)
            found = candles.fetched(m)
            return CandleEvidence(None, found, True) if found is not None else None
        case Mt.CONTRACT:
            return SizeEvidence(contract_size(content(m)))
        case Mt.DEAD_LETTER:
            return _letter(symbol, m)
    return None


def _letter(symbol: str, m: bytes) -> TradeEvidence | None:
    """What a dead letter says: deals, or that there may have been some, where it cannot be told what it is."""
    if meant(m, symbol) == DEAL:
        found = _deals_in(m)
        return TradeEvidence(found.trades if found is not None else None)
    if reason(m, symbol) in _OBSCURE:  # looked at first: what is too large for us is not unpacked once more
        return TradeEvidence(None)
    found = _deals_in(m)
    return TradeEvidence(None) if found is not None and found.trades.times else None


def _deals_in(m: bytes) -> FrameTrades | None:
    (found,) = candles.deals(m, [(0, len(m))])
    return found


def own_ts(rx: int, ts: int) -> int:
    """A row's ``ts``; 0 where it is ``rx`` (ns) and not of the frame, or happens to be the same."""
    return 0 if ts == rx // 1_000_000 else ts


def frames(times: list[int], places: list[int], m: bytes | memoryview, cuts: Sequence[Cut]) -> Iterator[Evidence]:
    """What frames in succession say, by their own times, and those of deals by their places among them and in ``m``."""
    begin = at = 0
    for run in candles.deals(m, cuts):
        if run is None:
            if begin < places[at]:
                yield FrameEvidence(times[begin : places[at]], [], FrameTrades([], Trades()))
            yield TradeEvidence(None)
            begin, at = places[at] + 1, at + 1
        else:
            after = at + len(run.counts)
            end = places[after] if after < len(places) else len(times)
            yield FrameEvidence(times[begin:end], [n - begin for n in places[at:after]] if begin else places, run)
            begin, at = end, after
    if begin < len(times):
        yield FrameEvidence(times[begin:], [], FrameTrades([], Trades()))


def _event(m: bytes) -> EventEvidence | None:
    if not m.startswith(_EVENTS):
        return None
    try:
        return _decode_event(m)
    except (msgspec.MsgspecError, RecursionError):  # none of ours
        return None
