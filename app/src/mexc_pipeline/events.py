"""The events of a recording: what each is called, its fields, and how it is told from others by its first bytes.

They are the ``m`` of ``ev`` rows: JSON objects with ``event``, the name, first. What they mean to a reader stands in
the user guide (Events). Times are Unix ns (``…_rx``), lengths of time ms or s as their names say. A field that is None
is left out; readers pass over fields and events that they do not know.
"""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


def _name(kind: str) -> str:
    """``GivenUp`` → ``given_up``."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).lstrip("_")


class Event(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    tag_field="event",
    tag=_name,
    rename={"first": "from", "last": "to"},
):
    """An event: one of the classes below. ``first`` and ``last`` are ``from`` and ``to`` in JSON."""

    @property
    def m(self) -> bytes:
        """The event as it stands in a row: JSON, as bytes."""
        return _encode(self)

    @classmethod
    def name(cls) -> str:
        """What the event is called: the field ``event`` of its JSON."""
        tag = cls.__struct_config__.tag
        assert isinstance(tag, str)
        return tag


def begin(kind: type[Event]) -> bytes:
    """How the ``m`` of these events begin, in rows of any version."""
    return b'{"event":"%s"' % kind.name().encode()


# -- the process and its spool


class Started(Event, frozen=True, kw_only=True):
    """The first row of a process; ``last_rx``: the rx of the row ``last_seq``, which is the period's last instant where
    that row is ``sealed`` of a whole period: when something was last received, the row before tells; ``replaced``: the
    folder is an older copy, newer rows exist elsewhere; ``set_apart`` names damaged files.
    All but ``version`` is known where the row gets its seq."""

    clean: bool | None = None
    last_seq: int | None = None
    last_rx: int | None = None
    version: str
    spool_id: str | None = None
    replaced: bool | None = None
    set_apart: list[str] | None = None


class Stopped(Event, frozen=True, kw_only=True):
    """The recording ended in order; with a ``reason`` it means to go on."""

    reason: str | None = None


class Moved(Event, frozen=True, kw_only=True):
    """The recording goes on here after ``last_seq``, which another ``host`` (``from`` in JSON) gave; ``clean``: it
    ended in order there."""

    clean: bool
    host: str = msgspec.field(name="from")
    spool_id: str
    last_seq: int


class Restored(Event, frozen=True, kw_only=True):
    """The spool was put back from a backup."""

    backup_last_seq: int


class Sealed(Event, frozen=True, kw_only=True):
    """The last row of a segment of so many rows; ``cut``: it ended before its period."""

    cut: bool | None = None
    rows: int


class SpoolLow(Event, frozen=True, kw_only=True):
    """The spool's disk came to another level: ``warn``, ``alert``, ``full``, ``refused`` or ``ok``."""

    level: str
    used_percent: float
    free_mib: int


class SeqRepeated(Event, frozen=True, kw_only=True):
    """A seq higher than what was ``given`` here is ``known`` elsewhere."""

    given: int
    known: int


class Clock(Event, frozen=True, kw_only=True):
    """The wall clock jumped by ``step_ms``; ``restarted``: it was set back, and ``rx`` goes back here. Or it is ahead
    of the exchange's by ``error_ms``, or was until this ``ended``."""

    step_ms: float | None = None
    restarted: bool | None = None
    error_ms: float | None = None
    ended: bool | None = None


# -- the connection


class Connected(Event, frozen=True, kw_only=True):
    """The WebSocket stands; the last four by Tor only."""

    egress: str
    peer: str
    local: str
    url: str
    circuit: str | None = None
    exit: str | None = None
    fingerprint: str | None = None
    seen: str | None = None


class Disconnected(Event, frozen=True, kw_only=True):
    """A connection is over or could not be made; the last four where the exchange answered something else than a
    handshake."""

    code: int
    reason: str
    exit: str | None = None
    status: int | None = None
    location: str | None = None
    retry_after_s: float | None = None
    body: str | None = None


class Rotated(Event, frozen=True, kw_only=True):
    """Another Tor exit was asked for."""

    exit: str


class Collision(Event, frozen=True, kw_only=True):
    """Another symbol was found to use this exit."""

    exit: str
    seen: str
    other: str


