"""REST answers as the world sends them: compressed, in chunks, at addresses that come and go."""

from __future__ import annotations

import gzip
import socket
import zlib
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.config import Egress, ExchangeTable
from mexc_pipeline.egress import http as module
from mexc_pipeline.egress.dial import Dialled, EgressError
from mexc_pipeline.egress.http import RestClient, get
from mexc_pipeline.egress.patience import PATIENCE_MOST_S
from support.examples import examples
from support.peers import Serve, free_port, saying, serving

DIRECT = Egress()
BODY = b'{"success":true,"code":0,"data":1}'


def response(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    return b"".join(b"%X\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        response(gzip.compress(BODY), "Content-Encoding: gzip"),
        response(gzip.compress(BODY), "CONTENT-ENCODING:   GZIP  "),
        response(zlib.compress(BODY), "Content-Encoding: deflate"),
        response(gzip.compress(zlib.compress(BODY)), "Content-Encoding: deflate", "content-encoding: gzip"),
        response(chunked(gzip.compress(BODY)), "Content-Encoding: x-gzip", "Transfer-Encoding: Chunked", length=False),
        response(gzip.compress(BODY), "Content-Encoding: gzip", length=False),
        response(BODY, "Content-Encoding: identity"),
    ],
    ids=["gzip", "casing", "deflate", "twice", "chunked", "until the end", "identity"],
)
def test_a_compressed_answer_is_understood(answer: bytes) -> None:
    with serving(saying(answer)) as server:
        assert get(DIRECT, f"http://127.0.0.1:{server.port}", "/x").body == BODY


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints", b"102 Processing"])
@pytest.mark.parametrize("count", [1, 5])
def test_informational_answers_before_the_answer_are_none(status: bytes, count: int) -> None:
    hint = b"HTTP/1.1 %s\r\nLink: </x>\r\nContent-Length: 7\r\nConnection: close\r\n\r\n" % status
    with serving(saying(hint * count + response(BODY))) as server:
        answer = get(DIRECT, f"http://127.0.0.1:{server.port}", "/x")
    assert (answer.status, answer.body) == (200, BODY)
    assert "link" not in answer.headers


def test_informational_answers_without_end_have_one() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000
    with serving(saying(hints)) as server, pytest.raises(EgressError, match="more than 20 informational answers"):
        get(DIRECT, f"http://127.0.0.1:{server.port}", "/x")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (response(BODY, "Content-Encoding: br"), "encoded as 'br'; gzip and deflate are understood"),
        (response(BODY, "Content-Encoding: gzip"), "said to be encoded as gzip"),
        (response(gzip.compress(BODY)[:-9], "Content-Encoding: gzip"), "broke off"),
        (response(gzip.compress(b"\0" * 200_000), "Content-Encoding: gzip"), "longer than is read"),
        (response(b"x" * 100_001), "longer than 100000 bytes"),
        (response(b"x" * 100_001, length=False), "longer than 100000 bytes"),
        (response(chunked(b"x" * 100_001), "Transfer-Encoding: chunked", length=False), "longer than 100000 bytes"),
        (response(chunked(BODY)[:-9], "Transfer-Encoding: chunked", length=False), "IncompleteRead"),
        (response(BODY, "Transfer-Encoding: gzip, chunked", length=False), "transfer encoding 'gzip, chunked'"),
        (response(b"-1\r\n" + b"x" * 200_000, "Transfer-Encoding: chunked", length=False), "longer than 100000 bytes"),
        (response(b"-2\r\n" + b"x" * 200_000, "Transfer-Encoding: chunked", length=False), "longer than 100000 bytes"),
        (response(b"-2\r\nxy\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), "IncompleteRead"),
    ],
)
def test_what_cannot_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 100_000)
    with serving(saying(answer)) as server, pytest.raises(EgressError, match=said) as caught:
        get(DIRECT, f"http://127.0.0.1:{server.port}", "/x")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"GET http://127.0.0.1:{server.port}/x: ")


HEADERS = ["Transfer-Encoding: chunked", "Content-Length: 7", "Content-Length: -1", "Content-Encoding: gzip"]
HEADERS += ["Retry-After: -1", "Retry-After: 1 Jan 2020 10:00 +9999", "Retry-After: " + "9" * 999, "x"]
LINES = [b"-1", b"-2", b"0", b"5;x", b"9" * 99, b"", b"HTTP/1.1 200 OK"]


@given(
    st.sampled_from(["200 OK", "429 x", "103 x", "204", "-1 x"]),
    st.lists(st.sampled_from(HEADERS), max_size=4),
    st.lists(st.sampled_from(LINES) | st.binary(max_size=20), max_size=8),
)
@settings(max_examples=examples(300), deadline=None)
def test_any_bytes_are_an_answer_or_one_line(status: str, headers: list[str], lines: list[bytes]) -> None:
    """Whatever else were raised would end the thread that asks."""
    ours, theirs = socket.socketpair()
    theirs.sendall(response(b"\r\n".join(lines), *headers, status=status, length=False))
    theirs.shutdown(socket.SHUT_WR)
    rest = RestClient(DIRECT, _exchange(1), lambda *_: Dialled(ours, "direct", "", ""))
    with theirs, suppress(EgressError):
        rest.get("/x")


