"""The WebSocket handshake (RFC 6455, section 4.1) over a socket that is there, and what an exchange answers instead of
one. Redirects are never followed: they could lead anywhere."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from mexc_pipeline import __version__
from mexc_pipeline.egress.encoding import CodingError, decode
from mexc_pipeline.egress.patience import PATIENCE_MOST_S, retry_after_s
from mexc_pipeline.text import clean

BODY_S = 1.0
"""How long the body of a refusal may take; what has come by then is shown."""
MOST_BODY = 4096
MOST_PLAIN = 1 << 20
"""The same, once it is unpacked."""
SHOWN = 200
"""Characters of it that are kept."""
_MOST_HEAD = 64 << 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Socket(Protocol):
    """What is needed of a socket; its timeouts raise TimeoutError."""

    @property
    def sendall(self) -> Callable[[bytes], Any]: ...
    @property
    def settimeout(self) -> Callable[[float], Any]: ...
    def recv(self, size: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class HandshakeAnswer:
    """What came in place of a handshake: ``status`` 0 where it was no HTTP at all; ``retry_after_s`` None where the
    exchange asks for no patience; all text is one clean line."""

    status: int
    said: str
    location: str | None = None
    retry_after_s: float | None = None
    body: str = ""

    def __str__(self) -> str:
        text = f"handshake answered by {self.said}"
        if self.location is not None:
            text += f", a redirect to {self.location}, which is not followed"
        if self.retry_after_s is not None:
            text += f", asks for {self.retry_after_s:,.12g} s of patience"
            if self.retry_after_s > PATIENCE_MOST_S:
                text += f", of which {PATIENCE_MOST_S:g} s are kept"
        return text + (f": {self.body}" if self.body else "")

    def fields(self) -> dict[str, Any]:
        """The fields of the answer in the ``disconnected`` event and in ``status``."""
        return {
            "status": self.status or None,
            "location": self.location,
            "retry_after_s": self.retry_after_s,
            "body": self.body or None,
        }


class HandshakeRefusedError(Exception):
    """The exchange answered something else than a handshake."""

    def __init__(self, answer: HandshakeAnswer) -> None:
        super().__init__(str(answer))
        self.answer = answer


def shake(sock: Socket, url: str) -> None:
    """Ask for the WebSocket at ``url`` and read the answer, not a byte more. Raises HandshakeRefusedError; OSError and
    TimeoutError as the socket does."""
    key = base64.b64encode(os.urandom(16))
    sock.sendall(request(url, key))
    status, room = 100, _MOST_HEAD
    while 100 <= status < 200 and status != 101:  # hints and the like that come before an answer (RFC 9110, 15.2)
        head = _head(sock, room)
        room -= len(head)
        status, said, headers = parse(head)
    if status == 101:
        if not _agrees(headers, key):
            raise HandshakeRefusedError(HandshakeAnswer(status, "HTTP 101 without a valid WebSocket upgrade"))
        return
    body = _body(sock, headers) if status else b""
    raise HandshakeRefusedError(refusal(status, said, headers, body, time.time()))


def _head(sock: Socket, most: int) -> bytes:
    """The next status line and headers, of at most so many bytes."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        head += byte
        if len(head) > most and head.startswith(b"HTTP/"):
            raise HandshakeRefusedError(HandshakeAnswer(0, f"a head without end: {clean(bytes(head), SHOWN)}"))
        if not byte or len(head) > most:
            raise HandshakeRefusedError(
                HandshakeAnswer(0, f"what is no HTTP answer: {clean(bytes(head), SHOWN) or 'nothing'}")
            )
    return bytes(head)


def request(url: str, key: bytes) -> bytes:
    """The bytes that ask for the WebSocket; ``key`` is 16 random ones in base64."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    where = host if parts.port in (None, 80, 443) else f"{host}:{parts.port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return (
        f"GET {path} HTTP/1.1\r\nHost: {where}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n"
        f"User-Agent: mexc-pipeline/{__version__}\r\n\r\n"
    ).encode()


def parse(head: bytes) -> tuple[int, str, dict[str, str]]:
    """Status (0 where it is no HTTP), the status as people read it, and headers by their lower-case names."""
    line, *rest = head.decode("latin-1").split("\r\n")
    version, _, said = line.partition(" ")
    code = said[:3]
    if not version.startswith("HTTP/") or not (code.isascii() and code.isdigit()):
        return 0, f"what is no HTTP answer: {clean(head, SHOWN)}", {}
    pairs = (text.partition(":") for text in rest)
    headers = {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}
    return int(code), clean(f"HTTP {said.strip()}", 60), headers


def refusal(status: int, said: str, headers: Mapping[str, str], body: bytes, wall: float) -> HandshakeAnswer:
    """The answer as it is recorded; ``wall`` is this host's Unix time, used where the answer has no date of its own."""
    location = headers.get("location") if 300 <= status < 400 else None
    return HandshakeAnswer(
        status,
        said,
        clean(location, SHOWN) if location is not None else None,
        retry_after_s(headers, wall),
        clean(_plain(body, headers), SHOWN).strip(),
    )


def _plain(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body as it was before it was encoded; as it came, where that does not tell."""
    try:
        return decode(body, [headers.get("content-encoding", "")], MOST_PLAIN)
    except CodingError:
        return body


def _agrees(headers: Mapping[str, str], key: bytes) -> bool:
    upgrade = "websocket" in _tokens(headers.get("upgrade")) and "upgrade" in _tokens(headers.get("connection"))
    wanted = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
    return upgrade and headers.get("sec-websocket-accept") == wanted


def _tokens(value: str | None) -> set[str]:
    return {token.strip().lower() for token in (value or "").split(",")}


def _body(sock: Socket, headers: Mapping[str, str]) -> bytes:
    """What comes of the body within a moment."""
    text = headers.get("content-length", "")
    most = min(MOST_BODY, int(text)) if text.isascii() and text.isdigit() and len(text) < 10 else MOST_BODY
    body = b""
    until = time.monotonic() + BODY_S
    try:
        while len(body) < most and (left := until - time.monotonic()) > 0:
            sock.settimeout(left)
            piece = sock.recv(most - len(body))
            if not piece:
                break
            body += piece
    except OSError:
        return body  # the status is what counts, and the connection is over
    return body
