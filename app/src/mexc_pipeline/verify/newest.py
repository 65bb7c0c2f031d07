"""The newest rows of a symbol in words, so that a person can see that what is recorded makes sense."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mexc_pipeline.exchange.legible import lacking_in_words
from mexc_pipeline.read import decode
from mexc_pipeline.read.decode import Skipped
from mexc_pipeline.read.files import newest
from mexc_pipeline.rows import MT_CODES
from mexc_pipeline.text import clean

_WIDTH = 110
_READERS = {
    "t": decode.tickers,
    "d": decode.trades,
    "dp": decode.book,
    "f": decode.funding,
    "i": decode.prices,
    "p": decode.prices,
    "k": decode.klines,
    "c": decode.contracts,
}


def newest_lines(symbol: str, paths: Sequence[Path], rows: int) -> list[str]:
    """One line per row: type, receive time, seq, and what the frame says. Paths in time order."""
    lines: list[str] = []
    for mt in MT_CODES:
        said: list[str] = []
        unread: list[str] = []
        for table in newest(paths, mt, rows):
            found = (table.slice(n, 1) for n in range(len(table)))
            said[:0] = [f"     {symbol} {mt:<2} {_head(row)} {_say(mt, row)}" for row in found]
            unread += _unread(mt, table)
            del table, found
        if unread and len(unread) == len(said):
            lines.append(f"warn {symbol}: {_sentence(mt, unread)}")
        lines += said
    return lines


def unreadable(paths: Sequence[Path], rows: int) -> list[str]:
    """A sentence for each type of which readers leave all of the newest ``rows`` out, or lack in all of them what was
    always there. Paths in time order."""
    said: list[str] = []
    for mt in _READERS:
        looked_at = 0
        unread: list[str] = []
        for table in newest(paths, mt, rows):
            looked_at += len(table)
            unread += _unread(mt, table)
            del table
        if unread and len(unread) == looked_at:
            said.append(_sentence(mt, unread))
    return said


def _sentence(mt: str, unread: Sequence[str]) -> str:
    return f"the newest frames of type {mt} {clean(unread[-1], _WIDTH)}"


def _unread(mt: str, table: Any) -> list[str]:
    """What is wrong with a frame, for each that readers leave out or find less in than there always was."""
    build = _READERS.get(mt)
    found: list[str] = []
    if build is None:
        return found
    for n in range(len(table)):
        skipped = Skipped()
        build(table.slice(n, 1), skipped)
        if skipped.seqs:
            found.append(f"cannot be read: {skipped.why}")
        elif said := lacking_in_words(MT_CODES[mt], table.column("m")[n].as_py().encode()):
            found.append(said)
    return found


def _head(row: Any) -> str:
    rx = row.column("rx").cast("int64")[0].as_py()
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(rx // 10**9))
    return f"{text}.{rx % 10**9:09d} seq {row.column('seq')[0].as_py()}:"


def _say(mt: str, row: Any) -> str:
    """What a frame says; its beginning as it is where it is not decoded."""
    said: list[str] = []
    try:
        if mt == "t":
            said = [f"last {_n(r['last'])} bid {_n(r['bid'])} ask {_n(r['ask'])}" for r in _rows(decode.tickers, row)]
        elif mt == "d":
            said = [f"{r['side']} {_n(r['volume'])} at {_n(r['price'])}" for r in _rows(decode.trades, row)]
        elif mt == "dp":
            said = [f"{r['side']} {_n(r['volume'])} at {_n(r['price'])}" for r in _rows(_best, row)]
        elif mt == "f":
            said = [f"{_n(r['rate'])}, settled {_at(r['next_settle'])}" for r in _rows(decode.funding, row)]
        elif mt in ("i", "p"):
            said = [f"{'index' if mt == 'i' else 'fair'} {_n(r['price'])}" for r in _rows(decode.prices, row)]
        elif mt == "k":
            said = [
                f"{r['interval']} from {_at(r['start'])} open {_n(r['open'])} high {_n(r['high'])} low {_n(r['low'])} "
                f"close {_n(r['close'])} volume {_n(r['volume'])}"
                for r in _rows(decode.klines, row)
            ]
        elif mt == "c":
            said = [
                f"{r['symbol']} contract {_n(r['contract_size'])} {r['base'] or ''} price unit {_n(r['price_unit'])} "
                f"state {'–' if r['state'] is None else r['state']}"
                for r in _rows(decode.contracts, row)
            ]
    except ValueError as error:
        said = [str(error)]
    if said:
        return clean(", ".join(said), _WIDTH)
    start = memoryview(row.column("m")[0].as_buffer())[: 4 * _WIDTH + 4]  # the rest may be large, and is not shown
    return clean(bytes(start), _WIDTH)


def _best(row: Any, skipped: Skipped) -> Any:
    return decode.book(row, skipped, levels=1)


def _rows(build: Any, row: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = build(row, Skipped()).to_pylist()
    return rows


def _at(time: Any) -> str:
    return "–" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _n(value: Any) -> str:
    """A decimal without its padding."""
    return "–" if value is None else f"{value.normalize():f}"
