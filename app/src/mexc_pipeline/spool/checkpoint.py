"""Moves a segment's write-ahead log into its file beside the writer, so that no commit has to.

An automatic checkpoint inside a commit takes the commit's p99 from 1 to 7 ms at 100 rows.
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


class Checkpointer:
    """A thread with a connection of its own that folds the log of the watched segment once it has grown."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while a checkpoint runs: watch() waits for it
        self._path: Path | None = None
        self._db: sqlite3.Connection | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def watch(self, path: Path | None) -> None:
        """Turn to another segment, or to none; the former one is let go when this returns."""
        with self._lock:
            self._path = path
            if self._db is not None:
                self._db.close()
                self._db = None

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.watch(None)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            with self._lock:
                if self._path is None:
                    continue
                try:
                    if self._path.with_name(self._path.name + "-wal").stat().st_size < FROM_BYTES:
                        continue
                    if self._db is None:
                        self._db = connect(self._path, readonly=False, timeout_s=0)
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                except (OSError, sqlite3.Error) as error:
                    # The log stays as it is and is tried again; the writer notices a disk that truly fails.
                    log.warning("checkpoint failed", extra={"fields": {"error": str(error)}})
