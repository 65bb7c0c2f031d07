"""When a symbol was connected and fully subscribed, out of the accounts of its segments in order. Pure; Unix ns.

Covered is the time from a connection's last ``subscribed`` to its end. A process that was killed said nothing: its
recording ended with its last row, and the time until the next ``subscribed`` is not covered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mexc_pipeline.ledger.account import Account, Moment

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment's or file's part of a recording."""

    first_seq: int
    last_seq: int
    account: Account


@dataclass(slots=True)
class Coverage:
    """Stretches with a live socket, stretches covered, and the moments of reconnects; each in order of time."""

    sockets: list[Span] = field(default_factory=list)
    covered: list[Span] = field(default_factory=list)
    reconnects: list[int] = field(default_factory=list)
    _socket: int | None = None
    _covered: int | None = None
    _fresh: bool = False

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Coverage:
        """From pieces in order of seq. Nothing is assumed of the time of pieces that are missing."""
        found = cls()
        before: Piece | None = None
        for piece in pieces:
            if before is None or piece.first_seq != before.last_seq + 1:
                found._end(before.account.last_rx if before else 0)
                found._begin(piece.account)
            for n, moment in enumerate(piece.account.moments):
                if (
                    n == 0
                    and before is not None
                    and moment.what == "started"
                    and moment.at_ns == piece.account.first_rx
                ):
                    # What it calls the last row is the sealed one of the segment before, written long after.
                    moment = moment._replace(before_ns=before.account.last_rx)
                found._take(moment)
            before = piece
        if before is not None:
            found._end(before.account.last_rx)
        return found

    def _begin(self, account: Account) -> None:
        """A recording whose beginning is not known: what happens first tells what was."""
        first = account.moments[0].what if account.moments else "disconnected"
        if first in ("disconnected", "stopped", "held", "subscribed"):
            self._socket = account.first_rx
        if first in ("disconnected", "stopped", "held"):
            self._covered = account.first_rx
        self._fresh = False

    def _take(self, moment: Moment) -> None:
        at = moment.at_ns
        match moment.what:
            case "started":
                self._end(min(at, moment.before_ns))
                self._fresh = True
            case "connected":
                self._end(at)
                self._socket = at
                if not self._fresh:
                    self.reconnects.append(at)
                self._fresh = False
            case "subscribed":
                self._covered = at
            case _:
                self._end(at)

    def _end(self, at: int) -> None:
        for spans, since in ((self.sockets, self._socket), (self.covered, self._covered)):
            if since is not None and at > since:
                spans.append((since, at))
        self._socket = self._covered = None


def within(spans: Iterable[Span], start: int, end: int) -> int:
    """How much of the stretch from ``start`` to ``end`` the spans cover, in ns."""
    return sum(max(0, min(last, end) - max(first, start)) for first, last in spans)
