"""The order in which things of a symbol were recorded: by the sequence of their rows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def by_seq(items: Sequence[T], *, of: Callable[[T], str], name: Callable[[T], Any], seq: Callable[[T], int]) -> list[T]:
    """Sort by symbol (``of``) and ``seq``. What has no seq (0) comes right after the one that its ``name`` follows: a
    guess, but the best there is, and what is known is in order whatever becomes of the rest."""
    ranked: list[tuple[str, int, int, T]] = []
    symbol, before = "", 0
    for place, item in enumerate(sorted(items, key=lambda item: (of(item), name(item)))):
        known = seq(item)
        before = known or (before if symbol == of(item) else 0)
        symbol = of(item)
        ranked.append((symbol, before, -1 if known else place, item))
    return [item for *_, item in sorted(ranked, key=lambda r: r[:3])]
