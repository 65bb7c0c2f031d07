"""A socket that reads ahead, so that a frame does not cost three system calls."""

from __future__ import annotations

import socket
from collections.abc import Callable

READ_AHEAD = 256 << 10


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

    @property
    def _closed(self) -> bool:  # websocket-client asks before it closes
        return self._sock.fileno() < 0

    def close(self) -> None:
        self._sock.close()
