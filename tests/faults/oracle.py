"""Judges from outside: what the exchange sent on each connection, against what the Parquet files hold.

Nothing of the recorder is used here: frames are classified with the json module, files read with PyArrow.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mexc_pipeline.simulator import ConnectionInfo, MadeTrade, SentFrame
from support.oracle import Ambiguous, expected, unpacked

NAMES = {1: "t", 2: "d", 3: "dp", 4: "dl", 7: "f", 8: "i", 9: "p", 10: "k", 11: "c", 12: "x"}
ACKNOWLEDGED = "reset, all acknowledged"
"""How a connection ends of which the recorder's own system had everything."""
TAIL_NS = 2_000_000_000
"""What was sent in so many nanoseconds before a connection ended without order may not have been committed."""
MINUTE_NS = 60_000_000_000
Shown = Callable[[int, int], list[tuple[int, int]]]
"""What the recorder's clock showed from one true moment to another (Unix ns): each stretch of it, first and last."""
Delay = Callable[[int, int], int]
"""How much later (ns) than on an idle machine what came at one moment (Unix ns) may be done at another."""
_MINUTES = re.compile(r"(\d+) agree with the exchange's candles.*, (\d+) unknown")
_FILE = re.compile(r"([a-z]+)(\d{10}|\d{14})(?:\.part(\d+))?\.parquet")


class Row(NamedTuple):
    seq: int
    rx: int
    mt: str
    m: bytes


@dataclass(slots=True)
class Verdict:
    """What was found. ``tail`` counts frames sent in the last moments of a broken connection and not committed,
    ``unborn`` those of them whose process died before it had committed anything of the connection; ``due`` frames that
    had to be there although their connection broke; ``filled`` trades that were fetched over REST."""

    frames: int = 0
    rows: int = 0
    connections: int = 0
    witnessed: int = 0
    lost: int = 0
    repeated: int = 0
    unexplained: int = 0
    tail: int = 0
    tail_ms: float = 0.0
    unborn: int = 0
    due: int = 0
    filled: int = 0
    violations: list[str] = field(default_factory=list)

    def wrong(self, text: str, *, lost: int = 0, repeated: int = 0, unexplained: int = 0) -> None:
        self.lost += lost
        self.repeated += repeated
        self.unexplained += unexplained or int(not lost and not repeated)
        self.violations.append(text)

    def add(self, other: Verdict) -> None:
        counts = (
            "frames",
            "rows",
            "connections",
            "witnessed",
            "lost",
            "repeated",
            "unexplained",
            "tail",
            "unborn",
            "due",
            "filled",
        )
        for name in counts:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.tail_ms = max(self.tail_ms, other.tail_ms)
        self.violations += other.violations


