"""Moves a segment's write-ahead log into its file beside the writer, so that no commit has to.

An automatic checkpoint inside a commit takes the commit's p99 from 1 to 7 ms at 100 rows. A log is written over from
its start only once all of it has been moved. A commit that comes while it is moved (at 200 a second, the rule) makes it
longer instead, without an end. Hence two steps: most of it beside the writer; then, between two commits, the rest and
the return to the start. Its size, which never shrinks, does not say how much of it has still to be moved.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

from mexc_pipeline.spool.segment import connect

log = logging.getLogger("mexc_pipeline.spool")

EVERY_S = 0.5
FROM_BYTES = 4 << 20
"""So much is left to gather: each checkpoint syncs two files, and commits that meet it wait for the disk."""
RESET_WAIT_S = 0.01
"""How long a checkpoint waits for a moment between two commits, and then for readers, who keep the writer waiting as
well."""
COMMIT_BYTES = 8192
"""What a commit adds to the log beside its frames: the page it goes on with, and half a new one or more."""


class Checkpointer:
    """A thread with a connection of its own that checkpoints the log of the watched segment whenever it has grown by
    ``FROM_BYTES``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while a checkpoint runs: watch() waits for it
        self._path: Path | None = None
        self._db: sqlite3.Connection | None = None
        self._grown = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def watch(self, path: Path | None) -> None:
        """Turn to another segment, or to none; the former one is let go when this returns."""
        with self._lock:
            self._path = path
            self._grown = _log_size(path) if path is not None else 0
            if self._db is not None:
                self._db.close()
                self._db = None

    def grown(self, content: int) -> None:
        """A commit has put ``content`` bytes of frames into the log; from the writer's thread."""
        self._grown += content + COMMIT_BYTES

    def close(self) -> None:
        """End the thread and let go of the segment."""
        self._stop.set()
        self._thread.join()
        self.watch(None)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            with self._lock:
                if self._path is None or self._grown < FROM_BYTES:
                    continue
                self._grown = 0
                try:
                    if self._db is None:
                        self._db = connect(self._path, readonly=False, timeout_s=RESET_WAIT_S)
                    is_done = run_checkpoint(self._db)
                except sqlite3.Error as error:
                    # The log stays as it is and is tried again; the writer notices a disk that truly fails.
                    is_done = False
                    log.warning("checkpoint failed", extra={"fields": {"error": str(error)}})
                if not is_done:
                    self._grown += FROM_BYTES


def run_checkpoint(db: sqlite3.Connection) -> bool:
    """Move a log into its file; returns whether the next commit begins at the log's start again. Raises
    sqlite3.Error."""
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    return not busy


def _log_size(path: Path) -> int:
    """Bytes of a segment's log, 0 where it has none; a log that was left by a crash may need a checkpoint at once."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        return 0
