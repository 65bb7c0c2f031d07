"""websocket-client that reads frames and does nothing with them, its slow check of UTF-8 off as ours has it."""

from __future__ import annotations

import argparse

import websocket

from bench.peers.meter import arguments, measure, subscriptions


def connected(options: argparse.Namespace) -> websocket.WebSocket:
    """A connection with one symbol's channels asked for."""
    ws = websocket.WebSocket(skip_utf8_validation=True)
    ws.connect(options.url)  # type: ignore[no-untyped-call]
    for request in subscriptions(options.symbol):
        ws.send(request)
    return ws


def main() -> None:
    options = arguments()
    ws = connected(options)
    frames = [0]
    measure(options, lambda: frames[0], dict)
    receive = ws.recv_data
    while True:
        receive()
        frames[0] += 1


if __name__ == "__main__":
    main()
