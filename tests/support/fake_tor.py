"""A Tor that builds no circuits: a control port and a SOCKS socket over a made-up consensus, and a log of both."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from mexc_pipeline.config import Egress
from mexc_pipeline.egress.partition import owner
from support.scripted_tor import ScriptedTor

DEPLOYMENT = ("btc", "eth", "sol")
CONNECT, RESOLVE, RESOLVE_PTR = 1, 0xF0, 0xF1


def fingerprint(address: str) -> str:
    """Of the one relay at an address."""
    return (address.encode().hex() + "0" * 40)[:40].upper()


class FakeTor:
    """``log`` holds in order what was set and asked of it: ``("setconf", fingerprints)`` and ``(command, host, port,
    exit)``. ``leave_by`` makes it leave by an exit nobody asked for, by command; ``leave_by_host`` by destination."""

    def __init__(self, folder: Path, addresses: Iterable[str], policy: str = "accept 80,443") -> None:
        self.addresses = list(addresses)
        self.policy = policy
        self.progress = 100
        self.exit_nodes: list[str] = []
        self.log: list[tuple[object, ...]] = []
        self.leave_by: dict[int, str] = {}
        self.leave_by_host: dict[str, str] = {}
        self.refuse = 0
        self.silent = False
        self.echo: str | None = None
        self._circuits: dict[str, tuple[str, str]] = {}  # id → (username, fingerprint)
        self._streams: list[tuple[str, str]] = []
        self._clients: list[socket.socket] = []
        self.control = ScriptedTor(folder, self._control)
        self.socks_path = str(folder / "socks")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.socks_path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def egress(self, symbol: str = "btc", echo_url: str = "", min_exits: int = 3) -> Egress:
        """The configuration that leads here."""
        return Egress(
            mode="tor",
            symbol=symbol,
            deployment=DEPLOYMENT,
            socks_socket=self.socks_path,
            control_socket=self.control.path,
            echo_url=echo_url,
            min_exits=min_exits,
        )

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()
        for client in self._clients:
            client.close()
        self.control.close()

    def connections(self) -> list[tuple[object, ...]]:
        """The SOCKS connects: (command, host, port, exit's address)."""
        return [entry for entry in self.log if entry[0] == CONNECT]

    def _control(self, command: str) -> bytes:
        verb, _, rest = command.partition(" ")
        if verb == "SETCONF":
            listed = rest.partition('ExitNodes="')[2].partition('"')[0]
            self.exit_nodes = [word.removeprefix("$") for word in listed.split(",")]
            self.log.append(("setconf", tuple(self.exit_nodes)))
            return b"250 OK\r\n"
        if verb == "GETCONF":
            return f"250 ExitNodes={','.join('$' + f for f in self.exit_nodes)}\r\n".encode()
        return f"250+{rest}=\r\n{self._info(rest)}\r\n.\r\n250 OK\r\n".encode()

    def _info(self, key: str) -> str:
        if key == "status/bootstrap-phase":
            return f"NOTICE BOOTSTRAP PROGRESS={self.progress} TAG=done"
        if key == "ns/all":
            return "\n".join(self._entry(address) for address in self.addresses)
        if key.startswith("md/id/"):
            return f"onion-key\np {self.policy}"
        if key == "circuit-status":
            return "\n".join(
                f'{number} BUILT ${"A" * 40}~guard,${last}~exit PURPOSE=GENERAL SOCKS_USERNAME="{user}"'
                for number, (user, last) in self._circuits.items()
            )
        return "\n".join(f"{n} SUCCEEDED {circuit} x:1" for n, (circuit, _) in enumerate(self._streams))

    def _entry(self, address: str) -> str:
        identity = base64.b64encode(bytes.fromhex(fingerprint(address))).decode().rstrip("=")
        return f"r nick {identity} digest 2038-01-01 00:00:00 {address} 9001 0\ns Exit Running Valid"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.recv(3)
        client.sendall(b"\x05\x02")
        user = client.recv(300)[2:].split(b"\x01-")[0].decode()
        client.sendall(b"\x01\x00")
        request = client.recv(300)
        command, kind = request[1], request[3]
        if kind == 3:
            host = request[5 : 5 + request[4]].decode()
        else:
            host = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, request[4:-2])
        if self.silent:
            return
        known = {n: last for n, (name, last) in self._circuits.items() if name == user}
        forced = self.leave_by.get(command) or self.leave_by_host.get(host)
        chosen = forced or next(iter(known.values()), self.exit_nodes[0])
        number = next((n for n, last in known.items() if last == chosen), str(len(self._circuits) + 1))
        self._circuits[number] = (user, chosen)
        address = next((a for a in self.addresses if fingerprint(a) == chosen), chosen)
        self.log.append((command, host, int.from_bytes(request[-2:], "big"), address))
        if command != CONNECT:
            return
        if self.refuse:
            client.sendall(bytes([5, self.refuse, 0, 1, 0, 0, 0, 0, 0, 0]))
            return
        self._streams.append((number, host))
        client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        if self.echo is not None and host == "echo.example":
            client.recv(1000)
            body = (self.echo or address).encode()
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def owned_by(symbol: str, count: int) -> list[str]:
    """So many addresses of a symbol's share."""
    found = (f"203.0.113.{last}" for last in range(1, 255))
    return [address for address in found if owner(address, DEPLOYMENT) == symbol][:count]
