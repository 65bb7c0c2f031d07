"""Which channels answer and deliver, and what is done about those that do not, as pure state machines.

Monotonic seconds go in; actions come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mexc_pipeline.exchange.answers import is_unlisted, refused_by
from mexc_pipeline.exchange.silence import RECONNECTING, bounds, may_rest
from mexc_pipeline.feed.pace import Pace

CONFIRM_S = 10.0
"""A subscription without an answer or data for this long is asked for again, after twice as long given up."""
MUTE_MOST = 4
"""Times that patience, at most, with connections of which no channel is answered or delivers: it doubles from one such
connection to the next, or a busy exchange that is slower than it would never come to answer."""
AGAIN_S = 60.0
AGAIN_MOST_S = 3600.0
"""A channel that stays away is asked for again after the first, then after twice that, up to once in the second."""
LISTING_MOST_S = 300.0
"""The same where the contract is not listed: trading may begin at any moment."""
LEAVE_S = 3600.0
"""Least time between two connections left for the sake of one channel while others deliver."""
QUIET_S = 60.0
QUIET_MOST_S = 3600.0
"""Least time between two connections left because none of their channels delivers: the market itself may rest. It
doubles with each, from the first to the second, and begins anew only when the market has flowed for ``FLOWS_S``: one
frame is what a slow market brings, and shows nothing."""
FLOWS_S = 86_400.0
DEAD_MOST_S = 600.0
"""Longest time without anything at all, where the exchange answers no ping of any kind although it delivers."""
PROBED = 0.6
"""After this part of the silence that would count as death, where the exchange's own pings are not answered, one of the
protocol is sent, which RFC 6455 has every peer answer; an answer has the rest to come in."""

SURE = 3
"""Times the limit after which the same is said of any other channel whose pace is well known."""


@dataclass(frozen=True, slots=True)
class Resubscribe:
    """``channel`` is to be asked for again on the same connection."""

    channel: str


@dataclass(frozen=True, slots=True)
class ChannelStalled:
    """``channel`` has been silent for ``age_s`` seconds, longer than its pace allows; it is to be recorded."""

    channel: str
    age_s: float


@dataclass(frozen=True, slots=True)
class ChannelGivenUp:
    """Nothing more is expected of ``channel`` for the time being, for that ``reason`` (one line)."""

    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChannelConfirmed:
    """The exchange delivers ``channel``, or says that it will; ``by`` is ``ack`` or ``data``."""

    channel: str
    by: str


@dataclass(frozen=True, slots=True)
class ChannelResumed:
    """The exchange delivers ``channel`` again, or says that it will, ``after_s`` seconds after it had been given up;
    ``by`` is ``ack`` or ``data``."""

    channel: str
    by: str
    after_s: float


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The connection is to be left for that ``reason`` (one line); ``orderly``: data come over it, and its last ones
    are worth waiting for."""

    reason: str
    orderly: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """A ping of the protocol is to be sent."""


@dataclass(frozen=True, slots=True)
class PingsUnanswered:
    """The exchange delivers and does not answer its pings; said once in the life of a process."""


Action = (
    Resubscribe
    | ChannelStalled
    | ChannelGivenUp
    | ChannelConfirmed
    | ChannelResumed
    | Reconnect
    | Probe
    | PingsUnanswered
)


@dataclass(slots=True)
class _Asking:
    """When a channel that stays away is asked for next; the pauses grow."""

    at: float
    pause_s: float

    @classmethod
    def after(cls, now: float) -> _Asking:
        return cls(now + AGAIN_S, AGAIN_S)

    def due(self, now: float, most_s: float) -> bool:
        if now < min(self.at, self.at - self.pause_s + most_s):
            return False
        self.pause_s = min(2 * self.pause_s, most_s)
        self.at = now + self.pause_s
        return True


@dataclass(slots=True)
class _Lost:
    """A channel that was given up; ``silent``: it had been confirmed, so that only data show that it is back."""

    since: float
    reason: str
    silent: bool


