"""The HTTP server that answers ``/metrics`` and ``/healthz``: each request asks the parts anew, one at a time, and
nothing of an answer is kept."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import logging
import os
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

import mexc_pipeline
from mexc_pipeline import notify, overview, paths, signals
from mexc_pipeline.config import Config
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.metrics.families import FileSystem, families
from mexc_pipeline.text import keep_secret

log = logging.getLogger("mexc_pipeline.metrics")

CLIENTS = 16
"""Connections at a time; one more ends the oldest, so that idle ones keep nobody out."""
CLIENT_S = 5.0
"""For each part of a request, and for the answer to be taken."""
SHOWN = 20
"""Faults in an answer of ``/healthz``; the others are counted."""
WRONG_S = 1.0
"""Before a wrong password is answered."""
_LONGEST_PASSWORD = 1024


@dataclass(frozen=True, slots=True)
class Access:
    """Where to listen and who may ask: on loopback anybody on this host, elsewhere only over TLS and with a password,
    under any name. Files are read when they are needed, so that a renewed one counts at once."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    password_file: Path | None = None

    def check(self) -> None:
        """Raise ConfigError where it would let in whom it should not, or a file cannot be used."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("--certificate and --key belong together: name both, or neither")
        if not self.is_loopback and (self.certificate is None or self.password_file is None):
            raise ConfigError(
                f"--listen {self.host}: beyond this host only over TLS and with a password: "
                "--certificate, --key and --password-file"
            )
        if self.password_file is not None:
            self.password()
        if self.certificate is not None:
            self.tls()

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can come in."""
        return _is_loopback(self.host)

    def password(self) -> str:
        """The password; ConfigError where the file has none, or others may read it."""
        assert self.password_file is not None
        text = paths.read("--password-file", str(self.password_file), private=True, most=_LONGEST_PASSWORD)
        try:
            password = text.decode().strip("\r\n")
        except UnicodeDecodeError:
            raise ConfigError(f"--password-file: {self.password_file}: not UTF-8") from None
        if not password:
            raise ConfigError(f"--password-file: {self.password_file} is empty; put the password into it")
        keep_secret(password)
        return password

    def tls(self) -> ssl.SSLContext | None:
        """The context of one connection; None without a certificate. ConfigError where it cannot be used."""
        if self.certificate is None or self.key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise ConfigError(f"--certificate {self.certificate}, --key {self.key}: {error}") from error
        return context

    def lets_in(self, authorization: str) -> bool:
        """Whether a header ``Authorization`` (RFC 7617) has the password."""
        if self.password_file is None:
            return True
        scheme, _, coded = authorization.partition(" ")
        try:
            said = base64.b64decode(coded, validate=True) if scheme.lower() == "basic" else b""
        except ValueError:
            said = b""
        return hmac.compare_digest(said.partition(b":")[2], self.password().encode())


def serve(config: Config, access: Access) -> int:
    """Answer until SIGTERM, SIGINT or SIGHUP; returns the exit status. Raises as :func:`listening`."""
    stop = threading.Event()
    with signals.handled(signals.ending(stop.set)), listening(config, access) as port:
        log.info("metrics", extra={"fields": {"listen": access.host, "port": port}})
        notify.ready()
        stop.wait()
        notify.stopping()
    return 0


