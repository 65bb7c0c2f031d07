"""What the exchange's own times in its frames say, and when they say something that cannot be: they lag behind its
clock, run ahead of it, stand still, or are not there. Pure; monotonic seconds and Unix ms go in.

A push says in ``ts`` when it was sent (documentation, 2026-04). The first one after a subscription may repeat what is
old, with its old ``ts`` (a sister venue, 2026-09), and one odd frame is none of the exchange's changes: what persists
is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from mexc_pipeline.events import Mistimed
from mexc_pipeline.exchange.channels import DEAL, DEPTH, FULL_DEPTH, TICKER
from mexc_pipeline.exchange.deadletters import too_many
from mexc_pipeline.exchange.silence import may_rest
from mexc_pipeline.text import duration

OFF_MS = 60_000.0
"""A time is wrong from so much beyond all that is not known of the clocks."""
STILL = 10
STILL_S = 10.0
"""So many frames in succession, over so many seconds, that were all sent at one moment were not."""
SUCCESSIVE = 3
"""So many in succession are no accident where a channel brings no others; among right ones as many as with dead
letters."""
PERSISTS_S = 5.0
"""What is over within it is an accident: frames that were held up come in one burst."""
ANEW_S = 600.0
"""What was not too much within so long is counted anew."""
SETTLED_S = 60.0
"""Without a wrong time for so long, while right ones come, it is over."""
NOT_JUDGED = 0
"""Stands for the time of a frame of which nothing is to be said here: a dead letter's is told as what is wrong with
it."""

Why = Literal["behind", "ahead", "still", "absent"]

WITHIN = {DEAL: ("t", "cts"), DEPTH: ("cts",), FULL_DEPTH: ("cts",), TICKER: ("timestamp",)}
"""The times within the ``data`` of a channel's frames: of a trade, of the matching engine, of the last trade."""
MAY_BE_OLD = frozenset({"timestamp"})
"""Of these the ones that are old in a market that rests."""


class Between(NamedTuple):
    """The exchange's clock at a moment (Unix ms), at the earliest and at the latest."""

    earliest: float
    latest: float

    def late_ms(self, ts: float) -> float:
        """By how much ``ts`` lies behind it at least; negative: ahead; 0 where it may be right."""
        return max(0.0, self.earliest - ts) - max(0.0, ts - self.latest)


def wrong(late_ms: float) -> Why | None:
    """Whether a time that is so late at least (negative: ahead) is wrong, and how."""
    if abs(late_ms) <= OFF_MS:
        return None
    return "behind" if late_ms > 0 else "ahead"


def persists(off: int, of: int) -> bool:
    """Whether so many wrong times among so many are no accident."""
    return off == of >= SUCCESSIVE or too_many(off, of)


def sentence(channel: str, why: str, late_ms: float | None) -> str:
    """What is wrong with the times of a channel's frames."""
    if why == "absent":
        return f"{channel}: its frames have no ts any more, and rx stands in for it"
    way = "behind" if late_ms is None or late_ms > 0 else "ahead of"
    off = (
        ""
        if late_ms is None or wrong(late_ms) is None
        else f"{duration(abs(late_ms) / 1000)} {way} the exchange's clock"
    )
    if why == "still":
        return f"{channel}: ts stands still" + (f", {off}" if off else "")
    return f"{channel}: ts is {off or why}"


@dataclass(slots=True)
class Standing:
    """The time that the newest frames of a channel share."""

    ts: int | None = None
    since: float = 0.0
    frames: int = 0

    def saw(self, ts: int, now: float) -> bool:
        """Take the ``ts`` of the next frame; returns whether it has stood still for too long."""
        if ts != self.ts:
            self.ts, self.since, self.frames = ts, now, 0
        self.frames += 1
        return self.frames >= STILL and now - self.since >= STILL_S


