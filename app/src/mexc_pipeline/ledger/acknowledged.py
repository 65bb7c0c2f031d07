"""Holes that somebody has looked at and answered for. Pure.

A restore leaves a hole on purpose, a lost disk one that nothing can fill. It stays in every listing for ever; once it
is acknowledged no check fails for it any more: a check that always fails hides the next hole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Rows ``first_seq`` to ``last_seq`` of a symbol are in no file; ``by`` whom, ``at`` (Unix s) and for what
    ``reason`` that was accepted."""

    id: str
    first_seq: int
    last_seq: int
    at: int
    by: str
    reason: str

    def __str__(self) -> str:
        day = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d")
        return f"acknowledged by {self.by} on {day}: {self.reason}"


def acknowledgement(
    known: Iterable[Acknowledged], symbol_id: str, first_seq: int, last_seq: int
) -> Acknowledged | None:
    """The acknowledgement of exactly this hole or a larger one; None where a single row of it was not accepted."""
    for entry in known:
        if entry.id == symbol_id and entry.first_seq <= first_seq and last_seq <= entry.last_seq:
            return entry
    return None
