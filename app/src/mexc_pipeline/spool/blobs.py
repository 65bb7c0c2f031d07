"""Large frames to and from SQLite in pieces: bound or fetched as a value, one is copied twice, and a copy stays."""

from __future__ import annotations

import sqlite3

LARGE = 1 << 20
"""Bytes of a frame from which on it goes in pieces, and of a piece."""


def fill(db: sqlite3.Connection, key: int, m: bytes) -> None:
    """Write a frame into the row of that integer key in ``rows``, which is there with none yet, in the same
    transaction."""
    db.execute("UPDATE rows SET m = zeroblob(?) WHERE rowid = ?", (len(m), key))
    view = memoryview(m)
    with db.blobopen("rows", "m", key) as blob:
        for at in range(0, len(m), LARGE):
            blob.write(view[at : at + LARGE])


def fetch(db: sqlite3.Connection, key: int) -> bytes:
    """The frame in the row of that integer key in ``rows``."""
    with db.blobopen("rows", "m", key, readonly=True) as blob:
        return blob.read()
