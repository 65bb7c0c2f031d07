"""REST over the configured egress: the same way out as the frames."""

from __future__ import annotations

import http.client
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mexc_pipeline import __version__
from mexc_pipeline.config import Egress, ExchangeTable
from mexc_pipeline.egress.body import read
from mexc_pipeline.egress.dial import Dial, EgressError, deadline
from mexc_pipeline.egress.encoding import CodingError, decode
from mexc_pipeline.egress.hosts import Hosts
from mexc_pipeline.egress.patience import PATIENCE_MOST_S, retry_after_s
from mexc_pipeline.egress.way import dial

log = logging.getLogger("mexc_pipeline.egress")

MAX_BODY = 16 << 20
"""Bytes of an answer, as it came and as it is once decoded."""
_THROTTLED = 429
_MOST_INFORMATIONAL = 20


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer to a request: the HTTP status, the headers by name in lower case (several of one name joined by
    commas), the decoded body, the base address that gave it, and this host's clock (Unix ns) when the connected socket
    was given the request and when the body was whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    sent_ns: int
    received_ns: int

    @property
    def serves(self) -> bool:
        """Whether this came from the exchange's REST, be it to ask for patience. An address it has left, or where it
        does not serve us, answers with a redirect, with 403 or 404, or with a page for people."""
        page = self.headers.get("content-type", "").lower().startswith("text/html")
        return self.status == _THROTTLED or (self.status == http.client.OK and not page)


def get(
    egress: Egress, base: str, path: str, *, ca_file: str = "", within_s: float = 5.0, dialler: Dial = dial
) -> HttpAnswer:
    """GET ``base + path``. Raises EgressError where no answer came within ``within_s`` seconds of being connected, or
    one that cannot be read. Redirects are not followed: they could lead anywhere."""
    parts = urlsplit(base)
    asked = f"GET {base}{path}"
    dialled = dialler(egress, base, ca_file)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.sock = dialled.sock
    connection.auto_open = 0  # never connects by itself
    try:
        with deadline(dialled.sock, within_s, asked):
            headers = {
                "User-Agent": f"mexc-pipeline/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",  # who compresses unasked then takes what we read
            }
            sent_ns = time.time_ns()
            connection.response_class = _Final
            connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
            return _read(connection.getresponse(), asked, base, sent_ns)
    except (OSError, http.client.HTTPException) as error:
        raise EgressError(f"{asked}: {error or type(error).__name__}") from error
    finally:
        connection.close()
        dialled.sock.close()


class _Final(http.client.HTTPResponse):
    """The answer itself: informational ones before it (RFC 9110, section 15.2) are passed over."""

    def begin(self) -> None:
        for _ in range(_MOST_INFORMATIONAL):
            super().begin()
            if not 100 <= self.status < 200 or self.status == http.client.SWITCHING_PROTOCOLS:
                return
            self.headers = None  # type: ignore[assignment]  # by that it knows that an answer is to be read
        raise http.client.HTTPException(f"more than {_MOST_INFORMATIONAL} informational answers before one")


def _read(response: http.client.HTTPResponse, asked: str, base: str, sent_ns: int) -> HttpAnswer:
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    transfer = headers.get("transfer-encoding", "chunked").strip().lower()
    if transfer not in ("chunked", "identity"):
        raise EgressError(f"{asked}: sent by transfer encoding {transfer[:40]!r}; chunked is understood")
    body = read(response, MAX_BODY + 1)
    received_ns = time.time_ns()
    if len(body) > MAX_BODY:
        raise EgressError(f"{asked}: longer than {MAX_BODY} bytes")
    if response.length:  # http.client lets a body that breaks off pass as whole
        raise EgressError(f"{asked}: broke off after {len(body)} bytes")
    try:
        body = decode(body, [headers.get("content-encoding", "")], MAX_BODY)
    except CodingError as error:
        if response.status == http.client.OK:
            raise EgressError(f"{asked}: {error}") from error
        body = b""  # the status says what is the matter
    return HttpAnswer(response.status, headers, body, base, sent_ns, received_ns)


