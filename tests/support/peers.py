"""Far ends for tests: a SOCKS5 proxy, servers that misbehave, a private certificate authority."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import random
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import trustme

Serve = Callable[[socket.socket, threading.Event], None]


@dataclass
class Server:
    """A listening socket on loopback that hands each connection to ``serve`` on a thread of its own."""

    serve: Serve
    port: int = 0
    """0: one that is free."""
    over: threading.Event = field(default_factory=threading.Event)
    accepted: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            self.accepted += 1
            self._open.append(client)
            thread = threading.Thread(target=self._run, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self.serve(client, self.over)

    def close(self) -> None:
        self.over.set()
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)


@contextmanager
def serving(serve: Serve) -> Iterator[Server]:
    server = Server(serve)
    try:
        yield server
    finally:
        server.close()


def silent(client: socket.socket, over: threading.Event) -> None:
    """Accept and say nothing."""
    over.wait(60)


def dripping(first: bytes, pause_s: float = 0.02) -> Serve:
    """Send ``first`` over and over a byte at a time, never coming to an end: each read succeeds, no step ends."""

    def serve(client: socket.socket, over: threading.Event) -> None:
        at = 0
        while not over.wait(pause_s):
            client.sendall(first[at % len(first) :][:1])
            at += 1

    return serve


def saying(answer: bytes) -> Serve:
    """Read one request, answer these bytes, and end."""

    def serve(client: socket.socket, over: threading.Event) -> None:
        client.recv(65536)
        client.sendall(answer)

    return serve


def greet(client: socket.socket, before: bytes = b"", after: bytes = b"") -> None:
    """Take a handshake, with what stands before the answer and what comes with it."""
    key = client.recv(65536).partition(b"Sec-WebSocket-Key: ")[2].split()[0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    client.sendall(
        before + b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept + after
    )


def acknowledged(sock: socket.socket, over: threading.Event) -> None:
    """Wait until the far end's kernel has everything that was sent."""
    until = time.monotonic() + 20
    while struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]:
        assert not over.wait(0.001)
        assert time.monotonic() < until, "the far end's kernel takes no more"


def reset(sock: socket.socket) -> None:
    """End the connection by a TCP reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class SocksProxy:
    """A SOCKS5 proxy that resolves names by its own table and remembers what it was asked; with ``login`` it insists
    on that name and password (RFC 1929)."""

    def __init__(self, hosts: dict[str, str], refuse: int = 0, login: tuple[bytes, bytes] | None = None) -> None:
        self.asked: list[tuple[int, str, int]] = []
        """(address type, host, port) of every request; type 3 is a name."""
        self.known_as: dict[str, str] = {}
        """Its ends as the far ends see them, and those of its clients behind them."""
        self._hosts = hosts
        self._refuse = refuse
        self._login = login

    def serve(self, client: socket.socket, over: threading.Event) -> None:
        count = _exactly(client, 2)[1]
        methods = _exactly(client, count)
        wanted = 0 if self._login is None else 2
        client.sendall(bytes([5, wanted if wanted in methods else 255]))
        if wanted not in methods:
            return
        if self._login is not None:
            assert _exactly(client, 1) == b"\x01"
            name = _exactly(client, _exactly(client, 1)[0])
            password = _exactly(client, _exactly(client, 1)[0])
            right = (name, password) == self._login
            client.sendall(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        _, command, _, kind = _exactly(client, 4)
        assert command == 1
        if kind == 3:
            host = _exactly(client, _exactly(client, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, _exactly(client, size))
        port = int.from_bytes(_exactly(client, 2), "big")
        self.asked.append((kind, host, port))
        if self._refuse:
            client.sendall(bytes([5, self._refuse, 0, 1]) + bytes(6))
            return
        with socket.create_connection((self._hosts.get(host, host), port), timeout=10) as far:
            self.known_as["{}:{}".format(*far.getsockname())] = "{}:{}".format(*client.getpeername())
            client.sendall(b"\x05\x00\x00\x01" + bytes(6))
            back = threading.Thread(target=_pump, args=(far, client), daemon=True)
            back.start()
            _pump(client, far)
            back.join(10)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("the client went away")
        data += piece
    return data


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files."""

    authority: Path
    certificate: Path
    key: Path


def certificates(
    folder: Path, *names: str, not_before: datetime | None = None, not_after: datetime | None = None
) -> Certificates:
    """A new authority and a certificate of it for these names, valid now unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert(*names, not_before=not_before, not_after=not_after)
    found = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(found.authority))
    found.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(found.key))
    return found


def free_port() -> int:
    """A loopback port where nobody listens. It is none of those that are given to whoever asks for any, so that it
    stays free while what belongs there is away."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
