"""What was received and not understood: dead letters in files, and files of which too much is dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from mexc_pipeline import health
from mexc_pipeline.exchange.deadletters import LEAST, Letters
from mexc_pipeline.read.files import tables


def in_file(path: Path, symbol: str) -> Letters:
    """The dead letters of a file. FileError where it cannot be read."""
    letters = Letters()
    for table in tables([path], types=["dl"]):
        for m in table.column("m").cast(pa.binary()):
            letters.add(m.as_py(), symbol)
    return letters


def warning(symbol_id: str, symbol: str, path: Path, counts: Mapping[str, int]) -> str | None:
    """One line where too many of a file's frames are dead letters, of all or of one type, with what is wrong with them;
    None otherwise.

    ``counts``: rows per type of the file, which has been read whole. It is no failure of the file: what it holds is
    what was received.
    """
    if counts.get("dl", 0) < LEAST:
        return None
    letters = in_file(path, symbol)
    said = [
        f"{unread.dead:,} of {unread.frames:,} {unread.of} are dead letters ({health.wrong_with(letters)})"
        for unread in health.of_dead_letters(counts, letters)
    ]
    return f"warn {symbol_id} {path.name}: {'; '.join(said)}" if said else None
