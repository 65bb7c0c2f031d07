"""What outlasts a connection: how a symbol's frames are told and checked, what its channels are like, the host's clock.
And what its reading thread says of all this: rows for events, lines of the log, and one published state."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mexc_pipeline import config, events
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.exchange.answers import Replies
from mexc_pipeline.exchange.channels import DEAL
from mexc_pipeline.exchange.checks import Checks
from mexc_pipeline.exchange.fills import Fills
from mexc_pipeline.exchange.protocol import Classifier, subscriptions
from mexc_pipeline.exchange.recovery import Recovery
from mexc_pipeline.exchange.resumption import Resumption
from mexc_pipeline.exchange.times import Times
from mexc_pipeline.feed.clock import HostClock
from mexc_pipeline.feed.intake import Intake
from mexc_pipeline.feed.repair import Repairer
from mexc_pipeline.feed.state import FeedState, Look
from mexc_pipeline.feed.turns import Turns
from mexc_pipeline.feed.watch import Memory, Watch
from mexc_pipeline.rows import Mt
from mexc_pipeline.text import clean

log = logging.getLogger("mexc_pipeline.feed")

_TIMES = {False: (logging.ERROR, "times of frames are wrong"), True: (logging.WARNING, "times of frames are right")}
"""What is logged of a channel whose times are wrong, and where that has ended."""


class Reading:
    """One symbol's reading, in the hands of its thread; see :class:`~mexc_pipeline.feed.feed.Feed`. Any thread may set
    :attr:`stop` and :attr:`held` and take :attr:`state` and :attr:`beat`."""

    def __init__(
        self,
        symbol: config.Symbol,
        exchange: config.ExchangeTable,
        intake: Intake,
        turns: Turns,
        rest: RestClient | None,
        resumption: Resumption,
    ) -> None:
        self.symbol = symbol
        self.exchange = exchange
        self.intake = intake
        self.turns = turns
        self.wanted = {s.channel: s for s in subscriptions(symbol.name, symbol.channels)}
        self.replies = Replies(self.wanted.values())
        self.classify = Classifier(symbol.name, tuple(self.wanted.values())).classify
        self.checks = checks = Checks(self.wanted, resumption.last_version, resumption.deals)
        self.repairer: Repairer | None = None
        fills = Fills(checks.deals) if DEAL in self.wanted else None
        if checks.repairable or fills is not None:
            self.repairer = Repairer(
                symbol.id,
                rest or RestClient(symbol.egress, exchange),
                intake.put,
                lambda: checks.newest,
                Recovery(symbol.name, resumption.unfinished),
                fills,
                symbol.name,
            )
        self.times = Times(self.wanted)
        self.memory = Memory()
        self.clock = HostClock(time.time_ns(), time.monotonic_ns())
        self.stop = threading.Event()
        """Set where the process is to end."""
        self._segment = self._said_in = 0
        self.held: str | None = None
        """Why nothing is to be received for the time being."""
        self.beat = time.monotonic()
        """Monotonic seconds of the loop's last sign of life."""
        self.state = FeedState({"mode": symbol.egress.mode}, self.look(self.beat), began=self.beat)
        """What the reading thread last said of itself; each moment is a new one, to be taken once and read whole."""

    def publish(self, **changes: Any) -> None:
        """Make another :attr:`state`; from the reading thread alone."""
        self.state = replace(self.state, **changes)

    def look(self, now: float, watch: Watch | None = None) -> Look:
        """The channels at that moment (monotonic s); ``watch``: of the present connection."""
        limits = {name: self.memory.limit(name) for name in self.wanted}
        lost = frozenset(self.memory.lost)
        unversioned = {name: count for name, count in self.checks.unversioned.items() if count}
        mistimed = self.times.status(now)
        if watch is None:
            return Look(now, {}, limits, lost, unversioned=unversioned, mistimed=mistimed)
        return Look(now, watch.status(now), limits, lost, watch.unlisted, unversioned, mistimed)

    def event(self, said: events.Event) -> None:
        """Record an event of this moment."""
        self.intake.note(Mt.EVENT, said.m)

    def segment_opened(self) -> None:
        """The spool has begun a new segment; from any thread. What each is to tell is told again."""
        self._segment += 1
        self.checks.segment_opened()
        self.times.segment_opened()

    def say_given_up(self) -> None:
        """Record again, once in each segment, which channels are given up: nothing else in it may tell."""
        if self._said_in != (segment := self._segment):
            self._said_in = segment
            for channel, lost in self.memory.lost.items():
                self.event(events.GivenUp(channel=channel, reason=lost.reason))

    def exchange_says(self, answer: str) -> None:
        """Publish what the exchange answered, and log it where it is new."""
        answer = clean(answer)
        if answer != self.state.exchange_said:  # it may go on saying so
            log.warning("exchange says", extra={"fields": {"symbol": self.symbol.id, "said": answer}})
        self.publish(exchange_said=answer)

    def say_repeated(self, now: float) -> None:
        """Record how many deals came again, where it is time to (monotonic s; infinity: at the connection's end)."""
        repeated = self.checks.repeated(now)
        if repeated is not None:
            self.intake.note(Mt.EVENT, repeated)

    def say_paused(self, for_s: float) -> None:
        """Record that nothing was read for that long."""
        self.event(events.Paused(for_s=round(for_s, 1)))
        self.deals_in_doubt()
        self.was_paused(for_s)

    def was_paused(self, for_s: float) -> None:
        """Publish and log it; recorded it is."""
        self.publish(paused=(time.monotonic(), for_s))
        log.warning("nothing was read", extra={"fields": {"symbol": self.symbol.id, "for_s": round(for_s, 1)}})

    def deals_in_doubt(self, channel: str = DEAL) -> None:
        """Where that channel is the trades': some may not have come, and REST is to be asked."""
        if channel == DEAL and self.repairer is not None:
            self.repairer.in_doubt()

    def look_at_times(self, newest: Mapping[str, int | None], now: float) -> None:
        """Record and log what is wrong with the ``ts`` of the channels' newest frames, received just now (monotonic
        s)."""
        clock = self.clock.exchange(time.time_ns(), time.monotonic_ns())
        for said in self.times.saw(newest, now, clock):
            self.event(said)
            fields = {"symbol": self.symbol.id, "said": said.m.decode()}
            log.log(*_TIMES[bool(said.ended)], extra={"fields": fields})

    def look_at_clock(self) -> None:
        """Record what the host's clock has done since the last look."""
        self.note_clock(self.clock.look(time.time_ns(), time.monotonic_ns()))

    def note_clock(self, said: list[bytes]) -> None:
        """Record and log what was found of the host's clock."""
        for m in said:
            self.intake.note(Mt.EVENT, m)
            log.warning("clock", extra={"fields": {"symbol": self.symbol.id, "said": m.decode()}})

    def idle(self) -> None:
        """Live on while there is no connection."""
        self.beat = time.monotonic()
        self.look_at_clock()
        self.say_given_up()
        self.intake.hand_over()