@dataclass(slots=True)
class Memory:
    """What is known of the channels from one connection to the next, for the life of a process."""

    paces: dict[str, Pace] = field(default_factory=dict)
    lost: dict[str, _Lost] = field(default_factory=dict)
    left_at: float | None = None
    """When a connection was last left for silence while it was answered."""
    tried: set[str] = field(default_factory=set)
    """Channels for which that was of no use: it is not done again before they deliver."""
    quiet_s: float = 0.0
    quiet_until: float = 0.0
    flows_since: float | None = None
    """Since when the market has not rested for so long that its connection might have been left."""
    unacked: bool = False
    """The exchange delivers a channel without an answer, and has given none since."""
    unanswered: bool = False
    """Data came while a ping had waited for its answer long enough, and no answer since: a rest without is no death."""
    unanswered_said: bool = False
    unheard: int = 0
    """Connections left in succession that went silent after something had come, but never an answer to a ping."""
    refusals: dict[str, int] = field(default_factory=dict)
    """By channel, since it was last confirmed: sessions may be too short for a second one."""
    mute: int = 0
    """Connections left in succession on which nothing was answered or delivered."""
    strange: int = 0
    """Connections left in succession over which frames of no known channel came, and nothing else, for another address
    that may serve."""
    strange_at: float = 0.0
    """When the last of them was left."""
    turns: int = 0
    """Connections left for silence or refusal since the patience last grew: each address has one turn."""

    def flowed(self, now: float) -> None:
        """A frame of the market came."""
        if self.flows_since is None:
            self.flows_since = now
        elif now - self.flows_since >= FLOWS_S:
            self.quiet_s = 0.0

    def left(self, now: float, addresses: int, *, resting: bool) -> None:
        """A connection is left because nothing comes over it. Of ``addresses``, each has its turn at once before the
        patience grows; where the market may be ``resting``, only the first time."""
        self.turns += 1
        if self.turns >= addresses or (resting and self.quiet_s):  # none of them served
            self.turns = 0
            self.quiet_s = min(2 * self.quiet_s or QUIET_S, QUIET_MOST_S)
        if not self.turns:
            self.quiet_until = now + self.quiet_s
        if resting:
            self.left_at = now

    def limit(self, channel: str) -> float:
        """Seconds of silence that mean something, by the channel's own pace."""
        return self.paces.get(channel, Pace()).limit(bounds(channel))


@dataclass(slots=True)
class _Channel:
    asked_at: float
    last: float
    confirmed: str | None = None
    refused: str | None = None
    """What the exchange said in place of a confirmation."""
    refusals: int = 0
    answered: str | None = None
    """What it answered that is neither; that it answers at all earns the channel its usual pace, and data decide."""
    retried: bool = False
    delivered: bool = False
    stalled: bool = False
    asking: _Asking | None = None


