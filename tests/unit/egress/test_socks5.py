"""Proxies with and without a login, the file that holds it, and SOCKS5 as Tor speaks it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.config import Egress
from mexc_pipeline.egress import socks5
from mexc_pipeline.egress.credentials import read_login
from mexc_pipeline.egress.dial import EgressError, dial
from mexc_pipeline.egress.socks5 import SocksError
from mexc_pipeline.errors import ConfigError
from mexc_pipeline.feed.handshake import HandshakeRefusedError, shake
from support.peers import SocksProxy, saying, serving, silent

LOGIN = (b"me", b"open sesame")


def _file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "login"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def _egress(port: int, file: Path | str = "") -> Egress:
    return Egress(mode=f"socks5h://127.0.0.1:{port}", credentials_file=str(file))


def test_a_login_is_sent_where_one_is_configured(tmp_path: Path) -> None:
    proxy = SocksProxy({"exchange.invalid": "127.0.0.1"}, login=LOGIN)
    with serving(saying(b"hello")) as server, serving(proxy.serve) as front:
        egress = _egress(front.port, _file(tmp_path, b"me\nopen sesame\n"))
        with dial(egress, f"ws://exchange.invalid:{server.port}/edge").sock as sock:
            sock.sendall(b"x")
            assert sock.recv(10) == b"hello"
    assert proxy.asked == [(3, "exchange.invalid", server.port)]


def test_a_login_that_nobody_asks_for_stays_here(tmp_path: Path) -> None:
    with serving(saying(b"hello")) as server, serving(SocksProxy({}).serve) as front:
        egress = _egress(front.port, _file(tmp_path, b"me\nopen sesame\n"))
        with dial(egress, f"ws://127.0.0.1:{server.port}/edge").sock as sock:
            sock.sendall(b"x")
            assert sock.recv(10) == b"hello"


@given(st.binary(max_size=40))
def test_whatever_a_proxy_says_it_is_a_connection_or_one_error(data: bytes) -> None:
    with serving(saying(data)) as front:
        try:
            dial(_egress(front.port), "ws://a.invalid:443/edge").sock.close()
        except EgressError as error:
            said = str(error)
        else:
            said = ""
    assert "\n" not in said
    assert said or data.startswith(b"\x05\x00")


@pytest.mark.parametrize(
    ("wanted", "given_", "said"),
    [
        (LOGIN, None, "asks for a name and a password; egress.credentials_file names a file with both"),
        (LOGIN, b"me\nother\n", "refuses the name or the password"),
    ],
)
def test_a_login_that_does_not_fit_is_one_line_without_it(
    tmp_path: Path, wanted: tuple[bytes, bytes], given_: bytes | None, said: str
) -> None:
    with serving(SocksProxy({}, login=wanted).serve) as front, serving(silent) as trap:
        egress = _egress(front.port, _file(tmp_path, given_) if given_ else "")
        with pytest.raises(EgressError, match=said) as caught:
            dial(egress, f"ws://127.0.0.1:{trap.port}/edge")
        assert trap.accepted == 0
    assert "sesame" not in str(caught.value)
    assert "other" not in str(caught.value).replace("others", "")


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"me\nsecret\n", 0o644, "others may use it; chmod 600 it"),
        (b"me\nsecret\n", 0o602, "others may use it"),
        (b"", 0o600, "two lines are needed"),
        (b"me:secret\n", 0o600, "two lines are needed"),
        (b"me\n\n", 0o600, "two lines are needed"),
        (b"me\nsecret\nmore\n", 0o600, "two lines are needed"),
        (b"me\n" + b"x" * 256, 0o600, "1 to 255 bytes"),
        (b"me\n\xff\xfe\n", 0o600, "not UTF-8"),
        (b"\0" * 100_000, 0o600, "larger than 1020 bytes"),
    ],
)
def test_a_file_that_is_no_login_is_one_line_without_it(tmp_path: Path, content: bytes, mode: int, said: str) -> None:
    path = _file(tmp_path, content, mode)
    with pytest.raises(ConfigError, match=said) as caught:
        read_login(str(path))
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_no_file_is_said_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, said in (("fifo", "not a file"), ("nowhere", "No such file"), ("", "not a file")):
        with pytest.raises(ConfigError, match=said):
            read_login(str(tmp_path / name))


@pytest.mark.parametrize("content", [b"me\nopen sesame", b"me\nopen sesame\n", b"me\r\nopen sesame\r\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_line_ends_and_the_modes_of_credentials(tmp_path: Path, content: bytes, mode: int) -> None:
    found = read_login(str(_file(tmp_path, content, mode)))
    assert found == ("me", "open sesame")
    assert "sesame" not in repr(found)


@contextmanager
def _answering(data: bytes) -> Iterator[socket.socket]:
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(5)
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        yield near


@given(st.binary(max_size=40))
def test_whatever_tor_says_it_is_success_or_one_error(data: bytes) -> None:
    with _answering(data) as sock:
        try:
            socks5.request(sock, socks5.CONNECT, "a.invalid", 443, "me")
            socks5.answer(sock)
        except SocksError as error:
            failed = str(error)
        else:
            failed = ""
    assert "\n" not in failed
    if not failed:
        assert data.startswith(b"\x05\x02")


@given(st.text(max_size=300))
def test_any_host_is_written_or_refused(host: str) -> None:
    try:
        written = socks5.address(host)
    except SocksError:
        return
    assert written[0] in (1, 3, 4)
    assert len(written) == {1: 5, 4: 17}.get(written[0], 2 + written[1])


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 403 no\r\nlocation: /%b\r\n\r\n%b", b"%b %b\r\n\r\n", b"HTTP/1.1 302 %b\r\nLocation: %b\r\n\r\n"],
)
def test_a_login_that_whoever_got_it_says_again_is_not_shown(tmp_path: Path, answer: bytes) -> None:
    secret = LOGIN[1]
    egress = _egress(1, _file(tmp_path, b"me\n" + secret + b"\n"))
    read_login(egress.credentials_file)
    with (
        serving(saying(answer % (secret, secret))) as server,
        socket.create_connection(("127.0.0.1", server.port), 10) as sock,
        pytest.raises(HandshakeRefusedError) as said,
    ):
        shake(sock, "ws://x/edge")
    shown = f"{said.value} {said.value.answer.fields()} {EgressError(f'GET x: {secret.decode()}')}"
    assert secret.decode() not in shown
    assert "***" in shown