@dataclass(slots=True)
class _Episode:
    """Wrong times between which there is no long stretch of right ones."""

    began: float
    newest: float
    off: int = 0
    of: int = 0
    why: Why = "behind"
    ts: int | None = None
    late_ms: float | None = None
    said_in: int | None = None
    """In which segment it was said last."""

    def event(self, channel: str, *, ended: bool | None = None) -> Mistimed:
        late_ms = None if self.late_ms is None else round(self.late_ms)
        for_s = round(self.newest - self.began, 1)
        return Mistimed(channel=channel, why=self.why, ts=self.ts, late_ms=late_ms, for_s=for_s, ended=ended)


@dataclass(slots=True)
class _Channel:
    begins: bool = True
    """The next frame is the first of a connection."""
    standing: Standing = field(default_factory=Standing)
    episode: _Episode | None = None


class Times:
    """Follows the times of one symbol's channels over all connections, for the reading thread;
    :meth:`segment_opened` may come from another. Not of channels that come only when something changes, or of which
    it is not known what their ``ts`` is."""

    def __init__(self, channels: Iterable[str]) -> None:
        self._channels = {channel: _Channel() for channel in channels if not may_rest(channel)}
        self._segment = 0
        self._wrong: dict[str, _Episode] = {}
        """What was said and has not ended, by channel."""

    def connected(self) -> None:
        """The next frame of each channel is the first of a connection."""
        for state in self._channels.values():
            state.begins = True

    def segment_opened(self) -> None:
        """A new segment has its first row: what is wrong is said in each."""
        self._segment += 1

    def saw(self, newest: Mapping[str, int | None], now: float, clock: Between | None) -> list[Mistimed]:
        """Take the ``ts`` of the newest frame of some channels (None: it has none; :data:`NOT_JUDGED`), received just
        now. ``clock`` is the exchange's, None where that is not known. Returns what is to be recorded."""
        said = []
        for channel, ts in newest.items():
            state = self._channels.get(channel)
            if state is None or ts == NOT_JUDGED:
                continue
            if state.begins:
                state.begins = False
            elif (event := self._look(channel, state, ts, now, clock)) is not None:
                said.append(event)
        return said

    def status(self, now: float) -> dict[str, dict[str, Any]]:
        """What is wrong, by channel: ``why``, ``late_ms`` (None where it is not known), the newest ``ts``, and for how
        many seconds now."""
        return {
            channel: {"why": found.why, "late_ms": found.late_ms, "ts": found.ts, "for_s": round(now - found.began, 1)}
            for channel, found in self._wrong.items()
        }

    def _look(
        self, channel: str, state: _Channel, ts: int | None, now: float, clock: Between | None
    ) -> Mistimed | None:
        episode, stands = state.episode, ts is not None and state.standing.saw(ts, now)
        late_ms = None if clock is None or ts is None else clock.late_ms(ts)
        why: Why | None = "absent" if ts is None else "still" if stands else None
        if why is None and late_ms is not None:
            why = wrong(late_ms)
        if why is None:
            if episode is None or (late_ms is None and episode.why in ("behind", "ahead")):
                return None  # nothing was wrong, or it cannot be told whether it still is
            episode.of += 1
            if now - episode.newest < SETTLED_S:
                return None
            state.episode = None
            return episode.event(channel, ended=True) if self._wrong.pop(channel, None) else None
        if episode is None or (episode.said_in is None and now - episode.began > ANEW_S):
            began = state.standing.since if stands else now
            state.episode = episode = _Episode(began, now)
        episode.off += 1
        episode.of += 1
        episode.newest, episode.why, episode.ts, episode.late_ms = now, why, ts, late_ms
        if episode.said_in is None and not stands:
            if now - episode.began < PERSISTS_S or not persists(episode.off, episode.of):
                return None
        elif episode.said_in == self._segment:
            return None
        episode.said_in, self._wrong[channel] = self._segment, episode
        return episode.event(channel)
