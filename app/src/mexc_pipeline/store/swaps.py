"""What the loader saw when it swapped a table out: how many rows had arrived since the edge. One file per symbol.

A line per swap in ``data_dir/store/<id>.swaps``, added and never changed, some hundred bytes an hour. Losing it loses
this one figure of the ledger and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from mexc_pipeline.paths import append_line, regular

MOST = 16 << 20
"""Bytes of a symbol's file that are read, its newest: years of them."""

log = logging.getLogger("mexc_pipeline.store")


def _path(data_dir: Path, symbol_id: str) -> Path:
    return data_dir / "store" / f"{symbol_id}.swaps"


def note(data_dir: Path, symbol_id: str, file: str, rows: int) -> None:
    """The table of the segment that becomes ``file`` was swapped out; ``rows`` had arrived after it by then."""
    line = json.dumps({"file": file, "buffered": rows}, separators=(",", ":"))
    try:
        append_line(_path(data_dir, symbol_id), line.encode())
    except OSError as error:  # loading goes on without the figure
        log.warning("swap not noted", extra={"fields": {"file": file, "error": str(error)}})


def noted(data_dir: Path, symbol_id: str) -> dict[str, int]:
    """Rows by file, of every swap that was noted; the newest where a table was swapped twice."""
    try:
        with open(_path(data_dir, symbol_id), "rb", opener=regular) as swaps:
            swaps.seek(max(0, swaps.seek(0, os.SEEK_END) - MOST))
            lines = swaps.read(MOST).splitlines()
    except OSError:  # no store has ever run here, or this user may not look
        return {}
    found: dict[str, int] = {}
    for line in lines:
        try:
            swap = json.loads(line)
            found[str(swap["file"])] = int(swap["buffered"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # half a line, or damaged
    return found
