"""When a symbol was connected and fully subscribed, out of the accounts of its segments in order. Pure; Unix ns.

Covered is the time from a connection's last ``subscribed`` to its end, but for what of it a subscribed channel was
given up. A process that was killed said nothing: its recording ended with its last row, and the time until the next
``subscribed`` is not covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import merge
from operator import attrgetter

from mexc_pipeline.events import GivenUp, Resumed, Stalled
from mexc_pipeline.ledger.account import Account, ChannelMoment, Moment
from mexc_pipeline.periods import PINNED_NS

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment's or file's part of a recording."""

    first_seq: int
    last_seq: int
    account: Account


@dataclass(slots=True)
class Coverage:
    """Spans with a live socket, spans covered, and the moments of reconnects; each in order of recording, which is that
    of time within a stretch by one clock. ``stretches``: how many of each there were where the clock was set back."""

    sockets: list[Span] = field(default_factory=list)
    covered: list[Span] = field(default_factory=list)
    reconnects: list[int] = field(default_factory=list)
    stretches: list[tuple[int, int, int]] = field(default_factory=list)
    given_up: dict[str, int] = field(default_factory=dict)
    """Channels that were given up and are not back at the end, with the time of each."""
    stalled: dict[str, int] = field(default_factory=dict)
    """Channels that were silent too long last, with the time of each; frames that came later tell that they are
    back."""
    _socket: int | None = None
    _covered: int | None = None
    _fresh: bool = False

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Coverage:
        """The coverage that pieces in order of seq tell. Nothing is assumed of the time of pieces that are missing."""
        found = cls()
        before: Piece | None = None
        all_of_it = list(pieces)
        for piece, number in zip(all_of_it, stretches(piece.account for piece in all_of_it), strict=True):
            if before is None or piece.first_seq != before.last_seq + 1:
                found._end(before.account.last_rx if before else 0)
                found._begin(piece.account)
            if number > len(found.stretches):
                found._set_back(before.account.last_rx if before else 0, piece.account.first_rx)
            told: tuple[Sequence[Moment | ChannelMoment], ...] = piece.account.moments, piece.account.channels
            first = piece.account.moments[0] if piece.account.moments else None
            for moment in merge(*told, key=attrgetter("at_ns")):
                if isinstance(moment, ChannelMoment):
                    found._take_channel(moment)
                    continue
                if (
                    moment is first
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
        self._know_nothing()
        first = account.moments[0].what if account.moments else "disconnected"
        if first in ("disconnected", "stopped", "held", "subscribed"):
            self._socket = account.first_rx
        if first in ("disconnected", "stopped", "held"):
            self._covered = account.first_rx
        self._fresh = False

    def stretch(self, number: int) -> Coverage:
        """What was recorded by one clock, between the times that it was set back; the first is number 0."""
        marks = [(0, 0, 0), *self.stretches, (len(self.sockets), len(self.covered), len(self.reconnects))]
        begin, end = marks[number], marks[number + 1]
        return Coverage(
            self.sockets[begin[0] : end[0]], self.covered[begin[1] : end[1]], self.reconnects[begin[2] : end[2]]
        )

    def _set_back(self, last_rx: int, first_rx: int) -> None:
        """What went on goes on, by another clock."""
        socket, covered = self._socket, self._covered
        self._end(last_rx)
        self.stretches.append((len(self.sockets), len(self.covered), len(self.reconnects)))
        self._socket = first_rx if socket is not None else None
        self._covered = first_rx if covered is not None else None

    def _take(self, moment: Moment) -> None:
        at = moment.at_ns
        match moment.what:
            case "started":
                self._end(min(at, moment.before_ns))
                self._know_nothing()  # a new process asks for all of them
                self._fresh = True
            case "connected":
                self._end(at)
                self._socket = at
                if not self._fresh:
                    self.reconnects.append(at)
                self._fresh = False
            case "subscribed":
                self._covered = None if self.given_up else at
            case _:
                self._end(at)

    def _know_nothing(self) -> None:
        self.given_up.clear()
        self.stalled.clear()

    def _take_channel(self, moment: ChannelMoment) -> None:
        at, what, channel = moment
        if what == GivenUp.name():
            self.given_up.setdefault(channel, at)  # it is said again in each segment
            self._end_covered(at)
        elif what == Resumed.name() and self.given_up.pop(channel, None) is not None and not self.given_up:
            self._covered = at
        if what == Stalled.name() and channel not in self.given_up:
            self.stalled[channel] = at
        else:
            self.stalled.pop(channel, None)

    def _end_covered(self, at: int) -> None:
        if self._covered is not None and at > self._covered:
            self.covered.append((self._covered, at))
        self._covered = None

    def _end(self, at: int) -> None:
        if self._socket is not None and at > self._socket:
            self.sockets.append((self._socket, at))
        self._end_covered(at)
        self._socket = None


def stretches(accounts: Iterable[Account]) -> list[int]:
    """Number of the stretch, recorded by one clock, that each piece belongs to: the next where the clock was set back.
    A piece that tells no time belongs to the one before it."""
    found: list[int] = []
    number = last_rx = 0
    for account in accounts:
        if account.last_rx:
            number += account.first_rx < last_rx - PINNED_NS
            last_rx = account.last_rx
        found.append(number)
    return found


def within(spans: Iterable[Span], start: int, end: int) -> int:
    """How much of the stretch from ``start`` to ``end`` the spans cover, in ns."""
    return sum(max(0, min(last, end) - max(first, start)) for first, last in spans)
