"""A bare reader that commits each frame to a segment of the spool, on one thread and nothing else: what a synced row of
SQLite costs whoever writes it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import websocket

from bench.peers.meter import arguments, measure, subscriptions
from mexc_pipeline.spool.segment import create


def main() -> None:
    options = arguments()
    ws = websocket.WebSocket(skip_utf8_validation=True)
    ws.connect(options.url)  # type: ignore[no-untyped-call]
    for request in subscriptions(options.symbol):
        ws.send(request)
    frames = [0]
    measure(options, lambda: frames[0], dict)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        db = create(Path(folder) / "2000010100.sqlite", {})
        while True:
            m = ws.recv_data()[1]
            frames[0] += 1
            db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", (frames[0], time.time_ns(), 0, 1, m))


if __name__ == "__main__":
    main()
