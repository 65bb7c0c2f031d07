"""ClickHouse over TLS: the store speaks to the server whose certificate the configured CA signed, and to no other."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from mexc_pipeline.config import parse
from mexc_pipeline.store.engine import UnreachableError
from mexc_pipeline.store.server import ServerEngine


class TlsServer:
    """Takes one TLS connection, keeps what is said first, and hangs up."""

    def __init__(self, authority: trustme.CA, name: str = "127.0.0.1", not_after: datetime | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        begin = not_after - timedelta(days=1) if not_after else None
        authority.issue_cert(name, not_before=begin, not_after=not_after).configure_cert(self._context)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.heard = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        client.settimeout(10)
        try:
            with self._context.wrap_socket(client, server_side=True) as secured:
                self.heard = secured.recv(1000)
        except OSError:
            client.close()  # the client did not like our certificate

    def close(self) -> None:
        self._thread.join(15)
        self._socket.close()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[TlsServer]:
    found = TlsServer(authority)
    yield found
    found.close()


def engine(port: int, ca: trustme.CA, folder: Path) -> ServerEngine:
    ca_file = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    text = f'[clickhouse]\nmode = "server"\nport = {port}\nuser = "store"\nsecure = true\nca_file = "{ca_file}"\n'
    return ServerEngine(parse(text, None).clickhouse, reply_s=5)


def test_the_greeting_goes_out_under_tls(server: TlsServer, authority: trustme.CA, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError):  # it hangs up after the greeting
        engine(server.port, authority, tmp_path).connect()
    server.close()
    assert b"mexc-pipeline" in server.heard
    assert b"store" in server.heard


def test_a_server_of_another_authority_is_told_nothing(server: TlsServer, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"(?i)certificate"):
        engine(server.port, trustme.CA(), tmp_path).connect()
    server.close()
    assert server.heard == b""


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (-30, "certificate has expired"),
        (30, "certificate is not yet valid"),
    ],
)
def test_a_certificate_refused_for_its_dates_is_said_as_clock_or_certificate(
    authority: trustme.CA, tmp_path: Path, days: int, said: str
) -> None:
    """As it is of the exchange's: a host whose clock is wrong sees every certificate so."""
    now = datetime.now(UTC)
    server = TlsServer(authority, not_after=now + timedelta(days=days))
    with pytest.raises(UnreachableError) as raised:
        engine(server.port, authority, tmp_path).version()  # doctor's question
    server.close()
    assert f"clock or certificate: {said}, and" in str(raised.value)
    assert f"this host's clock says {now:%Y-%m-%d}" in str(raised.value)
    assert "_ssl.c" not in str(raised.value)


@pytest.mark.parametrize("other", ["name", "authority"])
def test_whose_certificate_it_is_instead_is_said(authority: trustme.CA, tmp_path: Path, other: str) -> None:
    server = TlsServer(authority, "elsewhere.invalid" if other == "name" else "127.0.0.1")
    known = authority if other == "name" else trustme.CA()
    with pytest.raises(UnreachableError, match=r"another host answered: IP address mis|named by clickhouse\.ca_file"):
        engine(server.port, known, tmp_path).connect()
    server.close()
