"""When to connect next, and to which address: what is allowed to the address that we leave by, what the exchange asked
for, and the pauses after connections that came to nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from urllib.parse import urlsplit

from mexc_pipeline.backoff import Backoff
from mexc_pipeline.egress.hosts import Hosts
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.handshake import HandshakeAnswer

UNREACHED_S = 3.0
"""Longest pause after an attempt that reached nobody."""
KEPT_S = 3.0
"""The attempt of a session that delivered for this long does not count, nor does the one that follows it: many symbols
of one address start together, and come back together when the exchange ends them all. Sessions that bring a frame and
end count, or they would follow each other without end; ones that last so long are 20 a minute by themselves."""
JITTER_S = 0.02
MOST_JITTER_S = 1.0
"""Symbols that leave by one address come back one after another: so much for each of them, and in all."""


class Turns:
    """Follows one feed's connections, for its reading thread; times in monotonic seconds. ``attempts``: what all who
    leave by the same address may do, ``sharing`` symbols of this configuration."""

    def __init__(self, urls: Sequence[str], attempts: Attempts, sharing: int) -> None:
        self._hosts = Hosts(urls)
        self._attempts = attempts
        self._sharing = sharing
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret
        self._backoff = Backoff(self._rng)
        self._delivered_at: float | None = None
        self._serves = False
        self.kept = False
        """Whether that was :data:`KEPT_S` ago."""
        self._is_free = False
        self._has_reached_nobody = False

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def url(self) -> str:
        """The address in use."""
        return self._hosts.url

    def wait(self) -> tuple[float, str] | None:
        """For how long no address may be tried, and why; None where one may, which is then in use: the attempt
        begins."""
        waits = []
        for url in self._hosts.in_turn:
            waits.append(self._attempts.wait_s(_host(url), free=self._is_free))
            if not waits[-1][0]:
                self._hosts.use(url)
                self._delivered_at, self._serves, self.kept, self._has_reached_nobody = None, False, False, False
                return None
        return min(waits)

    def delivered(self, now: float, *, asked: bool = True) -> None:
        """A frame came over the connection; only one of what was ``asked`` for makes its address one that works."""
        if self._delivered_at is None:
            self._delivered_at = now
            self._attempts.delivered(_host(self._hosts.url))
        if asked and not self._serves:
            self._serves = True
            self._hosts.worked(self._hosts.url)

    def delivered_at_its_end(self, now: float) -> None:
        """A frame came together with the connection's end, as a close may follow the only frames at once: that makes no
        address one that works, nor one that fails."""
        if self._delivered_at is None:
            self._delivered_at, self._serves = now, True

    def look(self, now: float) -> None:
        """The connection is still there."""
        if not self.kept and self._delivered_at is not None and now - self._delivered_at >= KEPT_S:
            self.kept = True
            self._attempts.forget()

    def refused(self, answer: HandshakeAnswer) -> None:
        """The exchange answered the attempt with something else than a connection."""
        if answer.status:
            self._attempts.refused(_host(self._hosts.url), answer.retry_after_s, str(answer))

    def unreached(self) -> None:
        """The attempt reached nobody."""
        self._has_reached_nobody = True
        self._attempts.forget()

    def left(self) -> None:
        """The connection was left in order: the next follows at once."""
        self._is_free = True
        self._backoff.reset()

    def rested(self) -> None:
        """No connection was wanted for a time."""
        self._backoff.reset()

    def lost(self) -> float:
        """The connection is over, or there was none; returns the seconds to pause."""
        self._is_free = self.kept
        if self._delivered_at is not None:
            self._backoff.reset()
            if not self._serves:
                self._hosts.failed(self._hosts.url)
            return self._rng.uniform(0.0, min(MOST_JITTER_S, JITTER_S * (self._sharing - 1)))
        self._attempts.came_to_nothing()
        pause = 0.0 if self._hosts.failed(self._hosts.url) else self._backoff.next_s()
        # To reach nobody costs nobody anything, and each second of a network that is back counts.
        return min(pause, UNREACHED_S) if self._has_reached_nobody else pause


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
