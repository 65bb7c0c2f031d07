"""The dashboard's HTTP server: the page, its stream of news, and the details of one symbol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs

from mexc_pipeline import overview
from mexc_pipeline.config import Config
from mexc_pipeline.dashboard.publisher import (
    GZIP,
    VIEWERS,
    Gathered,
    Publication,
    Publisher,
    TooManyViewersError,
    packed,
    published,
)
from mexc_pipeline.dashboard.view import details_of, first_page
from mexc_pipeline.serving import CLIENTS, Access, HttpHandler, HttpServer, until_told
from mexc_pipeline.text import json_line

log = logging.getLogger("mexc_pipeline.dashboard")

DEADLINE_S = 2.0
"""For every part's answer: what hangs is to be seen within 5 s."""
AGAIN_MS = 1000
"""After so long a browser that lost its stream tries again."""
STILL_HERE = Publication(0, {}, b":\n\n", packed(b":\n\n"))
PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Nothing but our own files is loaded, nothing is run that stands in a text, and no other page may look in."""
_STATIC = Path(__file__).parent / "static"
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def serve(config: Config, access: Access) -> int:
    """Answer until SIGTERM, SIGINT or SIGHUP; returns the exit status. Raises as :func:`listening`."""
    server = _Server(config, access, _gathering(config))
    return until_told(server, "dashboard", server.publisher.close)


@contextmanager
def listening(config: Config, access: Access, gather: Callable[[], Gathered] | None = None) -> Iterator[int]:
    """Answer in threads meanwhile, at the port given; ``gather`` stands for asking the parts. UserError where nothing
    can be listened to, ConfigError for an access that does not fit."""
    server = _Server(config, access, gather or _gathering(config))
    with server.answering() as port:
        try:
            yield port
        finally:
            server.publisher.close()


def _gathering(config: Config) -> Callable[[], Gathered]:
    return lambda: (overview.gather(config, DEADLINE_S), overview.disks(config))


class _Server(HttpServer):
    clients = CLIENTS + VIEWERS

    def __init__(self, config: Config, access: Access, gather: Callable[[], Gathered]) -> None:
        super().__init__(access, _Handler, log)
        self.config = config
        self.publisher = Publisher(gather)
        self.first = published(0, {}, first_page((symbol.id, symbol.name) for symbol in config.symbols)).body


class _Handler(HttpHandler):
    server: _Server
    extra_headers = HEADERS

    def respond(self, path: str, query: str) -> None:
        """A file of the page, or what the parts say."""
        try:
            if path in _FILES:
                name, kind = _FILES[path]
                self.answer(HTTPStatus.OK, kind, _file(name))
            elif path == "/events":
                self._events()
            elif path == "/symbol":
                self._symbol(query)
            else:
                self.answer(HTTPStatus.NOT_FOUND, PLAIN, b"there are /, /events and /symbol?id=\n")
        except TooManyViewersError as error:
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, PLAIN, f"{error}\n".encode())

    def _events(self) -> None:
        """News until one of both sides has enough; who does not take them in time is let go."""
        wants_gzip = "gzip" in self.headers.get("Accept-Encoding", "")
        encoding = {"Content-Encoding": "gzip"} if wants_gzip else {}
        with self.server.publisher.watching() as viewer:
            self.server.release(self.connection)
            self.begin(HTTPStatus.OK, "text/event-stream", {"X-Accel-Buffering": "no", **encoding})
            if self.command == "HEAD":
                return
            first = f"retry: {AGAIN_MS}\n\n".encode() + self.server.first
            self.wfile.write(GZIP + packed(first) if wants_gzip else first)
            while not self.server.publisher.is_closed and self.is_let_in():
                news = viewer.next() or STILL_HERE
                self.wfile.write(news.packed if wants_gzip else news.body)

    def _symbol(self, query: str) -> None:
        wanted = parse_qs(query).get("id", [""])[0]
        if wanted not in {symbol.id for symbol in self.server.config.symbols}:
            self.answer(HTTPStatus.NOT_FOUND, PLAIN, b"no symbol has this id\n")
            return
        with self.server.publisher.watching() as viewer:
            news = viewer.next()
        if news is None:
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, PLAIN, b"the parts cannot be asked; the log says why\n")
            return
        (symbol,) = (symbol for symbol in news.found["symbols"] if symbol["id"] == wanted)
        self.answer(HTTPStatus.OK, JSON, json_line(details_of(symbol)).encode())


@cache
def _file(name: str) -> bytes:
    return (_STATIC / name).read_bytes()
