"""Dialling: the configured way and no other, every step with a deadline."""

from __future__ import annotations

import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.config import Egress
from mexc_pipeline.egress import dial as module
from mexc_pipeline.egress.dial import EgressError, UnreachedError, dial
from mexc_pipeline.egress.http import get
from support.peers import (
    Certificates,
    SocksProxy,
    certificates,
    dripping,
    free_port,
    saying,
    serving,
    silent,
)

DIRECT = Egress()
SHORT_S = 0.3


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in ("CONNECT_S", "SOCKS_S", "TLS_S"):
        monkeypatch.setattr(module, step, SHORT_S)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # must not be looked at


def socks(port: int) -> Egress:
    return Egress(mode=f"socks5h://127.0.0.1:{port}")


def test_direct_names_both_ends() -> None:
    with serving(saying(b"hello")) as server:
        dialled = dial(DIRECT, f"ws://localhost:{server.port}/edge")
        with dialled.sock:
            assert dialled.peer == f"127.0.0.1:{server.port}"
            assert dialled.local.startswith("127.0.0.1:")
            assert dialled.sock.gettimeout() == SHORT_S
            assert dialled.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            dialled.sock.sendall(b"x")
            assert dialled.sock.recv(10) == b"hello"


def test_an_address_of_a_link_names_its_interface() -> None:
    """Of these the same may be on several interfaces, so that one without a name leads nowhere."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines() if socket.has_ipv6 else []:
        digits, _, _, scope, _, name = line.split()
        if scope != "20":  # not of a link
            continue
        host = ":".join(digits[at : at + 4] for at in range(0, 32, 4)) + f"%{name}"
        with socket.create_server(("::", 0), family=socket.AF_INET6) as server:
            dialled = dial(DIRECT, f"ws://[{host}]:{server.getsockname()[1]}/edge")
            dialled.sock.close()
        return
    pytest.skip("no interface has such an address")


def test_an_interface_that_there_is_not_is_said() -> None:
    with pytest.raises(UnreachedError, match="fe80::1%none"):
        dial(DIRECT, "ws://[fe80::1%none]:1/edge")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_closed_port_is_said(host: str) -> None:
    port = free_port()
    with pytest.raises(EgressError, match=f"connect to {host}:{port}: .*refused"):
        dial(DIRECT, f"wss://{host}:{port}/edge")


def test_a_name_that_is_none_is_said() -> None:
    with pytest.raises(EgressError, match=r"resolve nowhere\.invalid"):
        dial(DIRECT, "wss://nowhere.invalid/edge")
    with pytest.raises(EgressError, match="resolve "):
        dial(DIRECT, f"wss://{'x' * 70}.invalid/edge")


def test_a_resolver_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:

    def hang(*_: object, **__: object) -> list[object]:
        time.sleep(1)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    with pytest.raises(EgressError, match=r"resolve slow\.invalid: no answer within 0\.3 s"):
        dial(DIRECT, "wss://slow.invalid/edge")
    assert time.monotonic() - began < 0.9


def test_many_dead_addresses_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        fillers = []
        for _ in range(4):  # a full backlog: further connections get no answer
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)] * 5
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        began = time.monotonic()
        with pytest.raises(EgressError, match="timed out"):
            dial(DIRECT, "ws://many.invalid/edge")
        assert time.monotonic() - began < 3 * SHORT_S
        for filler in fillers:
            filler.close()


def test_a_proxy_resolves_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = SocksProxy({"exchange.invalid": "127.0.0.1"})
    asked: list[object] = []
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with serving(saying(b"hello")) as server, serving(proxy.serve) as front:
        dialled = dial(socks(front.port), f"ws://exchange.invalid:{server.port}/edge")
        with dialled.sock:
            assert dialled.peer == f"127.0.0.1:{front.port}"
            dialled.sock.sendall(b"x")
            assert dialled.sock.recv(10) == b"hello"
        assert proxy.asked == [(3, "exchange.invalid", server.port)]
    assert "exchange.invalid" not in asked


@pytest.mark.parametrize("code", range(1, 9))
def test_a_refusing_proxy_is_said(code: int) -> None:
    with serving(SocksProxy({}, refuse=code).serve) as front, serving(silent) as trap:
        with pytest.raises(EgressError, match=rf"proxy 127\.0\.0\.1:{front.port}"):
            dial(socks(front.port), f"ws://127.0.0.1:{trap.port}/edge")
        assert trap.accepted == 0


@pytest.mark.parametrize(
    "proxy",
    [silent, dripping(b"\x05"), dripping(b"\x05\x00\x05\x00\x00\x03\xff"), saying(b"HTTP/1.1 400 no\r\n"), saying(b"")],
    ids=["silent", "drip", "drip name", "http", "closes"],
)  # fmt: skip
def test_a_broken_proxy_ends_in_time_and_never_in_a_direct_connection(proxy: object) -> None:
    began = time.monotonic()
    with serving(proxy) as front, serving(silent) as trap:  # type: ignore[arg-type]
        with pytest.raises(EgressError, match=rf"proxy 127\.0\.0\.1:{front.port}"):
            dial(socks(front.port), f"ws://127.0.0.1:{trap.port}/edge")
        assert time.monotonic() - began < 4 * SHORT_S
        assert trap.accepted == 0


def test_a_dead_proxy_means_no_connection() -> None:
    with serving(silent) as trap, pytest.raises(EgressError, match="proxy"):
        dial(socks(free_port()), f"ws://127.0.0.1:{trap.port}/edge")
    assert trap.accepted == 0


def tls_echo(files: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.mark.parametrize("by_proxy", [False, True])
def test_tls_is_verified_against_the_private_authority(tmp_path: Path, by_proxy: bool) -> None:
    good, other = certificates(tmp_path / "a", "localhost"), certificates(tmp_path / "b", "localhost")
    wrong_name = certificates(tmp_path / "c", "elsewhere.invalid")

    def secure(files: Certificates):  # type: ignore[no-untyped-def]
        def serve(client: socket.socket, over: object) -> None:
            with tls_echo(files).wrap_socket(client, server_side=True) as wrapped:
                wrapped.sendall(wrapped.recv(100)[::-1])

        return serve

    proxy = SocksProxy({"localhost": "127.0.0.1"})
    with serving(secure(good)) as server, serving(secure(wrong_name)) as named, serving(proxy.serve) as front:
        egress = socks(front.port) if by_proxy else DIRECT
        dialled = dial(egress, f"wss://localhost:{server.port}/edge", str(good.authority))
        with dialled.sock:
            dialled.sock.sendall(b"abc")
            assert dialled.sock.recv(10) == b"cba"
            assert dialled.peer == f"127.0.0.1:{front.port if by_proxy else server.port}"
        for ca_file in ("", str(other.authority)):
            with pytest.raises(EgressError, match=r"TLS with localhost: .*(issuer|self.signed).*; .*exchange\.ca_file"):
                dial(egress, f"wss://localhost:{server.port}/edge", ca_file)
        with pytest.raises(EgressError, match=r"TLS with localhost: another host answered: Hostname mismatch"):
            dial(egress, f"wss://localhost:{named.port}/edge", str(wrong_name.authority))
        with pytest.raises(EgressError, match=r"ca_file .*nowhere\.pem"):
            dial(egress, f"wss://localhost:{server.port}/edge", str(tmp_path / "nowhere.pem"))


@pytest.mark.parametrize(("days", "said"), [(-400, "has expired"), (400, "not yet valid")])
def test_a_certificate_refused_for_its_dates_is_said_as_clock_or_certificate(
    tmp_path: Path, days: int, said: str
) -> None:
    """A host whose clock is wrong sees every certificate so."""
    begin = datetime.now(UTC) + timedelta(days=days)
    files = certificates(tmp_path, "localhost", not_before=begin, not_after=begin + timedelta(days=30))

    def serve(client: socket.socket, over: object) -> None:
        tls_echo(files).wrap_socket(client, server_side=True)

    with serving(serve) as server, pytest.raises(EgressError) as raised:
        dial(DIRECT, f"wss://localhost:{server.port}/edge", str(files.authority))
    assert str(raised.value).startswith("TLS with localhost: clock or certificate: certificate ")
    assert said in str(raised.value)
    assert f"this host's clock says {datetime.now(UTC):%Y-%m-%d}" in str(raised.value)


@pytest.mark.parametrize(
    "server", [silent, dripping(b"\x16\x03\x03\x3f\xff" + b"\x02" * 100), saying(b"this is not TLS\r\n")],
    ids=["silent", "drip", "plain"],
)  # fmt: skip
def test_tls_has_a_deadline(server: object) -> None:
    began = time.monotonic()
    with serving(server) as far, pytest.raises(EgressError, match=r"TLS with localhost"):  # type: ignore[arg-type]
        dial(DIRECT, f"wss://localhost:{far.port}/edge")
    assert time.monotonic() - began < 4 * SHORT_S


def test_rest_is_read_whole() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with serving(saying(answer)) as server:
        found = get(DIRECT, f"http://127.0.0.1:{server.port}", "/x")
    assert (found.status, found.body) == (200, b"hello")


def test_rest_follows_no_redirect() -> None:
    with serving(silent) as trap:
        answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % trap.port
        with serving(saying(answer)) as server:
            found = get(DIRECT, f"http://127.0.0.1:{server.port}", "/x")
            assert (found.status, found.body) == (302, b"")
        assert trap.accepted == 0


@pytest.mark.parametrize(
    "server",
    [silent, dripping(b"HTTP/1.1 200 OK\r\nX: "), saying(b""), saying(b"\xff\xfe\r\n\r\n"),
     saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")],
    ids=["silent", "drip", "closes", "garbage", "half"],
)  # fmt: skip
def test_rest_without_an_answer_ends_in_time(server: object) -> None:
    began = time.monotonic()
    with serving(server) as far, pytest.raises(EgressError, match="GET http://"):  # type: ignore[arg-type]
        get(DIRECT, f"http://127.0.0.1:{far.port}", "/x", within_s=SHORT_S)
    assert time.monotonic() - began < 4 * SHORT_S
