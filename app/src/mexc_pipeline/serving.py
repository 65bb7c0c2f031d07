"""The HTTP server of whoever is asked for something on this host: who may ask, over TLS or not, how many at a time, and
for how long. What it answers is its handlers' own."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mexc_pipeline import notify, paths, signals
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.text import keep_secret

CLIENTS = 16
"""Connections at a time; one more ends the oldest, so that idle ones keep nobody out."""
CLIENT_S = 5.0
"""For each part of a request, and for the answer to be taken."""
WRONG_S = 1.0
"""Before a wrong password is answered."""
_LONGEST_PASSWORD = 1024


@dataclass(frozen=True, slots=True)
class Access:
    """Where to listen and who may ask: on loopback anybody on this host, elsewhere only with a password and over TLS,
    which ``proxy``, the one address that is answered then, may speak in our place. Files are read when they are needed,
    so that a renewed one counts at once."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    password_file: Path | None = None
    proxy: str | None = None

    def check(self) -> None:
        """Raise ConfigError where it would let in whom it should not, or a file cannot be used."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("--certificate and --key belong together: name both, or neither")
        if self.proxy is not None:
            if _address(self.proxy) is None:
                raise ConfigError(f"--proxy {self.proxy}: not an IP address, such as 192.0.2.7")
            if self.password_file is None:
                raise ConfigError("--proxy: whoever comes through it may be anybody: name a --password-file too")
        elif not self.is_loopback and (self.certificate is None or self.password_file is None):
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
        return is_loopback(self.host)

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

    def answers(self, peer: str) -> bool:
        """Whether a connection from this address is answered at all."""
        return self.proxy is None or _address(peer) == _address(self.proxy)

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


class HttpServer(ThreadingHTTPServer):
    """A thread for each of at most ``clients`` connections. UserError where nothing can be listened to, ConfigError for
    an access that does not fit."""

    daemon_threads = True
    block_on_close = False
    clients = CLIENTS

    def __init__(self, access: Access, handler: type[HttpHandler], log: logging.Logger) -> None:
        access.check()
        self.access = access
        self.log = log
        self._asking: deque[socket.socket] = deque()
        self._lock = threading.Lock()
        self._said = ""
        self.address_family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
        self.request_queue_size = self.clients
        try:
            super().__init__((access.host, access.port), handler)
        except OSError as error:
            raise UserError(f"cannot listen on {access.host} port {access.port}: {error.strerror or error}") from error

    @property
    def port(self) -> int:
        """The port that is listened to."""
        return int(self.server_address[1])

    @contextmanager
    def answering(self) -> Iterator[int]:
        """Answer in threads meanwhile, at the port given."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True)
        thread.start()
        try:
            yield self.port
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the library's signature
        """Whether the peer is one that is answered."""
        return self.access.answers(str(client_address[0]))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, in the place of the oldest where there are too many."""
        with self._lock:
            if len(self._asking) >= self.clients:
                oldest = self._asking.popleft()
                try:
                    oldest.shutdown(socket.SHUT_RDWR)  # ends its thread's wait
                except OSError:
                    self.log.debug("a client was gone already")
            self._asking.append(request)
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
                self._turned_into(request, secure)
                try:
                    super().finish_request(secure, client_address)
                finally:
                    self.release(secure)
        except OSError as error:
            self.log.debug("client went away", extra={"fields": {"error": str(error)}})
        except ConfigError as error:  # a file that was there at the start; it may come back
            self._say(str(error))

    def shutdown_request(self, request: Any) -> None:
        """Whoever has been answered, or displaced, is none of the clients any more."""
        self.release(request)
        super().shutdown_request(request)

    def release(self, client: socket.socket) -> None:
        """A connection that no newer one may end any more: its handler bounds their number itself."""
        with self._lock:
            if client in self._asking:
                self._asking.remove(client)

    def _turned_into(self, request: socket.socket, secure: socket.socket) -> None:
        """The socket that the connection is from now on; ConnectionAbortedError where it was ended meanwhile."""
        with self._lock:
            if request not in self._asking:
                raise ConnectionAbortedError("ended for a newer connection")
            self._asking[self._asking.index(request)] = secure

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's signature
        """What a client causes must not end the server, nor fill the log of another's."""
        self.log.exception("request failed")

    def _say(self, trouble: str) -> None:
        if trouble != self._said:
            self.log.error("cannot answer", extra={"fields": {"why": trouble}})
        self._said = trouble


class HttpHandler(BaseHTTPRequestHandler):
    """One request: refused, or handed to :meth:`respond`."""

    server: HttpServer
    server_version = "mexc-pipeline"
    sys_version = ""
    timeout = CLIENT_S
    extra_headers: Mapping[str, str] = {}
    """Sent with every answer."""

    def respond(self, path: str, query: str) -> None:
        """Answer a request for ``path`` of somebody who may ask."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Answer one request."""
        if not self._is_meant_for_us():
            self.answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain; charset=utf-8", b"not the name of this host\n")
        elif not self.is_let_in():
            if "Authorization" in self.headers:
                time.sleep(WRONG_S)  # whoever tries one after another
            self.answer(HTTPStatus.UNAUTHORIZED, "text/plain; charset=utf-8", b"a password is needed\n")
        else:
            path, _, query = self.path.partition("?")
            self.respond(path, query)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def is_let_in(self) -> bool:
        """Whether the request has the password, as it is now."""
        return self.server.access.lets_in(self.headers.get("Authorization", ""))

    def _is_meant_for_us(self) -> bool:
        """A page in a browser on this host may call us by a name of its own (DNS rebinding); where there is no
        password, only an address or ``localhost`` will do."""
        if self.server.access.password_file is not None:
            return True
        name = self.headers.get("Host", "localhost").rpartition(":")[0] or self.headers.get("Host", "localhost")
        return name == "localhost" or is_loopback(name.strip("[]"))

    def answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        """Send a whole answer of this content type."""
        self.begin(status, kind, {"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: HTTPStatus, kind: str, headers: Mapping[str, str]) -> None:
        """Send the head of an answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="mexc-pipeline"')
        for name, value in {**self.extra_headers, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's signature
        """Nothing for each request: what is in it is anybody's."""


def until_told(server: HttpServer, name: str, stopping: Callable[[], None] = lambda: None) -> int:
    """Answer until SIGTERM, SIGINT or SIGHUP, then call ``stopping``; returns the exit status. ``name`` is what the log
    calls it."""
    stop = threading.Event()
    with signals.handled(signals.ending(stop.set)), server.answering() as port:
        server.log.info(name, extra={"fields": {"listen": server.access.host, "port": port}})
        notify.ready()
        stop.wait()
        notify.stopping()
        stopping()
    return 0


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this host's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """One address however it is written; None where it is none."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
