"""The original pipeline's shape: websocket-client as it comes, ``json``, one INSERT per message. Nothing is synced."""

from __future__ import annotations

import json
import time
from typing import Any

import websocket
from clickhouse_driver import Client

from bench.measure import quantile
from bench.peers.meter import arguments, measure, subscriptions

_KINDS = {"push.ticker": "t", "push.deal": "d", "push.depth.full": "dp"}
_TABLE = "CREATE TABLE IF NOT EXISTS default.original (ts Int64, mt String, m String) ENGINE = StripeLog"


def main() -> None:
    options = arguments()
    client = Client("127.0.0.1", port=options.port)
    client.execute(_TABLE)
    ws = websocket.WebSocket()
    ws.connect(options.url)  # type: ignore[no-untyped-call]
    for request in subscriptions(options.symbol):
        ws.send(request)
    frames = [0]
    queryable_ms: list[float] = []

    def more() -> dict[str, Any]:
        ordered = queryable_ms.copy()
        return {"queryable_ms": {"p50": quantile(ordered, 0.5), "p99": quantile(ordered, 0.99)}} if ordered else {}

    measure(options, lambda: frames[0], more)
    while True:
        text = ws.recv()
        began = time.monotonic()
        message = json.loads(text)
        kind = _KINDS.get(message.get("channel", ""))
        if kind is not None:
            row = (int(message["ts"]), kind, json.dumps(message["data"]))
            client.execute("INSERT INTO default.original (ts, mt, m) VALUES", [row])
            queryable_ms.append((time.monotonic() - began) * 1000)
            frames[0] += 1


if __name__ == "__main__":
    main()
