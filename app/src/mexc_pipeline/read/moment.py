"""The book of one instant out of exported files: which rows it takes, and how it looks as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from mexc_pipeline.errors import UserError
from mexc_pipeline.export.names import FileName
from mexc_pipeline.read.files import tables
from mexc_pipeline.read.numbers import PRICE, VOLUME
from mexc_pipeline.read.rebuild import Book, History, Level, Stored

LATER_NS = 120_000_000_000
"""How long after an instant rows that repair what was before it can come: longer than all tries take."""


def book_at(paths: Sequence[Path], at_ns: int, *, across_gaps: bool = False) -> Book:
    """The book as of ``at_ns`` (Unix ns) from one symbol's files, given in time order.

    Goes back file by file to the newest whole book. UserError where there is none, GapError across missing versions.
    """
    named = [(name, path) for path in paths if (name := FileName.parse(path.name)) is not None]
    after = [path for name, path in named if at_ns < name.start_ns <= at_ns + LATER_NS]
    before = [path for name, path in named if name.start_ns <= at_ns]
    taken: list[list[Stored]] = [list(_rows(after, at_ns))]
    for path in reversed(before):
        taken.insert(0, list(_rows([path], at_ns)))
        history = History(at_ns)
        for rows in taken:
            history.add(rows)
        book = history.book(across_gaps=across_gaps)
        if book is not None:
            return book
    raise UserError(f"no whole book at or before {at_ns} ns in {len(before)} files; depth frames alone do not make one")


def table(book: Book, *, levels: int | None = None, floats: bool = False) -> Any:
    """The book in long form, best level first, with the columns of full-depth books."""
    asks = sorted(book.asks.items())[:levels]
    bids = sorted(book.bids.items(), reverse=True)[:levels]
    rows = [*asks, *bids]
    count = len(rows)

    def repeated(value: int | None, kind: Any) -> Any:
        return pa.array([value] * count, pa.int64()).cast(kind)

    def number(values: Sequence[Decimal | None], kind: Any) -> Any:
        if floats:
            return pa.array([None if v is None else float(v) for v in values], pa.float64())
        try:
            return pa.array(values, kind)
        except pa.ArrowInvalid as error:
            raise ValueError(f"a level does not fit {kind} exactly ({error}); floats=True reads it") from error

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
            "price": number([price for price, _ in rows], PRICE),
            "volume": number([volume for volume, _ in volumes], VOLUME),
            "orders": pa.array([None if n is None else int(n) for _, n in volumes], pa.int64()),
        }
    )


def _rows(paths: Sequence[Path], at_ns: int) -> Iterator[Stored]:
    for found in tables(paths, None, at_ns + LATER_NS, ["dp", "r", "ev"]):
        columns = [
            found.column("seq").to_pylist(),
            found.column("rx").cast(pa.int64()).to_pylist(),
            found.column("ts").cast(pa.int64()).to_pylist(),
            found.column("mt").to_pylist(),
            found.column("m").cast(pa.binary()).to_pylist(),
        ]
        yield from map(Stored._make, zip(*columns, strict=True))
