"""How long a channel may be silent before that means something, learned from its own silences. Pure; seconds."""

from __future__ import annotations

from dataclasses import dataclass

from mexc_pipeline.exchange.silence import SilenceBounds

LEARNED = 20
"""Gaps between frames from which a channel's own pace counts."""
CERTAIN = 500
"""Gaps from which a silence far beyond it is strong evidence."""
MEMORY_S = 3600.0
"""After so long the longest silence counts half: a market's night passes."""


@dataclass(slots=True)
class Pace:
    """Gaps between the frames of one channel: how many, their mean, and the longest of late."""

    gaps: int = 0
    mean: float = 0.0
    longest: float = 0.0

    def observe(self, gap: float) -> None:
        """Take in a gap of so many seconds between two frames."""
        self.gaps += 1
        self.mean += (gap - self.mean) / min(self.gaps, 200)
        faded = self.longest * 0.5 ** (gap / MEMORY_S)
        self.longest = gap if gap > faded else faded

    def limit(self, within: SilenceBounds) -> float:
        """The silence from which the channel counts as stalled: four times its longest, twenty times its usual one.

        Were frames to come at random, the second alone would be wrong once in 10⁸ gaps.
        """
        if self.gaps < LEARNED:
            return within.start
        return min(within.most, max(within.floor, 4 * self.longest, 20 * self.mean))

    @property
    def certain(self) -> bool:
        """Whether enough is known that even a channel that may rest can be called dead."""
        return self.gaps >= CERTAIN
