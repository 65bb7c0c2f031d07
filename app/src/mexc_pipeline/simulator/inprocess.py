"""The simulator inside another program: its loop in a thread, its records to look at."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from mexc_pipeline.simulator.config import SimulatorConfig
from mexc_pipeline.simulator.exchange import WS_PATH, ClientMessage, Exchange, RestRequest
from mexc_pipeline.simulator.faults import Effect, Fault
from mexc_pipeline.simulator.numbers import to_decimal
from mexc_pipeline.simulator.sentlog import ConnectionInfo, SentFrame

T = TypeVar("T")


class BookView(NamedTuple):
    """A book at one version: price to (quantity in contracts, number of orders)."""

    version: int
    asks: dict[Decimal, tuple[int, int]]
    bids: dict[Decimal, tuple[int, int]]


class MadeTrade(NamedTuple):
    """A trade that was made, whoever was told of it: its id, its time (Unix ms) and itself as REST gives it."""

    number: int
    time_ms: int
    m: bytes


class Simulator:
    """The simulator as a context manager. Every method may be called from any thread.

    Records (`sent`, `received`, `requests`, `connections`) stay readable after the end.
    """

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()
        self._exchange = Exchange(self.config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator", daemon=True)
        self._thread.start()
        with contextlib.ExitStack() as undo:
            undo.callback(self._end_loop)
            asyncio.run_coroutine_threadsafe(self._exchange.start(), self._loop).result(10)
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        try:
            asyncio.run_coroutine_threadsafe(self._exchange.stop(), self._loop).result(10)
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        loop, thread = self._loop, self._thread
        assert loop is not None
        assert thread is not None
        self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

    def _call(self, work: Callable[[], T]) -> T:
        """Run `work` on the loop; once the simulator has ended there is nothing to wait for."""
        loop = self._loop
        if loop is None:
            return work()
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001 - handed to the calling thread
                result.set_exception(error)

        loop.call_soon_threadsafe(run)
        return result.result(30)

    def _settle(self) -> None:
        """Let the loop finish its step: a frame a client already has is then in the log."""
        self._call(lambda: None)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._exchange.port

    @property
    def ws_url(self) -> str:
        """The address of the WebSocket."""
        scheme = "wss" if self.config.tls_cert else "ws"
        return f"{scheme}://{self.config.host}:{self.port}{WS_PATH}"

    @property
    def rest_url(self) -> str:
        """The address of REST."""
        scheme = "https" if self.config.tls_cert else "http"
        return f"{scheme}://{self.config.host}:{self.port}"

    @property
    def sent(self) -> list[SentFrame]:
        """All data frames so far: connection by connection, each in the order of sending."""
        self._settle()
        return [frame for log in list(self._exchange.logs) for frame in log.frames()]

    def sent_on(self, conn: int) -> list[SentFrame]:
        """The data frames of one connection (numbered from 1) in the order of sending; none if it is yet to come."""
        self._settle()
        return [frame for log in self._exchange.logs[conn - 1 : conn] for frame in log.frames()]

    @property
    def connections(self) -> list[ConnectionInfo]:
        """All WebSocket connections so far, also those that have ended."""
        return list(self._exchange.connections)

    @property
    def open_connections(self) -> list[ConnectionInfo]:
        """The WebSocket connections that are open now."""
        return [info for info in self.connections if info.closed_ns is None]

    @property
    def received(self) -> list[ClientMessage]:
        """Every frame clients have sent."""
        return list(self._exchange.received)

    @property
    def requests(self) -> list[RestRequest]:
        """Every REST request, and handshakes that were refused."""
        return list(self._exchange.requests)

    def asked(self, path: str) -> int:
        """How many requests of REST were made for that path, without what follows a question mark."""
        return sum(request.target.partition("?")[0] == path for request in self.requests)

    def specifications(self, symbol: str) -> list[bytes]:
        """Every specification of a contract that was served or pushed, in that order, each once until there was
        another."""
        return self._call(lambda: self._exchange.specifications(symbol))

    def inject(self, fault: Fault) -> int:
        """Make a fault happen now; return, once it does, how many open connections it concerns."""
        concerned = self._call(lambda: self._exchange.inject(fault))
        if fault.effect is Effect.LISTENER and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._exchange.listener_replaced(), self._loop).result(30)
        return concerned

    def clear_faults(self) -> None:
        """End every window and forget every change not yet made."""
        self._call(self._exchange.board.clear)

    def tick(self, count: int = 1) -> None:
        """Let the market run for `count` ticks (for `manual=True`)."""
        self._call(lambda: self._exchange.advance(count))

    def trades(self, symbol: str) -> list[MadeTrade]:
        """All trades of a symbol so far, in order (with `keep_sent`)."""

        def look() -> list[MadeTrade]:
            feed = self._exchange.feeds[symbol]
            made = feed.market.made or []
            return [MadeTrade(deal.number, deal.time, feed.renderer.rest_deal(deal).encode()) for deal in made]

        return self._call(look)

    def version(self, symbol: str) -> int:
        """The newest version of a symbol's book."""
        return self._call(lambda: self._exchange.feeds[symbol].market.book.version)

    def book(self, symbol: str, version: int | None = None) -> BookView:
        """The simulator's own book at a version (None: now). Raises LookupError if not retained."""

        def look() -> BookView:
            feed = self._exchange.feeds[symbol]
            book = feed.market.book
            levels = book.at(book.version if version is None else version)
            asks, bids = (
                {to_decimal(tick, feed.spec.scale): level for tick, level in side.items()}
                for side in (levels.asks, levels.bids)
            )
            return BookView(levels.version, asks, bids)

        return self._call(look)

    def wait_for(self, predicate: Callable[[Simulator], bool], timeout: float = 10.0) -> None:
        """Wait until `predicate(self)` holds. Raises TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not predicate(self):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the simulator did not get there within {timeout} s")
            time.sleep(0.005)
