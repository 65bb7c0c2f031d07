"""`push.tickers`: all contracts in one frame, the first a full list, later ones what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from mexc_pipeline.simulator.frames import SymbolFeed
from mexc_pipeline.simulator.numbers import spell

_INTERVAL = 1 / 0.44
"""Seconds between pushes (measured on the wire, 2026-09)."""


class AllTickers:
    """Renders the listed symbols and as many invented contracts as it takes to fill the rows."""

    def __init__(self, seed: int, rows: int) -> None:
        self._rng = Random(f"tickers:{seed}")
        self._rows = rows
        self._left = 0.0
        self._full = True

    def full_next(self) -> None:
        """Somebody subscribed: the next frame comes at once and is the full list."""
        self._full, self._left = True, 0.0

    def tick(
        self, seconds: float, now_ms: int, feeds: Mapping[str, SymbolFeed], least_bytes: Callable[[], int]
    ) -> list[bytes]:
        """Return the frames due; `least_bytes` is asked once per frame how large it must at least be."""
        self._left -= seconds
        if self._left > 0:
            return []
        self._left += _INTERVAL if self._left > -_INTERVAL else _INTERVAL - self._left
        share = 1.0 if self._full else self._rng.uniform(0.25, 0.7)
        self._full = False
        rows = [self._row(symbol, feed.market.ticker.last, feed.spec.scale, now_ms) for symbol, feed in feeds.items()]
        rows += [self._invented(n, now_ms) for n in range(max(0, int(self._rows * share) - len(rows)))]
        size, wanted = sum(map(len, rows)), least_bytes()
        while size < wanted:
            rows.append(self._invented(len(rows), now_ms))
            size += len(rows[-1])
        return [f'{{"channel":"push.tickers","data":[{",".join(rows)}],"ts":{now_ms}}}'.encode()]

    def _invented(self, number: int, now_ms: int) -> str:
        return self._row(f"COIN{number}_USDT", self._rng.randint(1_000, 90_000), 4, now_ms)

    def _row(self, symbol: str, last: int, scale: int, now_ms: int) -> str:
        price = spell(last, scale)
        volume = self._rng.randint(1_000, 900_000_000)
        return (
            f'{{"symbol":"{symbol}","lastPrice":{price},"riseFallRate":{spell(self._rng.randint(-900, 900), 4)},'
            f'"fairPrice":{price},"indexPrice":{price},"volume24":{volume},"amount24":{spell(volume * last, scale)},'
            f'"maxBidPrice":{spell(last * 11 // 10, scale)},"minAskPrice":{spell(last * 9 // 10, scale)},'
            f'"lower24Price":{spell(last * 98 // 100, scale)},"high24Price":{spell(last * 102 // 100, scale)},'
            f'"timestamp":{now_ms}}}'
        )
