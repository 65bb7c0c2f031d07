"""The loop of attempts: wait for a turn, read one connection after another, and stay away where that is wanted."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import websocket

from mexc_pipeline import config, events
from mexc_pipeline.egress.dial import Dial, EgressError, UnreachedError, dial
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.exchange.resumption import Resumption
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.clock import HostClock
from mexc_pipeline.feed.handshake import HandshakeRefusedError
from mexc_pipeline.feed.intake import Intake
from mexc_pipeline.feed.reading import Reading
from mexc_pipeline.feed.session import ClosedByExchange, Ended, FeedSession
from mexc_pipeline.feed.state import Ending, FeedState
from mexc_pipeline.feed.telling import UNLISTED
from mexc_pipeline.feed.turns import Turns
from mexc_pipeline.text import clean

log = logging.getLogger("mexc_pipeline.feed")

TURN_S = 1.0
"""How often the other processes' attempts are looked at while they leave us no turn."""
TICK_S = 0.5
"""Longest wait before it is looked at what is wanted."""


class Feed:
    """Reads one symbol. ``intake`` gets frames and events in the order they happened; what is fetched from
    ``rest`` comes to it from another thread. ``resumption``: what an earlier process left.
    ``attempts`` and ``sharing``: see :class:`~mexc_pipeline.feed.turns.Turns`."""

    def __init__(
        self,
        symbol: config.Symbol,
        exchange: config.ExchangeTable,
        intake: Intake,
        dialler: Dial = dial,
        rest: RestClient | None = None,
        resumption: Resumption | None = None,
        attempts: Attempts | None = None,
        sharing: int = 1,
    ) -> None:
        self._dial = dialler
        self.turns = Turns(exchange.websocket_urls, attempts or Attempts(), sharing)
        """For the reading thread."""
        self.reading = Reading(symbol, exchange, intake, self.turns, rest, resumption or Resumption())
        """Of which other threads take what it says they may."""
        self.session: FeedSession | None = None
        """The present connection, or the last one; for the reading thread."""

    @property
    def clock(self) -> HostClock:
        """What is known of this host's clock."""
        return self.reading.clock

    @property
    def beat(self) -> float:
        """Monotonic seconds of the loop's last sign of life."""
        return self.reading.beat

    @property
    def state(self) -> FeedState:
        """What the reading thread last said of itself; each moment is a new one, to be taken once and read whole."""
        return self.reading.state

    def run(self) -> None:
        """Read until :meth:`stop`; never raises for anything the network or the exchange does."""
        reading = self.reading
        if reading.repairer is not None:
            threading.Thread(target=reading.repairer.run, name="repair", daemon=True).start()
        while not reading.stop.is_set():
            if (held := reading.held) is not None:
                self._stay_away(held)
                self.turns.rested()
                continue
            if not self._is_our_turn():
                continue
            reading.beat = time.monotonic()
            url = self.turns.url
            self.session = session = FeedSession(reading, self._dial)
            code, reason, said = 1006, "", {}
            kind = Ending.BROKEN
            try:
                session.run()
            except Ended as ended:
                code, reason = ended.code, str(ended)
                kind = Ending.CLOSED if isinstance(ended, ClosedByExchange) else Ending.BROKEN
            except HandshakeRefusedError as refused:
                reason, kind = str(refused), Ending.REFUSED
                said = refused.answer.fields()
                reading.publish(refusal=refused.answer)
                self.turns.refused(refused.answer)
            except UnreachedError as error:
                reason, kind = str(error), Ending.UNREACHABLE
                self.turns.unreached()
            except (EgressError, OSError, websocket.WebSocketException) as error:
                reason = str(error) or type(error).__name__
            except Exception as error:  # the library's own surprises must not end a recording; they are logged whole
                log.exception("connection failed unexpectedly")
                reason, kind = f"{type(error).__name__}: {error}", Ending.UNEXPECTED
            finally:
                session.close()
            ending = "stopped" if reading.stop.is_set() else reading.held or session.parting
            if ending is not None:
                kind = Ending.LEFT
                code, reason = (1006, f"{ending}, our close was not answered") if session.unanswered else (1000, ending)
            reason = clean(reason)  # much of it may be the exchange's own words
            reading.event(events.Disconnected(code=code, reason=reason, exit=session.exit, **said))
            reading.publish(not_connected=reason)
            if reading.stop.is_set():
                break
            reading.intake.hand_over()
            count = self.state.endings.get(kind, 0) + 1
            reading.publish(reconnects=self.state.reconnects + 1, endings={**self.state.endings, kind.value: count})
            if ending is not None:
                self.turns.left()
                continue
            pause = self.turns.lost()
            log.warning(
                "disconnected",
                extra={
                    "fields": {
                        "symbol": reading.symbol.id,
                        "url": url,
                        "reason": reason,
                        "code": code,
                        "retry_s": round(pause, 2),
                        **({"next": self.turns.url} if self.turns.url != url else {}),
                    }
                },
            )
            self._pause(pause)
        if reading.repairer is not None:
            reading.intake.put(reading.repairer.close())
        reading.intake.hand_over()

    def stop(self) -> None:
        """Let :meth:`run` say goodbye to the exchange and end, from any thread; returns at once.

        The reading thread itself sends the goodbye: a TLS socket must not be used by two threads at a time.
        """
        self.reading.stop.set()

    def hold(self, reason: str) -> None:
        """Say goodbye to the exchange, hand over what came until then and a ``stopped`` row with the reason, and
        receive nothing until :meth:`resume`; from any thread, returns at once."""
        self.reading.held = reason

    def resume(self) -> None:
        """Connect again; from any thread."""
        self.reading.held = None

    def leave(self, connection: object | None, reason: str, said: events.Event) -> None:
        """Give a connection of :attr:`state` up and make another, from any thread; returns at once. The event stands
        before the ``disconnected`` row. Does nothing where it is over already."""
        if (session := self.session) is not None:
            session.leave(connection, reason, said)

    def segment_opened(self) -> None:
        """The spool has begun a new segment; from any thread. Incremental depth then needs a snapshot to build on;
        what is wrong with the exchange's times, and which channels are given up, is said again."""
        self.reading.segment_opened()

    def status(self) -> dict[str, Any]:
        """Channels, egress, what the exchange said; see the control socket's ``status``."""
        published, held = self.state, self.reading.held
        connected = published.connected_since_ns is not None
        if self.reading.stop.is_set() or (held is not None and connected):
            state = "stopping"
        elif held is not None:
            state = f"stopped: {held}"
        elif published.look.unlisted:
            state = UNLISTED
        else:
            state = "live" if connected else "connecting"
        repairer = self.reading.repairer
        return {
            "state": state,
            **published.describe(time.monotonic()),
            "clock": self.clock.status(time.monotonic_ns()),
            "gaps": repairer.status() if repairer is not None and self.reading.checks.repairable else None,
            "trades": repairer.trades() if repairer is not None else None,
            "unversioned": dict(published.look.unversioned),
            "mistimed": {name: dict(said) for name, said in published.look.mistimed.items()},
        }

    def _is_our_turn(self) -> bool:
        """Wait until the address that we leave by may try to connect, to whichever host does not ask for patience;
        False where that is not wanted any more."""
        while not self.reading.stop.is_set() and self.reading.held is None:
            due = self.turns.wait()
            if due is None:
                self.reading.publish(waits=None)
                return True
            wait, why = due
            if self.state.waits is None:
                fields = {"symbol": self.reading.symbol.id, "for_s": round(wait, 1), "why": why}
                log.warning("waits before it connects", extra={"fields": fields})
            self.reading.publish(waits=(time.monotonic() + wait, why))
            self._pause(min(wait, TURN_S))
        self.reading.publish(waits=None)
        return False

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (
            (left := until - time.monotonic()) > 0
            and self.reading.held is None
            and not self.reading.stop.wait(min(left, TICK_S))
        ):
            self.reading.idle()

    def _stay_away(self, reason: str) -> None:
        if self.reading.repairer is not None:
            self.reading.intake.put(self.reading.repairer.give_up(reason))
        self.reading.event(events.Stopped(reason=reason))
        self.reading.intake.hand_over()
        while self.reading.held is not None and not self.reading.stop.wait(TICK_S):
            self.reading.idle()
