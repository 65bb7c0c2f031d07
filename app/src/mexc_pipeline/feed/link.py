"""A socket that reads ahead, so that a frame does not cost three system calls, and the messages that come over it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

import websocket
from websocket._abnf import frame_buffer

log = logging.getLogger("mexc_pipeline.feed")

READ_AHEAD = 64 << 10
"""Bytes of one read. Each read is allocated whole and given back in pieces: four times as much made a collector grow by
a megabyte with every stall of the machine, and read no faster."""
PAUSED_S = 1.0
"""Rows that are later than this are not left without a word."""
HELD_S = 0.05
"""What was received waits no longer than this, and for the frame that is being looked at, before it is passed on."""
_WHOLE_TEXT = 0x81
"""First byte of a text frame that is a whole message, without extensions (RFC 6455, section 5.2)."""
_TEXT = websocket.ABNF.OPCODE_TEXT
_DATA = (_TEXT, websocket.ABNF.OPCODE_BINARY)
_MOST_PING = 125
"""Bytes of a control frame: a longer one cannot be answered."""


def elapsed_s() -> float:
    """Seconds that have passed since some moment, those in which the machine was suspended among them: for these
    ``time.monotonic`` stands still."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ReadAhead:
    """Stands in for a connected socket where ``websocket-client`` reads and writes one.

    ``before_wait`` is called whenever everything read so far has been handed out and the next byte must come from the
    network: the moment to pass on what has been decoded. ``late`` is called where that moment is long in coming: one
    read may hold fifty packed frames of a megabyte, or twenty thousand fragments.
    """

    def __init__(
        self, sock: socket.socket, before_wait: Callable[[], None], late: Callable[[], None] = lambda: None
    ) -> None:
        self._sock = sock
        self._before_wait = before_wait
        self._late = late
        self._held = b""
        self._at = 0
        self.send = sock.send
        self.sendall = sock.sendall
        self.gettimeout = sock.gettimeout
        self.settimeout = sock.settimeout
        self.fileno = sock.fileno
        self.shutdown = sock.shutdown
        self.received = 0
        self._passed_on = 0.0  # when bytes last came from the network, or the last call since (elapsed s)
        self._tried = elapsed_s()  # when the last attempt to read was over (elapsed s)
        self.late_from = self._tried + PAUSED_S
        """From when on what is given out is late: so long after it was read, or after :meth:`late` (elapsed s)."""
        self._paused: Callable[[float], None] = lambda _: None

    def watch(self, paused: Callable[[float], None]) -> None:
        """From now on tell how many seconds have passed since the last attempt to read, where that is more than a read
        may take and a second: the process or the machine stood still, or the disk held us up. It is told before
        anything that was read after it is given out."""
        self._paused = paused
        self._tried = elapsed_s()

    def late(self) -> float:
        """For how many seconds what is given out now has been held up since it was read; the caller tells that, and it
        is not told again by :meth:`watch`'s callback."""
        now = elapsed_s()
        away = now - self.late_from + PAUSED_S
        self._tried, self.late_from = now, now + PAUSED_S
        return away

    def drain(self, before_read: Callable[[], None]) -> None:
        """The connection is over: from now on read what has come already, and raise BlockingIOError (in TLS
        SSLWantReadError) where that is all; ``before_read`` stands in for ``before_wait``."""
        self._before_wait = before_read
        self._sock.settimeout(0)

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; empty at the end of the stream. Raises as ``socket.recv`` does."""
        at = self._at
        piece = self._held[at : at + size]
        if piece:
            self._at = at + len(piece)
            self.look()
            return piece
        self._held = held = self._read()
        piece = held[:size]
        self._at = len(piece)
        return piece

    def text(self) -> bytes | None:
        """Payload of the next frame where it is a whole, unmasked text message below 64 KiB, which is what the exchange
        sends nearly always; None where it is anything else or the stream has ended: nothing is taken then. Waits for
        its last byte. Raises as ``socket.recv`` does, and may be called again."""
        while True:
            held, at = self._held, self._at
            there = len(held) - at
            if there >= 2:
                size = held[at + 1]
                if held[at] != _WHOLE_TEXT or size > 126:
                    return None
                start = at + 2
                if size == 126:
                    start = at + 4
                    if there >= 4:
                        size = held[at + 2] << 8 | held[at + 3]
                end = start + size
                if end <= len(held):
                    self._at = end
                    return held[start:end]
            more = self._read()
            if not more:
                return None
            self._held = held[at:] + more if there else more
            self._at = 0

    def _read(self) -> bytes:
        self._before_wait()
        try:
            piece = self._sock.recv(READ_AHEAD)
        finally:
            now = elapsed_s()
            away = now - self._tried
            self._tried, self.late_from = now, now + PAUSED_S
            if away > PAUSED_S + (self._sock.gettimeout() or 0.0):
                self._paused(away)
        self.received += len(piece)
        self._passed_on = now
        return piece

    def look(self) -> None:
        """Pass on what has been decoded of the last read, where that is taking long."""
        if elapsed_s() - self._passed_on > HELD_S:
            self._late()
            self._passed_on = elapsed_s()

    @property
    def _closed(self) -> bool:  # websocket-client asks before it closes
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class _Frames(frame_buffer):
    """The library's frames, whatever they are: the library itself ends the connection for a frame that it does not
    know, and would end each one after it, while where the next begins is as clear as ever. Only reserved bits are for
    it to refuse, but for the one that marks data as compressed (RFC 7692), which nobody agreed on: what such a frame
    holds is looked at, and kept whatever that is."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        super().__init__(receive, True)
        self._fin, self._opcode = 1, 0

    def recv_header(self) -> None:
        super().recv_header()
        assert self.header is not None
        self._fin, *reserved, self._opcode, mask, length = self.header
        if reserved == [1, 0, 0] and self._opcode in _DATA:
            reserved = [0, 0, 0]
        self.header = (1, *reserved, websocket.ABNF.OPCODE_BINARY, mask, length)

    def next(self) -> tuple[int, int, bytes]:
        """Whether it ends a message, opcode and payload."""
        frame = self.recv_frame()
        return self._fin, self._opcode, frame.data  # type: ignore[return-value]  # received ones are bytes


