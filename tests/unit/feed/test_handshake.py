"""The WebSocket handshake, and what comes in its place."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.egress.patience import retry_after_s
from mexc_pipeline.feed.handshake import HandshakeRefusedError, parse, refusal, request, shake

KEY = base64.b64encode(bytes(16))
NOW = 1_795_000_000.0


class Far:
    """A socket whose other end answers a request by these bytes, then is silent, or closes."""

    def __init__(self, answer: Callable[[bytes], bytes], closes: bool = True) -> None:
        self._answer = answer
        self._closes = closes
        self.left = b""
        self.asked = b""

    @property
    def sendall(self) -> Callable[[bytes], Any]:
        def send(data: bytes) -> None:
            self.asked = data
            self.left = self._answer(data)

        return send

    @property
    def settimeout(self) -> Callable[[float], Any]:
        return lambda seconds: None

    def recv(self, size: int) -> bytes:
        if not self.left and not self._closes:
            raise TimeoutError
        piece, self.left = self.left[:size], self.left[size:]
        return piece


def upgrade(request: bytes, *, accept: bytes | None = None, more: bytes = b"") -> bytes:
    key = request.partition(b"Sec-WebSocket-Key: ")[2].split()[0]
    right = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n"
        b"Sec-WebSocket-Accept: " + (right if accept is None else accept) + b"\r\n\r\n" + more
    )


def refused(answer: bytes, closes: bool = True) -> Any:
    with pytest.raises(HandshakeRefusedError) as caught:
        shake(Far(lambda _: answer, closes), "ws://127.0.0.1:8765/edge")
    return caught.value.answer


def test_it_reads_the_answer_and_not_a_byte_more() -> None:
    far = Far(lambda asked: upgrade(asked, more=b"\x81\x02{}"))
    shake(far, "wss://contract.mexc.com/edge?x=1")
    assert far.left == b"\x81\x02{}"
    assert far.asked.startswith(b"GET /edge?x=1 HTTP/1.1\r\nHost: contract.mexc.com\r\n")
    assert b"Origin" not in far.asked
    assert far.asked.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_hints_before_the_answer_are_none(status: str) -> None:
    hint = f"HTTP/1.1 {status}\r\nLink: </x>; rel=preload\r\n\r\n".encode()
    far = Far(lambda asked: hint * 2 + upgrade(asked, more=b"\x81\x02{}"))
    shake(far, "ws://h/e")
    assert far.left == b"\x81\x02{}"
    assert refused(hint + b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n").retry_after_s == 7


def test_hints_without_end_have_one() -> None:
    assert "a head without end: HTTP/1.1 100" in str(refused(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, closes=False))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://h:8765/e", b"Host: h:8765"),
        ("wss://h:443", b"Host: h\r"),
        ("ws://[::1]:80/e", b"Host: [::1]\r"),
        ("ws://[::1]:81/e", b"Host: [::1]:81"),
    ],
)
def test_the_host_is_named_as_http_wants_it(url: str, host: bytes) -> None:
    assert host in request(url, KEY)
    assert request("ws://h", KEY).startswith(b"GET / HTTP")


def test_an_upgrade_that_does_not_answer_our_key_is_none() -> None:
    with pytest.raises(HandshakeRefusedError, match="without a valid WebSocket upgrade"):
        shake(Far(lambda asked: upgrade(asked, accept=b"x")), "ws://h/e")
    found = refused(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    assert found.status == 101


def test_what_is_answered_is_said() -> None:
    page = b"<html>\x1b[31m<h1>Too many\r\n</h1>" + b"x" * 500
    found = refused(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 600\r\n\r\n" + page)
    assert (found.status, found.retry_after_s, found.location) == (429, 30, None)
    assert found.body.startswith("<html>\\x1b[31m<h1>Too many\\r\\n</h1>xx")
    assert len(found.body) == 200
    assert str(found).startswith("handshake answered by HTTP 429 Too Many Requests, asks for 30 s of patience: <html>")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"600", "asks for 600 s of patience:"),
        (b"601", "asks for 601 s of patience, of which 600 s are kept:"),
        (b"1000000000", "asks for 1,000,000,000 s of patience, of which 600 s are kept:"),
    ],
)
def test_patience_beyond_what_is_kept_is_said_with_both(asked: bytes, said: str) -> None:
    found = refused(b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\nContent-Length: 2\r\n\r\nno" % asked)
    assert said in str(found)


def test_a_redirect_says_where_to() -> None:
    found = refused(b"HTTP/1.1 302 Found\r\nLocation: wss://elsewhere.example/edge\r\n\r\n")
    assert (found.status, found.location) == (302, "wss://elsewhere.example/edge")
    assert "redirect to wss://elsewhere.example/edge, which is not followed" in str(found)


def test_a_page_with_status_200_says_so_also_where_the_connection_stays_open() -> None:
    found = refused(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>Maintenance</h1>", closes=False)
    assert str(found) == "handshake answered by HTTP 200 OK: <h1>Maintenance</h1>"


def test_a_compressed_page_can_be_read() -> None:
    body = gzip.compress(b"<h1>Access Denied</h1>")
    assert refusal(403, "HTTP 403", {"content-encoding": "gzip"}, body, NOW).body == "<h1>Access Denied</h1>"
    cut = refusal(403, "HTTP 403", {"content-encoding": "gzip"}, body[:-9], NOW).body
    assert cut.isprintable()


@pytest.mark.parametrize("answer", [b"", b"\xff\x00\x01garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"a" * 70_000])
def test_what_is_no_http_is_shown(answer: bytes) -> None:
    found = refused(answer)
    assert found.status == 0
    assert "no HTTP answer" in str(found)
    assert str(found).isprintable()
    assert len(str(found)) < 300


@pytest.mark.parametrize(
    ("headers", "patience"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "120"}, 120),
        ({"retry-after": "1000000000"}, 1_000_000_000),
        ({"retry-after": "9" * 400}, 1e12),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "１２"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, 30),
        ({"retry-after": "Fri, 20 Nov 2026 09:00:00 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, 0),
        ({"retry-after": "Wed, 18 Nov 2026 11:06:47 GMT"}, 7),
        ({"retry-after": "Wed, 18 Nov 2026 11:06:47 GMT", "date": "never"}, 7),
        ({"retry-after": "Fri, 20 Nov 99999 10:00:30 GMT"}, None),
    ],
)
def test_patience_in_seconds_or_as_a_date(headers: dict[str, str], patience: float | None) -> None:
    assert retry_after_s(headers, NOW) == patience


@given(st.binary(max_size=300), st.booleans())
def test_whatever_comes_is_a_refusal_in_one_line(answer: bytes, closes: bool) -> None:
    far = Far(lambda _: b"HTTP/1.1 5" + answer, closes)
    with pytest.raises((HandshakeRefusedError, TimeoutError)) as caught:
        shake(far, "ws://h/e")
    if isinstance(caught.value, HandshakeRefusedError):
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1500
    else:
        assert not closes


@given(st.binary(max_size=300))
def test_heads_are_parsed_or_none(head: bytes) -> None:
    status, said, _ = parse(head)
    assert 0 <= status <= 999
    assert said.isprintable()