def read_files(folder: Path, symbol_id: str, verdict: Verdict) -> list[Row]:
    """All rows of a symbol's files in the order of their first rows: a clock that was set back reaches a period again,
    so that names tell nothing. A file that contradicts itself is a violation."""
    found = []
    for path in folder.glob(f"{symbol_id}[0-9]*.parquet"):
        match = _FILE.fullmatch(path.name)
        if match is None:
            verdict.wrong(f"{path.name} is not a name of an export")
            continue
        found.append((match[2], path))
    files: list[list[Row]] = []
    for period, path in sorted(found):
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            verdict.wrong(f"{path.name} cannot be read: {error}")
            continue
        said = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items() if k.startswith(b"mexc.")}
        rx = table["rx"].cast(pa.int64()).to_pylist()
        texts = [m.encode() for m in table["m"].to_pylist()]
        mine = [Row(*r) for r in zip(table["seq"].to_pylist(), rx, table["mt"].to_pylist(), texts, strict=True)]
        if said.get("mexc.digest_m") != hashlib.sha256(b"".join(texts)).hexdigest():
            verdict.wrong(f"{path.name}: its m differ from the digest it carries")
        if said.get("mexc.rows") != str(len(mine)):
            verdict.wrong(f"{path.name}: its metadata says {said.get('mexc.rows')} rows, it has {len(mine)}")
        start = datetime.strptime(period.ljust(14, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        start_ns, edge_ns = int(start.timestamp()) * 10**9, int(said.get("mexc.edge_ns", 0))
        outside = [r.seq for r in mine if not start_ns <= r.rx < edge_ns and b'"sealed"' not in r.m[:20]]
        if outside:
            verdict.wrong(f"{path.name} holds rows of another period: seq {outside[:5]}")
        if [r.seq for r in mine if r.rx < mine[0].rx]:
            verdict.wrong(f"{path.name}: rx goes back within it")
        files.append(mine)
    return [row for mine in sorted(files, key=lambda mine: mine[0].seq if mine else 0) for row in mine]


def check_order(rows: list[Row], verdict: Verdict, first_seq: int = 1) -> None:
    """seq from ``first_seq`` on without hole or repeat; rx never back, unless by more than a minute at a row that says
    that the clock was set back."""
    numbers = [row.seq for row in rows]
    if numbers != list(range(first_seq, first_seq + len(rows))):
        counts = Counter(numbers)
        repeated = sum(n - 1 for n in counts.values())
        holes = sorted(set(range(first_seq, max(numbers, default=first_seq) + 1)) - set(numbers))
        verdict.wrong(
            f"seq has {len(holes)} holes (first {holes[:3]}) and {repeated} repeats",
            lost=len(holes),
            repeated=repeated,
            unexplained=int(not holes and not repeated),
        )
    back = [b.seq for a, b in pairwise(rows) if b.rx < a.rx and not (a.rx - b.rx > MINUTE_NS and _restarts(b))]
    if back:
        verdict.wrong(f"rx goes back at seq {back[:5]}")


def _restarts(row: Row) -> bool:
    said: dict[str, Any] = json.loads(row.m) if row.mt == "ev" else {}
    return said.get("event") == "clock" and said.get("restarted") is True


def check_witness(rows: list[Row], witnessed: Mapping[int, bytes], verdict: Verdict) -> None:
    """Whatever a reader saw committed is in the files as it was."""
    held = {row.seq: row.m for row in rows}
    verdict.witnessed += len(witnessed)
    missing = [seq for seq in witnessed if seq not in held]
    changed = [seq for seq, d in witnessed.items() if seq in held and hashlib.sha256(held[seq]).digest() != d]
    if missing:
        verdict.wrong(f"{len(missing)} committed rows are in no file (first seq {min(missing)})", lost=len(missing))
    if changed:
        verdict.wrong(f"{len(changed)} committed rows changed (first seq {min(changed)})", unexplained=len(changed))


def check_frames(
    rows: list[Row],
    connections: Iterable[ConnectionInfo],
    sent: Iterable[SentFrame],
    symbol: str,
    verdict: Verdict,
    tail_ns: int = TAIL_NS,
    late_ns: int | None = None,
    channels: dict[str, int] | None = None,
    shown: Shown = lambda start_ns, end_ns: [(start_ns, end_ns)],
    stopped: Collection[tuple[int, int]] = (),
    repeats: bool = False,
    held: Delay = lambda start_ns, end_ns: 0,
    served: Collection[bytes] = (),
) -> None:
    """Every connection's frames stand in the files in the order in which they were sent on it; where ``late_ns`` is
    given each has been stamped within so much of being sent, by the recorder's clock as it was ``shown`` then. From
    one to the other moment of ``stopped`` (Unix ns) nobody could read: what was sent then was read at its end.
    With ``repeats`` the deals that were sent again are counted too. What was ``held`` comes on top of both times.
    ``served`` are the contract's specifications, served or pushed: of them alone may there be rows besides."""
    frames: dict[int, list[tuple[int, str, bytes]]] = defaultdict(list)
    for frame in sent:
        if frame.whole and (wanted := _expected(frame, symbol, channels)) is not None:
            frames[frame.conn].append((frame.time_ns, *wanted))
    pushed: list[bytes] = []
    by_peer: dict[str, deque[ConnectionInfo]] = defaultdict(deque)
    for connection in connections:
        by_peer[connection.peer].append(connection)
    got: dict[int, list[tuple[str, bytes]]] = {}
    stamps: dict[int, list[tuple[int, int]]] = defaultdict(list)
    orderly: set[int] = set()
    current = last = 0
    for row in rows:
        event: dict[str, Any] = json.loads(row.m) if row.mt == "ev" else {}
        if event.get("event") == "connected":
            known = by_peer.get(event["local"])
            if not known:
                verdict.wrong(f"seq {row.seq}: a connection that the exchange does not know")
                current = -1
            else:
                current = known.popleft().number
            got[current] = []
        elif event.get("event") == "disconnected" and event["code"] == 1000:
            orderly.add(current)
        elif not event and row.mt != "r" and not (row.mt == "c" and (row.m in served or _is_in(pushed, row.m))):
            if current not in got:
                verdict.wrong(f"seq {row.seq}: a frame before any connection")
                got[current] = []
            got[current].append((row.mt, row.m))
            stamps[current].append((last, row.rx))
            if row.mt == "c":
                pushed.append(_content(row.m))
        last = row.rx
    for connection in connections:
        if connection.number not in got and connection.closed_ns is not None:
            verdict.unborn += len(frames[connection.number])
        elif late_ns is not None:
            sent_ns = [at for at, _, _ in frames[connection.number]]
            _judge_times(connection, sent_ns, stamps[connection.number], late_ns, shown, stopped, held, verdict)
        _compare(connection, frames[connection.number], got.get(connection.number, []), orderly, verdict, tail_ns, held)
    verdict.connections += len(got)
    if repeats:
        _judge_repeats(rows, verdict)


def check_trades(
    rows: list[Row], made: Sequence[MadeTrade], verdict: Verdict, *, shaped: bool = False, whole: bool = False
) -> None:
    """What was fetched of trades was made, is there once, and had not come over the socket, nor came on that connection
    afterwards; on a later one it may come, where the exchange sends its newest again: that is said to be a repeat.
    ``shaped``: the socket's frames were altered, so that they do not tell what came. ``whole``: every trade since the
    first that came is there, or is said, up to where the recorder knew at last."""
    fetched: list[bytes] = []
    fetched_on: dict[bytes, int] = {}
    came: dict[str, int] = {}
    connection = 0
    for row in rows:
        if row.mt == "ev":
            connection += json.loads(row.m)["event"] == "connected"
        elif row.mt == "r" and not {"version", "time"} & json.loads(row.m).keys():
            fetched.append(row.m)
            fetched_on.setdefault(row.m, connection)
        elif row.mt == "d" and not shaped:
            for name in _names(row.m):
                came.setdefault(name, connection)
    missed = Counter(
        trade.m for trade in made if came.get(str(trade.number), len(rows)) > fetched_on.get(trade.m, connection)
    )
    if strange := Counter(fetched) - missed:
        verdict.wrong(f"{strange.total()} trades were fetched that came, or never were: {min(strange)[:120]!r}")
    verdict.filled += len(fetched)
    if not whole or not came:
        return
    known = {str(trade["i"]) for trade in map(json.loads, fetched) if "i" in trade}
    said = [event for row in rows if row.mt == "ev" and (event := json.loads(row.m))["event"] in ("filled", "unfilled")]
    until = max((event["to"] for event in said if event["event"] == "filled"), default=0)
    spans = [(event["from"], event["to"]) for event in said if event["event"] == "unfilled"]
    first = min(map(int, came))
    lost = [
        trade
        for trade in made
        if trade.number > first and trade.time_ms < until and str(trade.number) not in came.keys() | known
        if not any(since <= trade.time_ms <= to for since, to in spans)
    ]
    if lost:
        verdict.wrong(f"{len(lost)} trades are neither there nor said to be missing (id {lost[0].number} first)")


def check_minutes(said: str, verdict: Verdict) -> tuple[int, int]:
    """What ``verify exports`` said of minutes whose trades nothing took or altered: none differs from the exchange's
    candle. Returns how many agree and how many are unknown."""
    if "trades differ" in said:
        verdict.wrong(f"a minute differs that should not: {said[said.index('trades differ') :][:300]}")
    found = _MINUTES.search(said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _content(m: bytes) -> bytes:
    """The text of a frame, however it is packed."""
    said = json.loads(m)
    if "base64" not in said:
        return m
    payload = base64.b64decode(said["base64"])
    return unpacked(payload) or payload


def _is_in(pushes: list[bytes], m: bytes) -> bool:
    """Whether a contract's object stands in one of the frames as it is, and not as a whole one."""
    return any(m != push and m in push for push in pushes)


def _names(m: bytes) -> list[str]:
    """The ids in a frame of deals, however it is packed."""
    data = json.loads(_content(m))["data"]
    return [str(deal["i"]) for deal in (data if isinstance(data, list) else [data]) if "i" in deal]


def _judge_repeats(rows: list[Row], verdict: Verdict) -> None:
    known: set[str] = set()
    again: list[str] = []
    for row in rows:
        if row.mt == "r" and "i" in (trade := json.loads(row.m)):
            known.add(str(trade["i"]))
        for name in _names(row.m) if row.mt == "d" else ():
            if name in known:
                again.append(name)
            known.add(name)
    said = [event for row in rows if row.mt == "ev" and (event := json.loads(row.m))["event"] == "repeated"]
    if (count := sum(event["count"] for event in said)) != len(again):
        verdict.wrong(f"{len(again)} deals were sent again, {count} are said to have been")
    if strange := {name for event in said for name in event["ids"]} - set(again):
        verdict.wrong(f"deals are said to have come again that were sent once: {sorted(strange)[:3]}")


def _judge_times(
    connection: ConnectionInfo,
    sent_ns: list[int],
    stamps: list[tuple[int, int]],
    late_ns: int,
    shown: Shown,
    stopped: Collection[tuple[int, int]],
    held: Delay,
    verdict: Verdict,
) -> None:
    """``stamps``: each row's ``rx`` behind that of the row before it."""
    off = []
    for at, (last, rx) in zip(sent_ns, stamps, strict=False):
        late = late_ns + held(at, at + late_ns)
        # The simulator notes a time beside its write: a receiver that is scheduled sooner stamps before it.
        read_ns = max([at, *(until for since, until in stopped if since - late <= at <= until)])
        ranges = [(min(values), max(values)) for values in shown(at - late, read_ns + late)]
        read = any(low <= rx <= high for low, high in ranges)
        kept = rx == last and any(low < rx <= high + MINUTE_NS for low, high in ranges)  # a clock set back a little
        if not read and not kept:
            off.append(min((rx - value for values in ranges for value in values), key=abs))
    if off:
        worst = max(off, key=abs) / 1e6
        verdict.wrong(f"connection {connection.number}: {len(off)} rows not stamped when sent (by {worst:.0f} ms)")


def _expected(frame: SentFrame, symbol: str, channels: dict[str, int] | None) -> tuple[str, bytes] | None:
    try:
        row = expected(frame.opcode, frame.payload, symbol, channels)
    except Ambiguous:
        return "?", frame.payload
    return None if row is None else (NAMES[row.mt], row.m)


def _compare(
    connection: ConnectionInfo,
    wanted: list[tuple[int, str, bytes]],
    have: list[tuple[str, bytes]],
    orderly: set[int],
    verdict: Verdict,
    tail_ns: int,
    held: Delay,
) -> None:
    where = f"connection {connection.number} ({connection.end or 'open'})"
    verdict.frames += len(have)
    want = [(mt, m) for _, mt, m in wanted]
    same = len(have) <= len(want) and all(
        b == w or (a == "?" and b[1] == w[1]) for b, w, a in zip(have, want, (mt for mt, _ in want), strict=False)
    )
    if not same:
        want_counts, have_counts = Counter(m for _, m in want), Counter(m for _, m in have)
        first = next((i for i, (b, w) in enumerate(zip(have, want, strict=False)) if b != w), min(len(have), len(want)))
        repeated = sum((have_counts - want_counts).values())
        cut = Counter(m for _, m in want[: len(have)])
        lost = sum((cut - have_counts).values())
        verdict.wrong(
            f"{where}: frames differ from what was sent at the {first + 1}th of {len(have)} (sent {len(want)}): "
            f"have {have[first][1][:80] if first < len(have) else b''!r}, "
            f"sent {want[first][1][:80] if first < len(want) else b''!r}",
            lost=lost,
            repeated=repeated,
        )
        return
    missing = len(want) - len(have)
    closed = connection.closed_ns
    due = [closed is not None and closed - at > tail_ns + held(at, closed) for at, _, _ in wanted]
    if connection.number not in orderly:
        verdict.due += sum(due)
    if not missing:
        return
    if connection.number in orderly and connection.end == "client (1000)":  # else the close was not waited for
        verdict.wrong(f"{where}: ended in order, {missing} frames missing at its end", lost=missing)
        return
    if connection.end == ACKNOWLEDGED:
        verdict.wrong(f"{where}: {missing} frames missing that its host had acknowledged", lost=missing)
        return
    if closed is None:
        verdict.wrong(f"{where}: never ended")
        return
    behind = closed - wanted[len(have)][0]
    verdict.tail += missing
    verdict.tail_ms = max(verdict.tail_ms, behind / 1e6)
    if any(due[len(have) :]):
        verdict.wrong(f"{where}: frames up to {behind / 1e6:.0f} ms before its end are missing", lost=missing)
