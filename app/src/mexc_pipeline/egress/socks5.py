"""SOCKS5 as Tor speaks it on its unix socket, with a user name by which it keeps circuits apart.

Sources: RFC 1928, RFC 1929, and Tor's socks-extensions for the commands above 3. The socket brings its own deadline.
Proxies on the network are PySocks' business: it knows neither unix sockets nor Tor's commands.
"""

from __future__ import annotations

import ipaddress
import socket

CONNECT = 0x01
_LOGIN = 0x02
_MOST = 255
"""Bytes of a host: its length has one byte."""
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


def request(sock: socket.socket, command: int, host: str, port: int, user: str) -> None:
    """Agree on the login and send the request; :func:`answer` reads what becomes of it. Raises SocksError, and OSError
    as the socket does."""
    where = address(host) + port.to_bytes(2, "big")
    sock.sendall(bytes([5, 1, _LOGIN]))
    version, chosen = _exactly(sock, 2)
    if version != 5:
        raise SocksError("answered by something that is not SOCKS5")
    if chosen != _LOGIN:
        raise SocksError("takes no user name")
    sock.sendall(b"\x01" + b"".join(bytes([len(part)]) + part for part in (user.encode(), b"-")))
    if _exactly(sock, 2)[1]:
        raise SocksError("refuses the user name")
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
