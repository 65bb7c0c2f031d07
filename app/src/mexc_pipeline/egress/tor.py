"""The way out through a symbol's own Tor: only by exits of its share, and proven for every connection.

The exits are shared out by :mod:`mexc_pipeline.egress.partition`; this Tor is told its share (``ExitNodes``) before
anything leaves. Each connection gets a SOCKS username of its own, by which Tor keeps its circuit apart from all others
and by which the circuit is found again (Tor control specification, ``circuit-status``). The circuit is probed first:
the exchange hears nothing until its exit is known to be ours. After the connection is made it is proven again, because
only then is it certain which circuit carries it.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import msgspec

from mexc_pipeline.config import Egress
from mexc_pipeline.egress import socks5
from mexc_pipeline.egress.body import read
from mexc_pipeline.egress.control_port import Circuit, ControlPort, ControlPortError
from mexc_pipeline.egress.dial import Dialled, EgressError, deadline, start_tls
from mexc_pipeline.egress.partition import TooFewExitsError, allows, check_enough, relays, share

log = logging.getLogger("mexc_pipeline.egress")

CIRCUIT_S = 20.0
"""For a circuit of three relays, tried by Tor as often as it likes."""
CONNECT_S = 15.0
ECHO_S = 10.0
ATTEMPTS = 3
MAX_ECHO = 4096
AVOIDED_S = 600.0
"""How long an exit is left alone whose connection has just ended."""
DROPPED_S = 3600.0
"""How long an exit is left alone that another symbol was found to use."""
_POLL_S = 0.05
_RESOLVE, _RESOLVE_PTR = 0xF0, 0xF1


class _MovedError(EgressError):
    """Tor put the connection on another circuit than the one that was probed."""


@dataclass(frozen=True, slots=True)
class Exit:
    """Where a connection leaves: ``seen`` is the address the echo service saw, empty where none was asked."""

    circuit: str
    fingerprint: str
    address: str
    seen: str = ""

    @property
    def outside(self) -> str:
        """The address the world sees, as far as is known."""
        return self.seen or self.address


class Tor:
    """One symbol's Tor, used by one process. Any thread may call it."""

    def __init__(self, egress: Egress) -> None:
        if not egress.symbol or egress.symbol not in egress.deployment:
            raise ValueError("an egress in mode tor belongs to a symbol of its deployment")
        self._egress = egress
        self._guard = threading.Lock()
        self._left_alone: dict[str, float] = {}  # address → monotonic seconds until when
        self._last: Exit | None = None
        self.beat = time.monotonic()
        """Monotonic seconds of the last step made: a connection takes several, each with a deadline of its own."""

    # What its users do

    def dial(self, _egress: Egress, url: str, ca_file: str = "") -> Dialled:
        """Connect the data socket. The exit of the connection before is left alone for a while if there are others:
        it may be the reason why that one ended. Raises EgressError."""
        with self._guard:
            last = self._last
        if last is not None:
            self._leave_alone(last.address, AVOIDED_S)
        dialled, way = self._connect(url, ca_file, data=True)
        with self._guard:
            self._last = way
        return dialled

    def request(self, _egress: Egress, url: str, ca_file: str = "") -> Dialled:
        """Connect for a single request, by any exit of the share; what :meth:`dial` chose stays. Raises
        EgressError."""
        return self._connect(url, ca_file, data=False)[0]

    def drop(self, address: str) -> None:
        """Leave an exit alone for an hour: somebody else uses it."""
        self._leave_alone(address, DROPPED_S)

    def share_with(self, deployment: tuple[str, ...]) -> None:
        """Share the exits out among these symbols from the next connection on."""
        if self._egress.symbol not in deployment:
            raise ValueError("an egress in mode tor belongs to a symbol of its deployment")
        with self._guard:
            self._egress = msgspec.structs.replace(self._egress, deployment=deployment)

    def others(self, port: int) -> int:
        """How many addresses of the share are left for another connection once the present one is left alone.
        Raises EgressError."""
        with self._guard:
            last = self._last
        with self._control() as control:
            usable, _ = self._share(control, port)
        now = time.monotonic()
        return sum(
            address != (last.address if last else "") and self._left_alone.get(address, 0.0) <= now
            for address in usable
        )

    # The share

    def _control(self) -> ControlPort:
        try:
            return ControlPort(self._egress.control_socket)
        except ControlPortError as error:
            raise EgressError(str(error)) from error

    def _share(self, control: ControlPort, port: int) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        """Addresses usable for a port, and the whole share; both address → fingerprints."""
        egress = self._egress
        phase = control.getinfo("status/bootstrap-phase")
        if "PROGRESS=100" not in phase:
            progress = re.search(r"PROGRESS=(\d+)", phase)
            raise EgressError(f"Tor is not ready yet ({progress[1] if progress else '?'} % done); waiting for it")
        owned = share(relays(control.getinfo("ns/all")), egress.symbol, egress.deployment)
        fingerprints = [f for group in owned.values() for f in group]
        described = control.getinfo_known(f"md/id/{f}" for f in fingerprints)
        open_exits = {f for f in fingerprints if allows(_policy(described.get(f"md/id/{f}")), port)}
        usable = {a: kept for a, group in owned.items() if (kept := tuple(f for f in group if f in open_exits))}
        return usable, owned

    def _prepare(self, control: ControlPort, port: int, data: bool) -> dict[str, tuple[str, ...]]:
        """See to it that this Tor leaves by our share only; returns that share. Raises TooFewExitsError."""
        with self._guard:
            usable, owned = self._share(control, port)
            check_enough(self._egress.symbol, usable, self._egress.min_exits, port, len(owned))
            wanted = choose(usable, self._left_alone, time.monotonic())
            fingerprints = {f for address in wanted for f in usable[address]}
            present = _fingerprints(control.getconf("ExitNodes"))
            everything = {f for group in owned.values() for f in group}
            if present != fingerprints and (data or not present or not present <= everything):
                listed = ",".join(f"${f}" for f in sorted(fingerprints))
                control.setconf({"ExitNodes": listed, "StrictNodes": "1"})
                log.info(
                    "exits set",
                    extra={"fields": {"symbol": self._egress.symbol, "addresses": len(wanted), "of": len(owned)}},
                )
            return owned

    def _leave_alone(self, address: str, seconds: float) -> None:
        with self._guard:
            now = time.monotonic()
            self._left_alone = {a: until for a, until in self._left_alone.items() if until > now}
            self._left_alone[address] = max(now + seconds, self._left_alone.get(address, 0.0))

    # One connection

    def _connect(self, url: str, ca_file: str, data: bool) -> tuple[Dialled, Exit]:
        for _ in range(ATTEMPTS - 1):
            try:
                return self._attempt(url, ca_file, data)
            except _MovedError as error:
                log.info("circuit moved", extra={"fields": {"symbol": self._egress.symbol, "why": str(error)}})
        return self._attempt(url, ca_file, data)

    def _attempt(self, url: str, ca_file: str, data: bool) -> tuple[Dialled, Exit]:
        self.beat = time.monotonic()
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme in ("wss", "https")
        port = parts.port or (443 if secure else 80)
        user = f"{self._egress.symbol}-{secrets.token_hex(8)}"
        try:
            with self._control() as control:
                owned = self._prepare(control, port, data)
                probed = self._probe(control, owned, user, host)
                try:
                    sock, way = self._through(control, owned, user, host, port, data)
                    if secure:
                        self.beat = time.monotonic()
                        sock = start_tls(sock, host, ca_file)
                except _MovedError:
                    raise
                except EgressError:
                    if data:
                        self._leave_alone(probed.address, AVOIDED_S)
                    raise
        except (ControlPortError, TooFewExitsError) as error:
            raise EgressError(str(error)) from error
        details = {"circuit": way.circuit, "exit": way.address, "fingerprint": way.fingerprint}
        if way.seen:
            details["seen"] = way.seen
        return Dialled(sock, "tor", f"unix:{self._egress.socks_socket}", "", details), way

    def _through(
        self, control: ControlPort, owned: dict[str, tuple[str, ...]], user: str, host: str, port: int, data: bool
    ) -> tuple[socket.socket, Exit]:
        """The connected socket and its exit; a data socket's after the echo service has seen it, where there is one."""
        asked, seen = self._echo(control, owned, user) if data and self._egress.echo_url else (None, "")
        sock, way = self._stream(control, owned, user, host, port)
        if asked is not None and asked.fingerprint != way.fingerprint:
            sock.close()
            raise _MovedError(f"Tor moved the connection from exit {asked.address} to {way.address}")
        return sock, replace(way, seen=seen)

    def _probe(self, control: ControlPort, owned: dict[str, tuple[str, ...]], user: str, host: str) -> Exit:
        """Have Tor build the circuit, by asking the exit for the host's name, or for the name of its address: the
        exchange itself is not contacted. The answer does not matter and is not waited for."""
        try:
            ipaddress.ip_address(host)
            command = _RESOLVE_PTR
        except ValueError:
            command = _RESOLVE
        asking = self._socks(user, command, host, 0, CIRCUIT_S, wait=False)
        try:
            return self._wait_for_circuit(control, owned, user, lambda c: c.status == "BUILT")
        finally:
            asking.close()

    def _stream(
        self, control: ControlPort, owned: dict[str, tuple[str, ...]], user: str, host: str, port: int
    ) -> tuple[socket.socket, Exit]:
        """Connect, and find the exit: of the circuit of our username that carries a stream which was not there
        before. It need not be the probed one: Tor may prefer a pair of circuits (conflux) it had in store."""
        before = {stream.id for stream in control.streams()}
        sock = self._socks(user, socks5.CONNECT, host, port, CONNECT_S)
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            carrying = {s.circuit for s in control.streams() if s.status == "SUCCEEDED" and s.id not in before}
            way = self._wait_for_circuit(control, owned, user, lambda c: c.id in carrying)
            undo.pop_all()
        return sock, way

    def _wait_for_circuit(
        self,
        control: ControlPort,
        owned: dict[str, tuple[str, ...]],
        user: str,
        wanted: Callable[[Circuit], bool],
    ) -> Exit:
        addresses = {f: a for a, group in owned.items() for f in group}
        until = time.monotonic() + CIRCUIT_S
        while True:
            self.beat = time.monotonic()
            for circuit in control.circuits():
                if circuit.user != user or not circuit.path or not wanted(circuit):
                    continue
                fingerprint = circuit.path[-1]
                if fingerprint not in addresses:
                    raise EgressError(f"Tor left by exit {fingerprint}, which does not belong to {self._egress.symbol}")
                return Exit(circuit.id, fingerprint, addresses[fingerprint])
            if time.monotonic() > until:
                raise EgressError(f"Tor: no circuit by an exit of {self._egress.symbol} within {CIRCUIT_S:g} s")
            time.sleep(_POLL_S)

    def _echo(self, control: ControlPort, owned: dict[str, tuple[str, ...]], user: str) -> tuple[Exit, str]:
        """By which exit ``echo_url`` was asked, and the address it saw."""
        url = self._egress.echo_url
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        sock, way = self._stream(control, owned, user, host, port)
        if secure:
            sock = start_tls(sock, host)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = sock
        connection.auto_open = 0
        try:
            with deadline(sock, ECHO_S, f"echo_url {url}"):
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("GET", path, headers={"User-Agent": "mexc-pipeline"})
                body = read(connection.getresponse(), MAX_ECHO)
        except (OSError, http.client.HTTPException) as error:
            raise EgressError(f"echo_url {url}: {error or type(error).__name__}") from error
        finally:
            connection.close()
            sock.close()
        return way, address_in(body)

    def _socks(
        self, user: str, command: int, host: str, port: int, within_s: float, wait: bool = True
    ) -> socket.socket:
        """SOCKS5 over Tor's unix socket with a name for Tor to resolve (RFC 1928, 1929 and Tor's socks-extensions);
        with ``wait`` false the socket is returned before Tor has answered the request."""
        self.beat = time.monotonic()
        path = self._egress.socks_socket
        step = f"Tor's socket {path}: {host}:{port}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            try:
                sock.settimeout(within_s)
                sock.connect(path)
                with deadline(sock, within_s, step):
                    socks5.request(sock, command, host, port, user)
                    if wait:
                        socks5.answer(sock)
            except (OSError, socks5.SocksError) as error:
                raise EgressError(f"{step}: {getattr(error, 'strerror', None) or error}") from error
            undo.pop_all()
        return sock


def choose(usable: Iterable[str], left_alone: Mapping[str, float], now: float) -> list[str]:
    """Which addresses to use: those that are not left alone, else the one whose time is over first."""
    addresses = list(usable)
    return [a for a in addresses if left_alone.get(a, 0.0) <= now] or [min(addresses, key=left_alone.__getitem__)]


def address_in(body: bytes) -> str:
    """The one IP address in the answer of an echo service, whether plain text, JSON or ``key=value`` lines. Raises
    EgressError where there is none or more than one."""
    found = set()
    for word in re.findall(rb"[0-9A-Fa-f:.]{3,45}", body):
        try:
            found.add(str(ipaddress.ip_address(word.decode())))
        except ValueError:
            continue
    if len(found) != 1:
        raise EgressError(f"echo_url answered with {len(found)} addresses instead of one")
    return found.pop()


def _policy(microdescriptor: str | None) -> str | None:
    for line in (microdescriptor or "").splitlines():
        if line.startswith("p "):
            return line[2:]
    return None


def _fingerprints(exit_nodes: str) -> set[str]:
    return {word.strip().removeprefix("$").upper() for word in exit_nodes.split(",") if word.strip()}
