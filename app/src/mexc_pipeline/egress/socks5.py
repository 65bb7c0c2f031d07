"""SOCKS5 on a connected socket: names for the proxy to resolve, with or without name and password.

Sources: RFC 1928, RFC 1929, and Tor's socks-extensions for the commands above 3. The socket brings its own deadline.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import NamedTuple

CONNECT = 0x01
_NO_LOGIN, _LOGIN = 0x00, 0x02
_MOST = 255
"""Bytes of a name, a password, or a host: each has one byte for its length."""
_PROBLEMS = {
    1: "general failure",
    2: "not allowed",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "timed out",
    7: "command not supported",
    8: "address type not supported",
}


class SocksError(Exception):
    """The proxy did not do as asked; the message says why and holds no secret."""


class Login(NamedTuple):
    """Name and password for a proxy, 1 to 255 bytes each."""

    name: bytes
    password: bytes

    def __repr__(self) -> str:
        return "Login(…)"  # it must not get into a log


def read_login(path: str) -> Login:
    """Name and password from a file: its first two lines, read anew for each connection. SocksError where it is not
    that, or where others may read it."""
    try:
        fd = os.open(Path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SocksError(f"egress.credentials_file {path}: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise SocksError(f"egress.credentials_file {path}: not a file")
        if mode & stat.S_IRWXO:
            raise SocksError(f"egress.credentials_file {path}: others may use it; chmod 600 it")
        lines = os.read(fd, 4 * _MOST).splitlines()
    finally:
        os.close(fd)
    if len(lines) != 2 or not all(1 <= len(line) <= _MOST for line in lines):
        raise SocksError(
            f"egress.credentials_file {path}: two lines are needed, the name and the password, 1 to {_MOST} bytes each"
        )
    return Login(*lines)


def request(sock: socket.socket, command: int, host: str, port: int, login: Login | None = None) -> None:
    """Agree on the login and send the request; :func:`answer` reads what becomes of it. With a login nothing is sent
    that a proxy without logins would accept. Raises SocksError, and OSError as the socket does."""
    where = address(host) + port.to_bytes(2, "big")
    method = _NO_LOGIN if login is None else _LOGIN
    sock.sendall(bytes([5, 1, method]))
    version, chosen = _exactly(sock, 2)
    if version != 5:
        raise SocksError("answered by something that is not SOCKS5")
    if chosen != method:
        if login is None:
            raise SocksError("asks for a name and a password; egress.credentials_file names a file with both")
        raise SocksError("takes no name and password")
    if login is not None:
        sock.sendall(b"\x01" + b"".join(bytes([len(part)]) + part for part in login))
        if _exactly(sock, 2)[1]:
            raise SocksError("refuses the name or the password")
    sock.sendall(bytes([5, command, 0]) + where)


def answer(sock: socket.socket) -> None:
    """Read the answer to :func:`request`. Raises SocksError where it is not success, and OSError as the socket does."""
    version, code, _, kind = _exactly(sock, 4)
    if version != 5:
        raise SocksError("answered by something that is not SOCKS5")
    if code:
        raise SocksError(_PROBLEMS.get(code, f"problem {code:#x}"))
    rest = {1: 4, 4: 16}.get(kind)
    if rest is None:
        rest = _exactly(sock, 1)[0]
    _exactly(sock, rest + 2)


def address(host: str) -> bytes:
    """A host as SOCKS5 writes it: an address as such, a name as a name. SocksError where it can be neither."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:
            name = host.encode("idna")
        except UnicodeError as error:
            raise SocksError(f"{host[:80]!r} is no name of a host") from error
        if not 1 <= len(name) <= _MOST:
            raise SocksError(f"{host[:80]!r} is no name of a host") from None
        return b"\x03" + bytes([len(name)]) + name
    return (b"\x01" if found.version == 4 else b"\x04") + found.packed


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        piece = sock.recv(size)
        if not piece:
            raise SocksError("closed the connection")
        parts.append(piece)
        size -= len(piece)
    return b"".join(parts)
