"""The book of one instant out of exported files: which rows it takes, and how it looks as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Raw

from mexc_pipeline.errors import UserError
from mexc_pipeline.events import Clock, Disconnected, GivenUp, Sealed, Stalled, Started, Stopped, begin
from mexc_pipeline.events import read as event_of
from mexc_pipeline.exchange.channels import DEPTH, FULL_DEPTH
from mexc_pipeline.exchange.deadletters import meant, reason
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.export.order import Placed
from mexc_pipeline.export.parquet import metadata
from mexc_pipeline.periods import DAY_NS
from mexc_pipeline.read.files import Next, Unknown, last_at, last_rx, rows_after, tables
from mexc_pipeline.read.numbers import NULL, PRICE, VOLUME, NotNumbers, column
from mexc_pipeline.read.rebuild import GapError, History, Level, RebuiltBook, Stored
from mexc_pipeline.rows import MT_CODES

LATER_NS = 120_000_000_000
"""How long after an instant rows that repair what was before it can come: longer than all tries take."""

_OF_A_BOOK = pa.array(["dp", "r", "ev", "dl"], pa.string())
_ENDS = (begin(Disconnected), begin(Stopped), begin(Started), begin(GivenUp), begin(Stalled))
NO_EVENT = "an event that cannot be read"
_PASSED_OVER = (begin(Sealed), begin(Clock))
"""What may stand before the row that tells whether the recording went on. A whole period is sealed at its end, whenever
its last row came."""


class BookAt(NamedTuple):
    """The book of an instant; the seqs at which the host's clock was set back from after the instant to before it; why
    the dead letters from the book's snapshot to the instant are dead letters, and how many frames of depth and dead
    letters lie there; why the book may have changed unseen by the instant, empty where nothing says so; the rows of
    unknown types in what was read."""

    book: RebuiltBook
    set_back: list[int]
    dead: Counter[str]
    frames: int
    stale: str
    unknown: Unknown


def book_at(files: Sequence[Placed], at_ns: int, *, across_gaps: bool = False) -> BookAt:
    """The book as of ``at_ns`` (Unix ns) from one symbol's files, given in the order of their rows.

    What counts is the last row in that order with rx ≤ ``at_ns``, and all before it: where the host's clock was set
    back, an instant may have been recorded twice, and the later recording is the one by the corrected clock. From its
    file back to the newest snapshot. UserError where there is none, GapError across missing versions.
    """
    here, last = _last(files, at_ns)
    last_seq = last.seq
    after = [file.path for file in files[here + 1 :] if file.name.start_ns <= at_ns + LATER_NS]
    dead: dict[int, str] = {}
    unknown = Unknown()
    taken: list[list[Stored]] = [list(_rows(after, at_ns, dead, unknown))]
    for place in range(here, -1, -1):
        # What was recorded before a clock was set back may have times of after the instant.
        taken.insert(0, list(_rows([files[place].path], at_ns if place == here else None, dead, unknown)))
        history = History(last_seq)
        for rows in taken:
            history.add(rows)
        book = history.book(across_gaps=across_gaps)
        if history.without_snapshot and 0 < place == here:
            continue  # each file has a snapshot near its beginning: the one before has it, if any
        if book is not None:
            since = range(book.since, last_seq + 1)
            of_depth = {row.seq for rows in taken for row in rows if row.mt == "dp"}
            return BookAt(
                book,
                _set_back(files[: here + 1], at_ns),
                Counter(why for seq, why in dead.items() if seq in since),
                sum(seq in since for seq in of_depth | dead.keys()),
                _broken_off(book, taken, last_seq)
                or _not_recorded([f.path for f in files[here:]], last, at_ns, book.channel),
                unknown,
            )
    letters = f"; {len(dead):,} dead letters lie in them" if dead else ""
    letters += f"; {unknown.said}" if unknown.counts else ""
    raise UserError(
        f"no snapshot of the book at or before {at_ns} ns in {here + 1} files; "
        f"depth frames alone do not make one{letters}"
    )


def _last(files: Sequence[Placed], at_ns: int) -> tuple[int, Next]:
    """Place of the last file that has a row with rx ≤ ``at_ns``, and that row; -1 and seq 0 without one."""
    for place in range(len(files) - 1, -1, -1):
        if files[place].name.start_ns <= at_ns and (row := last_at(files[place].path, at_ns)):
            return place, row
    return -1, Next(0, 0, "", b"")


def _broken_off(book: RebuiltBook, taken: Sequence[Sequence[Stored]], last_seq: int) -> str:
    """What ended the book's stream between its newest row and the instant."""
    for row in (row for rows in taken for row in rows if book.row.seq < row.seq <= last_seq):
        if row.mt == "ev" and (name := _ends(row.m, book.channel)):
            return f"`{name}` at seq {row.seq} lies between the two"
    return ""


