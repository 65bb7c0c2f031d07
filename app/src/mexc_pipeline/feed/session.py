"""One connection to the exchange: made, subscribed, read frame by frame, pinged, watched, and left in order or drained.
It ends by an exception that says why; what came over it is handed over by then."""

from __future__ import annotations

import contextlib
import logging
import math
import struct
import time
from collections.abc import Callable

import websocket

from mexc_pipeline import events
from mexc_pipeline.egress.dial import Dial, Dialled, deadline
from mexc_pipeline.exchange.answers import Verdict
from mexc_pipeline.exchange.channels import DEAL, ack_of, topic_of
from mexc_pipeline.exchange.checks import FollowUp
from mexc_pipeline.exchange.deadletters import meant, sign
from mexc_pipeline.exchange.protocol import MAX_STORED, PING, Control, Subscription, pong_ms
from mexc_pipeline.exchange.times import NOT_JUDGED
from mexc_pipeline.feed.handshake import shake
from mexc_pipeline.feed.link import Messages, ReadAhead
from mexc_pipeline.feed.reading import Reading
from mexc_pipeline.feed.state import Look
from mexc_pipeline.feed.watch import (
    Action,
    ChannelConfirmed,
    ChannelGivenUp,
    ChannelResumed,
    ChannelStalled,
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
TICK_S = 0.5
"""Longest wait for a frame before timers are looked at."""
LOOK_S = 0.1
"""How often what is known of the channels is published, where nothing is done about them."""
TIMES_S = 1.0
"""How often the times of the channels' newest frames are looked at."""
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


class Ended(Exception):  # noqa: N818 - not an error of ours: the connection is over
    """The connection is over; ``code`` is the WebSocket close code, 1006 where there was none."""

    def __init__(self, reason: str, code: int = 1006) -> None:
        super().__init__(reason)
        self.code = code


class ClosedByExchange(Ended):
    """The exchange has ended the connection by its close frame."""


class NotSent(Ended):
    """Something could not be sent: that says nothing of what can be read."""


_DEALS_ACK = ack_of(topic_of(DEAL))
_PROTOCOL = (websocket.ABNF.OPCODE_CLOSE, websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG)


class FeedSession:
    """A connection of a :class:`~mexc_pipeline.feed.reading.Reading`, to be run once, and closed whatever came of it;
    in the reading thread, but for :meth:`leave`."""

    def __init__(self, reading: Reading, dialler: Dial) -> None:
        self._reading = reading
        self._id = reading.symbol.id
        self._dial = dialler
        self._ws: websocket.WebSocket | None = None
        self._link: ReadAhead | None = None
        self._messages: Messages | None = None
        self._received = 0
        # Channels that delivered since the last look, "" for whatever else came, with the ts of their newest frame.
        self._touched: dict[str, int | None] = {}
        self._newest: dict[str, int | None] = {}  # the same since their times were last looked at
        self._next_times = 0.0
        self._late_s = 0.0  # by how much rows of what was read last were late
        self._watch: Watch | None = None
        self._deals_since: int | None = None  # when the exchange said that it delivers them (Unix ms)
        self.next_ping = 0.0
        """When the exchange is pinged again (monotonic s)."""
        self._asked_to_leave: tuple[str, events.Event] | None = None
        self._goodbye_by: float | None = None
        self._drain_by = 0.0  # when to stop reading what came before the connection's end (monotonic s)
        self.parting: str | None = None
        """Why it is being left in order for another."""
        self.unanswered = False
        """Whether the exchange did not answer our goodbye."""
        self.exit: str | None = None
        """By which it was made, in mode tor."""

    def run(self) -> None:
        """Connect and read until it is over: Ended, or what connecting raised."""
        reading = self._reading
        url = reading.turns.url
        dialled = self._dial(reading.symbol.egress, url, reading.exchange.ca_file)
        link = ReadAhead(dialled.sock, self._before_wait, reading.intake.hand_over)
        ws = websocket.WebSocket(skip_utf8_validation=True)
        with contextlib.ExitStack() as undo:
            undo.callback(dialled.sock.close)
            self._handshake(ws, link, dialled, url)
            undo.pop_all()
        dialled.sock.settimeout(TICK_S)
        link.watch(reading.say_paused)
        now = time.monotonic()
        patience_s = reading.exchange.ping_interval_s + PATIENCE_S
        self._watch = Watch(tuple(reading.wanted), patience_s, now, reading.memory, len(reading.turns))
        self.next_ping = now
        reading.clock.connected()
        way = {"peer": dialled.peer, "local": dialled.local, "url": url, **dialled.details}
        self.exit = dialled.details.get("exit")
        self._link = link
        self._messages = Messages(ws, link)
        self._ws = ws
        reading.publish(
            connection=ws,
            connected_since_ns=time.time_ns(),
            egress={"mode": dialled.mode, **way},
            not_connected=None,
            look=self._look(now),
        )
        reading.checks.connected()
        reading.times.connected()
        if reading.repairer is not None:
            reading.repairer.connected()
        reading.event(events.Connected(egress=dialled.mode, **way))
        try:
            for subscription in reading.wanted.values():
                self._subscribe(subscription)
            self._read(self._messages.next, link)
        except (websocket.WebSocketProtocolException, websocket.WebSocketPayloadException):
            raise  # where the next frame begins is not known
        except Exception as error:
            farewell = self._drain(self._messages, link)
            if farewell is not None and isinstance(error, NotSent):
                raise farewell from error  # why there is nobody any more who takes it
            raise

    def leave(self, connection: object | None, reason: str, said: events.Event) -> None:
        """Leave that connection in order; does nothing where it is not this one, or this one is over. From any
        thread."""
        if (ws := self._ws) is not None and ws is connection:
            self._asked_to_leave = (reason, said)

    def close(self) -> None:
        """Let go of the connection, if there is one, and say the last of it."""
        reading = self._reading
        self._keep_fragments()
        ws, self._ws = self._ws, None
        self._watch = None
        reading.publish(connection=None, connected_since_ns=None, look=reading.look(time.monotonic()))
        if self._late_s:
            reading.was_paused(self._late_s)
        if self._touched:
            reading.turns.delivered_at_its_end(time.monotonic())
        self._touched.clear()
        self._link = self._messages = None
        if ws is not None:
            ws.abort()  # type: ignore[no-untyped-call]
            ws.shutdown()  # type: ignore[no-untyped-call]
        reading.say_repeated(math.inf)
        if reading.repairer is not None and (rows := reading.repairer.disconnected()):
            reading.intake.put(rows)

    def _look(self, now: float) -> Look:
        return self._reading.look(now, self._watch)

    # -- what comes

    def _drain(self, messages: Messages, link: ReadAhead) -> ClosedByExchange | None:
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
            except ClosedByExchange as closed:
                farewell = farewell or closed  # what stands behind it came as well
            except Ended as ended:
                log.warning("left unread", extra={"fields": {"symbol": self._id, "why": str(ended)}})
                return farewell
            except (OSError, websocket.WebSocketException):
                return farewell  # that was all

    def _before_draining(self, link: ReadAhead, most: int) -> None:
        now = time.monotonic()
        self._reading.beat = now
        if self._reading.stop.is_set():
            self._drain_by = min(self._drain_by, now + LAST_DRAIN_S)
        if self._watch is not None:
            self._take_in(self._watch, now, self._size_coming())
            self._drain_by += time.monotonic() - now  # waiting for the disk is not reading
        if now >= self._drain_by or link.received > most:
            raise Ended("the exchange goes on sending")

    def _handshake(self, ws: websocket.WebSocket, link: ReadAhead, dialled: Dialled, url: str) -> None:
        dialled.sock.settimeout(HANDSHAKE_S)
        try:
            with deadline(dialled.sock, HANDSHAKE_S, "WebSocket handshake"):
                shake(link, url)
        except TimeoutError as error:
            raise Ended(f"WebSocket handshake: not done within {HANDSHAKE_S:g} s") from error
        self._reading.publish(refusal=None)
        ws.sock, ws.connected = link, True  # type: ignore[assignment]  # it stands in for a socket

    def _read(self, message: Callable[[], tuple[int, bytes]], link: ReadAhead) -> None:
        reading, intake = self._reading, self._reading.intake
        classify, touched, checks = reading.classify, self._touched, reading.checks.by_channel
        dead, look = Mt.DEAD_LETTER, link.look
        found: FollowUp | None = None
        lock, stamp, add = intake.lock, intake.stamp, intake.add
        read_clock, elapsed = time.clock_gettime, time.CLOCK_BOOTTIME  # the link's; a call less for each frame
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
                if read_clock(elapsed) > link.late_from:  # it is said before the first such row
                    self._late_s = link.late()
                    add(Frame(rx, None, Mt.EVENT, events.Paused(for_s=round(self._late_s, 1)).m))
                    reading.deals_in_doubt()
                control, mt, ts, m, channel, answer, text = classify(opcode, data)
                if control is None or mt is dead:
                    check = checks.get(channel or "")
                    if check is not None and (mt is not dead or meant(m, reading.symbol.name) == channel):
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
                    touched[channel or ""] = ts
                    if text is not None:  # plain data of one read never take long
                        look()
            elif control is Control.ACK:
                if channel == _DEALS_ACK:
                    self._deals_since = ts
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
            case events.IdsShared(channel=channel):
                log.error("ids are not unique", extra={"fields": {"channel": channel}})
            case events.Regressed(channel=channel, first=first, last=last) if found.reset_after:
                log.warning("version reset", extra={"fields": {"channel": channel, "from": first, "to": last}})
        if self._reading.repairer is not None:
            self._reading.repairer.found(found)

    def _on_protocol_frame(self, opcode: int, data: bytes) -> None:
        if opcode != websocket.ABNF.OPCODE_CLOSE:
            if opcode == websocket.ABNF.OPCODE_PONG and self._watch is not None:
                self._watch.probe_answered()
            return  # a ping is answered before the next wait
        code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
        raise ClosedByExchange(clean(data[2:]) or "closed by the exchange", code)

    def _on_dead_letter(self, channel: str | None, content: bytes) -> None:
        """A sign of life of the connection; of a channel only where its own data of our symbol came."""
        reading = self._reading
        own, name = sign(channel, content, reading.symbol.name, reading.wanted)
        self._touched.setdefault(own or "", NOT_JUDGED)
        if name is None:
            return
        unasked = reading.state.unasked
        if name not in unasked and len(unasked) >= MOST_UNASKED:
            name = "others"
        count, _ = unasked.get(name, (0, 0.0))
        reading.publish(unasked={**unasked, name: (count + 1, time.monotonic())})

    def _on_reply(self, name: str, answer: str | None) -> None:
        verdict, channel, said = self._reading.replies.read(name, answer)
        watch = self._watch
        if verdict is Verdict.CONFIRMED:
            if channel is not None and watch is not None:
                self._act(watch.ack(channel, time.monotonic()))
            return
        self._reading.exchange_says(said)
        if watch is not None and verdict is Verdict.REFUSED:
            watch.refused(said)
        elif watch is not None and channel is not None:
            watch.answered(channel, said)
        self._reading.publish(look=self._look(time.monotonic()))

    def _on_pong(self, ts: int | None, m: bytes) -> None:
        if self._watch is not None:
            self._watch.pong()
        self._reading.note_clock(self._reading.clock.answered(pong_ms(m, ts), time.time_ns(), time.monotonic_ns()))

    # -- timers

    def _before_wait(self) -> None:
        """All that was read is decoded: hand it over, then look at the timers."""
        reading, now = self._reading, time.monotonic()
        reading.beat = now
        watch, ws = self._watch, self._ws
        if watch is None or ws is None:
            return  # still in the handshake, which has its own deadline
        self._take_in(watch, now, self._size_coming())
        asked = self._asked_to_leave
        if asked is not None and self.parting is None:
            self.parting, said = asked
            reading.event(said)
        if reading.stop.is_set() or reading.held is not None or self.parting is not None:
            self._say_goodbye(now)
            return
        if self._messages is not None and self._messages.ping is not None:
            payload, self._messages.ping = self._messages.ping, None
            self._send(payload, websocket.ABNF.OPCODE_PONG)
        if now >= self.next_ping:
            self.next_ping = now + reading.exchange.ping_interval_s
            reading.clock.asked(time.monotonic_ns())
            watch.pinged(now)
            self._send(PING)
        self._act(watch.due(now))

    def _size_coming(self) -> int:
        """Bytes of the message on its way, as far as they are known."""
        size = self._messages.coming if self._messages is not None else 0
        if size > MAX_STORED:
            raise Ended(f"a frame of {size} bytes or more is larger than what is kept ({MAX_STORED})", 1009)
        return size

    def _take_in(self, watch: Watch, now: float, coming: int) -> None:
        """All that was read is decoded: see who delivered it, and hand it over."""
        reading = self._reading
        if self._late_s:
            reading.was_paused(self._late_s)
            self._late_s = 0.0
        else:  # what was held up here says nothing of when it was sent
            self._newest.update(self._touched)
        if self._link is not None and self._link.received != self._received:
            self._received = self._link.received
            watch.alive(now)
        if self._touched:
            reading.turns.delivered(now, asked=any(self._touched))
        reading.turns.look(now)
        if delivered := dict.fromkeys(filter(None, self._touched), now):
            reading.publish(proven=True, last_frames={**reading.state.last_frames, **delivered})
        for channel in self._touched:
            if channel:
                self._act(watch.data(channel, now))
            else:
                watch.unknown(now)
        self._touched.clear()
        if now >= self._next_times:
            self._next_times = now + TIMES_S
            reading.look_at_times(self._newest, now)
            self._newest.clear()
        if now - reading.state.look.at >= LOOK_S:
            reading.publish(look=self._look(now))
        reading.say_repeated(now)
        reading.say_given_up()
        reading.look_at_clock()
        reading.intake.hand_over(coming=coming)

    def _say_goodbye(self, now: float) -> None:
        if self._goodbye_by is None:
            self._goodbye_by = now + GOODBYE_S
            self._send(struct.pack("!H", 1000), websocket.ABNF.OPCODE_CLOSE)
        elif now >= self._goodbye_by:
            self.unanswered = True
            raise Ended("stopped", 1000)

    def _act(self, actions: list[Action]) -> None:
        reading = self._reading
        if actions:
            reading.publish(look=self._look(time.monotonic()))
        for action in actions:
            match action:
                case ChannelConfirmed(channel, by):
                    reading.event(events.Subscribed(channel=channel, by=by))
                    self._deals_come(channel)
                case ChannelStalled(channel, age):
                    reading.event(events.Stalled(channel=channel, age_s=round(age, 1)))
                    log.warning("channel stalled", extra={"fields": {"symbol": self._id, "channel": channel}})
                    reading.deals_in_doubt(channel)
                case ChannelGivenUp(channel, reason):
                    reading.event(events.GivenUp(channel=channel, reason=reason))
                    fields = {"symbol": self._id, "channel": channel, "why": reason}
                    log.error("channel given up", extra={"fields": fields})
                    reading.deals_in_doubt(channel)
                case ChannelResumed(channel, by, after_s):
                    reading.event(events.Resumed(channel=channel, by=by, after_s=after_s))
                    log.warning("channel is back", extra={"fields": {"symbol": self._id, "channel": channel}})
                    self._deals_come(channel)
                case Resubscribe(channel):
                    self._subscribe(reading.wanted[channel])
                case Probe():
                    self._send(b"", websocket.ABNF.OPCODE_PING)
                case PingsUnanswered():
                    log.warning("pings are not answered, data come", extra={"fields": {"symbol": self._id}})
                case Reconnect(reason, orderly):
                    reading.event(events.Stalled(reason=reason))
                    if not orderly:
                        raise Ended(reason)
                    self.parting = reason

    def _deals_come(self, channel: str) -> None:
        if channel == DEAL and self._reading.repairer is not None:
            self._reading.repairer.subscribed(self._deals_since)

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
            raise NotSent("the exchange does not take what is sent to it") from error
        except (OSError, websocket.WebSocketException) as error:
            raise NotSent(str(error) or type(error).__name__) from error

    def _keep_fragments(self) -> None:
        """What came of a message that the connection's end cut off is a dead letter like any other fragments."""
        left = self._messages.left() if self._messages is not None else b""
        if left:
            intake = self._reading.intake
            with intake.lock:
                rx = intake.stamp()
                _, mt, ts, m, *_ = self._reading.classify(websocket.ABNF.OPCODE_CONT, left)
                intake.add(Frame(rx, ts, mt, m))