@contextmanager
def listening(config: Config, access: Access) -> Iterator[int]:
    """Answer in threads meanwhile, at the port given. UserError where nothing can be listened to, ConfigError for an
    access that does not fit."""
    access.check()
    try:
        server = _Server(config, access)
    except OSError as error:
        raise UserError(f"cannot listen on {access.host} port {access.port}: {error.strerror or error}") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CLIENTS

    def __init__(self, config: Config, access: Access) -> None:
        self.config = config
        self.access = access
        self.one_at_a_time = threading.Lock()
        self._clients: deque[socket.socket] = deque()
        self._lock = threading.Lock()
        self._said = ""
        self.address_family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
        super().__init__((access.host, access.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread; in the place of the oldest where there are too many."""
        with self._lock:
            if len(self._clients) >= CLIENTS:
                oldest = self._clients.popleft()
                try:
                    oldest.shutdown(socket.SHUT_RDWR)  # ends its thread's wait
                except OSError:
                    log.debug("a client was gone already")
            self._clients.append(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """TLS first: its handshake may take as long as the other end likes."""
        request.settimeout(CLIENT_S)
        try:
            context = self.access.tls()
            if context is None:
                super().finish_request(request, client_address)
                return
            with context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)
        except OSError as error:
            log.debug("client went away", extra={"fields": {"error": str(error)}})
        except ConfigError as error:  # a file that was there at the start; it may come back
            self._say(str(error))

    def shutdown_request(self, request: Any) -> None:
        """Whoever has been answered, or displaced, is none of the clients any more."""
        with self._lock:
            if request in self._clients:
                self._clients.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's signature
        """What a client causes must not end the server, nor fill the log of another's."""
        log.exception("request failed")

    def _say(self, trouble: str) -> None:
        if trouble != self._said:
            log.error("cannot answer", extra={"fields": {"why": trouble}})
        self._said = trouble

    def gather(self) -> tuple[dict[str, Any], float]:
        """What the parts say, and how long that took in s."""
        with self.one_at_a_time:
            began = time.monotonic()
            return overview.gather(self.config), time.monotonic() - began


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "mexc-pipeline"
    sys_version = ""
    timeout = CLIENT_S

    def do_GET(self) -> None:
        """Answer one request."""
        if not self._is_meant_for_us():
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain; charset=utf-8", b"not the name of this host\n")
        elif not self.server.access.lets_in(self.headers.get("Authorization", "")):
            time.sleep(WRONG_S)  # whoever tries one after another
            self._answer(HTTPStatus.UNAUTHORIZED, "text/plain; charset=utf-8", b"a password is needed\n")
        elif (path := self.path.partition("?")[0]) == "/metrics":
            self._metrics()
        elif path == "/healthz":
            self._health()
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"there are /metrics and /healthz\n")

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _is_meant_for_us(self) -> bool:
        """A page in a browser on this host may call us by a name of its own (DNS rebinding); where there is no
        password, only an address or ``localhost`` will do."""
        if self.server.access.password_file is not None:
            return True
        name = self.headers.get("Host", "localhost").rpartition(":")[0] or self.headers.get("Host", "localhost")
        return name == "localhost" or _is_loopback(name.strip("[]"))

    def _metrics(self) -> None:
        found, took_s = self.server.gather()
        registry = CollectorRegistry()
        registry.register(_Found(list(families(found, _disks(self.server.config), mexc_pipeline.__version__, took_s))))
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        self._answer(HTTPStatus.OK, kind, encode(registry))

    def _health(self) -> None:
        found, _ = self.server.gather()
        body = json.dumps(health_of(found), ensure_ascii=False).encode() + b"\n"
        status = HTTPStatus.OK if found["ok"] else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, "application/json", body)

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="mexc-pipeline"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's signature
        """Nothing for each request: what is in it is anybody's."""


class _Found:
    """What the library takes for a source of metrics."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """The metrics of this one scrape."""
        return iter(self._found)


def health_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of ``/healthz``: ``ok``; how many ``symbols``; ``faults``, how many of each kind; ``worst``, the first
    of them with the part's id, the worst first."""
    faults = overview.faults_of(found)
    return {
        "ok": found["ok"],
        "symbols": len(found["symbols"]),
        "faults": dict(Counter(reason["kind"] for _, reason in faults)),
        "worst": [{"id": who, **reason} for who, reason in faults[:SHOWN]],
    }


def _disks(config: Config) -> dict[str, FileSystem]:
    found = {}
    for name, folder in (("spool", config.data_dir), ("exports", config.export_dir)):
        try:
            said = os.statvfs(folder)
        except OSError:
            continue  # not made yet, or not there: no number says so
        found[name] = FileSystem(said.f_blocks * said.f_frsize, said.f_bavail * said.f_frsize)
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
