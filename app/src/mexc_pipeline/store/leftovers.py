"""Names that a server refuses because of a file that it left in its own way.

A server whose databases are ``Ordinary`` (18.16) writes ``<name>.sql.tmp`` before a table has that name, by creation or
by renaming, and takes such a file for another's work in progress. Where its disk failed meanwhile the file stays, and
the name is refused until the database is attached anew, which removes it. Where the disk failed a moment later, as the
file was to be called ``<name>.sql``, the server knows the table, which can be neither dropped nor renamed for want of
that file, or is half renamed and refused by a name that no table has: until the same is done.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from mexc_pipeline.store.engine import UNKNOWN_TABLE, RefusedError

_LEFT = re.compile(r"([^/\s]+)\.sql\.tmp, errno: 17\b|\bFile not found: \S*/metadata/\S*?([^/\s]+)\.sql(?![\w.]*\w)")
STAYS_S = 1.0
"""A file that is seen as long as this was left behind; another statement's is gone sooner."""
FORGET_S = 120.0
"""After so long without it a file that is seen is another one. Longer than whoever is refused waits to try again."""
EVERY_S = 30.0
"""Attaching anew interrupts whoever uses the database."""


_DROP = "DROP TABLE IF EXISTS "


def name_of(error: RefusedError, sql: str = "") -> str:
    """The table or database that ``sql`` was refused for because it is half made or half renamed; empty where the error
    is another."""
    if error.code == UNKNOWN_TABLE and sql.startswith(_DROP):  # "if exists": one that is not there is no error
        return sql.removeprefix(_DROP)
    found = _LEFT.search(str(error))
    return found[1] or found[2] if found else ""


class Leftovers:
    """The names that were refused so, by any of a process's connections; decides when the database has to be attached
    anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, float]] = {}
        self._attached_at = float("-inf")

    def is_due(self, name: str) -> bool:
        """Note such a refusal. True for one caller at a time, which then attaches the database."""
        with self._lock:
            now = self._clock()
            first, last = self._seen.get(name, (now, now))
            if now - last > FORGET_S:
                first = now
            self._seen[name] = first, now
            if now - first < STAYS_S or now - self._attached_at < EVERY_S:
                return False
            self._seen.clear()
            self._attached_at = now
            return True
