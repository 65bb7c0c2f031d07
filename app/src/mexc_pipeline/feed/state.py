"""What the reading thread says of itself to the others: one immutable value, published whole, and its description for
``status``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mexc_pipeline.exchange.channels import CONTRACT
from mexc_pipeline.feed.handshake import HandshakeAnswer


@dataclass(frozen=True, slots=True)
class Look:
    """The channels at a moment (``at``, monotonic s): what :meth:`~mexc_pipeline.feed.watch.Watch.status` says of the
    present connection, the silence that means something, in seconds, whether the exchange lists no such contract, how
    many frames of each channel had no version that can be read, and of which channels the times are wrong."""

    at: float
    channels: Mapping[str, Mapping[str, str | float | None]]
    limits: Mapping[str, float]
    lost: frozenset[str] = frozenset()
    unlisted: bool = False
    unversioned: Mapping[str, int] = field(default_factory=dict)
    mistimed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Ending(StrEnum):
    """Why there is no connection any more, or was none: few words, for counting; the log and the files tell more."""

    CLOSED = "closed"
    """By the exchange, with a close frame."""
    BROKEN = "broken"
    """Without one: by the network, the host, or a silence too long."""
    REFUSED = "refused"
    """The exchange answered with something else than a handshake."""
    UNREACHABLE = "unreachable"
    """Nobody answered."""
    LEFT = "left"
    """By us: for a channel's sake, another exit, or because there is no room."""
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class FeedState:
    """One moment of a feed. Only the reading thread makes a new one; times in monotonic seconds unless named ``_ns``.
    ``connection`` with ``connected_since_ns`` is None while there is none; ``egress`` is then that of the last one."""

    egress: Mapping[str, Any]
    look: Look
    began: float
    connection: object | None = None
    connected_since_ns: int | None = None
    reconnects: int = 0
    endings: Mapping[str, int] = field(default_factory=dict)
    """How often a connection ended, or could not be made, by :class:`Ending`."""
    exchange_said: str | None = None
    not_connected: str | None = None
    """Why the last connection ended or could not be made, while there is no other."""
    proven: bool = False
    """Whether the exchange has delivered data of the symbol: then it lists it, whatever else it says."""
    refusal: HandshakeAnswer | None = None
    """What the exchange answered to the last handshake, where it was none."""
    waits: tuple[float, str] | None = None
    """Until when there is no attempt, and why."""
    paused: tuple[float, float] | None = None
    """When last, and for how long, nothing was read."""
    last_frames: Mapping[str, float] = field(default_factory=dict)
    """When each channel delivered last, over all connections."""
    unasked: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """What came that nobody asked for: how often, and when last."""

    def describe(self, now: float) -> dict[str, Any]:
        """The fields of ``status`` that are told by this alone."""
        refusal, waits, paused = self.refusal, self.waits, self.paused
        return {
            "reconnects": self.reconnects,
            "endings": dict(self.endings),
            "connected_since_ns": self.connected_since_ns,
            **self._market(now),
            "egress": dict(self.egress),
            "exchange_said": self.exchange_said,
            "not_connected": self.not_connected,
            "refusal": {"said": str(refusal), **refusal.fields()} if refusal is not None else None,
            "waits": {"for_s": round(max(0.0, waits[0] - now), 1), "why": waits[1]} if waits else None,
            "paused": {"for_s": round(paused[1], 1), "age_s": round(now - paused[0], 1)} if paused else None,
        }

    def _market(self, now: float) -> dict[str, Any]:
        """What was delivered, over all connections of this process: ``channels``, each with ``age_s`` since its last
        frame (None before the first), and ``silent_s`` where that is beyond its own pace, ``limit_s``; ``unasked``: the
        frames of channels and symbols that were not subscribed, with their ``count`` and ``age_s``; ``market``: all
        channels but that of contracts together, how long was waited for a frame at most, and the silence that means
        something, in seconds."""
        look = self.look
        channels: dict[str, Any] = {}
        for name, limit in look.limits.items():
            last = self.last_frames.get(name)
            age = None if last is None else round(now - last, 3)
            channels[name] = told = {"confirmed": "none", **look.channels.get(name, {}), "age_s": age}
            if isinstance(given_up_s := told.get("given_up_s"), float):
                told["given_up_s"] = round(given_up_s + now - look.at, 1)
            silent_s = now - (self.began if last is None else last)
            if silent_s >= limit:
                told |= {"silent_s": round(silent_s, 3), "limit_s": round(limit, 3)}
        newest = max((at for name, at in self.last_frames.items() if name != CONTRACT), default=None)
        expected = [limit for name, limit in look.limits.items() if name not in look.lost]
        market = {
            "age_s": None if newest is None else round(now - newest, 3),
            "waited_s": round(now - (self.began if newest is None else newest), 3),
            "limit_s": min(expected or look.limits.values()),
        }
        unasked = {name: {"count": count, "age_s": round(now - at, 3)} for name, (count, at) in self.unasked.items()}
        return {"channels": channels, "unasked": unasked, "market": market}
