"""Dialling: name, TCP or SOCKS, TLS, each with a deadline; what comes back is a plain connected socket.

``websocket-client``'s own proxy options are not used: they pass over PySocks, can hang for a minute and obey proxy
variables of the environment even for direct connections. This module reads no variable of the environment.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import socks

from mexc_pipeline import paths, tls
from mexc_pipeline.config import Egress
from mexc_pipeline.egress.connect import Address, NoWayError, connect
from mexc_pipeline.egress.credentials import read_login
from mexc_pipeline.errors import UserError
from mexc_pipeline.text import LONG, clean

CONNECT_S = 10.0
SOCKS_S = 20.0
TLS_S = 10.0


class EgressError(UserError):
    """The connection could not be made; the message names the step that failed. Much of it may be the words of whoever
    answered."""

    def __init__(self, said: str) -> None:
        super().__init__(clean(said, LONG))


class UnreachedError(EgressError):
    """The connection could not be made, and nothing of it has reached the exchange or the proxy: no address, or no way
    to any."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connected socket and how it left: ``peer`` is the far end of the TCP connection (the exchange, or the
    proxy), ``local`` ours, both ``address:port``. ``details`` are further fields for the ``connected`` event."""

    sock: socket.socket
    mode: str
    peer: str
    local: str
    details: Mapping[str, str] = field(default_factory=dict)


Dial = Callable[[Egress, str, str], Dialled]
"""Makes a connection: the egress, the URL of what to connect to, and a private CA's certificate or nothing."""


