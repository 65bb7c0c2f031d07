"""Who uses which exit, now and in the past: from ``egress_log`` and from the collectors of this host.

Seconds are Unix seconds, as the log keeps them. A use begins with a ``connected`` row and ends with the next row of its
symbol, or, where a host vanished, with the last statistics it sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mexc_pipeline import control
from mexc_pipeline.events import Connected, read

ALIVE_S = 60
"""A symbol is recording while its last statistics are no older: four times their interval."""
ASK_S = 10.0
_STORE = "store.sock"


@dataclass(frozen=True, slots=True)
class Use:
    """One connection of a symbol through an exit; ``end`` is None while it lasts, ``outside`` the address the world
    sees as far as is known."""

    symbol: str
    exit: str
    outside: str
    begin: int
    end: int | None

    def overlaps(self, other: Use) -> bool:
        """Whether both lasted at the same time for at least a second."""
        ends = [end for end in (self.end, other.end) if end is not None]
        return not ends or max(self.begin, other.begin) < min(ends)


def uses(rows: Iterable[Sequence[Any]], alive: Mapping[str, int], now: int) -> list[Use]:
    """Rows of ``egress_log`` as (id, second, seq, event as JSON) in any order; ``alive`` is when each symbol was last
    seen recording."""
    ordered = sorted((str(r[0]), int(r[1]), int(r[2]), str(r[3])) for r in rows)
    found: list[Use] = []
    for position, (symbol, begin, _, text) in enumerate(ordered):
        event = read(text)
        if event is None or event.get("event") != Connected.name() or not event.get("exit"):
            continue
        end: int | None = None
        if position + 1 < len(ordered) and ordered[position + 1][0] == symbol:
            end = ordered[position + 1][1]
        elif (seen := alive.get(symbol, 0)) < now - ALIVE_S:
            end = max(begin, seen)
        address = str(event["exit"])
        found.append(Use(symbol, address, str(event.get("seen") or address), begin, end))
    return found


def collisions(found: Iterable[Use]) -> list[tuple[Use, Use]]:
    """Pairs of uses of one outside address by two symbols at the same time."""
    by_address: dict[str, list[Use]] = {}
    for use in found:
        by_address.setdefault(use.outside, []).append(use)
    pairs = []
    for group in by_address.values():
        group.sort(key=lambda use: (use.begin, use.symbol))
        for position, use in enumerate(group):
            for other in group[position + 1 :]:
                if use.end is not None and other.begin >= use.end:
                    break  # they are in the order of their beginnings
                if other.symbol != use.symbol and use.overlaps(other):
                    pairs.append((use, other))
    return pairs


def logged(control_dir: Path, since: int, newest_only: bool = False) -> list[Use]:
    """The uses in ``egress_log`` that began at or after ``since``, of every host. Raises ControlError where the store
    does not answer."""
    answer = control.ask(control_dir / _STORE, "exits", timeout_s=ASK_S, since=since, newest=newest_only)
    try:
        alive = answer["alive"]
        now = max((int(row[2]) for row in alive), default=1 << 32)
        return uses(answer["rows"], {str(row[0]): int(row[1]) for row in alive}, now)
    except control.ODD as error:
        raise control.ControlError(control.NOT_UNDERSTOOD) from error


def local(control_dir: Path, symbol: str) -> Use | None:
    """What a symbol's collector on this host says it uses at this moment; None where it is not connected by an exit.
    Raises ControlError where it does not answer."""
    status = control.ask(control_dir / f"{symbol}.sock", "status")
    egress, since = status.get("egress") or {}, status.get("connected_since_ns")
    try:
        if not since or not egress.get("exit"):
            return None
        address = str(egress["exit"])
        return Use(symbol, address, str(egress.get("seen") or address), int(since) // 10**9, None)
    except control.ODD as error:
        raise control.ControlError(f"{symbol}'s answer is not understood; it may be of another version") from error