@dataclass(slots=True)
class Watch:
    """Follows one connection's channels and the age of its newest frame of any kind; times are monotonic seconds.

    A connection is left where nothing at all comes over it, where none of its channels is answered or delivers, with
    patience that grows to ``QUIET_MOST_S``, or, at most once in ``LEAVE_S``, for the sake of one channel. A channel
    that stays away is otherwise given up: it is asked for again at growing intervals on the same connection, and the
    others flow on. ``memory`` outlives the connection.
    """

    channels: tuple[str, ...]
    silent_s: float
    """Seconds without any frame, pongs included, after which the socket counts as dead, where pings are answered."""
    started: float
    memory: Memory = field(default_factory=Memory)
    addresses: int = 1
    """How many addresses may serve what this one does not."""
    _channels: dict[str, _Channel] = field(default_factory=dict)
    _last_any: float = 0.0
    _last_unknown: float | None = None
    _pinged_at: float | None = None
    """Of the pings not answered, when the first was sent."""
    _answered: bool = False
    _probed: bool = False
    _probe_answered: bool = False

    def __post_init__(self) -> None:
        self._channels = {c: _Channel(asked_at=self.started, last=self.started) for c in self.channels}
        self._last_any = self.started
        for channel in self.channels:
            self.memory.paces.setdefault(channel, Pace())
            if channel in self.memory.lost:
                self._channels[channel].asking = _Asking.after(self.started)

    @property
    def unlisted(self) -> bool:
        """Whether the exchange says that there is no such contract, and nothing it sends says otherwise."""
        states = self._channels.values()
        return bool(states) and all(s.confirmed is None and is_unlisted(s.refused) for s in states)

    def alive(self, now: float) -> None:
        """Something came, be it a part of a frame or a pong."""
        self._last_any = now
        self._probed = False

    def pinged(self, now: float) -> None:
        """A ping as the exchange documents it was sent."""
        if self._pinged_at is None:
            self._pinged_at = now

    def pong(self) -> None:
        """The exchange answered a ping of that kind."""
        self._pinged_at = None
        self._answered = True
        self.memory.unanswered = False
        self.memory.unheard = 0

    def probe_answered(self) -> None:
        """A ping of the protocol was answered."""
        self._probe_answered = True
        self.memory.unheard = 0

    def _delivers(self, now: float) -> None:
        if self._pinged_at is not None and now - self._pinged_at >= (1 - PROBED) * self.silent_s:
            self.memory.unanswered = True

    def unknown(self, now: float) -> None:
        """A frame of no known channel came: something is delivered, whatever it is."""
        self._last_unknown = now
        self._delivers(now)

    def ack(self, channel: str, now: float) -> list[Action]:
        """The exchange said yes to a channel."""
        self.memory.unacked = False
        state = self._channels.get(channel)
        return [] if state is None else self._confirm(channel, state, "ack", now)

    def answered(self, channel: str, answer: str) -> None:
        """The exchange answered a subscription in words that are not known: neither yes nor no."""
        if (state := self._channels.get(channel)) is not None:
            state.answered = answer

    def data(self, channel: str, now: float) -> list[Action]:
        """A frame of the channel came."""
        state = self._channels.get(channel)
        if state is None:
            return []
        if state.delivered:
            gap, pace = now - state.last, self.memory.paces[channel]
            # Of a silence that was called a stall only half the limit is learned: it may have been one.
            pace.observe(min(gap, pace.limit(bounds(channel)) / 2) if state.stalled else gap)
        state.last = now
        state.delivered = True
        state.stalled = False
        self.memory.tried.discard(channel)
        if not may_rest(channel):
            self.memory.strange = 0
            self.memory.flowed(now)
        self._delivers(now)
        if state.confirmed is None:
            self.memory.unacked = True
        return self._confirm(channel, state, "data", now)

    def _confirm(self, channel: str, state: _Channel, by: str, now: float) -> list[Action]:
        state.refused = state.answered = None
        self.memory.mute = 0
        self.memory.refusals.pop(channel, None)
        known = state.confirmed is not None
        if not known:
            state.confirmed = by
            state.last = now
        lost = self.memory.lost.get(channel)
        if lost is None:
            if by == "data":
                state.asking = None
            return [] if known else [ChannelConfirmed(channel, by)]
        if lost.silent and by != "data":
            return []
        del self.memory.lost[channel]
        state.asking = None
        return [ChannelResumed(channel, by, round(now - lost.since, 1))]

    def refused(self, answer: str) -> None:
        """The exchange answered with an error: meant are the unconfirmed channels that it is about, or where it does
        not tell, the one that has waited longest for an answer. Where that is wrong, the channel's own answer or data
        put it right."""
        waiting = [c for c, s in self._channels.items() if s.confirmed is None]
        if about := refused_by(answer, self._channels):
            meant = [c for c in waiting if c in about]
        else:
            meant = sorted(waiting, key=lambda c: (self._channels[c].refusals, self._channels[c].asked_at))[:1]
        for channel in meant:
            self._channels[channel].refused = answer
            self._channels[channel].refusals += 1
            self.memory.refusals[channel] = self.memory.refusals.get(channel, 0) + 1

    def due(self, now: float) -> list[Action]:
        """What is to be done at this moment."""
        memory, rest_s = self.memory, now - self._last_any
        if rest_s >= self._dead_s():
            if self._is_heard and not self._answered and not self._probe_answered:
                memory.unheard += 1
            return [Reconnect(f"no frame for {rest_s:.0f} s")]
        actions: list[Action] = []
        if memory.unanswered and not memory.unanswered_said:
            memory.unanswered_said = True
            actions.append(PingsUnanswered())
        if rest_s >= PROBED * self.silent_s and not self._probed and (memory.unanswered or not self._answered):
            self._probed = True
            actions.append(Probe())
        away: dict[str, str] = {}
        """Channels of which something should have come by now, and what is to be said of them."""
        flows = self._flows({}, now)
        for name, state in self._channels.items():
            reason = self._unanswered(name, state, now) if state.confirmed is None else self._silent(name, state, now)
            if reason is not None:
                away[name] = reason
                if name not in self.memory.lost:
                    continue
            elif state.confirmed is None:
                if now - state.asked_at >= CONFIRM_S and not state.retried and name not in self.memory.lost:
                    state.retried = True
                    actions.append(Resubscribe(name))
            elif not state.stalled and now - state.last >= self._limit(name):
                state.stalled = True
                state.asking = state.asking or _Asking.after(now)
                actions += [ChannelStalled(name, now - state.last), Resubscribe(name)]
            if not flows and not is_unlisted(state.refused):
                most_s = AGAIN_S  # nothing comes at all: asking costs nothing, each pause costs everything
            else:
                most_s = LISTING_MOST_S if is_unlisted(state.refused) else AGAIN_MOST_S
            if state.asking is not None and state.asking.due(now, most_s):
                actions.append(Resubscribe(name))
        return actions + self._without(away, now) if away else actions

    @property
    def _is_heard(self) -> bool:
        return self._last_any > self.started

    def _dead_s(self) -> float:
        """After how long without anything the socket counts as dead. Where no ping is answered on a connection over
        which something came, that says nothing: longer from one to the next, and longest where data came meanwhile."""
        if not self._is_heard or self._probe_answered:
            return self.silent_s
        if self.memory.unanswered:
            return max(self.silent_s, DEAD_MOST_S)
        if self._answered or not self.memory.unheard:
            return self.silent_s
        return max(self.silent_s, min(DEAD_MOST_S, self.silent_s * 2.0 ** min(self.memory.unheard, 30)))

    def _limit(self, name: str) -> float:
        return self.memory.limit(name)

    def _unanswered(self, name: str, state: _Channel, now: float) -> str | None:
        waited = now - state.asked_at
        if state.refused is None and state.answered is not None:
            late = waited >= max(2 * CONFIRM_S, self._limit(name))
            return f"answered by: {state.answered}, and nothing came within {waited:.0f} s" if late else None
        if waited < 2 * CONFIRM_S and self.memory.refusals.get(name, 0) < 2:
            return None
        if state.refused is not None:
            return f"refused: {state.refused}"
        return f"neither confirmed nor delivered within {waited:.0f} s" if waited >= 2 * CONFIRM_S else None

    def _silent(self, name: str, state: _Channel, now: float) -> str | None:
        patience = 2 if name in RECONNECTING else SURE if self.memory.paces[name].certain else None
        age = now - state.last
        if patience is None or age < patience * self._limit(name):
            return None
        return f"silent for {age:.0f} s, also after a new subscription"

    def _without(self, away: dict[str, str], now: float) -> list[Action]:
        """What is done about channels that stay away: leave the connection, or give them up."""
        memory, states = self.memory, self._channels
        new = [name for name in away if name not in memory.lost]
        said = "; ".join(f"{name} {reason}" for name, reason in away.items())
        flows = self._flows(away, now)
        if not flows:
            memory.flows_since = None
            unanswered = all(s.confirmed is None and s.refused is None and s.answered is None for s in states.values())
            if unanswered and not memory.unacked:
                patience = 2 * CONFIRM_S * min(MUTE_MOST, 2 ** min(memory.mute // self.addresses, 30))
                if now - self.started < patience:
                    return []
                memory.mute += 1
                self._note_strange(now)
                return [Reconnect(said)]
            confirmed = any(states[name].confirmed is not None for name in away)
            refused = len(away) == len(states) and (self.addresses > 1 or not self.unlisted)
            if (confirmed or refused) and now >= memory.quiet_until:
                memory.tried.update(new)
                memory.left(now, self.addresses, resting=confirmed or unanswered)
                self._note_strange(now)
                return [Reconnect(said)]
        hopeful = [
            name for name in new if name not in memory.tried and states[name].refused is None and not may_rest(name)
        ]
        if flows and hopeful and (memory.left_at is None or now - memory.left_at >= LEAVE_S):
            memory.left_at = now
            memory.quiet_until = max(memory.quiet_until, now + memory.quiet_s)
            memory.tried.update(hopeful)
            return [Reconnect("; ".join(f"{name} {away[name]}" for name in hopeful), orderly=True)]
        for name in new:
            memory.lost[name] = _Lost(now, away[name], states[name].confirmed is not None)
            states[name].asking = _Asking.after(now)
        return [ChannelGivenUp(name, away[name]) for name in new]

    def _flows(self, away: dict[str, str], now: float) -> bool:
        """Whether anything is delivered over this connection at present."""
        if self._strange(now):
            memory = self.memory
            if now - memory.strange_at >= LEAVE_S:
                memory.strange = 0
            if memory.strange >= self.addresses - 1:
                return True
        return any(
            state.delivered
            and name not in away
            and now - state.last < self._limit(name)
            and (now - state.last < QUIET_S or not may_rest(name))
            for name, state in self._channels.items()
        )

    def _strange(self, now: float) -> bool:
        """Whether frames come of which it is not known what they are. The market under other names, which is worth all;
        or the notice of an address that serves no more, which shows by another one that does: each has its turn, once
        in ``LEAVE_S``."""
        return self._last_unknown is not None and now - self._last_unknown < QUIET_S

    def _note_strange(self, now: float) -> None:
        if self._strange(now):
            self.memory.strange += 1
            self.memory.strange_at = now

    def status(self, now: float) -> dict[str, dict[str, str | float | None]]:
        """Per channel: how it was confirmed, seconds since its last frame (None before the first), what was answered
        that is neither yes nor no, and where it was given up, for how many seconds now, and why."""
        found: dict[str, dict[str, str | float | None]] = {}
        for name, state in self._channels.items():
            found[name] = {
                "confirmed": state.confirmed or "none",
                "age_s": round(now - state.last, 3) if state.confirmed else None,
            }
            if state.answered is not None:
                found[name]["answered"] = state.answered
            lost = self.memory.lost.get(name)
            if lost is not None:
                found[name] |= {"given_up_s": round(now - lost.since, 1), "given_up": lost.reason}
        return found
