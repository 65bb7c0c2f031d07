"""The dashboard's server: who is let in, what its answers forbid a browser, its stream, and how it ends."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlServer
from mexc_pipeline.dashboard import publisher as publishing
from mexc_pipeline.dashboard.publisher import VIEWERS, Gathered
from mexc_pipeline.dashboard.server import listening
from mexc_pipeline.errors import ConfigError
from mexc_pipeline.serving import CLIENTS, WRONG_S, Access
from support.overviews import overview_of, symbol
from support.spools import configure

HERE = Access("127.0.0.1", 0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configure(tmp_path, "BTC_USDT")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("sesame\n")
    path.chmod(0o600)
    return path


def gathered() -> Gathered:
    return overview_of(symbol("btc", "BTC_USDT")), {}


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}


@contextmanager
def asking(port: int, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path, headers=headers)
        yield connection.getresponse()


def status(port: int, path: str = "/", **headers: str) -> int:
    with asking(port, path, **headers) as answer:
        return answer.status


def event(answer: http.client.HTTPResponse) -> dict[str, Any]:
    """The next news of a stream."""
    while not (line := answer.readline()).startswith(b"data:"):
        assert line, "the stream has ended"
    found: dict[str, Any] = json.loads(line[5:])
    return found


def test_the_page_is_whole_and_forbids_everything_else(config: Config) -> None:
    with listening(config, HERE, gathered) as port:
        for path, kind in [("/", "html"), ("/page.css", "css"), ("/page.js", "javascript"), ("/icon.svg", "svg")]:
            with asking(port, path) as answer:
                text = answer.read().decode()
                assert (answer.status, kind in answer.headers["Content-Type"]) == (200, True)
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), "a foreign address"
                assert not any(way in text for way in ("innerHTML", "insertAdjacentHTML", "style=", "onclick="))
        assert status(port, "/../page.js") == 404
        assert status(port, "/static/page.js") == 404
        assert status(port, "/", Host="rebound.example") == 421


def test_the_stream_begins_at_once_and_goes_on(config: Config) -> None:
    with listening(config, HERE, gathered) as port, asking(port, "/events") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        found = [event(answer) for _ in range(3)]
        assert [one["number"] for one in found] == [0, 1, 2]
        assert found[0]["symbols"][0][:3] == ["btc", "BTC_USDT", "asking"]
        assert found[2]["symbols"][0][:3] == ["btc", "BTC_USDT", "live"]


def test_a_compressed_stream_says_the_same(config: Config) -> None:
    with listening(config, HERE, gathered) as port, asking(port, "/events", **{"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        stream = zlib.decompressobj(31)
        text = b""
        while text.count(b"event: now\n") < 3:
            text += stream.decompress(answer.read1())
        assert text.startswith(b"retry: 1000\n\nevent: now\ndata: {")


def test_details_of_one_symbol(config: Config) -> None:
    with listening(config, HERE, gathered) as port:
        with asking(port, "/symbol?id=btc") as answer:
            found = json.load(answer)
            assert (answer.status, found["symbol"]) == (200, "BTC_USDT")
        assert status(port, "/symbol?id=../btc") == 404
        assert status(port, "/symbol") == 404


def test_idle_clients_end_no_stream(config: Config) -> None:
    with listening(config, HERE, gathered) as port, asking(port, "/events") as answer:
        assert event(answer)["number"] == 0
        idle = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(CLIENTS + VIEWERS + 8)]
        try:
            for one in idle:
                one.connect()
            assert status(port) == 200
            assert [event(answer)["number"] for _ in range(2)] == [1, 2]
        finally:
            for one in idle:
                one.close()


def test_more_viewers_than_there_may_be_are_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "VIEWERS", 1)
    with listening(config, HERE, gathered) as port:
        with asking(port, "/events") as answer:
            assert event(answer)["number"] == 0
            with asking(port, "/events") as second:
                assert (second.status, second.read()) == (503, b"1 watch already; close one of their pages\n")
        assert status(port) == 200


def test_a_password_is_asked_for_and_a_wrong_one_takes_its_time(config: Config, secret: Path) -> None:
    with listening(config, Access("127.0.0.1", 0, password_file=secret), gathered) as port:
        for path in ("/", "/page.js", "/events", "/symbol?id=btc", "/nothing"):
            assert status(port, path) == 401
        began = time.monotonic()
        assert status(port, **basic("open")) == 401
        assert time.monotonic() - began >= WRONG_S
        assert status(port, **basic("sesame")) == 200


def test_a_stream_ends_with_the_password_it_was_opened_with(config: Config, secret: Path) -> None:
    access = Access("127.0.0.1", 0, password_file=secret)
    with listening(config, access, gathered) as port, asking(port, "/events", **basic("sesame")) as answer:
        assert event(answer)["number"] == 0
        secret.write_text("changed\n")
        assert answer.read().count(b"event: now") < 5


def test_behind_a_proxy_nobody_else_is_answered(config: Config, secret: Path) -> None:
    """It listens where others could come too, speaks no TLS, and takes any name: the proxy's."""
    with listening(config, Access("0.0.0.0", 0, password_file=secret, proxy="127.0.0.1"), gathered) as port:
        assert status(port, Host="recorder.example", **basic("sesame")) == 200
        assert status(port, Host="recorder.example") == 401
    with (
        listening(config, Access("0.0.0.0", 0, password_file=secret, proxy="192.0.2.7"), gathered) as port,
        pytest.raises(OSError, match=r"reset|closed|without"),
    ):
        status(port, **basic("sesame"))
    with listening(config, Access("::", 0, password_file=secret, proxy="127.0.0.1"), gathered) as port:
        assert status(port, **basic("sesame")) == 200, "an IPv4 peer of an IPv6 socket"


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (Access("0.0.0.0", 9465), "only over TLS and with a password"),
        (Access("0.0.0.0", 9465, proxy="192.0.2.7"), "name a --password-file too"),
        (Access("127.0.0.1", 9465, proxy="127.0.0.1"), "name a --password-file too"),
        (Access("127.0.0.1", 9465, proxy="recorder.example"), "not an IP address"),
    ],
)
def test_an_access_that_would_let_anybody_in_is_refused(config: Config, access: Access, said: str) -> None:
    with pytest.raises(ConfigError, match=said), listening(config, access, gathered):
        pass


def test_a_part_that_hangs_is_seen_in_time(config: Config) -> None:
    go_on = threading.Event()
    hang = ControlServer(config.control_dir / "btc.sock", {"status": lambda _: {"ok": go_on.wait(30)}})
    try:
        with listening(config, HERE) as port, asking(port, "/events") as answer:
            assert event(answer)["number"] == 0
            began = time.monotonic()
            assert event(answer)["symbols"][0][2] == "down"
            assert time.monotonic() - began < 5
    finally:
        go_on.set()
        hang.close()


def test_a_stream_over_tls_outlives_idle_clients(config: Config, secret: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, key = tmp_path / "host.pem", tmp_path / "host.key"
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        listening(config, Access("0.0.0.0", 0, certificate, key, secret), gathered) as port,
        closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)) as connection,
        ExitStack() as stack,
    ):
        connection.request("GET", "/events", headers=basic("sesame"))
        answer = connection.getresponse()
        assert event(answer)["number"] == 0
        for _ in range(CLIENTS + VIEWERS + 8):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert [event(answer)["number"] for _ in range(2)] == [1, 2]


def test_it_ends_while_somebody_watches(config: Config) -> None:
    with listening(config, HERE, gathered) as port, asking(port, "/events") as answer:
        assert event(answer)["number"] == 0
        began = time.monotonic()
    assert time.monotonic() - began < 5
