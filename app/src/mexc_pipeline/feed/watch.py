"""What the feed keeps an eye on, as pure state machines: channels, the clock, the pause before the next try.

Monotonic seconds go in; actions come out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from mexc_pipeline.feed.pace import Pace, bounds

CONFIRM_S = 10.0
"""A subscription without an answer or data for this long is asked for again, after twice as long given up."""

RECONNECTING = frozenset({"push.ticker", "push.depth", "push.depth.full"})
"""Channels whose silence for twice the limit, after a second request, ends the connection."""
SURE = 3
"""Times the limit after which silence ends it for any other channel whose pace is well known."""


@dataclass(frozen=True, slots=True)
class Resubscribe:
    channel: str


@dataclass(frozen=True, slots=True)
class Stalled:
    channel: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Confirmed:
    channel: str
    by: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    reason: str


Action = Resubscribe | Stalled | Confirmed | Reconnect


@dataclass(slots=True)
class _Channel:
    asked_at: float
    confirmed: str | None = None
    retried: bool = False
    last: float = 0.0
    delivered: bool = False
    stalled: bool = False


@dataclass(slots=True)
class Watch:
    """One connection's channels and the age of its newest frame of any kind.

    ``paces`` is what is known of each channel; it is added to, and outlives the connection.
    """

    channels: tuple[str, ...]
    silent_s: float
    """Seconds without any frame, pongs included, after which the socket counts as dead."""
    started: float
    paces: dict[str, Pace] = field(default_factory=dict)
    _channels: dict[str, _Channel] = field(default_factory=dict)
    _last_any: float = 0.0

    def __post_init__(self) -> None:
        self._channels = {c: _Channel(asked_at=self.started, last=self.started) for c in self.channels}
        self._last_any = self.started
        for channel in self.channels:
            self.paces.setdefault(channel, Pace())

    def alive(self, now: float) -> None:
        """Some frame came."""
        self._last_any = now

    def ack(self, channel: str, now: float) -> list[Action]:
        """The exchange said yes to a channel."""
        return self._confirm(channel, "ack", now)

    def data(self, channel: str, now: float) -> list[Action]:
        """A frame of the channel came."""
        state = self._channels.get(channel)
        if state is None:
            return []
        if state.delivered:
            gap, pace = now - state.last, self.paces[channel]
            # Of a silence that was called a stall only half the limit is learned: it may have been one.
            pace.observe(min(gap, pace.limit(bounds(channel)) / 2) if state.stalled else gap)
        state.last = now
        state.delivered = True
        state.stalled = False
        return self._confirm(channel, "data", now)

    def _confirm(self, channel: str, by: str, now: float) -> list[Action]:
        state = self._channels.get(channel)
        if state is None or state.confirmed is not None:
            return []
        state.confirmed = by
        state.last = now
        return [Confirmed(channel, by)]

    def due(self, now: float) -> list[Action]:
        """What is to be done at this moment."""
        if now - self._last_any >= self.silent_s:
            return [Reconnect(f"no frame for {now - self._last_any:.0f} s")]
        actions: list[Action] = []
        for name, state in self._channels.items():
            if state.confirmed is None:
                waited = now - state.asked_at
                if waited >= 2 * CONFIRM_S:
                    return [Reconnect(f"{name} neither confirmed nor delivered within {waited:.0f} s")]
                if waited >= CONFIRM_S and not state.retried:
                    state.retried = True
                    actions.append(Resubscribe(name))
                continue
            pace = self.paces[name]
            age, limit = now - state.last, pace.limit(bounds(name))
            patience = 2 if name in RECONNECTING else SURE if pace.certain else None
            if patience is not None and age >= patience * limit:
                return [Reconnect(f"{name} silent for {age:.0f} s, also after a new subscription")]
            if age >= limit and not state.stalled:
                state.stalled = True
                actions += [Stalled(name, age), Resubscribe(name)]
        return actions

    def status(self, now: float) -> dict[str, dict[str, str | float | None]]:
        """Per channel: how it was confirmed, and seconds since its last frame (None before the first)."""
        return {
            name: {
                "confirmed": state.confirmed or "none",
                "age_s": round(now - state.last, 3) if state.confirmed else None,
            }
            for name, state in self._channels.items()
        }


@dataclass(slots=True)
class ClockWatch:
    """Notices steps of the wall clock against the monotonic one."""

    wall_ns: int
    mono_ns: int
    least_ms: float = 100.0

    def step_ms(self, wall_ns: int, mono_ns: int) -> float | None:
        """Milliseconds by which the wall clock jumped since the last call, None for less than ``least_ms``."""
        step = ((wall_ns - self.wall_ns) - (mono_ns - self.mono_ns)) / 1e6
        self.wall_ns, self.mono_ns = wall_ns, mono_ns
        return step if abs(step) >= self.least_ms else None


@dataclass(slots=True)
class Backoff:
    """Pauses between tries: doubling from ``first_s`` to ``most_s``, each between half and whole at random so that
    collectors do not return together."""

    rng: random.Random
    first_s: float = 0.5
    most_s: float = 30.0
    _tries: int = 0

    def next_s(self) -> float:
        whole = min(self.most_s, self.first_s * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return whole * (0.5 + self.rng.random() / 2)

    def reset(self) -> None:
        self._tries = 0