class Messages:
    """Messages of a connection in order. Plain text ones are taken from what was read ahead, a tenth of the cost of the
    library's way, by which everything else comes.

    Reading never waits for writing: of the pings that came, the newest is in :attr:`ping` for the caller to answer when
    there is time, which is all that RFC 6455 (section 5.5.3) asks for.
    """

    def __init__(self, ws: websocket.WebSocket, link: ReadAhead) -> None:
        self._ws = ws
        self._frames = _Frames(ws._recv)
        self._text = link.text
        self.ping: bytes | None = None
        """Payload of the newest ping that is not answered."""
        self._between = True
        """No message has begun: the next byte is the first of a frame that may stand alone."""
        self._opcode = 0
        self._parts: bytearray | None = None
        """What has come of a message in fragments, and its opcode."""
        self._next: tuple[int, int, bytes] | None = None
        """A frame that was read while the message before it turned out to have no end."""

    @property
    def coming(self) -> int:
        """Bytes of the message on its way, as far as they are known."""
        return (self._frames.length or 0) + len(self._parts or b"")

    def next(self) -> tuple[int, bytes]:
        """Opcode and payload of the next message or control frame; of what is neither as well: a frame of an opcode
        that is not defined, and, by opcode 0, fragments of a message without a beginning or without an end. Raises as
        the library does, and TimeoutError; after a timeout it may be called again."""
        if self._between:
            payload = self._text()
            if payload is not None:
                return _TEXT, payload
            self._between = False
        while True:
            fin, opcode, payload = self._next or self._frames.next()
            self._next = None
            if opcode not in _DATA and opcode != websocket.ABNF.OPCODE_CONT:  # may stand between two fragments
                self._between = self._parts is None
                self._answer(opcode, payload)
                return opcode, payload
            if opcode in _DATA and self._parts is not None:
                self._next = (fin, opcode, payload)
                return websocket.ABNF.OPCODE_CONT, self._whole()
            if self._parts is not None:
                self._parts += payload
                if fin:
                    self._between = True
                    return self._opcode, self._whole()
            elif fin or opcode == websocket.ABNF.OPCODE_CONT:
                self._between = True
                return opcode, payload
            else:
                self._opcode, self._parts = opcode, bytearray(payload)

    def left(self) -> bytes:
        """What has come of a message in fragments whose end has not: the connection is over."""
        return self._whole()

    def _whole(self) -> bytes:
        parts, self._parts = self._parts, None
        return bytes(parts or b"")

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == websocket.ABNF.OPCODE_PING and len(payload) <= _MOST_PING:
            self.ping = payload
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            # Whether that arrives does not matter: why the far end closes does, and it may be gone.
            try:
                self._ws.send(b"\x03\xe8", websocket.ABNF.OPCODE_CLOSE)
            except (OSError, websocket.WebSocketException) as error:
                log.debug("close not answered", extra={"fields": {"why": str(error)}})