class _Hold(NamedTuple):
    """An address asked for patience: until when (monotonic s), and whether it serves for all that. One that does is not
    left for another: it is us who are to ask less."""

    until: float
    serves: bool


_NO_HOLD = _Hold(0.0, serves=False)


@dataclass(frozen=True, slots=True)
class RestState:
    """The exchange's REST at one moment: the ``url`` in use, of how many (``of``), whether any has ``answered`` yet,
    and the seconds for which nothing is to be asked."""

    url: str
    of: int
    answered: bool
    patience_s: float

    def describe(self) -> dict[str, Any]:
        """The fields of the control socket's ``status``."""
        fields = {"url": self.url, "of": self.of, "answered": self.answered}
        return {**fields, "patience_s": round(self.patience_s, 1)}


class RestClient:
    """The exchange's REST by one way out, at the addresses of ``exchange.rest`` in order: one that answers is kept, and
    one that asks for patience is left alone for so long. One for all who ask in a process; any thread may."""

    def __init__(
        self,
        egress: Egress,
        exchange: ExchangeTable,
        dialler: Dial = dial,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._egress = egress
        self._ca_file = exchange.ca_file
        self._dial = dialler
        self._clock = clock
        self._urls = exchange.rest_urls
        self._hosts = Hosts(self._urls)
        self._lock = threading.Lock()
        self._holds: dict[str, _Hold] = {}
        self._answered = False

    @property
    def url(self) -> str:
        """The address in use."""
        return self._hosts.url

    @property
    def patience_s(self) -> float:
        """Seconds for which nothing is to be asked; 0: now."""
        return self.state().patience_s

    def state(self) -> RestState:
        """The address in use and the patience with it, of one moment."""
        now, in_turn = self._clock(), self._hosts.in_turn
        with self._lock:
            holds = [self._holds.get(url, _NO_HOLD) for url in in_turn]
            answered = self._answered
        until = holds[0].until if holds[0].serves else min(hold.until for hold in holds)
        return RestState(in_turn[0], len(in_turn), answered, max(0.0, until - now))

    def get(self, path: str, within_s: float = 5.0) -> HttpAnswer:
        """GET ``path`` at the address in use; where that cannot be reached or does not serve the exchange (any more),
        at the next ones. Where none does, the last answer, or EgressError that names them all. EgressError too for as
        long as patience is asked for."""
        problems: list[str] = []
        answer: HttpAnswer | None = None
        if (patience_s := self.patience_s) > 0:
            raise EgressError(f"{self.url} asks for patience: nothing is asked of it for {patience_s:.0f} s")
        for _ in range(len(self._urls)):
            url = self._hosts.url
            try:
                found = self._ask(url, path, within_s)
            except EgressError as error:
                problems.append(str(error))
            else:
                answer = found or answer
                if found is not None and found.serves:
                    self._answered = True
                    self._hosts.worked(url)
                    return found
                problems.append(f"GET {url}{path}: {f'HTTP {found.status}' if found else 'it asks for patience'}")
            if not self._hosts.failed(url):
                break
            log.warning(
                "another REST address is tried",
                extra={"fields": {"failed": url, "why": problems[-1], "next": self._hosts.url}},
            )
        if answer is not None:
            return answer
        raise EgressError("; ".join(problems))

    def _ask(self, url: str, path: str, within_s: float) -> HttpAnswer | None:
        """Its answer; None where it is to be left alone."""
        with self._lock:
            hold = self._holds.get(url)
            if hold is not None and hold.until > self._clock():
                return None
        answer = get(self._egress, url, path, ca_file=self._ca_file, within_s=within_s, dialler=self._dial)
        asked_s = None if answer.status == http.client.OK else retry_after_s(answer.headers, time.time())
        with self._lock:
            self._holds.pop(url, None)
            if asked_s:
                kept_s = min(asked_s, PATIENCE_MOST_S)
                self._holds[url] = _Hold(self._clock() + kept_s, answer.serves)
        if asked_s:
            fields = {"url": url, "status": answer.status, "asked_s": asked_s, "kept_s": kept_s}
            log.warning("REST asks for patience", extra={"fields": fields})
        return answer
