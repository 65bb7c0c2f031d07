"""Pauses between tries that grow. Pure but for the randomness it is given."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Pauses that double from ``first_s`` to ``most_s`` seconds, each between half and whole at random so that those
    who wait for the same do not return together."""

    rng: random.Random
    first_s: float = 0.5
    most_s: float = 30.0
    _tries: int = 0

    def next_s(self) -> float:
        """The next pause in seconds."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return whole * (0.5 + self.rng.random() / 2)

    def reset(self) -> None:
        """Begin again: it has succeeded."""
        self._tries = 0
