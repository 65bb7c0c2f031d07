"""Where frames wait for their commit: bounded, so that a slow disk slows the reading down instead of losing rows."""

from __future__ import annotations

import threading
from collections import deque

from mexc_pipeline.rows import Frame

MAX_BYTES = 32 << 20


class Inbox:
    """One reader thread puts, one writer thread takes; order is kept."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._batches: deque[list[Frame]] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._closed = False

    def put(self, batch: list[Frame], *, wait: bool = True) -> None:
        """Add a batch; waits while more than ``max_bytes`` are queued, but for a thread that must not be held up and
        has no more than an event. After :meth:`close` it is refused silently: such frames arrived after the recording
        had ended."""
        size = sum(len(frame.m) for frame in batch)
        with self._changed:
            while wait and self._bytes > self._max_bytes and not self._closed:
                self._changed.wait()
            if self._closed:
                return
            self._batches.append(batch)
            self._bytes += size
            self._changed.notify_all()

    def take(self, timeout_s: float, most: int) -> list[Frame]:
        """All that is queued, whole batches up to about ``most`` frames; waits up to ``timeout_s`` for the first."""
        with self._changed:
            if not self._batches and not self._closed:
                self._changed.wait(timeout_s)
            taken: list[Frame] = []
            while self._batches and len(taken) < most:
                taken += self._batches.popleft()
            self._bytes -= sum(len(frame.m) for frame in taken)
            self._changed.notify_all()
            return taken

    def wake(self) -> None:
        """Let a waiting :meth:`take` return."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """No more batches; what is queued can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def drained(self) -> bool:
        """Closed and empty."""
        with self._changed:
            return self._closed and not self._batches

    @property
    def bytes(self) -> int:
        return self._bytes
