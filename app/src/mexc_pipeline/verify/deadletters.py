"""What was received and not understood: files of which too much is dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from mexc_pipeline.exchange.deadletters import reason, too_many
from mexc_pipeline.read.files import tables

_OURS = ("ev", "r")
"""Rows that are no received frames."""


def warning(symbol_id: str, symbol: str, path: Path, counts: Mapping[str, int]) -> str | None:
    """One line where too many of a file's frames are dead letters, with what is wrong with them; None otherwise.

    ``counts``: rows per type of the file, which has been read whole. It is no failure of the file: what it holds is
    what was received.
    """
    frames = sum(count for mt, count in counts.items() if mt not in _OURS)
    dead = counts.get("dl", 0)
    if not too_many(dead, frames):
        return None
    reasons: Counter[str] = Counter()
    for table in tables([path], types=["dl"]):
        reasons.update(reason(m, symbol).value for m in table.column("m").cast(pa.binary()).to_pylist())
    why = ", ".join(f"{count:,} {name}" for name, count in reasons.most_common())
    return f"warn {symbol_id} {path.name}: {dead:,} of {frames:,} frames are dead letters ({why})"
