"""What can happen during a probe, one record each. ``at``: ms since the probe began; ``conn``: connection, from 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Breach = Literal["", "rules", "size"]
"""What the recorder ends a connection for: that it is not known where the next frame begins, or that one is too large
to be kept."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The WebSocket stands. ``spare``: it carries channels that are not configured, for information."""

    at: float
    conn: int
    symbol: str
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The handshake was answered by something else than an upgrade; ``body`` is the beginning of it."""

    at: float
    conn: int
    symbol: str
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Unreached:
    """No connection came about; ``reason`` names the step and may name addresses of this network."""

    at: float
    conn: int
    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of ours was sent."""

    at: float
    conn: int
    text: str


@dataclass(frozen=True, slots=True)
class Received:
    """A whole frame came; ``opcode`` 1 text, 2 binary; any other: what is no message, see
    :meth:`~mexc_pipeline.feed.link.Messages.next`."""

    at: float
    conn: int
    opcode: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over. ``code`` 1006: without a close frame. ``ours``: the probe had said goodbye. ``breach``:
    what came could not be read on, so that it was cut."""

    at: float
    conn: int
    code: int
    reason: str
    ours: bool
    breach: Breach = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """REST answered ``path``, ``body`` decoded; ``at`` is when it was whole, ``took`` in ms."""

    at: float
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    took: float


@dataclass(frozen=True, slots=True)
class Unanswered:
    """REST did not answer; ``reason`` as of :class:`Unreached`."""

    at: float
    path: str
    reason: str


Record = Opened | Refused | Unreached | Sent | Received | Closed | Answered | Unanswered