@contextmanager
def deadline(sock: socket.socket, seconds: float, step: str) -> Iterator[None]:
    """Shut the socket down when the block takes longer than ``seconds``, however busily it trickles."""
    over = threading.Event()

    def end() -> None:
        over.set()
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            sock.close()  # was not connected yet

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError as error:  # the system has no thread to give: it is not tried without an end to it
        raise EgressError(f"{step}: {error}") from error
    try:
        yield
    except Exception as error:
        if over.is_set():
            raise EgressError(f"{step}: not done within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
    if over.is_set():
        raise EgressError(f"{step}: not done within {seconds:g} s")


def check_files(egress: Egress, ca_file: str) -> None:
    """Raise ConfigError where a file is missing or of no use that connections need; :func:`dial` reads them each
    time."""
    if ca_file:
        paths.check_certificates("exchange.ca_file", ca_file)
    if egress.credentials_file:
        read_login(egress.credentials_file)


def dial(egress: Egress, url: str, ca_file: str = "") -> Dialled:
    """Connect to the host of ``url`` (ws, wss, http or https) directly or by the configured proxy.

    Raises EgressError. With a proxy the name is resolved by the proxy, and there is no way round it: a proxy that
    fails means no connection.
    """
    if egress.mode == "tor":
        raise EgressError("mode tor: a connection by Tor is made where its circuits are known")
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme in ("wss", "https")
    port = parts.port or (443 if secure else 80)
    sock = _direct(host, port) if egress.mode == "direct" else _socks(egress, host, port)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        try:
            peer, local = _name(sock.getpeername()), _name(sock.getsockname())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if secure:
                sock = start_tls(sock, host, ca_file)
        except OSError as error:
            raise EgressError(f"connect to {host}:{port}: {error.strerror or error}") from error
        undo.pop_all()
    return Dialled(sock, egress.mode, peer, local)


def _direct(host: str, port: int) -> socket.socket:
    addresses = _resolve(host, port)
    try:
        return connect(addresses, CONNECT_S)
    except OSError as error:
        kind = UnreachedError if isinstance(error, NoWayError) else EgressError
        raise kind(f"connect to {host}:{port}: {error}") from error


def _resolve(host: str, port: int) -> list[Address]:
    """Addresses of a host, in another order each time: one that accepts connections and serves nothing would win each
    race in which it comes first. The system's resolver knows no deadline, so it is asked from a thread that can be
    left. Raises UnreachedError."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if address.version == 4:
            return [Address(socket.AF_INET, (host, port))]
        return [Address(socket.AF_INET6, _of_its_interface(host, port))]
    found: list[Address] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            for family, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append(Address(family, where))
        except (OSError, UnicodeError) as error:  # UnicodeError: no host can have such a name
            failed.append(error)

    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise UnreachedError(f"resolve {host}: {error}") from error
    thread.join(CONNECT_S)
    if failed:
        raise UnreachedError(f"resolve {host}: {getattr(failed[0], 'strerror', None) or failed[0]}")
    if not found:
        raise UnreachedError(f"resolve {host}: no answer within {CONNECT_S:g} s")
    return random.sample(found, len(found))


def _of_its_interface(host: str, port: int) -> tuple[object, ...]:
    """An IPv6 address as sockets take it: one of a link with the number of its interface. Raises UnreachedError."""
    try:  # nothing is resolved, only an interface's name is looked up
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]
    except OSError as error:
        raise UnreachedError(f"connect to [{host}]:{port}: {error.strerror or error}") from error


def _socks(egress: Egress, host: str, port: int) -> socket.socket:
    proxy = urlsplit(egress.mode)
    where = f"proxy {proxy.hostname}:{proxy.port}"
    step = f"{where}: connect to {host}:{port}"
    try:
        login = read_login(egress.credentials_file) if egress.credentials_file else None
        family, (proxy_host, proxy_port, *_) = _reachable(_resolve(proxy.hostname or "", proxy.port or 0))
    except (OSError, UserError) as error:
        kind = UnreachedError if isinstance(error, NoWayError | UnreachedError) else EgressError
        raise kind(f"{where}: {error}") from error
    sock = socks.socksocket(family, socket.SOCK_STREAM)
    name, password = login or (None, None)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        sock.set_proxy(socks.SOCKS5, proxy_host, proxy_port, rdns=True, username=name, password=password)
        sock.settimeout(SOCKS_S)
        try:
            with deadline(sock, SOCKS_S, step):
                sock.connect((host, port))
            plain = socket.socket(fileno=sock.detach())  # PySocks' own recv is no longer needed
        except (OSError, UnicodeError, socks.ProxyError) as error:  # UnicodeError: no host can have such a name
            raise EgressError(f"{step}: {_refused(error, login is not None)}") from error
        undo.pop_all()
    plain.settimeout(CONNECT_S)
    return plain


def _reachable(addresses: list[Address]) -> Address:
    """The first of several addresses that answers; PySocks connects by itself, and to one."""
    if len(addresses) == 1:
        return addresses[0]
    with connect(addresses, CONNECT_S) as reached:
        return Address(socket.AddressFamily(reached.family), reached.getpeername())


def _refused(error: Exception, with_login: bool) -> str:
    error = getattr(error, "socket_err", None) or error  # PySocks wraps its own errors as those of a socket
    if isinstance(error, socks.SOCKS5AuthError):
        if with_login:
            return "refuses the name or the password"
        return "asks for a name and a password; egress.credentials_file names a file with both"
    return getattr(error, "strerror", None) or str(error)


def start_tls(sock: socket.socket, host: str, ca_file: str = "") -> socket.socket:
    """TLS with SNI on a connected socket, which is closed where it fails. Raises EgressError."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise EgressError(f"ca_file {ca_file}: {error.strerror or error}") from error
    sock.settimeout(TLS_S)
    try:
        wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    except OSError as error:
        raise EgressError(f"TLS with {host}: {error}") from error
    try:
        with deadline(wrapped, TLS_S, f"TLS with {host}"):
            wrapped.do_handshake()
    except EgressError:
        wrapped.close()
        raise
    except OSError as error:
        wrapped.close()
        raise EgressError(f"TLS with {host}: {tls.why(error, 'exchange.ca_file')}") from error
    return wrapped


def _name(address: object) -> str:
    if isinstance(address, tuple):
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address)
