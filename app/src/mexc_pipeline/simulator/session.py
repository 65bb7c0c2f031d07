"""One WebSocket connection: its subscriptions, its heartbeat, and the order in which bytes leave it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from mexc_pipeline.simulator import wire
from mexc_pipeline.simulator.config import SimulatorConfig
from mexc_pipeline.simulator.faults import Fault, FaultBoard
from mexc_pipeline.simulator.frames import UNLINKED, Push, channel_of, stream_of
from mexc_pipeline.simulator.sentlog import ConnectionLog
from mexc_pipeline.simulator.shapes import MARKED, shaped
from mexc_pipeline.simulator.wire import OP_TEXT

ACKNOWLEDGED = "reset, all acknowledged"
ACKNOWLEDGED_S = 5.0


class Venue(Protocol):
    """What a session needs of the exchange around it."""

    config: SimulatorConfig
    board: FaultBoard

    def listed(self, symbol: str) -> bool:
        """Whether there is such a contract."""

    def subscribe(self, session: Session, symbol: str, stream: str) -> None:
        """Begin a stream for a session."""

    def unsubscribe(self, session: Session, symbol: str, stream: str) -> None:
        """End a stream of a session."""


class _Frame(NamedTuple):
    opcode: int
    symbol: str
    payload: bytes
    encoded: bytes


class Session:
    """Owns one connection. Everything runs on the simulator's loop.

    A frame is logged as sent once the operating system has all of it; while the client does not
    read, frames wait in line here, up to the configured backlog.
    """

    def __init__(
        self, number: int, connection: ServerConnection, venue: Venue, log: ConnectionLog, heartbeat_spread: float
    ) -> None:
        self.number = number
        self.log = log
        self.streams: set[tuple[str, str]] = set()
        self.last_subscribed = 0.0
        self.end_reason = ""
        self._connection = connection
        self._transport: asyncio.Transport = connection.transport
        self._venue = venue
        self._loop = asyncio.get_running_loop()
        self._spread = heartbeat_spread
        self._last_ping = self._opened = self._loop.time()
        self._line: deque[_Frame] = deque()
        self._line_bytes = 0
        self._in_flight: _Frame | None = None
        self._pump_task: asyncio.Task[None] | None = None
        self._held: list[Push] = []
        self._ending = False

    # What leaves

    @property
    def open(self) -> bool:
        """Whether the connection is open."""
        return self._connection.state is State.OPEN and not self._transport.is_closing()

    def deliver(self, push: Push) -> None:
        """Send one market frame, or what the faults that are on make of it."""
        if self._venue.board and not (self.open and self._passes_faults(push)):
            return
        self.send(OP_TEXT, push.payload, push.symbol)

    def _passes_faults(self, push: Push) -> bool:
        board, now = self._venue.board, self._loop.time()
        where = (self.number, push.symbol or None, push.channel)
        if board.holding("retired", now, *where):
            return False
        if stall := board.holding("stall", now, *where):
            if stall.value == "hold":
                self._held.append(push)
            return False
        self._release()
        if board.take("drop", *where) or (push.channel == "depth" and board.take("version_gap", *where)):
            return False
        payload = push.payload
        if push.channel.startswith("depth") and board.take("version_back", *where):
            payload = wire.version_back(payload)
        if b'"begin":' in payload and (fault := board.take("begin_end", *where)):
            payload = wire.begin_end(payload, fault.value)
        opcode, payload = self._shaped(payload, *where[1:])
        if fault := board.take("half", *where):
            self._send_half(opcode, payload, push.symbol, fault.value)
        elif board.take("fragmented", *where):
            self._enqueue(_Frame(opcode, push.symbol, payload, wire.fragments(opcode, payload)))
        else:
            for _ in range(2 if board.take("duplicate", *where) else 1):
                self.send(opcode, payload, push.symbol)
        return False

    def release_held(self) -> None:
        """Send what a stall that has ended held back."""
        if self._held and not self._venue.board.holding(
            "stall", self._loop.time(), self.number, self._held[0].symbol or None, self._held[0].channel
        ):
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        for push in held:
            opcode, payload = self._shaped(push.payload, push.symbol or None, push.channel)
            self.send(opcode, payload, push.symbol)

    def _shaped(self, payload: bytes, symbol: str | None, channel: str) -> tuple[int, bytes]:
        """A text frame in the shapes that are on."""
        opcode = OP_TEXT
        for fault in self._venue.board.all_holding("shape", self._loop.time(), self.number, symbol, channel):
            if opcode == OP_TEXT:  # one that is packed cannot be changed any more
                opcode, payload = shaped(payload, fault.value)
        return opcode, payload

    def send(self, opcode: int, payload: bytes, symbol: str) -> None:
        """Send one text or binary frame as it is, behind those that wait."""
        self._enqueue(_Frame(opcode, symbol, payload, wire.encode(opcode, payload)))

    def send_control(self, payload: bytes) -> None:
        """Send an ack, a pong or an error, unless everything is stalled."""
        if self._venue.board:
            symbols = {symbol for symbol, _ in self.streams if symbol}
            only = next(iter(symbols)) if len(symbols) == 1 else ""
            if self._venue.board.holding("stall", self._loop.time(), self.number, only, "control"):
                return
            opcode, payload = self._shaped(payload, only or None, "control")
            self.send(opcode, payload, "")
            return
        self.send(OP_TEXT, payload, "")

    def send_fault(self, fault: Fault) -> None:
        """Send the frame a fault consists of, at once and whatever else is stalled."""
        symbol = fault.symbol or min((s for s, _ in self.streams if s), default="")
        if fault.kind == "ws_ping":
            self.write_piece(wire.encode(wire.OP_PING, b"simulator"))
            return
        opcode, payload = wire.fault_frame(fault, symbol, self.now_ms())
        self.send(opcode, payload, symbol)

    def _enqueue(self, frame: _Frame) -> None:
        if not self.open or self._ending:
            return
        if self._in_flight is None:
            self._write(frame)
            return
        self._line.append(frame)
        self._line_bytes += len(frame.encoded)
        if self._line_bytes > self._venue.config.max_backlog:
            self.abort("backlog")

    def _write(self, frame: _Frame) -> None:
        self._transport.write(frame.encoded)
        if self._transport.is_closing():
            self._log(frame, whole=False)
        elif self._transport.get_write_buffer_size() == 0:
            self._log(frame, whole=True)
        else:
            self._in_flight = frame
            if self._pump_task is None:
                self._pump_task = self._loop.create_task(self._pump())

    async def _pump(self) -> None:
        try:
            while self._in_flight is not None:
                await self._connection.drain()
                if self._connection.state is not State.OPEN:
                    return
                self._log(self._in_flight, whole=True)
                self._in_flight = None
                while self._line and self._in_flight is None and self.open:
                    frame = self._line.popleft()
                    self._line_bytes -= len(frame.encoded)
                    self._write(frame)
        except OSError:
            return  # the connection broke: ended() records the frame in flight as broken
        finally:
            self._pump_task = None

    def _log(self, frame: _Frame, whole: bool) -> None:
        opcode = frame.opcode & ~MARKED
        self.log.frame(self._venue.config.clock_ns(), opcode, frame.symbol, frame.payload, whole)

    def write_piece(self, encoded: bytes | memoryview) -> None:
        """Write frames that are already encoded; the caller logs them (flat-out mode)."""
        self._transport.write(encoded)

    async def drained(self) -> bool:
        """Wait until the operating system has everything, also what stood in line; returns False where it is over."""
        try:
            while self._pump_task is not None:
                await asyncio.wait([self._pump_task])
            await self._connection.drain()
        except OSError:
            return False
        return self.open

    # How it ends

    def ended(self) -> str:
        """Record a frame the connection broke inside of, and return why it ended."""
        if self._in_flight is not None:
            self._log(self._in_flight, whole=False)
            self._in_flight = None
        if self._pump_task is not None:
            self._pump_task.cancel()
        return self.end_reason or f"client ({self._connection.close_code})"

    def reset(self, reason: str = "reset") -> None:
        """End with a TCP reset."""
        self.end_reason = self.end_reason or reason
        sock = self._transport.get_extra_info("socket")
        if sock.fileno() >= 0:  # else it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def reset_acknowledged(self) -> None:
        """Send nothing more, and end with a TCP reset once the client's system has acknowledged everything; after 5 s
        without that as :meth:`reset` does."""
        self._ending = True
        sock = self._transport.get_extra_info("socket")
        with suppress(TimeoutError):
            async with asyncio.timeout(ACKNOWLEDGED_S):
                while await self.drained():
                    if not struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]:
                        self.reset(ACKNOWLEDGED)
                        return
                    await asyncio.sleep(0.001)
        self.reset()

    def abort(self, reason: str = "abort") -> None:
        """End the TCP connection without a close frame."""
        self.end_reason = self.end_reason or reason
        self._transport.close()

    def close(self, code: int | None, reason: str = "close") -> None:
        """Send a close frame (None: without a code) and end the TCP connection within a second."""
        self.end_reason = self.end_reason or reason
        if self._connection.state is State.OPEN:
            self._connection.protocol.send_close(code)
            self._connection.send_data()
            self._loop.call_later(1.0, self._transport.close)

    def garbage(self) -> None:
        """Put bytes on the socket that are neither TLS nor WebSocket, and end."""
        self.end_reason = self.end_reason or "garbage"
        os.write(self._transport.get_extra_info("socket").fileno(), b"\x16\x03\x03\xff\xff" + b"\xff" * 64)
        self._loop.call_later(0.2, self._transport.abort)

    def notice_and_close(self, reason: str) -> None:
        """Close as the exchange does when no ping came: the notice, then a close frame without code."""
        self.send(OP_TEXT, wire.error(wire.HEARTBEAT_NOTICE, self.now_ms()), "")
        self.close(None, reason)

    def _send_half(self, opcode: int, payload: bytes, symbol: str, how: str) -> None:
        if self.open and self._in_flight is None:  # otherwise the one in flight is the one that breaks
            encoded = wire.encode(opcode, payload)
            self._transport.write(encoded[: len(encoded) // 2])
            self._log(_Frame(opcode, symbol, payload, encoded), whole=False)
        if how == "reset":
            self.reset("half frame")
        else:
            self.abort("half frame")

    # What arrives

    def now_ms(self) -> int:
        """Return the time (Unix ms)."""
        return self._venue.config.clock_ns() // 1_000_000

    def outlived(self, now: float) -> bool:
        """Whether the connection is older than a limit on the age of connections allows."""
        fault = self._venue.board.holding("session_limit", now, self.number)
        return fault is not None and now - self._opened > float(fault.value or 40)

    def overdue(self, now: float) -> bool:
        """Whether the last JSON ping is longer ago than the exchange allows; other traffic does not count."""
        heartbeat = self._venue.config.heartbeat
        return heartbeat > 0 and now - self._last_ping > heartbeat * (1 + self._spread)

    def message(self, text: str | bytes) -> None:
        """Act on one frame of the client. What is not a known method gets no answer (wire, 2026-09)."""
        request = wire.parsed(text)
        if not isinstance(request, dict) or not isinstance(method := request.get("method"), str):
            return
        if method == "ping":
            self._ping()
            return
        action, _, topic = method.partition(".")
        param = request.get("param") or {}
        if action in ("sub", "unsub") and isinstance(param, dict):
            self._subscription(action, topic, param)

    def _ping(self) -> None:
        board, now = self._venue.board, self._loop.time()
        self._last_ping = now
        if board and board.holding("no_pong", now, self.number):
            return
        for _ in range(2 if board and board.take("double_pong", self.number) else 1):
            self.send_control(wire.pong(self.now_ms()))

    def _subscription(self, action: str, topic: str, param: dict[str, Any]) -> None:
        if topic in UNLINKED:
            symbol, stream = "", topic
        else:
            known = stream_of(topic, param)
            if known is None:
                return
            symbol, stream = str(param.get("symbol", "")), known
            if not self._venue.listed(symbol):
                self.send_control(wire.error(f"Contract [{symbol}] not exists", self.now_ms()))
                return
        if action == "sub" and (fault := self._retired(topic, symbol, stream)):
            if fault.value == "ack":
                self._ack(wire.control(f"rs.sub.{topic}", '"success"', self.now_ms()))
            elif fault.value not in ("", "silent"):
                self.send_control(wire.error(fault.value, self.now_ms()))
            return
        if action == "unsub":
            for old in self._variants(symbol, stream):
                self._venue.unsubscribe(self, symbol, old)
            if self._venue.config.unsub_ack:
                self.send_control(wire.control(f"rs.unsub.{topic}", '"success"', self.now_ms()))
            return
        self._ack(wire.control(f"rs.sub.{topic}", '"success"', self.now_ms()))
        for old in self._variants(symbol, stream) - {stream}:
            self._venue.unsubscribe(self, symbol, old)
        self.last_subscribed = self._loop.time()
        if self._venue.board and stream not in UNLINKED:
            self._venue.board.resubscribed(self.number, symbol, channel_of(stream))
        self._venue.subscribe(self, symbol, stream)

    def _retired(self, topic: str, symbol: str, stream: str) -> Fault | None:
        channel = stream if topic in UNLINKED else channel_of(stream)
        return self._venue.board.holding("retired", self._loop.time(), self.number, symbol or None, channel)

    def _variants(self, symbol: str, stream: str) -> set[str]:
        """Return this connection's subscriptions of the same channel and symbol: the last one wins."""
        if stream in UNLINKED:
            return {s for name, s in self.streams if s == stream}
        channel = channel_of(stream)
        if channel not in ("deal", "depth", "depth.full"):
            return {stream} & {s for name, s in self.streams if name == symbol}
        return {s for name, s in self.streams if name == symbol and channel_of(s) == channel}

    def _ack(self, payload: bytes) -> None:
        board, now = self._venue.board, self._loop.time()
        if board and board.holding("no_ack", now, self.number):
            return
        if board and (fault := board.holding("slow_ack", now, self.number)):
            self._loop.call_later(fault.delay, self.send_control, payload)
            return
        self.send_control(payload)
