"""Run by the simulator's Python on the network guest: what the exchange sent, and to whom.

Usage: sent.py LOG_DIR [SYMBOL]
Prints JSON: a list of connections in order, each with number, peer, opened_ns, closed_ns, end, symbol (null
before its first data frame) and frames (SHA-256 in hex of each whole data frame; only for SYMBOL's connections).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from mexc_pipeline.simulator.sentlog import read_connection, read_sent_log


def main() -> None:
    """Print the connections."""
    wanted = sys.argv[2] if len(sys.argv) > 2 else None
    found = []
    for path in Path(sys.argv[1]).rglob("conn-*.log"):
        info = read_connection(path)
        symbol, frames = None, []
        for frame in read_sent_log(path):
            if not frame.symbol:
                continue  # pongs and answers to subscriptions
            symbol = symbol or frame.symbol
            if symbol != wanted:
                break
            if frame.whole:
                frames.append(hashlib.sha256(frame.payload).hexdigest())
        found.append({
            "number": info.number, "peer": info.peer, "opened_ns": info.opened_ns, "closed_ns": info.closed_ns,
            "end": info.end, "symbol": symbol, "frames": frames,
        })  # fmt: skip
    print(json.dumps(sorted(found, key=lambda c: c["opened_ns"])))  # noqa: T201


main()
