"""A small client of Tor's control port over its unix socket (Tor control specification, version 1).

Every command has one deadline for its whole answer, however slowly it trickles in, and an answer has a largest size.
Only SAFECOOKIE authentication is spoken: with it the cookie itself never leaves this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from mexc_pipeline.errors import UserError
from mexc_pipeline.paths import regular

ANSWER_S = 10.0
MAX_ANSWER = 64 << 20
_COOKIE_BYTES = 32
_TO_CONTROLLER = b"Tor safe cookie authentication server-to-controller hash"
_TO_SERVER = b"Tor safe cookie authentication controller-to-server hash"
_LINE = re.compile(r"(\d{3})([ +-])(.*)", re.DOTALL)
_FIELD = re.compile(r'([A-Za-z0-9_]+)=("(?:[^"\\]|\\.)*"|\S*)')


class ControlPortError(UserError):
    """Tor's control port is absent, refuses, is silent or says something that is not the protocol."""


@dataclass(frozen=True, slots=True)
class ControlReply:
    """An answer: its last status code and the text of its lines, data blocks whole."""

    code: int
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether Tor did as it was told: status 250."""
        return self.code == 250


@dataclass(frozen=True, slots=True)
class Circuit:
    """A line of ``circuit-status``: ``path`` holds fingerprints in order, ``user`` the SOCKS username it is for."""

    id: str
    status: str
    path: tuple[str, ...]
    user: str


@dataclass(frozen=True, slots=True)
class Stream:
    """A line of ``stream-status``; ``circuit`` is "0" while it has none."""

    id: str
    status: str
    circuit: str
    target: str


class ControlPort:
    """One authenticated connection; use it as a context manager and from one thread."""

    def __init__(self, path: str, answer_s: float = ANSWER_S) -> None:
        """Connect and authenticate. ControlPortError where that does not work."""
        self._path = path
        self._answer_s = answer_s
        self._held = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as opening:
            opening.enter_context(self._socket)
            try:
                self._socket.settimeout(answer_s)
                self._socket.connect(path)
                self._authenticate()
            except OSError as error:
                raise ControlPortError(f"Tor's control socket {path}: {error.strerror or error}") from error
            opening.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; Tor forgets nothing but it."""
        self._socket.close()

    # Commands

    def getinfo(self, key: str) -> str:
        """The value of one key, with its line ends if it is a block. ControlPortError where Tor does not know it."""
        return _value(key, self._done(f"GETINFO {key}"))

    def getinfo_known(self, keys: Iterable[str]) -> dict[str, str]:
        """The values of those keys that Tor knows, asked for in one go."""
        wanted = list(keys)
        until = time.monotonic() + self._answer_s
        known: dict[str, str] = {}
        for start in range(0, len(wanted), 64):  # little enough to stay within both socket buffers
            part = wanted[start : start + 64]
            self._send("".join(f"GETINFO {key}\r\n" for key in part))
            for key in part:
                reply = self._reply(until, "GETINFO")
                if reply.ok:
                    known[key] = _value(key, reply)
        return known

    def getconf(self, name: str) -> str:
        """The value of one option, empty where it is not set."""
        line = self._done(f"GETCONF {name}").lines[0]
        return _unquoted(line.partition("=")[2])

    def setconf(self, options: Mapping[str, str]) -> None:
        """Set options until Tor ends or is told otherwise, all of them or none."""
        self._done("SETCONF " + " ".join(f"{name}={_quoted(value)}" for name, value in options.items()))

    def circuits(self) -> list[Circuit]:
        """All circuits of this Tor."""
        return [_circuit(line) for line in self.getinfo("circuit-status").splitlines() if line.strip()]

    def streams(self) -> list[Stream]:
        """All streams of this Tor."""
        return [_stream(line) for line in self.getinfo("stream-status").splitlines() if line.strip()]

    # The protocol

    def _authenticate(self) -> None:
        about = " ".join(self._done("PROTOCOLINFO 1").lines)
        fields = _fields(about)
        if "SAFECOOKIE" not in fields.get("METHODS", "").split(","):
            raise ControlPortError(f"Tor's control socket {self._path} offers no cookie: set CookieAuthentication 1")
        cookie = self._cookie(fields.get("COOKIEFILE", ""))
        ours = secrets.token_bytes(32)
        challenge = _fields(self._done(f"AUTHCHALLENGE SAFECOOKIE {ours.hex()}").lines[0])
        try:
            theirs, proof = bytes.fromhex(challenge["SERVERNONCE"]), bytes.fromhex(challenge["SERVERHASH"])
        except (KeyError, ValueError) as error:
            raise self._strange("no challenge") from error
        message = cookie + ours + theirs
        if not hmac.compare_digest(hmac.digest(_TO_CONTROLLER, message, hashlib.sha256), proof):
            raise ControlPortError(f"Tor's control socket {self._path}: whoever answers does not know Tor's cookie")
        self._done(f"AUTHENTICATE {hmac.digest(_TO_SERVER, message, hashlib.sha256).hex()}", shown="AUTHENTICATE")

    def _cookie(self, path: str) -> bytes:
        try:
            with open(path, "rb", opener=regular) as file:
                cookie = file.read(_COOKIE_BYTES + 1)
        except OSError as error:
            raise ControlPortError(
                f"Tor's cookie {path or '(no file named)'}: {error.strerror or error}; this user must be in Tor's group"
            ) from error
        if len(cookie) != _COOKIE_BYTES:
            raise ControlPortError(f"Tor's cookie {path}: not {_COOKIE_BYTES} bytes")
        return cookie

    def _done(self, command: str, shown: str = "") -> ControlReply:
        self._send(command + "\r\n")
        shown = shown or command[:60]
        reply = self._reply(time.monotonic() + self._answer_s, shown)
        if not reply.ok:
            raise ControlPortError(f"Tor refuses {shown}: {reply.code} {reply.lines[-1][:200]}")
        return reply

    def _send(self, text: str) -> None:
        try:
            self._socket.settimeout(self._answer_s)
            self._socket.sendall(text.encode("ascii"))
        except OSError as error:
            raise ControlPortError(f"Tor's control socket {self._path}: {error.strerror or error}") from error

    def _reply(self, until: float, shown: str) -> ControlReply:
        """The next answer that is not an event (6xx)."""
        while True:
            code, lines = self._any_reply(until, shown)
            if code < 600:
                return ControlReply(code, tuple(lines))

    def _any_reply(self, until: float, shown: str) -> tuple[int, list[str]]:
        lines: list[str] = []
        left = MAX_ANSWER
        while True:
            line = self._line(until, shown, left)
            left -= len(line)
            match = _LINE.fullmatch(line)
            if match is None:
                raise self._strange(repr(line[:60]))
            code, kind, text = int(match[1]), match[2], match[3]
            if kind == "+":
                block: list[str] = []
                while (data := self._line(until, shown, left)) != ".":
                    left -= len(data) + 2
                    block.append(data.removeprefix(".") if data.startswith("..") else data)
                text = "\n".join([text, *block])
            lines.append(text)
            if kind == " ":
                return code, lines

    def _line(self, until: float, shown: str, left: int) -> str:
        parts: list[bytes] = []
        size = 0
        while True:
            head, found, self._held = self._held.partition(b"\r\n")
            if found:
                return b"".join([*parts, head]).decode("utf-8", "replace")
            # A line end may be cut in two: its first half stays with what is read next.
            keep = 1 if head.endswith(b"\r") else 0
            parts.append(head[: len(head) - keep])
            size += len(parts[-1])
            if size > left:
                raise self._strange(f"an answer to {shown} of more than {MAX_ANSWER} bytes")
            self._held = head[len(head) - keep :] + self._more(until, shown)

    def _more(self, until: float, shown: str) -> bytes:
        wait = until - time.monotonic()
        late = ControlPortError(f"Tor did not answer {shown} within {self._answer_s:g} s")
        if wait <= 0:
            raise late
        try:
            self._socket.settimeout(wait)
            chunk = self._socket.recv(1 << 16)
        except TimeoutError as error:
            raise late from error
        except OSError as error:
            raise ControlPortError(f"Tor's control socket {self._path}: {error.strerror or error}") from error
        if not chunk:
            raise ControlPortError(f"Tor closed its control socket {self._path}")
        return chunk

    def _strange(self, what: str) -> ControlPortError:
        return ControlPortError(f"Tor's control socket {self._path} does not speak the control protocol: {what}")


def _value(key: str, reply: ControlReply) -> str:
    start = f"{key}="
    for line in reply.lines:
        if line.startswith(start):
            return line[len(start) :].removeprefix("\n")
    raise ControlPortError(f"Tor answered GETINFO {key[:60]} with something else")


def _circuit(line: str) -> Circuit:
    words = line.split(" ")
    if len(words) < 2:
        raise ControlPortError(f"Tor described a circuit as {line[:60]!r}")
    path = words[2] if len(words) > 2 and words[2].startswith("$") else ""
    hops = tuple(hop[1:41].upper() for hop in path.split(",")) if path else ()
    return Circuit(words[0], words[1], hops, _fields(line).get("SOCKS_USERNAME", ""))


def _stream(line: str) -> Stream:
    words = line.split(" ")
    if len(words) < 4:
        raise ControlPortError(f"Tor described a stream as {line[:60]!r}")
    return Stream(words[0], words[1], words[2], words[3])


def _fields(text: str) -> dict[str, str]:
    return {match[1]: _unquoted(match[2]) for match in _FIELD.finditer(text)}


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def _quoted(value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'
