"""A TCP proxy that can lose a reply (what was asked is handed on and done, but the asker never hears of it) or answer
for ClickHouse that it will not take a row."""

from __future__ import annotations

import contextlib
import socket
import threading

_REFUSAL = 395
"""FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: a code that says nothing of the server's state."""


class LossyProxy:
    """Listens on a free loopback port and hands on to another; one thread each way per connection."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lose = threading.Event()
        self._slow = threading.Event()
        self._closing = False
        self._mark = b""
        self.lost = 0
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="lossy", daemon=True).start()

    def lose_a_reply(self) -> None:
        """The next answer of at least one byte is swallowed, and its connection reset."""
        self._lose.set()

    def answer_late(self, is_late: bool) -> None:
        """Hold every answer back for a second from now on, or no longer."""
        (self._slow.set if is_late else self._slow.clear)()

    def refuse(self, mark: bytes) -> None:
        """From now on a statement whose data hold ``mark`` never reaches the server, and is answered by an error."""
        self._mark = mark

    def close(self) -> None:
        self._closing = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            seen = b""
            while data := client.recv(1 << 16):
                seen += data
                if self._mark and self._mark in seen:
                    self.refused += 1
                    client.sendall(_exception(_REFUSAL, "a row that is not wanted"))
                    client.shutdown(socket.SHUT_WR)
                    _drain(client)
                    break
                seen = seen[-len(self._mark) :]
                server.sendall(data)
        _end(server, client)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if self._slow.is_set():
                    threading.Event().wait(1.0)
                if self._lose.is_set():
                    self._lose.clear()
                    self.lost += 1
                    break
                client.sendall(data)
        _end(server, client)


def _exception(code: int, message: str) -> bytes:
    """The packet by which a ClickHouse server refuses a statement (native protocol)."""
    texts = (b"DB::Exception", message.encode(), b"")
    return b"\x02" + code.to_bytes(4, "little") + b"".join(bytes([len(t)]) + t for t in texts) + b"\x00"


def _drain(client: socket.socket) -> None:
    """Read what still comes: to close a socket with something unread resets it, and the answer is lost on its way."""
    client.settimeout(5)
    while client.recv(1 << 16):
        pass


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
