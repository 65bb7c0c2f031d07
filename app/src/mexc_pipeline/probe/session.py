"""Connects the way the recorder does, listens, asks REST, and hands over what happened, record by record."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from mexc_pipeline.config import Exchange, Symbol
from mexc_pipeline.egress.dial import Dial, EgressError, deadline
from mexc_pipeline.egress.http import Rest
from mexc_pipeline.egress.way import dial
from mexc_pipeline.exchange.protocol import subscriptions
from mexc_pipeline.exchange.rest import PING_PATH, commits_path, deals_path, depth_path, detail_path, funding_path
from mexc_pipeline.feed.handshake import RefusedError, shake
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

HANDSHAKE_S = 10.0
REST_PAUSE_S = 0.5
"""Between two requests: half of what the exchange allows an address; a recorder beside the probe has the other half."""
REST_WINDOW_S = 2.0
"""After it a request that was one too many is answered again (measured, 2026-10)."""
REST_IN_VAIN = 2
"""Requests in a row without any answer after which the others are not sent: each may take a deadline."""
MOST_CONNECTIONS = 6
"""Of one symbol: an exchange that ends each at once is not asked for ever."""
RETRY_S = 1.0
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
    return Plan(
        symbol,
        tuple(
            msgspec.json.encode({"method": f"sub.{topic}", "param": {"symbol": symbol.name, **param}, "gzip": False})
            for topic, param in known.items()
            if f"push.{topic}" not in asked
        ),
        spare=True,
    )


class Session:
    """Threads that connect and ask; what they see goes to ``sink``, from any of them. Ends by itself after
    ``seconds``, or at :meth:`stop`."""

    def __init__(
        self, exchange: Exchange, seconds: float, sink: Callable[[Record], None], dialler: Dial = dial
    ) -> None:
        self._exchange = exchange
        self._seconds = seconds
        self._sink = sink
        self._dial = dialler
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

    def _next_number(self) -> int:
        with self._numbers:
            self._number += 1
            return self._number

    # WebSocket

    def _listen(self, plan: Plan) -> None:
        """One connection until half of the time is over, another for the rest: what the exchange does at a reconnect
        belongs to what is expected of it. More where it ends them itself."""
        half, end = self._begin + self._seconds / 2, self._begin + self._seconds
        for _ in range(MOST_CONNECTIONS):
            now = time.monotonic()
            if self._stop.is_set() or now >= end:
                return
            if not self._connect(plan, half if now < half and not plan.spare else end):
                self._stop.wait(min(RETRY_S, max(0.0, end - time.monotonic())))

    def _connect(self, plan: Plan, until: float) -> bool:
        number = self._next_number()
        for last, url in _with_last(self._exchange.websocket_urls):
            try:
                dialled = self._dial(plan.symbol.egress, url, self._exchange.ca_file)
            except EgressError as error:
                self._sink(Unreached(self._now(), number, plan.symbol.name, f"{url}: {error}"))
                if last:
                    return False
                continue
            try:
                if self._handshake(plan, number, dialled.sock, url):
                    return self._converse(plan, number, dialled.sock, until)
            finally:
                dialled.sock.close()
        return False

    def _handshake(self, plan: Plan, number: int, sock: socket.socket, url: str) -> bool:
        sock.settimeout(HANDSHAKE_S)
        try:
            with deadline(sock, HANDSHAKE_S, "WebSocket handshake"):
                shake(sock, url)
        except RefusedError as error:
            answer = error.answer
            if not answer.status:
                self._sink(Unreached(self._now(), number, plan.symbol.name, f"{url}: {answer}"))
                return False
            headers = {"location": answer.location or ""} if answer.location else {}
            if answer.retry_after_s is not None:
                headers["retry-after"] = f"{answer.retry_after_s:g}"
            self._sink(Refused(self._now(), number, plan.symbol.name, answer.status, headers, answer.body.encode()))
        except (EgressError, OSError) as error:
            reason = str(error) or type(error).__name__
            self._sink(Unreached(self._now(), number, plan.symbol.name, f"{url}: handshake: {reason}"))
        else:
            return True
        return False

    def _converse(self, plan: Plan, number: int, sock: socket.socket, until: float) -> bool:
        """Whether the connection lasted until we ended it."""
        self._sink(Opened(self._now(), number, plan.symbol.name, plan.spare))
        every = min(self._exchange.ping_interval_s, max(0.5, self._seconds / 4))
        talk = Talk(
            sock,
            lambda text: self._sink(Sent(self._now(), number, text.decode())),
            lambda opcode, payload: self._sink(Received(self._now(), number, opcode, payload)),
            every,
            lambda: time.monotonic() >= until or self._stop.is_set(),
        )
        end = talk.talk(plan.requests)
        self._sink(Closed(self._now(), number, end.code, end.reason, end.ours, end.breach))
        return end.ours and not end.breach

    # REST

    def _ask(self, symbols: Sequence[Symbol]) -> None:
        first = symbols[0]
        rest = {symbol: Rest(symbol.egress, self._exchange, self._dial) for symbol in symbols}
        asked = [
            (first, PING_PATH),
            *((symbol, detail_path(symbol.name)) for symbol in symbols),
            (first, f"{depth_path(first.name)}?limit=20"),
            (first, commits_path(first.name, 20)),
            (first, deals_path(first.name)),
            (first, funding_path(first.name)),
            (first, PING_PATH),
        ]
        in_vain = 0
        for symbol, path in asked:
            in_vain = 0 if self._get(rest[symbol], path) else in_vain + 1
            if in_vain == REST_IN_VAIN or self._stop.wait(REST_PAUSE_S):
                return

    def _get(self, rest: Rest, path: str) -> bool:
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


def _with_last(urls: Sequence[str]) -> list[tuple[bool, str]]:
    return [(url == urls[-1], url) for url in urls]
