"""A bare reader that commits each frame to a segment of the spool, on one thread and nothing else: what a synced row of
SQLite costs whoever writes it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.peers.bare import connected
from bench.peers.meter import arguments, measure
from mexc_pipeline.spool.segment import create


def main() -> None:
    options = arguments()
    ws = connected(options)
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
