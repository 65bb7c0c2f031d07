"""What a segment's events say of its recording: when it was connected and subscribed, what was missing, what repaired.

Kept with the segment and its file, so that coverage can be told without reading frames. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec

from mexc_pipeline.events import (
    Clock,
    Connected,
    Disconnected,
    Filled,
    Gap,
    GivenUp,
    Mistimed,
    Repaired,
    Resumed,
    Stalled,
    Started,
    Stopped,
    Subscribed,
    Unfilled,
    Unrepaired,
    begin,
)
from mexc_pipeline.exchange.silence import RECONNECTING

_COUNTED = {Gap.name(): "missing", Repaired.name(): "repaired", Unrepaired.name(): "unrepaired"}
_OF_TRADES = (Filled.name(), Unfilled.name())
_CLOCK, _MISTIMED = begin(Clock), begin(Mistimed)
_MARKS = (Started, Connected, Subscribed, Disconnected, Stopped)
_OF_CHANNELS = (GivenUp, Resumed, Stalled)
_NAMED_CHANNELS = tuple(kind.name() for kind in _OF_CHANNELS)
_WANTED = tuple(begin(kind) for kind in (Gap, Repaired, Unrepaired, Filled, Unfilled, *_OF_CHANNELS, *_MARKS))
OPTIONAL = "channels"
"""What accounts of earlier versions do not have although their rows tell of it."""


class Moment(NamedTuple):
    """Something that began or ended a stretch of recording: ``at_ns`` its rx, ``what`` the event's name, ``held`` for
    a ``stopped`` that names a reason: the recording means to go on.

    ``before_ns``, for ``started``, the rx of the last row before the process began."""

    at_ns: int
    what: str
    before_ns: int = 0


class ChannelMoment(NamedTuple):
    """A channel was given up, is back, or has been silent too long: the event's rx and name, and the channel."""

    at_ns: int
    what: str
    channel: str


class _Event(msgspec.Struct, gc=False):
    event: str
    count: int = 1
    last_rx: int = 0
    reason: str = ""
    channel: str = ""


_decode = msgspec.json.Decoder(_Event).decode


class _Clock(msgspec.Struct, gc=False):
    event: str
    restarted: bool = False


_decode_clock = msgspec.json.Decoder(_Clock).decode


class _Mistimed(msgspec.Struct, gc=False):
    channel: str
    why: str
    late_ms: int | None = None
    ended: bool = False


_decode_mistimed = msgspec.json.Decoder(_Mistimed).decode


class WrongTimes(NamedTuple):
    """What an event ``mistimed`` says of a channel."""

    why: str
    late_ms: int | None


def is_restart(m: bytes) -> bool:
    """Whether an event row says that ``rx`` goes back here, with a clock that was more than 60 s ahead before."""
    if not m.startswith(_CLOCK):
        return False
    try:
        return _decode_clock(m).restarted
    except msgspec.MsgspecError:  # none of ours
        return False


@dataclass(slots=True)
class Account:
    """The account of one segment. ``first_rx`` and ``last_rx`` (Unix ns) of its rows without ``sealed``, 0 while there
    is none; ``missing``, ``repaired`` and ``unrepaired`` count versions of the book, ``filled`` trades that were
    fetched over REST, ``unfilled`` the events that some may be missing; ``mistimed`` has the channels whose frames had
    wrong times, ``channels`` what is told of channels that stay away."""

    first_rx: int = 0
    last_rx: int = 0
    missing: int = 0
    repaired: int = 0
    unrepaired: int = 0
    filled: int = 0
    unfilled: int = 0
    mistimed: dict[str, WrongTimes] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    channels: list[ChannelMoment] = field(default_factory=list)

    def rows(self, first_rx: int, last_rx: int) -> None:
        """Rows came, the first and the last of them at these times."""
        self.first_rx = self.first_rx or first_rx
        self.last_rx = last_rx

    def event(self, rx: int, m: bytes) -> None:
        """An event row came."""
        if m.startswith(_MISTIMED):
            self._mistimed(m)
        if not m.startswith(_WANTED):
            return
        try:
            said = _decode(m)
        except (msgspec.MsgspecError, RecursionError):  # none of ours
            return
        if said.event in _COUNTED:
            name = _COUNTED[said.event]
            setattr(self, name, getattr(self, name) + said.count)
        elif said.event == Filled.name():
            self.filled += said.count
        elif said.event == Unfilled.name():
            self.unfilled += 1
        elif said.event in _NAMED_CHANNELS:
            if said.event != Stalled.name() or said.channel in RECONNECTING:  # others may rest
                self.channels.append(ChannelMoment(rx, said.event, said.channel))
        else:
            what = "held" if said.event == Stopped.name() and said.reason else said.event
            self.moments.append(Moment(rx, what, said.last_rx))

    def _mistimed(self, m: bytes) -> None:
        try:
            said = _decode_mistimed(m)
        except (msgspec.MsgspecError, RecursionError):  # none of ours
            return
        if not said.ended:  # what ended had begun, here or in the segment before
            self.mistimed[said.channel] = WrongTimes(said.why, said.late_ms)

    def copy(self) -> Account:
        """An independent account that goes on from here."""
        return replace(self, moments=list(self.moments), channels=list(self.channels), mistimed=dict(self.mistimed))

    def to_json(self) -> dict[str, Any]:
        """The account as JSON, for a segment's meta and a file's metadata: as earlier versions wrote it where nothing
        is told of trades, times and channels that stay away."""
        return {
            "first_rx": self.first_rx,
            "last_rx": self.last_rx,
            "missing": self.missing,
            "repaired": self.repaired,
            "unrepaired": self.unrepaired,
            **{name: count for name in _OF_TRADES if (count := getattr(self, name))},
            **({"mistimed": {name: list(said) for name, said in self.mistimed.items()}} if self.mistimed else {}),
            **({OPTIONAL: [list(moment) for moment in self.channels]} if self.channels else {}),
            "moments": [list(moment) for moment in self.moments],
        }

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Account:
        """The account that :meth:`to_json` gave; ValueError, KeyError, TypeError or OverflowError for anything else."""
        moments = [Moment(int(at), str(what), int(before)) for at, what, before in said["moments"]]
        first_rx, last_rx, missing, repaired, unrepaired = (
            int(said[name]) for name in ("first_rx", "last_rx", "missing", "repaired", "unrepaired")
        )
        filled, unfilled = (int(said.get(name, 0)) for name in _OF_TRADES)
        mistimed = {
            str(channel): WrongTimes(str(why), None if late_ms is None else int(late_ms))
            for channel, (why, late_ms) in dict(said.get("mistimed", {})).items()
        }
        channels = [ChannelMoment(int(at), str(what), str(channel)) for at, what, channel in said.get(OPTIONAL, [])]
        return cls(first_rx, last_rx, missing, repaired, unrepaired, filled, unfilled, mistimed, moments, channels)
