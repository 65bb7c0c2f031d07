"""A private Tor network of real relays in a network namespace of its own, and the exchange simulator behind it.

One directory authority, exits with addresses of their own, one client per symbol with unix sockets. Nothing leaves the
namespace: it has a loopback device and nothing else. Addresses are of the documentation ranges, because Tor ignores
bind addresses for destinations in 127.0.0.0/8 and every exit would look the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from mexc_pipeline.egress.control_port import ControlPort, ControlPortError
from mexc_pipeline.egress.partition import owner

AUTHORITY = "203.0.113.1"
EXCHANGE = "198.51.100.10"
EXCHANGE_PORT = 8443
ECHO = "198.51.100.11"
READY_S = 120.0

_COMMON = """\
TestingTorNetwork 1
PathsNeededToBuildCircuits 0.67
EnforceDistinctSubnets 0
AssumeReachable 1
Log notice file {folder}/log
DataDirectory {folder}
DisableDebuggerAttachment 0
"""
_AUTHORITY = """\
Nickname authority
Address {address}
ORPort {address}:9001
DirPort {address}:9030
OutboundBindAddress {address}
SocksPort 0
ExitRelay 0
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
V3AuthVotingInterval 10
V3AuthVoteDelay 2
V3AuthDistDelay 2
V3AuthNIntervalsValid 2
TestingV3AuthInitialVotingInterval 5
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
ContactInfo nobody
"""
_EXIT = """\
Nickname {name}
Address {address}
ORPort {address}:9001
OutboundBindAddress {address}
SocksPort 0
ExitRelay 1
ExitPolicyRejectPrivate 0
ExitPolicy accept *:*
ServerDNSDetectHijacking 0
ServerDNSTestAddresses
ServerDNSResolvConfFile {folder}/resolv.conf
ServerDNSAllowBrokenConfig 1
ContactInfo nobody
"""
_CLIENT = """\
SocksPort unix:{folder}/socks
ControlSocket {folder}/control
CookieAuthentication 1
"""
_ECHO = """\
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.client_address[0] + "\\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("{address}", 80), Handler).serve_forever()
"""


def exit_addresses(ids: tuple[str, ...], each: int) -> list[str]:
    """Addresses of which every id owns ``each``."""
    wanted = dict.fromkeys(ids, each)
    chosen = []
    for last in range(10, 250):
        address = f"203.0.113.{last}"
        mine = owner(address, ids)
        if wanted[mine]:
            wanted[mine] -= 1
            chosen.append(address)
    assert not any(wanted.values()), wanted
    return chosen


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    """Poll until it holds; AssertionError naming what did not happen."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