def _ends(m: bytes, channel: str) -> str:
    """The event's name where no frame of the channel comes after it until another one says so."""
    if not m.startswith(_ENDS):
        return ""
    said = event_of(m) or {}
    return str(said["event"]) if said.get("channel", channel) == channel and "event" in said else ""


def _not_recorded(paths: Sequence[Path], last: Next, at_ns: int, channel: str) -> str:
    """Why what arrived between the last row with rx ≤ the instant and the instant would be in no file. ``paths``: from
    that row's file on."""
    if last.rx == at_ns:
        return ""
    expected = last.seq + 1
    for row in rows_after(paths, last.seq):
        if row.seq != expected:
            return f"rows {expected} to {row.seq - 1} after it are in no file"
        if row.mt not in MT_CODES:
            return f"the row after it, seq {row.seq}, is of the type {row.mt}, which is not known"
        if row.mt == "ev" and event_of(row.m) is None:
            return f"the row after it, seq {row.seq}, is {NO_EVENT}"
        if not row.m.startswith(_PASSED_OVER):
            name = _ends(row.m, channel)
            return f"nothing was received after seq {last.seq} until `{name}` at seq {row.seq}" if name else ""
        expected += 1
    return f"the files end before it, with seq {last.seq}"


def _set_back(files: Sequence[Placed], at_ns: int) -> list[int]:
    """First seqs of the files that go on before an instant which the file before them had passed."""
    past = [file.name.start_ns > at_ns or (_holds(file, at_ns) and last_rx(file.path) > at_ns) for file in files]
    return [after.first_seq for (was, now), after in zip(pairwise(past), files[1:], strict=False) if was and not now]


def _holds(file: Placed, at_ns: int) -> bool:
    return file.name.start_ns <= at_ns < file.name.start_ns + DAY_NS


def table(book: RebuiltBook, *, levels: int | None = None, floats: bool = False) -> Any:
    """The book in long form, best level first, with the columns of full-depth books."""
    asks = sorted(book.asks.items())[:levels]
    bids = sorted(book.bids.items(), reverse=True)[:levels]
    rows = [*asks, *bids]
    count = len(rows)

    def repeated(value: int | None, kind: Any) -> Any:
        return pa.array([value] * count, pa.int64()).cast(kind)

    def number(name: str, values: Sequence[Decimal | None], kind: Any) -> Any:
        raws = [NULL if v is None else Raw(str(v).encode()) for v in values]
        try:
            return column(raws, kind, floats=floats)
        except NotNumbers as error:
            raise GapError(f"the book at {book.row.place} cannot be read: {name}: {error.why}") from error

    volumes: list[Level] = [level for _, level in rows]
    return pa.table(
        {
            "rx": repeated(book.row.rx, pa.timestamp("ns", "UTC")),
            "ts": repeated(book.row.ts, pa.timestamp("ms", "UTC")),
            "seq": repeated(book.row.seq, pa.uint64()),
            "version": repeated(book.version, pa.int64()),
            "cts": repeated(book.cts, pa.timestamp("ms", "UTC")),
            "side": pa.array(["ask"] * len(asks) + ["bid"] * len(bids), pa.string()),
            "level": pa.array([*range(1, len(asks) + 1), *range(1, len(bids) + 1)], pa.int32()),
            "price": number("price", [price for price, _ in rows], PRICE),
            "volume": number("volume", [volume for volume, _ in volumes], VOLUME),
            "orders": number("orders", [orders for _, orders in volumes], pa.int64()),
        }
    )


def _rows(paths: Sequence[Path], at_ns: int | None, dead: dict[int, str], unknown: Unknown) -> Iterator[Stored]:
    """Rows that matter to a book. ``dead`` gets the seq of each dead letter, and what is wrong with it; ``unknown`` is
    told of all rows."""
    for path in paths:
        symbol = metadata(path).get("symbol", "")
        until = None if at_ns is None else at_ns + LATER_NS
        for table in tables([path], None, until):
            unknown.take(table, path)
            found = table.filter(pc.is_in(table.column("mt"), _OF_A_BOOK))
            columns = [
                found.column("seq").to_pylist(),
                found.column("rx").cast(pa.int64()).to_pylist(),
                found.column("ts").cast(pa.int64()).to_pylist(),
                found.column("mt").to_pylist(),
                found.column("m").cast(pa.binary()).to_pylist(),
            ]
            for seq, rx, ts, mt, m in zip(*columns, strict=True):
                if mt == "ev" and event_of(m) is None:
                    unknown.note(seq, path, NO_EVENT)
                if mt != "dl":
                    yield Stored(seq, rx, ts, mt, content(m), path.name)
                    continue
                dead[seq] = reason(m, symbol).value
                if meant(m, symbol) in (DEPTH, FULL_DEPTH):
                    yield Stored(seq, rx, ts, "dp", content(m), path.name)
