"""A socket that reads ahead, so that a frame does not cost three system calls, and the messages that come over it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import websocket
from websocket._abnf import continuous_frame, frame_buffer

log = logging.getLogger("mexc_pipeline.feed")

MOST_FRAGMENTS = 16_384
"""Of one message. The exchange sends none at all; the largest that is kept has a thousand of 64 KiB."""
READ_AHEAD = 64 << 10
"""Bytes of one read. Each read is allocated whole and given back in pieces: four times as much made a collector grow by
a megabyte with every stall of the machine, and read no faster."""
_WHOLE_TEXT = 0x81
"""First byte of a text frame that is a whole message, without extensions (RFC 6455, section 5.2)."""


class ReadAhead:
    """Stands in for a connected socket where ``websocket-client`` reads and writes one.

    ``before_wait`` is called whenever everything read so far has been handed out and the next byte must come from the
    network: the moment to pass on what has been decoded.
    """

    def __init__(self, sock: socket.socket, before_wait: Callable[[], None]) -> None:
        self._sock = sock
        self._before_wait = before_wait
        self._held = b""
        self._at = 0
        self.send = sock.send
        self.sendall = sock.sendall
        self.gettimeout = sock.gettimeout
        self.settimeout = sock.settimeout
        self.fileno = sock.fileno
        self.shutdown = sock.shutdown
        self.received = 0

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; empty at the end of the stream. Raises as ``socket.recv`` does."""
        at = self._at
        piece = self._held[at : at + size]
        if piece:
            self._at = at + len(piece)
            return piece
        self._before_wait()
        self._held = held = self._sock.recv(READ_AHEAD)
        self.received += len(held)
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
            self._before_wait()
            more = self._sock.recv(READ_AHEAD)
            if not more:
                return None
            self.received += len(more)
            self._held = held[at:] + more if there else more
            self._at = 0

    @property
    def _closed(self) -> bool:  # websocket-client asks before it closes
        return self._sock.fileno() < 0

    def close(self) -> None:
        self._sock.close()


class Fragments(continuous_frame):
    """The library's fragments of a message, put together in time linear in their bytes, and of a bounded number: its
    own copies all that came before for each of them, and takes empty ones for ever."""

    def __init__(self, *args: bool) -> None:
        super().__init__(*args)
        self._count = 0

    def add(self, frame: websocket.ABNF) -> None:
        if self.cont_data is None:
            self._count = 0
            super().add(frame)
            if not frame.fin:
                self.cont_data = [frame.opcode, bytearray(frame.data)]  # type: ignore[arg-type]  # received ones are bytes
            return
        self._count += 1
        if self._count > MOST_FRAGMENTS:
            raise websocket.WebSocketProtocolException(f"a message in more than {MOST_FRAGMENTS:,} fragments")
        super().add(frame)  # in place

    def extract(self, frame: websocket.ABNF) -> tuple[int, websocket.ABNF]:
        opcode, whole = super().extract(frame)
        whole.data = bytes(whole.data)
        return opcode, whole


class Frames(frame_buffer):
    """The library's frames. One of data that is marked as compressed (RFC 7692) without having been agreed on is a
    frame like any other: what it holds is looked at, and kept whatever that is. The library would end the connection,
    and each one after it."""

    def recv_header(self) -> None:
        super().recv_header()
        assert self.header is not None
        fin, *reserved, opcode, mask, length = self.header
        if reserved == [1, 0, 0] and opcode in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
            self.header = (fin, 0, 0, 0, opcode, mask, length)


class Messages:
    """Messages of a connection in order. Plain text ones are taken from what was read ahead, a tenth of the cost of the
    library's way; everything else (control frames, fragments, binary, faults) is the library's to read and judge.

    Reading never waits for writing: of the pings that came, the newest is in :attr:`ping` for the caller to answer when
    there is time, which is all that RFC 6455 (section 5.5.3) asks for.
    """

    def __init__(self, ws: websocket.WebSocket, link: ReadAhead) -> None:
        self._ws = ws
        ws.cont_frame = Fragments(False, True)
        ws.frame_buffer = Frames(ws._recv, True)
        ws.pong = self._owe  # type: ignore[method-assign, assignment]
        ws.send_close = self._send_close  # type: ignore[method-assign, assignment]
        self._text = link.text
        self.ping: bytes | None = None
        """Payload of the newest ping that is not answered."""
        self._between = True
        """No message has begun: the next byte is the first of a frame that may stand alone."""

    def _owe(self, payload: bytes) -> None:
        self.ping = payload

    def _send_close(self, *_: object) -> None:
        """Answer a close. Whether that arrives does not matter: why the far end closes does, and it may be gone."""
        try:
            self._ws.send(b"\x03\xe8", websocket.ABNF.OPCODE_CLOSE)
        except (OSError, websocket.WebSocketException) as error:
            log.debug("close not answered", extra={"fields": {"why": str(error)}})

    def next(self) -> tuple[int, bytes]:
        """Opcode and payload of the next message or control frame. Raises as the library does, and TimeoutError; after
        a timeout it may be called again."""
        if self._between:
            payload = self._text()
            if payload is not None:
                return websocket.ABNF.OPCODE_TEXT, payload
            self._between = False
        opcode, frame = self._ws.recv_data_frame(True)
        self._between = opcode <= websocket.ABNF.OPCODE_BINARY  # a control frame may stand between two fragments
        return opcode, frame.data