class TorNetwork:
    """Made by entering it, gone on leaving it, also after a failure."""

    def __init__(self, folder: Path, ids: tuple[str, ...], each: int = 4) -> None:
        self.folder = folder
        self.ids = ids
        self.addresses = exit_addresses(ids, each)
        self.namespace = f"mexctor{os.getpid()}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._authority_line = ""

    def __enter__(self) -> Self:
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self._processes.values():
            process.wait(10)
        subprocess.run(["ip", "netns", "delete", self.namespace], check=True)

    # What tests do with it

    def client(self, symbol: str) -> Path:
        """The folder of a symbol's Tor: ``socks`` and ``control`` are in it."""
        return self.folder / f"client-{symbol}"

    def run(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a program inside the namespace; it ends with the network."""
        with (self.folder / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *command], stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        self._processes[name] = process
        return process

    def end(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a program started here; waits for its end where the signal ends it."""
        self._processes[name].send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._processes.pop(name).wait(10)

    def exit_name(self, address: str) -> str:
        """The program that is the exit of that address."""
        return f"exit{self.addresses.index(address)}"

    def start_client(self, symbol: str, extra: str = "") -> None:
        """Start a symbol's Tor; see :meth:`wait_ready`."""
        folder = self.client(symbol)
        self._tor(f"client-{symbol}", _COMMON + _CLIENT + extra, folder)

    def wait_ready(self, symbol: str) -> None:
        """Wait until a client knows every exit and has built circuits."""

        def ready() -> bool:
            try:
                with ControlPort(str(self.client(symbol) / "control")) as control:
                    return (
                        "PROGRESS=100" in control.getinfo("status/bootstrap-phase")
                        and control.getinfo("ns/all").count(" Exit") >= len(self.addresses)
                        and control.getinfo("status/circuit-established") == "1"
                    )
            except ControlPortError:
                return False

        wait_for(f"Tor of {symbol} is ready", ready, READY_S)

    def start_exchange(self, log_dir: Path, cert: Path, key: Path) -> None:
        """The simulator behind TLS; it writes what it sent, and to whom, into ``log_dir``."""
        command = [sys.executable, "-m", "mexc_pipeline", "simulate", "--host", EXCHANGE, "--port", str(EXCHANGE_PORT)]
        command += ["--log-dir", str(log_dir), "--tls-cert", str(cert), "--tls-key", str(key)]
        self.run("exchange", command)
        wait_for("the exchange listens", lambda: self.listens(EXCHANGE, EXCHANGE_PORT), 20)

    def start_echo(self) -> None:
        """A server that answers with the address it sees."""
        self.run("echo", [sys.executable, "-c", _ECHO.replace("{address}", ECHO)])
        wait_for("the echo server listens", lambda: self.listens(ECHO, 80), 20)

    def listens(self, address: str, port: int) -> bool:
        """Whether something in the namespace accepts connections there."""
        code = f"import socket; socket.create_connection(({address!r}, {port}), 2)"
        command = ["ip", "netns", "exec", self.namespace, sys.executable, "-c", code]
        return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0

    # How it is made

    def _start(self) -> None:
        inside = ["ip", "-n", self.namespace]
        subprocess.run([*inside, "link", "set", "lo", "up"], check=True)
        for address in (AUTHORITY, EXCHANGE, ECHO, *self.addresses):
            subprocess.run([*inside, "address", "add", f"{address}/32", "dev", "lo"], check=True)
        (self.folder / "empty").touch()
        authority = self.folder / "authority"
        (authority / "keys").mkdir(parents=True, mode=0o700)
        authority.chmod(0o700)
        self._authority_line = self._make_authority(authority)
        self._tor("authority", _COMMON + _AUTHORITY.format(address=AUTHORITY), authority)
        for number, address in enumerate(self.addresses):
            folder = self.folder / f"exit{number}"
            folder.mkdir(mode=0o700)
            (folder / "resolv.conf").write_text(f"nameserver {AUTHORITY}\n")
            self._tor(
                f"exit{number}", _COMMON + _EXIT.replace("{name}", f"exit{number}").replace("{address}", address), folder
            )
        for symbol in self.ids:
            self.start_client(symbol)

    def _make_authority(self, folder: Path) -> str:
        read, write = os.pipe()
        os.write(write, b"no secret\n")
        os.close(write)
        keys = folder / "keys"
        subprocess.run(
            ["tor-gencert", "--create-identity-key", "--passphrase-fd", str(read), "-m", "12"]
            + ["-i", str(keys / "authority_identity_key"), "-s", str(keys / "authority_signing_key")]
            + ["-c", str(keys / "authority_certificate"), "-a", f"{AUTHORITY}:9030"],
            check=True,
            pass_fds=(read,),
            capture_output=True,
        )
        os.close(read)
        certificate = (keys / "authority_certificate").read_text().splitlines()
        v3ident = next(line.split()[1] for line in certificate if line.startswith("fingerprint "))
        dummy = f"DirAuthority dummy orport=1 no-v2 v3ident={v3ident} {AUTHORITY}:9030 {'A' * 40}"
        torrc = folder / "torrc"
        torrc.write_text(_COMMON.replace("{folder}", str(folder)) + _AUTHORITY.format(address=AUTHORITY) + dummy + "\n")
        listed = subprocess.run(
            ["tor", "--list-fingerprint", "--quiet", "-f", str(torrc), "--defaults-torrc", str(self.folder / "empty")],
            check=True,
            capture_output=True,
            text=True,
        )
        rsa = "".join(listed.stdout.splitlines()[-1].split()[1:])
        return f"DirAuthority authority orport=9001 no-v2 v3ident={v3ident} {AUTHORITY}:9030 {rsa}"

    def _tor(self, name: str, text: str, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        torrc = folder / "torrc"
        torrc.write_text(text.replace("{folder}", str(folder)) + self._authority_line + "\n")
        self.run(name, ["tor", "-f", str(torrc), "--defaults-torrc", str(self.folder / "empty"), "--quiet"])


def missing() -> str:
    """What this machine lacks for it; empty where it has everything."""
    if os.geteuid() != 0:
        return "root"
    absent = [tool for tool in ("tor", "tor-gencert", "ip", "openssl") if shutil.which(tool) is None]
    return ", ".join(absent)


def certificate(folder: Path, address: str) -> tuple[Path, Path]:
    """A certificate for an address, signed by itself, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=exchange"]
        + ["-addext", f"subjectAltName=IP:{address}", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key


def peers(log_dir: Path) -> Mapping[int, tuple[str, frozenset[str]]]:
    """Connection number → the address the exchange saw and the symbols it sent there, from the simulator's files."""
    from mexc_pipeline.simulator.sentlog import read

    raise NotImplementedError(read, log_dir, socket)