def test_a_refusal_is_said_by_its_status_whatever_its_body_is_encoded_as() -> None:
    refusal = response(b"??", "Content-Encoding: br", "Retry-After: 7", "Date: now", status="429 Too Many")
    with serving(saying(refusal)) as server:
        answer = get(DIRECT, f"http://127.0.0.1:{server.port}", "/x")
    assert (answer.status, answer.headers["retry-after"], answer.headers["date"]) == (429, "7", "now")
    assert answer.body == b""
    assert answer.sent_ns <= answer.received_ns


HERE = response(BODY)
MOVED = {
    "redirect": response(b"", "Location: http://elsewhere/", status="301 Moved"),
    "forbidden": response(b"<html>", "Content-Type: text/html", status="403 Forbidden"),
    "not found": response(b"", status="404 Not Found"),
    "a page": response(b"<html>parked</html>", "Content-Type: Text/HTML; charset=utf-8"),
    "bad gateway": response(b"", status="502 Bad Gateway"),
    "nothing": b"",
}


def _exchange(*ports: int) -> ExchangeTable:
    return ExchangeTable(rest=tuple(f"http://127.0.0.1:{port}" for port in ports))


@pytest.mark.parametrize("first", MOVED.values(), ids=list(MOVED))
def test_an_address_that_does_not_serve_is_left_and_one_that_does_is_kept(first: bytes) -> None:
    with serving(saying(first)) as old, serving(saying(HERE)) as new:
        rest = RestClient(DIRECT, _exchange(old.port, new.port))
        for _ in range(3):
            answer = rest.get("/x")
            assert (answer.body, answer.url) == (BODY, f"http://127.0.0.1:{new.port}")
        assert (old.accepted, new.accepted) == (1, 3)
        assert rest.url == answer.url


@pytest.mark.parametrize("said", [response(b"", status="429 Slow"), response(b'{"success":false,"code":510}')])
def test_patience_asked_for_is_no_reason_to_go_elsewhere(said: bytes) -> None:
    with serving(saying(said)) as asked, serving(saying(HERE)) as other:
        RestClient(DIRECT, _exchange(asked.port, other.port)).get("/x")
        assert (asked.accepted, other.accepted) == (1, 0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("status", ["429 Slow", "503 Busy"])
@pytest.mark.parametrize(("asked", "kept_s"), [("7", 7.0), ("86400", PATIENCE_MOST_S), ("0", 0.0), ("soon", 0.0)])
def test_patience_that_is_asked_for_is_kept_by_all_who_ask(status: str, asked: str, kept_s: float) -> None:
    clock = Clock()
    with serving(saying(response(b"", f"Retry-After: {asked}", status=status))) as server:
        rest = RestClient(DIRECT, _exchange(server.port), clock=clock)
        assert rest.patience_s == 0
        assert rest.get("/x").status == int(status[:3])
        assert rest.patience_s == kept_s
        for part in (0.0, 0.5, 0.999):
            clock.now = 100.0 + kept_s * part
            if kept_s:
                with pytest.raises(EgressError, match="asks for patience: nothing is asked of it for"):
                    rest.get("/y")
        assert server.accepted == 1
        clock.now = 100.0 + kept_s
        assert rest.patience_s == 0
        assert rest.get("/y").status == int(status[:3])
        assert server.accepted == 2
        assert rest.state().describe() == {
            "url": f"http://127.0.0.1:{server.port}",
            "of": 1,
            "answered": status < "5",
            "patience_s": kept_s,
        }


def test_one_addresss_outage_keeps_nobody_from_the_other() -> None:
    """A 503 is no wish to be asked less: another address may serve. But that one is left alone for as long."""
    clock = Clock()
    with (
        serving(saying(response(b"", "Retry-After: 60", status="503 Busy"))) as busy,
        serving(saying(MOVED["not found"])) as other,
    ):
        rest = RestClient(DIRECT, _exchange(busy.port, other.port), clock=clock)
        assert rest.get("/x").status == 404
        assert rest.patience_s == 0
        assert rest.get("/x").status == 404
        assert (busy.accepted, other.accepted) == (1, 2)
        clock.now += 60
        rest.get("/x")
        assert (busy.accepted, other.accepted) == (2, 3)


def test_where_none_serves_the_last_answer_or_all_reasons_are_given() -> None:
    dead = free_port()
    with serving(saying(MOVED["forbidden"])) as server:
        assert RestClient(DIRECT, _exchange(dead, server.port)).get("/x").status == 403
        assert RestClient(DIRECT, _exchange(server.port, dead)).get("/x").status == 403
    with pytest.raises(EgressError) as caught:
        RestClient(DIRECT, _exchange(dead, server.port)).get("/x")
    assert f":{dead}" in str(caught.value)
    assert f":{server.port}" in str(caught.value)


def test_every_address_is_asked_once_a_request() -> None:
    serves: list[Serve] = [saying(MOVED["not found"])] * 4
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(serve)) for serve in serves]
        rest = RestClient(DIRECT, _exchange(*(server.port for server in servers)))
        for count in (1, 2):
            assert rest.get("/x").status == 404
            assert [server.accepted for server in servers] == [count] * 4
