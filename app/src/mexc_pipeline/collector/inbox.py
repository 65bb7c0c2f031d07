"""Where frames wait for their commit: bounded, so that a slow disk slows the reading down instead of losing rows."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from mexc_pipeline.rows import Frame

MAX_BYTES = 32 << 20


class Inbox:
    """Readers put, one writer thread takes; order is kept.

    The queue itself is the interpreter's own: at some tens of frames a second what a frame costs is waking the writer.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._batches: SimpleQueue[list[Frame]] = SimpleQueue()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._room = threading.Condition()  # holds _bytes and _closed; notified when there is room again
        self._closed = False

    def put(self, batch: list[Frame], *, wait: bool = True) -> None:
        """Add a batch; waits while more than ``max_bytes`` are queued, but for a thread that must not be held up and
        has no more than an event. After :meth:`close` it is refused silently: such frames arrived after the recording
        had ended."""
        size = sum(len(frame.m) for frame in batch)
        with self._room:
            while wait and self._bytes > self._max_bytes and not self._closed:
                self._room.wait()
            if self._closed:
                return
            self._bytes += size
            self._batches.put(batch)

    def take(self, timeout_s: float, most: int) -> list[Frame]:
        """All that is queued, whole batches up to about ``most`` frames; waits up to ``timeout_s`` for the first."""
        taken: list[Frame] = []
        try:
            taken += self._batches.get(timeout=0 if self._closed else timeout_s)
        except Empty:
            return taken
        while len(taken) < most and not self._batches.empty():  # nobody else takes
            taken += self._batches.get_nowait()
        if taken:
            with self._room:
                self._bytes -= sum(len(frame.m) for frame in taken)
                self._room.notify_all()
        return taken

    def wake(self) -> None:
        """Let a waiting :meth:`take` return."""
        self._batches.put([])

    def close(self) -> None:
        """No more batches; what is queued can still be taken."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self.wake()

    @property
    def drained(self) -> bool:
        """Closed and empty."""
        with self._room:
            return self._closed and self._batches.empty()

    @property
    def bytes(self) -> int:
        return self._bytes
