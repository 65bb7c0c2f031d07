"""The reading loop: connect, subscribe, read, ping, watch; and again, for ever, until told to stop."""

from __future__ import annotations

import logging
import math
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

import websocket

from mexc_pipeline import config, events
from mexc_pipeline.egress.dial import Dial, Dialled, EgressError, UnreachedError, deadline, dial
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.exchange.answers import Replies, Verdict
from mexc_pipeline.exchange.checks import Checks, FollowUp
from mexc_pipeline.exchange.deadletters import meant, sign
from mexc_pipeline.exchange.protocol import (
    MAX_STORED,
    PING,
    Classifier,
    Control,
    Subscription,
    pong_ms,
    subscriptions,
)
from mexc_pipeline.exchange.recovery import Recovery
from mexc_pipeline.exchange.resumption import Resumption
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.clock import HostClock
from mexc_pipeline.feed.handshake import HandshakeRefusedError, shake
from mexc_pipeline.feed.link import Messages, ReadAhead
from mexc_pipeline.feed.repair import Repairer
from mexc_pipeline.feed.state import FeedState, Look
from mexc_pipeline.feed.telling import UNLISTED
from mexc_pipeline.feed.turns import Turns
from mexc_pipeline.feed.watch import (
    Action,
    ChannelConfirmed,
    ChannelGivenUp,
    ChannelResumed,
    ChannelStalled,
    Memory,
    PingsUnanswered,
    Probe,
    Reconnect,
    Resubscribe,
    Watch,
)
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.text import clean

log = logging.getLogger("mexc_pipeline.feed")

HANDSHAKE_S = 10.0
TURN_S = 1.0
"""How often the other processes' attempts are looked at while they leave us no turn."""
TICK_S = 0.5
"""Longest wait for a frame before timers are looked at."""
LOOK_S = 0.1
"""How often what is known of the channels is published, where nothing is done about them."""
PATIENCE_S = 10.0
"""Seconds beyond the ping interval in which at least a pong must have come."""
MOST_UNASKED = 20
"""Channels that nobody asked for and that are told apart; more are counted together."""
GOODBYE_S = 2.0
"""How long the exchange may take to answer our close; frames that come meanwhile are still kept."""
DRAIN_S = 10.0
DRAIN_BYTES = 64 << 20
"""How long, and how much, is read of what had come when a connection ended. Kernels hold less, and a far end that goes
on sending faster than it is read must not keep us."""
LAST_DRAIN_S = 0.8
"""How long at most where the process is to end: what GOODBYE_S leaves of the time that it has."""


