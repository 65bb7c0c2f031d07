"""Whether this host's clock is right: its steps against the monotonic clock, and its difference from the exchange's.

Nothing is corrected by it. Only answers to our own questions are compared (pongs, REST), never pushes, whose time may
be old: the exchange's clock was read somewhere between asking and answer, so an answer bounds the difference. It counts
where two answers in succession agree. Pure but for the lock: wall clock and monotonic clock go in, as nanoseconds.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

from mexc_pipeline import events
from mexc_pipeline.exchange.times import Between
from mexc_pipeline.text import duration

LEAST_STEP_MS = 100.0
"""A smaller step is not told from a clock that is steered."""
SAID_MS = 5_000.0
"""A difference beyond it is said by an event."""
SETTLED_MS = 4_000.0
"""A difference that was said is over below it."""
FAULT_MS = 60_000.0
"""Beyond it nothing may be deleted by age."""
SLACK_MS = 250.0
"""By so much two answers may contradict each other and still agree: several machines answer for an exchange."""
STEERED = 0.125
"""So much of the time between them as well: a clock that is being set right without a step runs up to a tenth faster or
slower, the monotonic one with it."""
UNCOMPARED_S = 600.0
"""Without a comparison for so long, where pongs bring several a minute, the exchange does not tell its time."""
_MS = 1_000_000


class ClockBounds(NamedTuple):
    """By how much this host's clock is ahead of the exchange's, at least and at most; ms."""

    low: float
    high: float


class _Answer(NamedTuple):
    bounds: ClockBounds
    wall_ns: int
    mono_ns: int


@dataclass(slots=True)
class ClockWatch:
    """Notices steps of the wall clock against the monotonic one."""

    wall_ns: int
    mono_ns: int
    least_ms: float = LEAST_STEP_MS

    def step_ms(self, wall_ns: int, mono_ns: int) -> float | None:
        """Milliseconds by which the wall clock jumped since the last call, None for less than ``least_ms``."""
        step = ((wall_ns - self.wall_ns) - (mono_ns - self.mono_ns)) / 1e6
        self.wall_ns, self.mono_ns = wall_ns, mono_ns
        return step if abs(step) >= self.least_ms else None


class HostClock:
    """What is known of the clock. Methods that learn something return the ``clock`` events to be recorded; any thread
    may call them."""

    def __init__(self, wall_ns: int, mono_ns: int) -> None:
        self._lock = threading.Lock()
        self._watch = ClockWatch(wall_ns, mono_ns)
        self._asked: deque[int] = deque(maxlen=2)
        self._before: _Answer | None = None
        self._known: ClockBounds | None = None
        self._said: float | None = None
        self._stepped_ms = 0.0  # since the last comparison
        self._compared_at_ns: int | None = None
        self._compared_mono_ns = mono_ns

    def followed(self, last_rx_ns: int) -> None:
        """The newest row of an earlier process has that time (Unix ns). Where it lies in the future, the clock was set
        back in between, or is wrong."""
        with self._lock:
            ahead_ms = (last_rx_ns - self._watch.wall_ns) / _MS
            if ahead_ms > FAULT_MS:
                self._stepped_ms -= ahead_ms

    def look(self, wall_ns: int, mono_ns: int) -> list[bytes]:
        """Look whether the clock has stepped. What was known of it before a step is not known any more."""
        with self._lock:
            return self._look(wall_ns, mono_ns)

    def _look(self, wall_ns: int, mono_ns: int) -> list[bytes]:
        step = self._watch.step_ms(wall_ns, mono_ns)
        if step is None:
            return []
        self._stepped_ms += step
        if abs(step) > SAID_MS:
            self._before = None  # who set it may have set it right
            # Or the machine was suspended, when the monotonic clock stands still: how long a pong takes is not known.
            self._asked.clear()
        if abs(self._stepped_ms) > SAID_MS:
            self._known = None
        return [events.Clock(step_ms=round(step, 3)).m]

    def connected(self) -> None:
        """Note another connection: what was asked on the one before will not be answered."""
        with self._lock:
            self._asked.clear()

    def asked(self, mono_ns: int) -> None:
        """A ping was sent."""
        with self._lock:
            self._asked.append(mono_ns)

    def answered(self, server_ms: int | None, wall_ns: int, mono_ns: int) -> list[bytes]:
        """A pong came, with the exchange's time (Unix ms). One that nobody asked for, or that might belong to either of
        two pings, tells nothing: two pongs may come for one ping."""
        with self._lock:
            said = self._look(wall_ns, mono_ns)
            asked = list(self._asked)
            self._asked.clear()
            if server_ms is None or len(asked) != 1:
                return said
            return said + self._compare(server_ms, wall_ns, mono_ns, mono_ns - asked[0])

    def compare(self, server_ms: int, wall_ns: int, mono_ns: int, took_ns: int) -> list[bytes]:
        """Compare the clock with the exchange's time (Unix ms) in an answer over REST that took so long (ns)."""
        with self._lock:
            return self._compare(server_ms, wall_ns, mono_ns, took_ns)

    def status(self, mono_ns: int) -> dict[str, Any]:
        """``error_ms``: by how much it is ahead of the exchange's, None while that is not known; ``compared_at_ns``;
        ``suspect``: it differs by more than a minute, or has stepped by more since it
        was compared; ``warning``: what is the matter, for people, None while nothing is; ``todo``: what to do then."""
        with self._lock:
            error = self._known
            warning, todo = self._warning(mono_ns)
            return {
                "error_ms": None if error is None else _middle(error),
                "compared_at_ns": self._compared_at_ns,
                "suspect": self._is_suspect(),
                "warning": warning,
                "todo": todo,
            }

    def _warning(self, mono_ns: int) -> tuple[str | None, str]:
        error, stepped = self._known, self._stepped_ms
        kept = "nothing is deleted by age meanwhile"
        if error is not None and _least(error) > SAID_MS:
            way = "ahead of" if error.low > 0 else "behind"
            text = f"this host's clock is {abs(_middle(error)) / 1000:,.1f} s {way} the exchange's"
            return text, f"set it (NTP); {kept}" if self._is_suspect() else "set it (NTP)"
        if abs(stepped) > FAULT_MS:
            text = f"this host's clock was set by {stepped / 1000:+,.0f} s and not compared since"
            return text, f"check it (NTP); {kept}"
        if (for_s := self._uncompared_s(mono_ns)) >= UNCOMPARED_S:
            text = (
                f"this host's clock was not compared with the exchange's for {duration(for_s)}: neither pongs nor REST "
                "tell the time"
            )
            return text, kept if error is None else ""
        return None, ""

    def trusted_ns(self, wall_ns: int, mono_ns: int) -> int | None:
        """The time (Unix ns) by which something may be deleted for its age: ``wall_ns``, where the clock was compared,
        since it last stepped, and is right; None otherwise. A step since the last look counts too: whoever asks for a
        verdict and reads the clock afterwards may have read another clock."""
        with self._lock:
            unseen_ms = ((wall_ns - self._watch.wall_ns) - (mono_ns - self._watch.mono_ns)) / _MS
            known, stepped_ms = self._known, self._stepped_ms + unseen_ms
            if known is None or self._is_suspect() or abs(stepped_ms) > FAULT_MS:
                return None
            now = ClockBounds(known.low + stepped_ms, known.high + stepped_ms)  # a step adds to what was wrong before
            return None if _least(now) > FAULT_MS else wall_ns

    def exchange(self, wall_ns: int, mono_ns: int) -> Between | None:
        """The exchange's clock at that moment; None where this one was not compared with it lately, or has stepped
        since. Small steps, which leave it known, count as doubt."""
        with self._lock:
            unseen_ms = ((wall_ns - self._watch.wall_ns) - (mono_ns - self._watch.mono_ns)) / _MS
            stepped_ms = abs(self._stepped_ms + unseen_ms)
            if self._known is None or stepped_ms > SAID_MS or self._uncompared_s(mono_ns) >= UNCOMPARED_S:
                return None
            here_ms = wall_ns / _MS
            return Between(here_ms - self._known.high - stepped_ms, here_ms - self._known.low + stepped_ms)

    def is_known(self, mono_ns: int) -> bool:
        """Whether the clock was compared lately, and has not stepped since."""
        with self._lock:
            return self._known is not None and self._uncompared_s(mono_ns) < UNCOMPARED_S

    def _uncompared_s(self, mono_ns: int) -> float:
        return (mono_ns - self._compared_mono_ns) / 1e9

    def _is_suspect(self) -> bool:
        return abs(self._stepped_ms) > FAULT_MS or (self._known is not None and _least(self._known) > FAULT_MS)

    def _compare(self, server_ms: int, wall_ns: int, mono_ns: int, took_ns: int) -> list[bytes]:
        ahead = wall_ns / _MS - server_ms
        found = ClockBounds(ahead - took_ns / _MS - 1.0, ahead)  # the exchange's time is cut to whole ms
        answer, self._before = self._before, _Answer(found, wall_ns, mono_ns)
        if answer is None:
            return []
        between_ns = mono_ns - answer.mono_ns
        drift_ms = (wall_ns - answer.wall_ns - between_ns) / _MS  # too slow to be a step: a clock that stands still
        before = ClockBounds(answer.bounds.low + drift_ms, answer.bounds.high + drift_ms)
        slack_ms = max(SLACK_MS, STEERED * abs(between_ns) / _MS)
        if max(before.low, found.low) - min(before.high, found.high) > slack_ms:
            return []
        ends = sorted((max(before.low, found.low), min(before.high, found.high)))
        self._known = known = ClockBounds(*ends)
        self._compared_at_ns = wall_ns
        self._compared_mono_ns = mono_ns
        self._stepped_ms = 0.0
        return self._say(known)

    def _say(self, known: ClockBounds) -> list[bytes]:
        error = _middle(known)
        if self._said is None:
            if _least(known) <= SAID_MS:
                return []
            self._said = error
            return [events.Clock(error_ms=error).m]
        if _least(known) < SETTLED_MS:
            self._said = None
            return [events.Clock(error_ms=error, ended=True).m]
        if abs(error - self._said) <= SAID_MS:
            return []
        self._said = error
        return [events.Clock(error_ms=error).m]


def _middle(known: ClockBounds) -> float:
    return round((known.low + known.high) / 2, 1)


def _least(known: ClockBounds) -> float:
    """What it differs by at least."""
    return 0.0 if known.low <= 0 <= known.high else min(abs(known.low), abs(known.high))
