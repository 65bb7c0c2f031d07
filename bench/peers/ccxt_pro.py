"""ccxt.pro watching book, trades and ticker: it parses, keeps a book, hands over the newest state, and stores nothing.

It has no full-depth channel, so it gets incremental depth. Frames of a flood repeat: most of its book updates are then
older than its book and skipped, which is in its favour.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ccxt.pro

from bench.peers.meter import arguments, measure


async def _watch(exchange: Any, method: str, symbol: str) -> None:
    while True:
        await getattr(exchange, method)(symbol)


async def _run() -> None:
    options = arguments()
    settings = {"defaultType": "swap", "fetchMarkets": {"types": ["swap"]}, "fetchCurrencies": False}
    exchange = ccxt.pro.mexc({"options": settings, "enableRateLimit": False})
    exchange.has["fetchCurrencies"] = False
    exchange.urls["api"]["ws"]["swap"] = options.url
    exchange.urls["api"]["contract"]["public"] = f"{options.rest}/api/v1/contract"
    frames = [0]
    handle = exchange.handle_message

    def counted(client: Any, message: Any) -> None:
        frames[0] += 1
        handle(client, message)

    exchange.handle_message = counted
    exchange.markets = None
    exchange.set_markets(await exchange.fetch_swap_markets())
    measure(options, lambda: frames[0], dict)
    symbol = options.symbol.replace("_", "/") + ":USDT"
    await asyncio.gather(
        *(_watch(exchange, method, symbol) for method in ("watch_ticker", "watch_trades", "watch_order_book"))
    )


def main() -> None:
    asyncio.run(_run())


if __name__ == "__main__":
    main()
