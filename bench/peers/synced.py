"""The least that durable can cost: a bare reader that appends each frame to a plain file and syncs it at once.

Also ``durable_ms``, quantiles of the time from a frame's receipt to the end of its sync.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

from bench.measure import quantile
from bench.peers.bare import connected
from bench.peers.meter import arguments, measure


def main() -> None:
    options = arguments()
    ws = connected(options)
    frames = [0]
    delays: list[float] = []

    def more() -> dict[str, Any]:
        return {"durable_ms": {"p50": quantile(delays, 0.5), "p99": quantile(delays, 0.99)}}

    measure(options, lambda: frames[0], more)
    with tempfile.TemporaryFile(dir=options.folder) as file:
        fd = file.fileno()
        while True:
            m = ws.recv_data()[1]
            received = time.perf_counter()
            os.write(fd, m)
            os.fdatasync(fd)
            delays.append((time.perf_counter() - received) * 1000)
            frames[0] += 1


if __name__ == "__main__":
    main()
