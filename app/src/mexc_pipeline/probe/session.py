"""Connects the way the recorder does, listens, asks REST, and hands over what happened, record by record."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mexc_pipeline.backoff import Backoff
from mexc_pipeline.config import ExchangeTable, Symbol
from mexc_pipeline.egress.dial import Dial, EgressError, UnreachedError, deadline
from mexc_pipeline.egress.hosts import Hosts
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.egress.way import dial
from mexc_pipeline.exchange.channels import channel_of
from mexc_pipeline.exchange.options import index_symbol
from mexc_pipeline.exchange.protocol import Classifier, request, subscriptions
from mexc_pipeline.exchange.rest import (
    PING_PATH,
    commits_path,
    deals_path,
    depth_path,
    detail_path,
    funding_path,
    kline_path,
)
from mexc_pipeline.feed.attempts import WINDOW_S, Attempts, Budget, key
from mexc_pipeline.feed.feed import TURN_S
from mexc_pipeline.feed.handshake import HandshakeAnswer, HandshakeRefusedError, shake
from mexc_pipeline.feed.session import HANDSHAKE_S
from mexc_pipeline.feed.turns import KEPT_S, UNREACHED_S
from mexc_pipeline.probe.records import (
    Answered,
    Closed,
    Opened,
    Received,
    Record,
    Refused,
    Sent,
    Unanswered,
    Unreached,
)
from mexc_pipeline.probe.talk import Talk

REST_PAUSE_S = 0.5
"""Between two requests: half of what the exchange allows an address; a recorder beside the probe has the other half."""
KLINES_S = 600
"""Candles of so long are asked for, to see what they look like."""
REST_WINDOW_S = 2.0
"""After it a request that was one too many is answered again (measured, 2026-10)."""
REST_IN_VAIN = 2
"""Requests in a row without any answer after which the others are not sent: each may take a deadline."""
_ANSWERED = ("content-type", "content-encoding", "retry-after", "location", "server")
"""Headers that tell something of the exchange and nothing of us."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one thread does: a symbol, its requests, and whether they are those of the configuration."""

    symbol: Symbol
    requests: tuple[bytes, ...]
    spare: bool


def configured(symbol: Symbol) -> Plan:
    """The channels that the recorder asks for."""
    return Plan(symbol, tuple(s.request for s in subscriptions(symbol.name, symbol.channels)), spare=False)


def others(symbol: Symbol) -> Plan:
    """Further channels of the documentation that the configuration does not ask for."""
    asked = {s.channel for s in subscriptions(symbol.name, symbol.channels)}
    known: dict[str, dict[str, object]] = {
        "depth.full": {"limit": 20},
        "depth": {},
        "kline": {"interval": "Min1"},
        "funding.rate": {},
        "index.price": {},
        "fair.price": {},
        "contract": {},
    }
    of: dict[str, str | None] = {"index.price": index_symbol(symbol.name), "contract": None}
    return Plan(
        symbol,
        tuple(
            request(topic, of.get(topic, symbol.name), **param)
            for topic, param in known.items()
            if channel_of(topic) not in asked
        ),
        spare=True,
    )


