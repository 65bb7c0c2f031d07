"""The rows of a spool folder, read with the sqlite3 module alone, and what must hold of them."""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import struct
from pathlib import Path
from typing import Any, NamedTuple

FRAMES = (1, 2, 3, 4, 7, 8, 9, 10, 11, 12)
CODES = {
    name: code for code, name in enumerate(("t", "d", "dp", "dl", "ev", "r", "f", "i", "p", "k", "c", "x"), start=1)
}
"""What files call the row types."""
CONTRACT = CODES["c"]


class Stored(NamedTuple):
    seq: int
    rx: int
    ts: int
    mt: int
    m: bytes


class Segment(NamedTuple):
    file: str
    meta: dict[str, Any]
    rows: list[Stored]


def read_segments(folder: Path) -> list[Segment]:
    """Every segment file of a folder in the order of its rows."""
    found = [_segment(path) for path in folder.glob("*.sqlite")]
    return sorted(found, key=lambda s: s.rows[0].seq if s.rows else 0)


def _segment(path: Path, tries: int = 3) -> Segment:
    """One file; read again where its writer took the log's index away in the moment in which it was opened."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        meta = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}
        rows = [Stored._make(row) for row in db.execute("SELECT seq, rx, ts, mt, m FROM rows ORDER BY seq")]
    except sqlite3.OperationalError:
        if tries == 1:
            raise
        return _segment(path, tries - 1)
    finally:
        db.close()
    return Segment(path.name, meta, rows)


def read_rows(folder: Path) -> list[Stored]:
    return [row for segment in read_segments(folder) for row in segment.rows]


def digests(rows: list[Stored]) -> dict[str, str]:
    """The six column digests by the contract's words."""
    columns = {
        "seq": b"".join(struct.pack("<Q", r.seq) for r in rows),
        "rx": b"".join(struct.pack("<q", r.rx) for r in rows),
        "ts": b"".join(struct.pack("<q", r.ts) for r in rows),
        "mt": bytes(r.mt for r in rows),
        "len": b"".join(struct.pack("<I", len(r.m)) for r in rows),
        "m": b"".join(r.m for r in rows),
    }
    return {name: hashlib.sha256(data).hexdigest() for name, data in columns.items()}


def digest(rows: list[Stored]) -> str:
    found = digests(rows)
    return hashlib.sha256(
        b"".join(bytes.fromhex(found[name]) for name in ("seq", "rx", "ts", "mt", "len", "m"))
    ).hexdigest()


def check(folder: Path, first_seq: int = 1) -> list[Stored]:
    """Assert what holds of every spool folder, whatever happened; return its rows."""
    segments = read_segments(folder)
    rows = [row for segment in segments for row in segment.rows]
    assert [r.seq for r in rows] == list(range(first_seq, first_seq + len(rows))), "seq has a hole or a repeat"
    begins = {s.rows[0].seq for s in segments if s.rows}
    for before, row in itertools.pairwise(rows):
        if row.rx < before.rx:
            assert row.seq in begins, f"rx went back at seq {row.seq} within a segment"
            assert restarted(row), f"rx went back at seq {row.seq} and no event says so"
    for segment in segments:
        assert [r.rx for r in segment.rows] == sorted(r.rx for r in segment.rows)
        edge, length = segment.meta["edge_ns"], segment.meta["period_ns"]
        own = [r for r in segment.rows if not r.m.startswith(b'{"event":"sealed"')]
        assert all(edge - length <= r.rx < edge for r in own), f"{segment.file} holds a row of another period"
        if segment.meta["state"] == "open":
            assert len(own) == len(segment.rows)
            continue
        assert len(segment.rows) - len(own) == 1
        assert segment.rows[-1].m.startswith(b'{"event":"sealed"'), "sealed is not the last row"
        assert segment.rows[-1].rx < edge or segment.rows[-1].rx == own[-1].rx
        assert segment.meta["digests"] == digests(segment.rows)
        assert segment.meta["digest"] == digest(segment.rows)
        assert segment.meta["rows"] == len(segment.rows)
        assert segment.meta["bytes"] == sum(len(r.m) for r in segment.rows)
    assert sum(s.meta["state"] == "open" for s in segments) <= 1
    return rows


def restarted(row: Stored) -> bool:
    """Whether the row says that the clock went back and rx with it."""
    said = json.loads(row.m) if row.mt == 5 else {}
    return said.get("event") == "clock" and said.get("restarted") is True and said["step_ms"] <= 0


def is_fetched(mt: int, m: bytes) -> bool:
    """Whether a row is a contract's specification as REST has it: what is pushed of one names its channel."""
    return mt == CONTRACT and "channel" not in json.loads(m)


def specifications(rows: list[Stored]) -> list[bytes]:
    """What was fetched of the contract itself, in the order of the rows."""
    return [row.m for row in rows if is_fetched(row.mt, row.m)]


def events(rows: list[Stored]) -> list[dict[str, Any]]:
    """The event rows, parsed, with their seq."""
    return [{**json.loads(r.m), "seq": r.seq} for r in rows if r.mt == 5]


def named(rows: list[Stored], name: str) -> list[dict[str, Any]]:
    return [e for e in events(rows) if e["event"] == name]


def by_connection(rows: list[Stored]) -> list[list[Stored]]:
    """The rows of each connection, from its ``connected`` event on."""
    groups: list[list[Stored]] = []
    for row in rows:
        if row.mt == 5 and row.m.startswith(b'{"event":"connected"'):
            groups.append([])
        if groups:
            groups[-1].append(row)
    return groups
