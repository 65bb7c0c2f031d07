"""The same seq of a symbol given twice, told from who gave which: files, segments and tables as stretches of seq. Pure.

A spool gives each seq once, so that copies of its rows in other places are no repeat. Two spools (a disk that was lost
or not mounted, a restored backup, two hosts) must not have given the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Given(NamedTuple):
    """Rows of a symbol ``first_seq`` to ``last_seq``, without a hole, that one ``source`` (a spool id, say) gave;
    ``where`` is the place that has them, for people."""

    id: str
    source: str
    first_seq: int
    last_seq: int
    where: str


class Repeat(NamedTuple):
    """Rows ``first_seq`` to ``last_seq`` that both have, each from a source of its own; ``one`` begins first."""

    one: Given
    other: Given
    first_seq: int
    last_seq: int

    @property
    def rows(self) -> int:
        """How many rows both have."""
        return self.last_seq - self.first_seq + 1


def joined(held: Iterable[Given]) -> list[Given]:
    """The stretches, with what one source gave in one go as one given, named by where it begins; by symbol and seq."""
    runs: list[Given] = []
    for given in sorted(e for e in held if 0 < e.first_seq <= e.last_seq):
        run = runs[-1] if runs else None
        if run is not None and run[:2] == given[:2] and given.first_seq <= run.last_seq + 1:
            runs[-1] = run._replace(last_seq=max(run.last_seq, given.last_seq))
        else:
            runs.append(given)
    return sorted(runs, key=lambda e: (e.id, e.first_seq, e.last_seq, e.source))


def repeats(held: Iterable[Given]) -> list[Repeat]:
    """Every seq that more than one source gave lies in one of these, and no other. What is empty gives nothing."""
    found: list[Repeat] = []
    furthest: Given | None = None  # of those before: where it ends, all others have ended
    for given in joined(held):
        if furthest is not None and furthest.id == given.id:
            if given.first_seq <= furthest.last_seq:
                last = min(given.last_seq, furthest.last_seq)
                found.append(Repeat(furthest, given, given.first_seq, last))
            if given.last_seq <= furthest.last_seq:
                continue
        furthest = given
    return found