class Intake(Protocol):
    """Where received rows get their time and wait for their commit; shared by all who add rows to one recording."""

    @property
    def lock(self) -> threading.Lock:
        """The lock that a thread which adds frame by frame holds from :meth:`stamp` to :attr:`add`."""
        ...

    @property
    def add(self) -> Callable[[Frame], None]:
        """Queues one frame that was stamped."""
        ...

    def stamp(self) -> int:
        """The ``rx`` (Unix ns) of what has just been received."""
        ...

    def note(self, mt: int, m: bytes) -> None:
        """Stamp and add one row."""
        ...

    def hand_over(self, *, coming: int = 0) -> None:
        """Take note that all that is there for the moment was added, and a frame of ``coming`` bytes is on its way; may
        block to slow the caller down."""
        ...

    def put(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Stamp, add and hand over rows of one moment."""
        ...


class _Ended(Exception):  # noqa: N818 - not an error of ours: the connection is over
    """The connection is over; ``code`` is the WebSocket close code, 1006 where there was none."""

    def __init__(self, reason: str, code: int = 1006) -> None:
        super().__init__(reason)
        self.code = code


class _ClosedByExchange(_Ended):
    """By its close frame."""


class _NotSent(_Ended):
    """Something could not be sent: that says nothing of what can be read."""


_PROTOCOL = (websocket.ABNF.OPCODE_CLOSE, websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG)


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
        resumption = resumption or Resumption()
        self._symbol = symbol
        self._exchange = exchange
        self._intake = intake
        self._dial = dialler
        self.turns = Turns(exchange.websocket_urls, attempts or Attempts(), sharing)
        """For the reading thread."""
        self._wanted = {s.channel: s for s in subscriptions(symbol.name, symbol.channels)}
        self._replies = Replies(self._wanted.values())
        self._classify = Classifier(symbol.name, tuple(self._wanted.values())).classify
        self._checks = checks = Checks(self._wanted, resumption.last_version, resumption.deals)
        self._repairer: Repairer | None = None
        if checks.repairable:
            self._repairer = Repairer(
                symbol.id,
                rest or RestClient(symbol.egress, exchange),
                intake.put,
                lambda: checks.newest,
                Recovery(symbol.name, resumption.unfinished),
            )
        self._stop = threading.Event()
        self._ws: websocket.WebSocket | None = None
        self._link: ReadAhead | None = None
        self._messages: Messages | None = None
        self._received = 0
        self._touched: set[str] = set()  # channels that delivered since the last look, "" for whatever else came
        self._late_s = 0.0  # by how much rows of what was read last were late
        self._watch: Watch | None = None
        self._memory = Memory()
        self.clock = HostClock(time.time_ns(), time.monotonic_ns())
        self._next_ping = 0.0
        self._asked_to_leave: tuple[websocket.WebSocket, str, events.Event] | None = None
        self._parting: str | None = None  # why this connection is being left in order for another
        self._held: str | None = None  # why nothing is to be received for the time being
        self._exit: str | None = None  # of the present connection, in mode tor
        self._goodbye_by: float | None = None
        self._drain_by = 0.0  # when to stop reading what came before the connection's end (monotonic s)
        self._unanswered = False
        self.beat = time.monotonic()
        """Monotonic seconds of the loop's last sign of life."""
        self.state = FeedState({"mode": symbol.egress.mode}, self._look(self.beat), began=self.beat)
        """What the reading thread last said of itself; each moment is a new one, to be taken once and read whole."""

    # -- life

    def run(self) -> None:
        """Read until :meth:`stop`; never raises for anything the network or the exchange does."""
        if self._repairer is not None:
            threading.Thread(target=self._repairer.run, name="repair", daemon=True).start()
        while not self._stop.is_set():
            if (held := self._held) is not None:
                self._stay_away(held)
                self.turns.rested()
                continue
            if not self._is_our_turn():
                continue
            self.beat = time.monotonic()
            self._goodbye_by, self._unanswered, self._parting = None, False, None
            url = self.turns.url
            code, reason, said = 1006, "", {}
            try:
                self._session()
            except _Ended as ended:
                code, reason = ended.code, str(ended)
            except HandshakeRefusedError as refused:
                reason = str(refused)
                said = refused.answer.fields()
                self._publish(refusal=refused.answer)
                self.turns.refused(refused.answer)
            except UnreachedError as error:
                reason = str(error)
                self.turns.unreached()
            except (EgressError, OSError, websocket.WebSocketException) as error:
                reason = str(error) or type(error).__name__
            except Exception as error:  # the library's own surprises must not end a recording; they are logged whole
                log.exception("connection failed unexpectedly")
                reason = f"{type(error).__name__}: {error}"
            finally:
                self._keep_fragments()
                self._leave()
                self._say_repeated(math.inf)
            ending = "stopped" if self._stop.is_set() else self._held or self._parting
            if ending is not None:
                code, reason = (1006, f"{ending}, our close was not answered") if self._unanswered else (1000, ending)
            reason = clean(reason)  # much of it may be the exchange's own words
            self._event(events.Disconnected(code=code, reason=reason, exit=self._exit, **said))
            self._publish(not_connected=reason)
            self._exit = None
            if self._stop.is_set():
                break
            self._intake.hand_over()
            self._publish(reconnects=self.state.reconnects + 1)
            if ending is not None:
                self.turns.left()
                continue
            pause = self.turns.lost()
            log.warning(
                "disconnected",
                extra={
                    "fields": {
                        "symbol": self._symbol.id,
                        "url": url,
                        "reason": reason,
                        "code": code,
                        "retry_s": round(pause, 2),
                        **({"next": self.turns.url} if self.turns.url != url else {}),
                    }
                },
            )
            self._pause(pause)
        if self._repairer is not None:
            self._intake.put(self._repairer.close())
        self._intake.hand_over()

    def stop(self) -> None:
        """Let :meth:`run` say goodbye to the exchange and end, from any thread; returns at once.

        The reading thread itself sends the goodbye: a TLS socket must not be used by two threads at a time.
        """
        self._stop.set()

    def hold(self, reason: str) -> None:
        """Say goodbye to the exchange, hand over what came until then and a ``stopped`` row with the reason, and
        receive nothing until :meth:`resume`; from any thread, returns at once."""
        self._held = reason

    def resume(self) -> None:
        """Connect again; from any thread."""
        self._held = None

    def leave(self, connection: object | None, reason: str, said: events.Event) -> None:
        """Give a connection of :attr:`state` up and make another, from any thread; returns at once. The event stands
        before the ``disconnected`` row. Does nothing where it is over already."""
        if (ws := self._ws) is not None and ws is connection:
            self._asked_to_leave = (ws, reason, said)

    def segment_opened(self) -> None:
        """The spool has begun a new segment; from any thread. Incremental depth then needs a snapshot to build on."""
        self._checks.segment_opened()

    def status(self) -> dict[str, Any]:
        """Channels, egress, what the exchange said; see the control socket's ``status``."""
        published, held = self.state, self._held
        connected = published.connected_since_ns is not None
        if self._stop.is_set() or (held is not None and connected):
            state = "stopping"
        elif held is not None:
            state = f"stopped: {held}"
        elif published.look.unlisted:
            state = UNLISTED
        else:
            state = "live" if connected else "connecting"
        return {
            "state": state,
            **published.describe(time.monotonic()),
            "clock": self.clock.status(time.monotonic_ns()),
            "gaps": self._repairer.status() if self._repairer is not None else None,
            "unversioned": dict(published.look.unversioned),
        }

    def _publish(self, **changes: Any) -> None:
        """From the reading thread alone."""
        self.state = replace(self.state, **changes)

    def _look(self, now: float) -> Look:
        limits = {name: self._memory.limit(name) for name in self._wanted}
        watch, lost = self._watch, frozenset(self._memory.lost)
        unversioned = {name: count for name, count in self._checks.unversioned.items() if count}
        if watch is None:
            return Look(now, {}, limits, lost, unversioned=unversioned)
        return Look(now, watch.status(now), limits, lost, watch.unlisted, unversioned)

    def _is_our_turn(self) -> bool:
        """Wait until the address that we leave by may try to connect, to whichever host does not ask for patience;
        False where that is not wanted any more."""
        while not self._stop.is_set() and self._held is None:
            due = self.turns.wait()
            if due is None:
                self._publish(waits=None)
                return True
            wait, why = due
            if self.state.waits is None:
                fields = {"symbol": self._symbol.id, "for_s": round(wait, 1), "why": why}
                log.warning("waits before it connects", extra={"fields": fields})
            self._publish(waits=(time.monotonic() + wait, why))
            self._pause(min(wait, TURN_S))
        self._publish(waits=None)
        return False

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self._held is None and not self._stop.wait(min(left, TICK_S)):
            self._idle()

    def _stay_away(self, reason: str) -> None:
        if self._repairer is not None:
            self._intake.put(self._repairer.give_up(reason))
        self._event(events.Stopped(reason=reason))
        self._intake.hand_over()
        while self._held is not None and not self._stop.wait(TICK_S):
            self._idle()

    def _idle(self) -> None:
        self.beat = time.monotonic()
        self._look_at_clock()
        self._intake.hand_over()

    # -- one connection

    def _session(self) -> None:
        url = self.turns.url
        dialled = self._dial(self._symbol.egress, url, self._exchange.ca_file)
        link = ReadAhead(dialled.sock, self._before_wait, self._intake.hand_over)
        ws = websocket.WebSocket(skip_utf8_validation=True)
        try:
            self._handshake(ws, link, dialled, url)
        except BaseException:
            dialled.sock.close()
            raise
        dialled.sock.settimeout(TICK_S)
        link.watch(self._say_paused)
        now = time.monotonic()
        self._watch = Watch(
            tuple(self._wanted), self._exchange.ping_interval_s + PATIENCE_S, now, self._memory, len(self.turns)
        )
        self._next_ping = now
        self.clock.connected()
        way = {"peer": dialled.peer, "local": dialled.local, "url": url, **dialled.details}
        self._exit = dialled.details.get("exit")
        self._link = link
        self._messages = Messages(ws, link)
        self._ws = ws
        self._publish(
            connection=ws,
            connected_since_ns=time.time_ns(),
            egress={"mode": dialled.mode, **way},
            not_connected=None,
            look=self._look(now),
        )
        self._checks.connected()
        self._event(events.Connected(egress=dialled.mode, **way))
        try:
            for subscription in self._wanted.values():
                self._subscribe(subscription)
            self._read(self._messages.next, link)
        except (websocket.WebSocketProtocolException, websocket.WebSocketPayloadException):
            raise  # where the next frame begins is not known
        except Exception as error:
            farewell = self._drain(self._messages, link)
            if farewell is not None and isinstance(error, _NotSent):
                raise farewell from error  # why there is nobody any more who takes it
            raise

    def _drain(self, messages: Messages, link: ReadAhead) -> _ClosedByExchange | None:
        """Take in what has come over a connection that is over, for whatever reason: frames that this host's kernel has
        acknowledged are received, and no one sends them again. Returns the exchange's goodbye where it is among them.
        """
        if link.fileno() < 0:  # read to its end, where the library closes it
            return None
        self._drain_by, most = time.monotonic() + DRAIN_S, link.received + DRAIN_BYTES
        link.drain(lambda: self._before_draining(link, most))
        farewell = None
        while True:
            try:
                self._read(messages.next, link)
            except _ClosedByExchange as closed:
                farewell = farewell or closed  # what stands behind it came as well
            except _Ended as ended:
                log.warning("left unread", extra={"fields": {"symbol": self._symbol.id, "why": str(ended)}})
                return farewell
            except (OSError, websocket.WebSocketException):
                return farewell  # that was all

    def _before_draining(self, link: ReadAhead, most: int) -> None:
        now = time.monotonic()
        self.beat = now
        if self._stop.is_set():
            self._drain_by = min(self._drain_by, now + LAST_DRAIN_S)
        if self._watch is not None:
            self._take_in(self._watch, now, self._size_coming())
            self._drain_by += time.monotonic() - now  # waiting for the disk is not reading
        if now >= self._drain_by or link.received > most:
            raise _Ended("the exchange goes on sending")

    def _handshake(self, ws: websocket.WebSocket, link: ReadAhead, dialled: Dialled, url: str) -> None:
        dialled.sock.settimeout(HANDSHAKE_S)
        try:
            with deadline(dialled.sock, HANDSHAKE_S, "WebSocket handshake"):
                shake(link, url)
        except TimeoutError as error:
            raise _Ended(f"WebSocket handshake: not done within {HANDSHAKE_S:g} s") from error
        self._publish(refusal=None)
        ws.sock, ws.connected = link, True  # type: ignore[assignment]  # it stands in for a socket

    def _read(self, message: Callable[[], tuple[int, bytes]], link: ReadAhead) -> None:
        classify, touch, checks = self._classify, self._touched.add, self._checks.by_channel
        dead, look = Mt.DEAD_LETTER, link.look
        found: FollowUp | None = None
        lock, stamp, add, monotonic = self._intake.lock, self._intake.stamp, self._intake.add, time.monotonic
        while True:
            data = m = b""  # the last ones may be large, and the next ones long in coming
            try:
                opcode, data = message()
            except (TimeoutError, websocket.WebSocketTimeoutException):
                continue  # every read begins with a look at the timers; what is there of a frame is kept
            if opcode in _PROTOCOL:
                self._on_protocol_frame(opcode, data)
                continue
            with lock:  # what is stamped must not be overtaken, nor wait anywhere but in the queue
                rx = stamp()
                if monotonic() > link.late_from:  # it is said before the first such row
                    self._late_s = link.late()
                    add(Frame(rx, None, Mt.EVENT, events.Paused(for_s=round(self._late_s, 1)).m))
                control, mt, ts, m, channel, answer, text = classify(opcode, data)
                if control is None or mt is dead:
                    check = checks.get(channel or "")
                    if check is not None and (mt is not dead or meant(m, self._symbol.name) == channel):
                        found = check(m if text is None else text)
                        if found is not None and found.said is not None:
                            add(Frame(rx, None, Mt.EVENT, found.said.m))
                    add(Frame(rx, ts, mt, m))
            if found is not None:
                self._fetch(found)
                found = None
            if control is None:
                if answer is not None:
                    self._on_reply(channel or "", answer)
                elif mt is dead:
                    self._on_dead_letter(channel, data if text is None else text)
                    look()
                else:
                    touch(channel or "")
                    if text is not None:  # plain data of one read never take long
                        look()
            elif control is Control.ACK:
                self._on_reply(channel or "", answer)
            elif control is Control.PONG:
                self._on_pong(ts, m)

    def _fetch(self, found: FollowUp) -> None:
        """Have fetched what a frame's place in its stream asks for."""
        match found.said:
            case events.Gap(channel=channel, first=first, last=last, count=count):
                fields = {"channel": channel, "from": first, "to": last, "count": count}
                log.warning("versions missing", extra={"fields": fields})
            case events.Unversioned(channel=channel, count=count):
                log.error("versions cannot be read", extra={"fields": {"channel": channel, "frames": count}})
            case events.Regressed(channel=channel, first=first, last=last) if found.reset_after:
                log.warning("version reset", extra={"fields": {"channel": channel, "from": first, "to": last}})
        if self._repairer is not None:
            self._repairer.found(found)

    def _on_protocol_frame(self, opcode: int, data: bytes) -> None:
        if opcode != websocket.ABNF.OPCODE_CLOSE:
            if opcode == websocket.ABNF.OPCODE_PONG and self._watch is not None:
                self._watch.probe_answered()
            return  # a ping is answered before the next wait
        code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
        raise _ClosedByExchange(clean(data[2:]) or "closed by the exchange", code)

    def _on_dead_letter(self, channel: str | None, content: bytes) -> None:
        """A sign of life of the connection; of a channel only where its own data of our symbol came."""
        own, name = sign(channel, content, self._symbol.name, self._wanted)
        self._touched.add(own or "")
        if name is None:
            return
        unasked = self.state.unasked
        if name not in unasked and len(unasked) >= MOST_UNASKED:
            name = "others"
        count, _ = unasked.get(name, (0, 0.0))
        self._publish(unasked={**unasked, name: (count + 1, time.monotonic())})

    def _on_reply(self, name: str, answer: str | None) -> None:
        verdict, channel, said = self._replies.read(name, answer)
        watch = self._watch
        if verdict is Verdict.CONFIRMED:
            if channel is not None and watch is not None:
                self._act(watch.ack(channel, time.monotonic()))
            return
        self._said(said)
        if watch is not None and verdict is Verdict.REFUSED:
            watch.refused(said)
        elif watch is not None and channel is not None:
            watch.answered(channel, said)
        self._publish(look=self._look(time.monotonic()))

    def _on_pong(self, ts: int | None, m: bytes) -> None:
        if self._watch is not None:
            self._watch.pong()
        self._note_clock(self.clock.answered(pong_ms(m, ts), time.time_ns(), time.monotonic_ns()))

    def _said(self, answer: str) -> None:
        answer = clean(answer)
        if answer != self.state.exchange_said:  # it may go on saying so
            log.warning("exchange says", extra={"fields": {"symbol": self._symbol.id, "said": answer}})
        self._publish(exchange_said=answer)

    # -- timers

    def _before_wait(self) -> None:
        """All that was read is decoded: hand it over, then look at the timers."""
        now = time.monotonic()
        self.beat = now
        watch, ws = self._watch, self._ws
        if watch is None or ws is None:
            return  # still in the handshake, which has its own deadline
        self._take_in(watch, now, self._size_coming())
        asked = self._asked_to_leave
        if asked is not None and asked[0] is ws and self._parting is None:  # not one that is over already
            _, self._parting, said = asked
            self._event(said)
        if self._stop.is_set() or self._held is not None or self._parting is not None:
            self._say_goodbye(now)
            return
        if self._messages is not None and self._messages.ping is not None:
            payload, self._messages.ping = self._messages.ping, None
            self._send(payload, websocket.ABNF.OPCODE_PONG)
        if now >= self._next_ping:
            self._next_ping = now + self._exchange.ping_interval_s
            self.clock.asked(time.monotonic_ns())
            watch.pinged(now)
            self._send(PING)
        self._act(watch.due(now))

    def _size_coming(self) -> int:
        """Bytes of the message on its way, as far as they are known."""
        size = self._messages.coming if self._messages is not None else 0
        if size > MAX_STORED:
            raise _Ended(f"a frame of {size} bytes or more is larger than what is kept ({MAX_STORED})", 1009)
        return size

    def _take_in(self, watch: Watch, now: float, coming: int) -> None:
        """All that was read is decoded: see who delivered it, and hand it over."""
        if self._late_s:
            self._was_paused(self._late_s)
            self._late_s = 0.0
        if self._link is not None and self._link.received != self._received:
            self._received = self._link.received
            watch.alive(now)
        if self._touched:
            self.turns.delivered(now)
        self.turns.look(now)
        if delivered := dict.fromkeys(filter(None, self._touched), now):
            self._publish(proven=True, last_frames={**self.state.last_frames, **delivered})
        for channel in self._touched:
            if channel:
                self._act(watch.data(channel, now))
            else:
                watch.unknown(now)
        self._touched.clear()
        if now - self.state.look.at >= LOOK_S:
            self._publish(look=self._look(now))
        self._say_repeated(now)
        self._look_at_clock()
        self._intake.hand_over(coming=coming)

    def _say_goodbye(self, now: float) -> None:
        if self._goodbye_by is None:
            self._goodbye_by = now + GOODBYE_S
            self._send(struct.pack("!H", 1000), websocket.ABNF.OPCODE_CLOSE)
        elif now >= self._goodbye_by:
            self._unanswered = True
            raise _Ended("stopped", 1000)

    def _act(self, actions: list[Action]) -> None:
        if actions:
            self._publish(look=self._look(time.monotonic()))
        for action in actions:
            match action:
                case ChannelConfirmed(channel, by):
                    self._event(events.Subscribed(channel=channel, by=by))
                case ChannelStalled(channel, age):
                    self._event(events.Stalled(channel=channel, age_s=round(age, 1)))
                    log.warning("channel stalled", extra={"fields": {"symbol": self._symbol.id, "channel": channel}})
                case ChannelGivenUp(channel, reason):
                    self._event(events.GivenUp(channel=channel, reason=reason))
                    fields = {"symbol": self._symbol.id, "channel": channel, "why": reason}
                    log.error("channel given up", extra={"fields": fields})
                case ChannelResumed(channel, by, after_s):
                    self._event(events.Resumed(channel=channel, by=by, after_s=after_s))
                    log.warning("channel is back", extra={"fields": {"symbol": self._symbol.id, "channel": channel}})
                case Resubscribe(channel):
                    self._subscribe(self._wanted[channel])
                case Probe():
                    self._send(b"", websocket.ABNF.OPCODE_PING)
                case PingsUnanswered():
                    log.warning("pings are not answered, data come", extra={"fields": {"symbol": self._symbol.id}})
                case Reconnect(reason, orderly):
                    self._event(events.Stalled(reason=reason))
                    if not orderly:
                        raise _Ended(reason)
                    self._parting = reason

    def _subscribe(self, subscription: Subscription) -> None:
        self._send(subscription.request)

    def _send(self, payload: bytes, opcode: int = websocket.ABNF.OPCODE_TEXT) -> None:
        """Send a frame. One that the far end does not take ends the connection: part of it may be under way, and to
        wait for it again and again would keep us from reading."""
        if self._ws is None:
            return
        try:
            self._ws.send(payload, opcode)
        except (TimeoutError, websocket.WebSocketTimeoutException) as error:
            raise _NotSent("the exchange does not take what is sent to it") from error
        except (OSError, websocket.WebSocketException) as error:
            raise _NotSent(str(error) or type(error).__name__) from error

    def _look_at_clock(self) -> None:
        self._note_clock(self.clock.look(time.time_ns(), time.monotonic_ns()))

    def _note_clock(self, said: list[bytes]) -> None:
        for m in said:
            self._intake.note(Mt.EVENT, m)
            log.warning("clock", extra={"fields": {"symbol": self._symbol.id, "said": m.decode()}})

    # -- handing over

    def _say_repeated(self, now: float) -> None:
        repeated = self._checks.repeated(now)
        if repeated is not None:
            self._intake.note(Mt.EVENT, repeated)

    def _say_paused(self, for_s: float) -> None:
        self._event(events.Paused(for_s=round(for_s, 1)))
        self._was_paused(for_s)

    def _was_paused(self, for_s: float) -> None:
        self._publish(paused=(time.monotonic(), for_s))
        log.warning("nothing was read", extra={"fields": {"symbol": self._symbol.id, "for_s": round(for_s, 1)}})

    def _keep_fragments(self) -> None:
        """What came of a message that the connection's end cut off is a dead letter like any other fragments."""
        left = self._messages.left() if self._messages is not None else b""
        if left:
            with self._intake.lock:
                rx = self._intake.stamp()
                _, mt, ts, m, *_ = self._classify(websocket.ABNF.OPCODE_CONT, left)
                self._intake.add(Frame(rx, ts, mt, m))

    def _event(self, said: events.Event) -> None:
        self._intake.note(Mt.EVENT, said.m)

    def _leave(self) -> None:
        ws, self._ws = self._ws, None
        self._watch = None
        self._publish(connection=None, connected_since_ns=None, look=self._look(time.monotonic()))
        self._asked_to_leave = None
        if self._touched:
            self.turns.delivered_at_its_end(time.monotonic())
        self._touched.clear()
        self._link = self._messages = None
        self._received = 0
        if ws is not None:
            ws.abort()  # type: ignore[no-untyped-call]
            ws.shutdown()  # type: ignore[no-untyped-call]