class Reassigned(Event, frozen=True, kw_only=True):
    """This exit belongs to another symbol by the present list of symbols."""

    exit: str
    other: str


class Paused(Event, frozen=True, kw_only=True):
    """Nothing was read for so long although it may have come: rows that follow at once may be late by as much."""

    for_s: float


# -- its channels


class Subscribed(Event, frozen=True, kw_only=True):
    """A channel was confirmed by ``ack`` or ``data``."""

    channel: str
    by: str


class Stalled(Event, frozen=True, kw_only=True):
    """A channel has been silent too long, or for a ``reason`` the connection is left."""

    channel: str | None = None
    age_s: float | None = None
    reason: str | None = None


class GivenUp(Event, frozen=True, kw_only=True):
    """Nothing more is expected of a channel for the time being."""

    channel: str
    reason: str


class Resumed(Event, frozen=True, kw_only=True):
    """A channel that had been given up so long before was confirmed or delivers."""

    channel: str
    by: str
    after_s: float


# -- what a frame's place in its stream says


class Gap(Event, frozen=True, kw_only=True):
    """Versions of the book are missing, both ends included; ``after``: ``reconnect`` or ``restart``."""

    channel: str
    first: int
    last: int
    count: int
    after: str | None = None


class Repaired(Event, frozen=True, kw_only=True):
    """Missing versions, both ends included, of which ``count`` are in ``r`` rows now."""

    channel: str
    first: int
    last: int
    count: int


class Unrepaired(Event, frozen=True, kw_only=True):
    """Missing versions, both ends included, of which ``count`` will not be in ``r`` rows; ``reason`` says why."""

    channel: str
    first: int
    last: int
    count: int
    reason: str


class Filled(Event, frozen=True, kw_only=True):
    """The trades between two times (Unix ms) were compared with REST: ``count`` that the socket did not bring are in
    ``r`` rows now."""

    channel: str
    first: int
    last: int
    count: int


class Unfilled(Event, frozen=True, kw_only=True):
    """Between two times (Unix ms) trades may be missing, for a ``reason``; ``count``: so many that REST showed are not
    kept, because it is not certain that the socket did not bring them."""

    channel: str
    first: int
    last: int
    count: int | None = None
    reason: str


class Snapshot(Event, frozen=True, kw_only=True):
    """A book as the exchange gave it over REST: ``book`` is its JSON, whole."""

    channel: str
    version: int
    book: msgspec.Raw


class Regressed(Event, frozen=True, kw_only=True):
    """The next row's version is below the one before it; ``anew``: by a version reset, and counted from there on."""

    channel: str
    first: int
    last: int
    anew: bool | None = None
    after: str | None = None


class Unversioned(Event, frozen=True, kw_only=True):
    """No version can be read in so many depth frames in succession: what is missing of them is not noticed until one
    can."""

    channel: str
    count: int


class Mistimed(Event, frozen=True, kw_only=True):
    """The times of a channel's frames are wrong, ``why``: ``behind``, ``ahead``, ``still`` or ``absent``. ``ts`` is the
    newest (Unix ms), which lies ``late_ms`` behind the exchange's clock at least (negative: ahead). It has been so for
    ``for_s``, or was until this ``ended``."""

    channel: str
    why: str
    ts: int | None = None
    late_ms: int | None = None
    for_s: float
    ended: bool | None = None


class Repeated(Event, frozen=True, kw_only=True):
    """So many deals came that had come before; ``ids`` are some of theirs."""

    channel: str
    count: int
    ids: list[str]


class IdsShared(Event, frozen=True, kw_only=True):
    """Two deals that are not the same have one id: ids are not unique, and deals are told apart without them until it
    was long ago."""

    channel: str


def read(m: bytes | str) -> dict[str, Any] | None:
    """An event's fields; None for anything that is no JSON object, of which damaged files may hold any."""
    try:
        said = msgspec.json.decode(m)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return said if isinstance(said, dict) else None


def kinds() -> dict[str, type[Event]]:
    """All events by name."""
    return {kind.name(): kind for kind in Event.__subclasses__()}


def fields(kind: type[Event]) -> list[str]:
    """The names of an event's fields in JSON."""
    known: Any = kind.__struct_encode_fields__
    return list(known)
