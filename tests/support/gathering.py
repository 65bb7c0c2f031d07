"""An inbox whose rows a test looks at instead of a spool."""

from __future__ import annotations

from collections.abc import Callable

from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.rows import Frame


class Gathered(Inbox):
    """Gives every batch to ``sink`` in the thread that hands it over."""

    def __init__(self, sink: Callable[[list[Frame]], object]) -> None:
        super().__init__()
        self._sink = sink

    def hand_over(self, *, wait: bool = True, coming: int = 0) -> None:
        super().hand_over(wait=False)
        while frames := self.take(0, 1 << 30)[0]:
            self._sink(frames)
