"""What a feed hands its rows to, as far as the feed knows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from mexc_pipeline.rows import Frame


class Intake(Protocol):
    """Where received rows get their time and wait for their commit; shared by all who add rows to one recording."""

    @property
    def lock(self) -> threading.Lock:
        """The lock that a thread which adds frame by frame holds from :meth:`stamp` to :attr:`add`."""
        ...

    @property
    def add(self) -> Callable[[Frame], None]:
        """Queues one frame that was stamped."""
        ...

    def stamp(self) -> int:
        """The ``rx`` (Unix ns) of what has just been received."""
        ...

    def note(self, mt: int, m: bytes) -> None:
        """Stamp and add one row."""
        ...

    def hand_over(self, *, coming: int = 0) -> None:
        """Take note that all that is there for the moment was added, and a frame of ``coming`` bytes is on its way; may
        block to slow the caller down."""
        ...

    def put(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Stamp, add and hand over rows of one moment."""
        ...
