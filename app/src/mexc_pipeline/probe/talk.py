"""One connection of a probe, read by the recorder's own reader: what ends a recording's connection ends this one."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import websocket

from mexc_pipeline.exchange.protocol import MAX_STORED, PING
from mexc_pipeline.feed.link import Messages, ReadAhead
from mexc_pipeline.probe.records import Breach

TICK_S = 0.1
"""Longest wait for a frame before timers are looked at."""
GOODBYE_S = 1.0
"""How long the exchange may take to answer our close."""
_PONGS = (websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG)


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended; see :class:`~mexc_pipeline.probe.records.Closed`."""

    code: int
    reason: str
    ours: bool
    breach: Breach = ""


class _Over(Exception):  # noqa: N818 - not an error: the connection is over
    def __init__(self, end: End) -> None:
        super().__init__(end.reason)
        self.end = end


class Talk:
    """Asks, pings and listens. ``sent`` and ``received`` are told of each request and frame; ``every``: seconds between
    pings; it says goodbye once ``enough`` says so. ``sock`` stands, and is closed in the end."""

    def __init__(
        self,
        sock: socket.socket,
        sent: Callable[[bytes], None],
        received: Callable[[int, bytes], None],
        every: float,
        enough: Callable[[], bool],
    ) -> None:
        link = ReadAhead(sock, self._before_wait)
        self._ws = websocket.WebSocket(skip_utf8_validation=True)
        self._ws.sock, self._ws.connected = link, True  # type: ignore[assignment]  # it stands in for a socket
        self._messages = Messages(self._ws, link)
        self._sent = sent
        self._received = received
        self._every = every
        self._enough = enough
        self._next_ping = 0.0
        self._goodbye_by: float | None = None
        sock.settimeout(TICK_S)

    def talk(self, requests: Sequence[bytes]) -> End:
        """Ask, ping and listen until the connection is over, however that comes about; returns how it ended."""
        try:
            for request in requests:
                self._send(request)
            while True:
                try:
                    opcode, payload = self._messages.next()
                except (TimeoutError, websocket.WebSocketTimeoutException):
                    continue  # every read begins with a look at the timers; what is there of a frame is kept
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
                    return End(code, payload[2:].decode(errors="replace"), self._parting)
                if opcode not in _PONGS:
                    self._received(opcode, payload)
        except _Over as over:
            return over.end
        except websocket.WebSocketConnectionClosedException as error:
            return End(1006, str(error), self._parting)
        except websocket.WebSocketException as error:
            return End(1006, str(error), self._parting, "rules")
        except OSError as error:
            return End(1006, str(error), self._parting)
        finally:
            if left := self._messages.left():
                self._received(websocket.ABNF.OPCODE_CONT, left)  # fragments whose end did not come
            self._ws.shutdown()  # type: ignore[no-untyped-call]

    @property
    def _parting(self) -> bool:
        return self._goodbye_by is not None

    def _before_wait(self) -> None:
        now = time.monotonic()
        if self._messages.coming > MAX_STORED:
            raise _Over(End(1009, "", self._parting, "size"))
        if self._goodbye_by is not None:
            if now >= self._goodbye_by:
                raise _Over(End(1006, "our close was not answered", True))
            return
        if self._enough():
            self._goodbye_by = now + GOODBYE_S
            self._ws.send(struct.pack("!H", 1000), websocket.ABNF.OPCODE_CLOSE)
            return
        if self._messages.ping is not None:
            payload, self._messages.ping = self._messages.ping, None
            self._ws.send(payload, websocket.ABNF.OPCODE_PONG)
        if now >= self._next_ping:
            self._next_ping = now + self._every
            self._send(PING)

    def _send(self, text: bytes) -> None:
        self._sent(text)
        self._ws.send(text)
