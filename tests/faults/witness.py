"""A reader beside the recorder: what it saw committed is an obligation, whatever happens to the writer afterwards."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from pathlib import Path
from typing import NamedTuple

EVERY_S = 0.02


class Seen(NamedTuple):
    """When (CLOCK_MONOTONIC ns) the row had been read, and the digest of its ``m``."""

    time_ns: int
    digest: bytes


class Witness:
    """Polls one symbol's spool folder with the sqlite3 module alone, read-only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[int, Seen] = {}
        self._last = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.longest_gap_ns = 0
        """The longest time in which this thread did not get the processor: how busy the machine was."""

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def forget_after(self, time_ns: int) -> None:
        """The power went at that moment: what was read later was read from a machine that was already off."""
        self._seen = {seq: seen for seq, seen in self._seen.items() if seen.time_ns < time_ns}
        self._last = max(self._seen, default=0)

    @property
    def count(self) -> int:
        """How many rows were readable so far; also while it watches."""
        return len(self._seen)

    @property
    def rows(self) -> dict[int, bytes]:
        """seq and SHA-256 of ``m`` of every row that was readable at some moment."""
        return {seq: seen.digest for seq, seen in self._seen.items()}

    def _run(self) -> None:
        before = time.monotonic_ns()
        while not self._stop.wait(EVERY_S):
            now = time.monotonic_ns()
            self.longest_gap_ns = max(self.longest_gap_ns, now - before - int(EVERY_S * 1e9))
            before = now
            for path in sorted(self._folder.glob("*.sqlite"))[-2:]:
                self._look(path)

    def _look(self, path: Path) -> None:
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)
            try:
                rows = db.execute("SELECT seq, m FROM rows WHERE seq > ? ORDER BY seq", (self._last,)).fetchall()
            finally:
                db.close()
        except sqlite3.Error:
            return  # not there, not finished, or just removed: nothing was seen
        now = time.monotonic_ns()
        for seq, m in rows:
            self._seen[seq] = Seen(now, hashlib.sha256(m).digest())
            self._last = max(self._last, seq)
