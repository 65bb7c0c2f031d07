"""ClickHouse over TLS: the store speaks to the server whose certificate the configured CA signed, and to no other."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from mexc_pipeline.config import parse
from mexc_pipeline.store.engine import UnreachableError
from mexc_pipeline.store.server import ServerEngine


class TlsServer:
    """Takes one TLS connection, keeps what is said first, and hangs up."""

    def __init__(self, authority: trustme.CA) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
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
