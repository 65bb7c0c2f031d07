"""Periods: equal stretches of UTC time, counted from midnight, that name segments, tables and files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
END_NS = (1 << 63) - 1
"""First instant (Unix ns, in the year 2262) that is beyond what tables and files can hold."""
LAST_NS = END_NS - END_NS % DAY_NS - DAY_NS - 1
"""Last instant whose period, of whatever length, ends well before that."""
PINNED_NS = 60 * SECOND_NS
"""A clock that is behind the last row by no more leaves ``rx`` at that row's; by more, ``rx`` goes back with it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def following(last_rx: int, now: int) -> int:
    """The ``rx`` of a row that arrives ``now`` by the clock, after one of ``last_rx``."""
    if not 0 <= now <= LAST_NS:  # no clock that was ever right: what is received is recorded all the same
        now = min(max(now, 0), LAST_NS)
    return last_rx if last_rx - PINNED_NS <= now < last_rx else now


@dataclass(frozen=True, slots=True)
class Period:
    """A period length in nanoseconds that divides a day; all instants are Unix nanoseconds, UTC."""

    length_ns: int

    def __post_init__(self) -> None:
        if self.length_ns < 2 * SECOND_NS or DAY_NS % self.length_ns or self.length_ns % SECOND_NS:
            raise ValueError("a period is a whole number of seconds, at least 2 s, that divides a day")

    def start(self, instant_ns: int) -> int:
        """Start of the period that holds the instant."""
        return instant_ns - instant_ns % self.length_ns

    def end(self, start_ns: int) -> int:
        """The edge: first instant after the period that starts at ``start_ns``."""
        return start_ns + self.length_ns

    def name(self, start_ns: int) -> str:
        """``YYYYMMDDHH`` where the period is a multiple of an hour, else ``YYYYMMDDHHMMSS``."""
        at = _EPOCH + timedelta(seconds=start_ns // SECOND_NS)
        return at.strftime("%Y%m%d%H" if self.length_ns % HOUR_NS == 0 else "%Y%m%d%H%M%S")


def parse_name(name: str) -> int:
    """Start, in Unix nanoseconds, of the period of that name; ValueError for anything else."""
    wrong = f"{name!r} is not a period name (YYYYMMDDHH or YYYYMMDDHHMMSS)"
    if len(name) not in (10, 14) or not name.isascii() or not name.isdigit():
        raise ValueError(wrong)
    fields = [int(name[:4]), *(int(name[at : at + 2]) for at in range(4, len(name), 2))]
    try:
        at = datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type,misc]  # a folder has a hundred thousand names
    except ValueError:
        raise ValueError(wrong) from None
    return ((at - _EPOCH) // timedelta(seconds=1)) * SECOND_NS
