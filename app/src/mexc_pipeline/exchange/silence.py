"""How long MEXC's channels may rest. Seconds; observed, 2026-09, unless it says otherwise. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mexc_pipeline.exchange import channels

_NEVER_S = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class SilenceBounds:
    """Seconds. ``floor`` and ``most`` bound the limit that is learned from a channel's own pace, ``start`` is the limit
    until enough is known."""

    floor: float
    start: float
    most: float


DEAL = SilenceBounds(floor=120.0, start=600.0, most=3600.0)
"""Deals of quiet symbols may rest for long."""
OTHERS = SilenceBounds(floor=30.0, start=60.0, most=300.0)
"""Longest normal silence of depth seen on quiet symbols: 6.4 s; tickers come each 1 to 3 s."""

FUNDING = SilenceBounds(floor=300.0, start=300.0, most=3600.0)
"""One comes each 25 to 60 s."""
KLINE = SilenceBounds(floor=120.0, start=600.0, most=3600.0)
"""Candles come when there are trades."""
CHANGES = SilenceBounds(floor=_NEVER_S, start=_NEVER_S, most=_NEVER_S)
"""What comes only when something changes, or of which nothing is known, may rest for ever."""

RECONNECTING = frozenset({channels.TICKER, channels.DEPTH, channels.FULL_DEPTH})
"""Channels whose silence for twice the limit, after a second request, is no rest of the market."""


_OF = {
    channels.DEAL: DEAL,
    channels.FUNDING: FUNDING,
    channels.KLINE: KLINE,
    channels.CONTRACT: CHANGES,
}


def bounds(channel: str) -> SilenceBounds:
    """The bounds that hold for a channel, whatever its pace."""
    if channel not in channels.ROW_TYPES:
        return CHANGES
    return _OF.get(channel, OTHERS)


def may_rest(channel: str) -> bool:
    """Whether the silence of a channel never says anything, nor its frames that others should come."""
    return bounds(channel) is CHANGES
