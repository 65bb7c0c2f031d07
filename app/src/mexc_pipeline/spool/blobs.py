"""Large frames to and from SQLite in pieces: bound or fetched as a value, one is copied twice, and a copy stays."""

from __future__ import annotations

import sqlite3

LARGE = 1 << 20
"""Bytes of a frame from which on it goes in pieces, and of a piece."""
MOST = 96 << 20
"""Bytes that no frame has: the largest that is read at all has 64 MiB, and is a third longer where it is wrapped."""
_MOST_ROW = MOST + LARGE


class TooLargeError(ValueError):
    """A frame that nobody of ours stored."""


def limit(db: sqlite3.Connection) -> None:
    """Have SQLite refuse, before it takes any memory, each value that is larger than any of ours."""
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_ROW)


def fill(db: sqlite3.Connection, key: int, m: bytes) -> None:
    """Write a frame into the row of that integer key in ``rows``, which is there with none yet, in the same
    transaction."""
    db.execute("UPDATE rows SET m = zeroblob(?) WHERE rowid = ?", (len(m), key))
    view = memoryview(m)
    with db.blobopen("rows", "m", key) as blob:
        for at in range(0, len(m), LARGE):
            blob.write(view[at : at + LARGE])


def fetch(db: sqlite3.Connection, key: int) -> bytes:
    """The frame in the row of that integer key in ``rows``. TooLargeError, with nothing read, where it is none."""
    with db.blobopen("rows", "m", key, readonly=True) as blob:
        if len(blob) > MOST:
            raise TooLargeError(f"a frame of {len(blob):,} bytes, which nobody stored")
        return blob.read()
