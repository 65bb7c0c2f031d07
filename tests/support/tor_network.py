"""A private Tor network of real relays in a network namespace of its own, and the exchange simulator behind it.

One directory authority, exits with addresses of their own, one client per symbol with unix sockets. Nothing leaves the
namespace: it has a loopback device and nothing else. Addresses are of the documentation ranges, because Tor ignores
bind addresses for destinations in 127.0.0.0/8 and every exit would look the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import trustme

from mexc_pipeline.egress.control_port import ControlPort, ControlPortError
from mexc_pipeline.egress.partition import owner
from mexc_pipeline.simulator.sentlog import read_connection, read_sent_log
from support import needs
from support.waiting import until

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


class TorNetwork:
    """Made by entering it, gone on leaving it, also after a failure."""

    def __init__(self, folder: Path, ids: tuple[str, ...], each: int = 4) -> None:
        self.folder = folder
        self.ids = ids
        self.addresses = exit_addresses(ids, each)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._authority_line = ""
        self._inside: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._make_namespace()
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

    # What tests do with it

    def client(self, symbol: str) -> Path:
        """The folder of a symbol's Tor: ``socks`` and ``control`` are in it."""
        return self.folder / f"client-{symbol}"

    def run(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a program inside the namespace; it ends with the network."""
        with (self.folder / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                [*self._inside, "setpriv", "--pdeathsig", "KILL", *command],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
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

        until(ready, READY_S, f"Tor of {symbol}")

    def start_exchange(self, log_dir: Path, cert: Path, key: Path) -> None:
        """The simulator behind TLS; it writes what it sent, and to whom, into ``log_dir``."""
        command = [sys.executable, "-m", "mexc_pipeline", "simulate", "--host", EXCHANGE, "--port", str(EXCHANGE_PORT)]
        command += ["--log-dir", str(log_dir), "--tls-cert", str(cert), "--tls-key", str(key)]
        self.run("exchange", command)
        until(lambda: self.listens(EXCHANGE, EXCHANGE_PORT), 20, "the exchange")

    def start_echo(self) -> None:
        """A server that answers with the address it sees."""
        self.run("echo", [sys.executable, "-c", _ECHO.replace("{address}", ECHO)])
        until(lambda: self.listens(ECHO, 80), 20, "the echo server")

    def listens(self, address: str, port: int) -> bool:
        """Whether something in the namespace accepts connections there."""
        code = f"import socket; socket.create_connection(({address!r}, {port}), 2)"
        return subprocess.run([*self._inside, sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0

    # How it is made

    def _make_namespace(self) -> None:
        """It has no name and lasts as long as a process in it, so that nothing is left even if the test is killed."""
        ours = Path("/proc/self/ns/net").readlink()
        holder = subprocess.Popen(["unshare", "--net", "setpriv", "--pdeathsig", "KILL", "sleep", "infinity"])
        self._processes["namespace"] = holder
        net = Path(f"/proc/{holder.pid}/ns/net")
        until(lambda: net.readlink() != ours, 10, "the network namespace")
        self._inside = ["nsenter", f"--net={net}"]

    def _start(self) -> None:
        inside = [*self._inside, "ip"]
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
                f"exit{number}",
                _COMMON + _EXIT.replace("{name}", f"exit{number}").replace("{address}", address),
                folder,
            )
        for symbol in self.ids:
            self.start_client(symbol)

    def _make_authority(self, folder: Path) -> str:
        read, write = os.pipe()
        os.write(write, b"no secret\n")
        os.close(write)
        keys = folder / "keys"
        subprocess.run(
            [
                *("tor-gencert", "--create-identity-key", "--passphrase-fd", str(read), "-m", "12"),
                *("-i", str(keys / "authority_identity_key"), "-s", str(keys / "authority_signing_key")),
                *("-c", str(keys / "authority_certificate"), "-a", f"{AUTHORITY}:9030"),
            ],
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


def need_it() -> None:
    """Skip the test where the machine cannot have such a network; fail it where ``CI`` is set."""
    needs.programs("tor", "tor-gencert", "ip", "setpriv", "unshare", "nsenter")
    needs.root()


def certificates(folder: Path, address: str) -> tuple[Path, Path, Path]:
    """Files with a private CA's certificate, a server's certificate for an address, and its key."""
    authority = trustme.CA()
    issued = authority.issue_cert(address)
    ca, cert, key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    authority.cert_pem.write_to_path(str(ca))
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return ca, cert, key


@dataclass(frozen=True)
class Seen:
    """A WebSocket connection as the exchange saw it: from which address, and the symbols it subscribed to."""

    number: int
    address: str
    opened_ns: int
    symbols: frozenset[str]


def seen(log_dir: Path) -> list[Seen]:
    """The connections that subscribed to something, in order, from the files the simulator writes."""
    found = []
    for path in sorted(log_dir.glob("conn-*.log")):
        if not path.stat().st_size:
            continue  # the simulator has not flushed it yet
        symbols = frozenset(frame.symbol for frame in islice(read_sent_log(path), 20) if frame.symbol)
        if symbols:
            info = read_connection(path)
            found.append(Seen(info.number, info.peer.rpartition(":")[0], info.opened_ns, symbols))
    return found
