"""What the exchange sent against what the files hold, a frame at a time, so that a day's worth needs no memory.

No code of the recorder: frames are told apart with the json module, files read with PyArrow.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mexc_pipeline.simulator import ConnectionInfo, read_connection, read_sent_log
from support.oracle import expected

NAMES = {1: "t", 2: "d", 3: "dp", 4: "dl"}
TAIL_NS = 2_000_000_000
_FILE = re.compile(r"[a-z]+(\d{14})(?:\.part(\d+))?\.parquet")


@dataclass(slots=True)
class Comparison:
    """Of one symbol. ``problems``: everything lost, repeated, changed or out of order, one line each."""

    symbol: str
    sent: int = 0
    held: int = 0
    rows: int = 0
    files: int = 0
    connections: int = 0
    tail: int = 0
    problems: list[str] = field(default_factory=list)


def compare(symbol: str, symbol_id: str, sent_logs: Path, exports: Path) -> Comparison:
    """All frames of a symbol in the order of sending, connection by connection, against its files in order.

    A frame sent in the last two seconds of a connection that broke need not have arrived.
    """
    found = Comparison(symbol)
    waiting: dict[str, deque[Path]] = defaultdict(deque)
    for path in sorted(sent_logs.glob("conn-*.log")):
        # Each symbol has a connection of its own; before it subscribes there are frames of no symbol.
        if next((frame.symbol for frame in read_sent_log(path) if frame.symbol), "") == symbol:
            waiting[read_connection(path).peer].append(path)
    source: Iterator[tuple[int, str, bytes]] = iter(())
    connection: ConnectionInfo | None = None
    orderly = False
    last_seq = last_rx = 0
    for seq, rx, mt, m in _rows(symbol_id, exports, found):
        found.rows += 1
        if seq != last_seq + 1 or rx < last_rx:
            found.problems.append(f"seq {seq} at rx {rx} follows seq {last_seq} at rx {last_rx}")
        last_seq, last_rx = seq, rx
        if mt == "ev":
            event = json.loads(m)
            if event["event"] == "connected":
                _finish(found, connection, orderly, source)
                if not waiting[event["local"]]:
                    found.problems.append(f"seq {seq}: a connection that the exchange does not know")
                    return found
                path = waiting[event["local"]].popleft()
                connection, orderly = read_connection(path), False
                source = _sent(path, symbol)
                found.connections += 1
            orderly |= event["event"] == "disconnected" and event["code"] == 1000
        elif mt not in ("r", "c"):
            found.held += 1
            wanted = next(source, None)
            found.sent += wanted is not None
            if wanted is None or wanted[1:] != (mt, m):
                sent = "nothing" if wanted is None else f"{wanted[1]} {wanted[2][:80]!r}"
                found.problems.append(f"seq {seq} holds {mt} {m[:80]!r} where {sent} was sent")
                return found
    _finish(found, connection, orderly, source)
    found.problems += [f"{path.name}: sent, and no row says so" for paths in waiting.values() for path in paths]
    return found


def _finish(
    found: Comparison, connection: ConnectionInfo | None, orderly: bool, rest: Iterator[tuple[int, str, bytes]]
) -> None:
    """What was sent beyond the last row of a connection: nothing where it ended in order, else a short tail."""
    left = list(rest)
    found.sent += len(left)
    if connection is None or not left:
        return
    closed = connection.closed_ns or 0
    if orderly and connection.end == "client (1000)":
        found.problems.append(f"connection {connection.number} ended in order, {len(left)} frames are missing")
    elif closed - left[0][0] > TAIL_NS:
        found.problems.append(f"connection {connection.number}: {len(left)} frames are missing at its end")
    else:
        found.tail += len(left)


def _sent(path: Path, symbol: str) -> Iterator[tuple[int, str, bytes]]:
    for frame in read_sent_log(path):
        row = expected(frame.opcode, frame.payload, symbol) if frame.whole else None
        if row is not None:
            yield frame.time_ns, NAMES[row.mt], row.m


def _rows(symbol_id: str, exports: Path, found: Comparison) -> Iterator[tuple[int, int, str, bytes]]:
    named: list[tuple[str, int, Path]] = []
    for path in exports.glob(f"{symbol_id}[0-9]*.parquet"):
        match = _FILE.fullmatch(path.name)
        if match is None:
            found.problems.append(f"{path.name} is not a name of an export")
        else:
            named.append((match[1], int(match[2] or 0), path))
    for _, _, path in sorted(named):
        found.files += 1
        table = pq.read_table(path)
        columns = (
            table["seq"].to_pylist(),
            table["rx"].cast(pa.int64()).to_pylist(),
            table["mt"].to_pylist(),
            table["m"].cast(pa.binary()).to_pylist(),
        )
        yield from zip(*columns, strict=True)