class ProbeSession:
    """Threads that connect and ask; what they see goes to ``sink``, from any of them. Ends by itself after
    ``seconds``, or at :meth:`stop`. ``shared``: the folder in which a recorder of this host counts its attempts to
    connect, if there is one."""

    def __init__(
        self,
        exchange: ExchangeTable,
        seconds: float,
        sink: Callable[[Record], None],
        dialler: Dial = dial,
        shared: Path | None = None,
    ) -> None:
        self._exchange = exchange
        self._seconds = seconds
        self._sink = sink
        self._dial = dialler
        self._shared = shared
        self._budgets: dict[str, Budget] = {}
        self._counting = threading.Lock()
        self.uncounted: str | None = None
        """Why a recorder's attempts are not known and ours not counted with them."""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._numbers = threading.Lock()
        self._number = 0
        self._begin = time.monotonic()

    def start(self, plans: Sequence[Plan]) -> None:
        """Begin everything at once."""
        self._begin = time.monotonic()
        for plan in plans:
            self._run(f"probe {plan.symbol.id}", lambda plan=plan: self._listen(plan))  # type: ignore[misc]
        symbols = list(dict.fromkeys(plan.symbol for plan in plans))
        self._run("probe rest", lambda: self._ask(symbols))

    def _run(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """End early; connections are closed in order."""
        self._stop.set()

    @property
    def running(self) -> bool:
        """Whether anything is still to come."""
        return any(thread.is_alive() for thread in self._threads)

    def _now(self) -> float:
        return (time.monotonic() - self._begin) * 1000

    def _left(self) -> float:
        return self._begin + self._seconds - time.monotonic()

    def _next_number(self) -> int:
        with self._numbers:
            self._number += 1
            return self._number

    # WebSocket

    def _listen(self, plan: Plan) -> None:
        """One connection until half of the time is over, another for the rest: what the exchange does at a reconnect
        belongs to what is expected of it. More where it ends them itself, at the pace of a recorder."""
        half, end = self._begin + self._seconds / 2, self._begin + self._seconds
        hosts, attempts = Hosts(self._exchange.websocket_urls), self._attempts_of(plan.symbol)
        backoff = Backoff(random.Random())  # noqa: S311 - jitter, not a secret
        free, number, tried = False, self._next_number(), False
        while (why := self._wait_for_turn(hosts, attempts, end, free=free)) is None:
            tried = True
            url = hosts.url
            attempt = _Attempt(plan, number, url, attempts, self._counting)
            self._connect(attempt, half if time.monotonic() < half and not plan.spare else end)
            if attempt.delivered or attempt.left:
                hosts.worked(url)
                backoff.reset()
                pause, same = 0.0, False
            else:
                same = hosts.failed(url)  # with the next address it is still the same connection that is wanted
                pause = 0.0 if same else backoff.next_s()
                if attempt.unreached:
                    pause = min(pause, UNREACHED_S)
            free = attempt.kept or attempt.left
            number = number if same else self._next_number()
            self._stop.wait(max(0.0, min(pause, end - time.monotonic())))
        if why and not tried and not plan.spare:
            self._sink(Unreached(self._now(), number, plan.symbol.name, f"{hosts.url}: not tried: {why}"))

    def _attempts_of(self, symbol: Symbol) -> Attempts:
        """What all count who leave by the same address: the recorder's file where there is one. It is never made here:
        it would be this user's, and a recorder of another one could not use it."""
        address = key(symbol)
        own = self._budgets.setdefault(address, Budget())
        path = self._shared / address if self._shared is not None else None
        if path is not None:
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            except (FileNotFoundError, NotADirectoryError):
                path = None
            except OSError as error:
                self.uncounted = f"{path}: {error.strerror}"
                path = None
        return Attempts(path, own=own)

    def _wait_for_turn(self, hosts: Hosts, attempts: Attempts, end: float, *, free: bool) -> str | None:
        """Wait until the address may connect, to whichever host does not ask for patience, which is in use then; None.
        Otherwise why it may not within the time that is left; empty where there is none left."""
        why = ""
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            waits = []
            for url in hosts.in_turn:
                with self._counting:
                    waits.append(attempts.wait_s(_host(url), free=free))
                if not waits[-1][0]:
                    hosts.use(url)
                    return None
            wait, why = min(waits)
            if wait > max(left, WINDOW_S):
                break  # a host asks for that: nothing shortens it
            self._stop.wait(min(wait, left, TURN_S))
        return why

    def _connect(self, attempt: _Attempt, until: float) -> None:
        plan, number, url = attempt.plan, attempt.number, attempt.url
        try:
            dialled = self._dial(plan.symbol.egress, url, self._exchange.ca_file)
        except EgressError as error:
            if isinstance(error, UnreachedError):
                attempt.reached_nobody()
            self._sink(Unreached(self._now(), number, plan.symbol.name, f"{url}: {error}"))
            return
        try:
            if self._handshake(attempt, dialled.sock):
                self._converse(attempt, dialled.sock, until)
        finally:
            dialled.sock.close()

    def _handshake(self, attempt: _Attempt, sock: socket.socket) -> bool:
        number, name, url = attempt.number, attempt.plan.symbol.name, attempt.url
        sock.settimeout(HANDSHAKE_S)
        try:
            with deadline(sock, HANDSHAKE_S, "WebSocket handshake"):
                shake(sock, url)
        except HandshakeRefusedError as error:
            answer = error.answer
            if not answer.status:
                self._sink(Unreached(self._now(), number, name, f"{url}: {answer}"))
                return False
            attempt.refused(answer)
            headers = {"location": answer.location or ""} if answer.location else {}
            if answer.retry_after_s is not None:
                headers["retry-after"] = f"{answer.retry_after_s:g}"
            self._sink(Refused(self._now(), number, name, answer.status, headers, answer.body.encode()))
        except (EgressError, OSError) as error:
            late = isinstance(error, EgressError | TimeoutError)  # two clocks of the same length
            reason = f"not done within {HANDSHAKE_S:g} s" if late else str(error) or type(error).__name__
            self._sink(Unreached(self._now(), number, name, f"{url}: WebSocket handshake: {reason}"))
        else:
            return True
        return False

    def _converse(self, attempt: _Attempt, sock: socket.socket, until: float) -> None:
        plan, number = attempt.plan, attempt.number
        self._sink(Opened(self._now(), number, plan.symbol.name, plan.spare))

        def received(opcode: int, payload: bytes) -> None:
            self._sink(Received(self._now(), number, opcode, payload))
            attempt.received(opcode, payload)

        talk = Talk(
            sock,
            lambda text: self._sink(Sent(self._now(), number, text.decode())),
            received,
            min(self._exchange.ping_interval_s, max(0.5, self._seconds / 4)),
            lambda: time.monotonic() >= until or self._stop.is_set(),
        )
        end = talk.talk(plan.requests)
        attempt.left = end.ours and not end.breach
        self._sink(Closed(self._now(), number, end.code, end.reason, end.ours, end.breach))

    # REST

    def _ask(self, symbols: Sequence[Symbol]) -> None:
        first = symbols[0]
        rest = {symbol.egress: RestClient(symbol.egress, self._exchange, self._dial) for symbol in symbols}
        asked = [
            (first, PING_PATH),
            *((symbol, detail_path(symbol.name)) for symbol in symbols),
            (first, f"{depth_path(first.name)}?limit=20"),
            (first, commits_path(first.name, 20)),
            (first, deals_path(first.name)),
            (first, funding_path(first.name)),
            (first, kline_path(first.name, int(time.time()) - KLINES_S)),
            (first, PING_PATH),
        ]
        in_vain = 0
        for symbol, path in asked:
            by = rest[symbol.egress]
            if (patience := by.patience_s) and patience < self._left() and self._stop.wait(patience):
                return
            in_vain = 0 if self._get(by, path) else REST_IN_VAIN if by.patience_s else in_vain + 1
            if in_vain == REST_IN_VAIN or self._stop.wait(REST_PAUSE_S):
                return

    def _get(self, rest: RestClient, path: str) -> bool:
        """Whether an answer came."""
        for attempt in (1, 2):
            try:
                answer = rest.get(path)
            except EgressError as error:
                self._sink(Unanswered(self._now(), path, str(error)))
                return False
            kept = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
            took = (answer.received_ns - answer.sent_ns) / 1e6
            self._sink(Answered(self._now(), path, answer.status, kept, answer.body, took))
            if b'"code":510' not in answer.body[:200] or attempt == 2 or self._stop.wait(REST_WINDOW_S):
                break
        return True


class _Attempt:
    """One attempt to connect and what it brings, told to the budget that all of an address share."""

    def __init__(self, plan: Plan, number: int, url: str, attempts: Attempts, counting: threading.Lock) -> None:
        self.plan = plan
        self.number = number
        self.url = url
        self.unreached = False
        self.left = False
        """We ended it, in order."""
        self.kept = False
        self._delivered_at: float | None = None
        self._attempts = attempts
        self._counting = counting
        self._classify = Classifier(plan.symbol.name, subscriptions(plan.symbol.name, plan.symbol.channels)).classify

    @property
    def delivered(self) -> bool:
        return self._delivered_at is not None

    def reached_nobody(self) -> None:
        self.unreached = True
        with self._counting:
            self._attempts.forget()

    def refused(self, answer: HandshakeAnswer) -> None:
        with self._counting:
            self._attempts.refused(_host(self.url), answer.retry_after_s, str(answer))

    def received(self, opcode: int, payload: bytes) -> None:
        now = time.monotonic()
        if self._delivered_at is None:
            if self._classify(opcode, payload).control is None:
                self._delivered_at = now
                with self._counting:
                    self._attempts.delivered(_host(self.url))
        elif not self.kept and now - self._delivered_at >= KEPT_S:
            self.kept = True
            with self._counting:
                self._attempts.forget()


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
