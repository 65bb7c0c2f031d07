"""The exchange as one asyncio server: WebSocket and REST on one port, the markets, and the faults.

Owns the connections, the subscriptions and the listening socket.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import TypeVar

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.simulator import rest as rest_api
from mexc_pipeline.simulator.config import SimulatorConfig
from mexc_pipeline.simulator.faults import Effect, Fault, FaultBoard
from mexc_pipeline.simulator.flatout import Flood, render_pool
from mexc_pipeline.simulator.frames import Push, SymbolFeed
from mexc_pipeline.simulator.listening import cannot_listen
from mexc_pipeline.simulator.market import NATURAL_RATE, contract
from mexc_pipeline.simulator.sentlog import ConnectionInfo, ConnectionLog
from mexc_pipeline.simulator.session import Session
from mexc_pipeline.simulator.tickers import AllTickers

WS_PATH = "/edge"
_HOUSEKEEPING = 0.02
_MOST_TICKS_BEHIND = 100
REBIND_S = 10.0
_T = TypeVar("_T")

log = logging.getLogger("mexc_pipeline.simulator")


@dataclass(frozen=True)
class RestRequest:
    """One REST request or refused handshake and the status it got."""

    time_ns: int
    peer: str
    target: str
    status: int


@dataclass(frozen=True)
class ClientMessage:
    """One frame a client sent."""

    conn: int
    time_ns: int
    data: str | bytes


class Exchange:
    """The simulated exchange. Everything runs on one event loop; the lists may be read from any thread."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.board = FaultBoard()
        self.connections: list[ConnectionInfo] = []
        self.logs: list[ConnectionLog] = []
        self.requests: list[RestRequest] = []
        self.received: list[ClientMessage] = []
        self.sessions: dict[int, Session] = {}
        self.port = config.port
        now_ms = self.now_ms()
        self.feeds = {
            symbol: SymbolFeed(contract(symbol), config.seed, config.market(), config.style, now_ms)
            for symbol in config.symbols
        }
        self._tickers = AllTickers(config.seed, config.tickers_rows)
        self._rest = rest_api.Rest(self.feeds, config.seed, config.rest_lag, config.rest_limit, config.rest_window)
        self._newest_deals: dict[str, deque[Push]] = {symbol: deque(maxlen=1000) for symbol in self.feeds}
        self._subscribers: dict[str, dict[str, set[Session]]] = {symbol: {} for symbol in (*self.feeds, "")}
        self._servers: list[Server] = []
        self._impostor: asyncio.Server | None = None
        self._replaced = asyncio.Event()
        self._replacing = asyncio.Lock()
        self._transports: set[asyncio.BaseTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rng = Random(f"exchange:{config.seed}")
        self._tls = _tls(config)

    def now_ms(self) -> int:
        """Return the time (Unix ms)."""
        return self.config.clock_ns() // 1_000_000

    # Life

    async def start(self) -> None:
        """Listen and let the market run. Raises UserError where the port cannot be had."""
        if self.config.log_dir is not None:
            _prepare(self.config.log_dir)
        await self._listen()
        self._spawn(self._housekeeping())
        if not self.config.manual:
            self._spawn(self._run_market())
        for fault in self.config.faults:
            self._spawn(self._scheduled(fault))

    async def stop(self) -> None:
        """End every connection and task, and close the logs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._impostor is not None:
            self._impostor.close()
        for session in list(self.sessions.values()):
            session.abort("simulator stopped")
        for transport in list(self._transports):
            if isinstance(transport, asyncio.Transport):
                transport.abort()
        for server in self._servers:
            server.close()
            await server.wait_closed()

    def _spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("simulator task failed", exc_info=error)

    async def _listen(self) -> None:
        exchange = self

        class Tracked(ServerConnection):
            """Remembers its transport, so that a client that never finishes its handshake can be ended."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                exchange._transports.add(transport)
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                exchange._transports.discard(self.transport)
                super().connection_lost(exc)

        try:
            server = await serve_websocket(
                self._handle,
                self.config.host,
                self.port,
                process_request=self._request,
                create_connection=Tracked,
                ssl=self._tls,
                compression=None,
                ping_interval=None,
                open_timeout=None,
                ssl_handshake_timeout=5 if self._tls else None,
                close_timeout=2,
                max_size=1024 * 1024,
                write_limit=0,
                max_queue=None,
                server_header=None,
            )
        except OSError as error:
            raise UserError(cannot_listen(self.config.host, self.port, error)) from error
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]

    # Market

    def advance(self, ticks: int) -> None:
        """Let the market run for `ticks` ticks and send what subscribers are owed."""
        seconds = self.config.tick_seconds
        for _ in range(ticks):
            now_ms = self.now_ms()
            for symbol, feed in self.feeds.items():
                pushes = feed.tick(seconds * self._pace(symbol), now_ms, self._wanted(symbol))
                for push in pushes:
                    self._publish(push)
            if "tickers" in self._wanted(""):
                for payload in self._tickers.tick(seconds, now_ms, self.feeds, self._ticker_size):
                    self._publish(Push("", "tickers", "tickers", payload))

    def _wanted(self, symbol: str) -> list[str]:
        return [stream for stream, sessions in self._subscribers[symbol].items() if sessions]

    def _publish(self, push: Push) -> None:
        if push.channel == "deal":
            self._newest_deals[push.symbol].append(push)
        for session in sorted(self._subscribers[push.symbol].get(push.stream, ()), key=lambda s: s.number):
            session.deliver(push)

    def _pace(self, symbol: str) -> float:
        if not self.board:
            return 1.0
        burst = self.board.holding("burst", asyncio.get_running_loop().time(), symbol=symbol)
        return float(burst.value or 10) if burst else 1.0

    def _ticker_size(self) -> int:
        fault = self.board.take("big_tickers")
        return fault.size if fault else 0

    async def _run_market(self) -> None:
        loop, step = asyncio.get_running_loop(), self.config.tick_seconds
        due = loop.time() + step
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            behind = min(_MOST_TICKS_BEHIND, 1 + int((loop.time() - due) / step))
            self.advance(max(1, behind))
            due = max(due + behind * step, loop.time() - 1.0)

    def specifications(self, symbol: str) -> list[bytes]:
        """Return every specification of a contract that REST has served, in that order, each once until there was
        another."""
        return [text.encode() for text in self._rest.specifications[symbol]]

    # Subscriptions

    def listed(self, symbol: str) -> bool:
        """Whether there is such a contract."""
        return symbol in self.feeds

    def subscribe(self, session: Session, symbol: str, stream: str) -> None:
        """Begin a stream; a repeated subscription changes nothing."""
        if (symbol, stream) in session.streams:
            return
        first = not session.streams
        session.streams.add((symbol, stream))
        if self.config.flat_out is not None:
            if first:
                self._spawn(self._flood(session))
            return
        self._subscribers[symbol].setdefault(stream, set()).add(session)
        again = self.board.holding("resend_deals", asyncio.get_running_loop().time(), session.number, symbol, "deal")
        if again and stream.startswith("deal"):
            for push in list(self._newest_deals[symbol])[-int(again.value or 50) :]:
                session.deliver(push)
        old = self.board.holding("old_prices", asyncio.get_running_loop().time(), session.number, symbol, stream)
        if old and stream in ("index.price", "fair.price"):
            then_ms = self.now_ms() - 1000 * int(old.value or 600)
            session.deliver(self.feeds[symbol].of_then(stream, then_ms))
        if stream == "tickers":
            self._tickers.full_next()

    def unsubscribe(self, session: Session, symbol: str, stream: str) -> None:
        """End a stream; one that is not there changes nothing."""
        session.streams.discard((symbol, stream))
        self._subscribers[symbol].get(stream, set()).discard(session)

    async def _flood(self, session: Session) -> None:
        settings = self.config.flat_out
        assert settings is not None
        loop = asyncio.get_running_loop()
        while (wait := session.last_subscribed + settings.settle - loop.time()) > 0:
            await asyncio.sleep(wait)
        step = 0.2 * NATURAL_RATE / self.config.rate
        pools = [
            render_pool(feed, streams, settings.pool, step, self.now_ms())
            for symbol, feed in self.feeds.items()
            if (streams := [stream for name, stream in session.streams if name == symbol])
        ]
        pool = [frame for group in zip(*filter(None, pools), strict=True) for frame in group]
        if not pool:
            return
        flood = Flood(pool, settings, self.config.clock_ns)
        begin = loop.time()
        await flood.run(session)
        log.info(
            "flood ended",
            extra={"fields": {"conn": session.number, "frames": flood.sent, "seconds": round(loop.time() - begin, 3)}},
        )

    # Connections

    async def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer REST, refuse the handshake, or let it pass (None)."""
        peer = _peer(connection)
        now = asyncio.get_running_loop().time()
        path = request.path.partition("?")[0]
        further: list[tuple[str, str, str]] = []
        if path == WS_PATH and "upgrade" in request.headers:
            refusal = self.board.holding("refuse_handshake", now)
            if refusal is None:
                return None
            page = refusal.payload or rest_api.FORBIDDEN_PAGE
            answer = rest_api.RestAnswer(HTTPStatus(int(refusal.value or 403)), "text/html", page)
            further = [header.partition(":") for header in refusal.headers.split(";") if header.strip()]
        else:
            answer = await self._rest_answer(request.path, peer, now)
        if self.config.keep_sent:
            status = answer.status.value
            self.requests.append(RestRequest(self.config.clock_ns(), peer, request.path, status))
        body = answer.body
        headers = Headers(
            {
                "Content-Type": answer.content_type,
                "Connection": "close",
                **{name.strip(): value.strip() for name, _, value in further},
            }
        )
        if path != WS_PATH and self.board.holding("rest_gzip", now):
            body = gzip.compress(body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(len(body))
        return Response(answer.status.value, answer.status.phrase, headers, body)

    async def _rest_answer(self, target: str, peer: str, now: float) -> rest_api.RestAnswer:
        board = self.board
        if slow := board.holding("rest_slow", now):
            await asyncio.sleep(slow.delay)
        if board.holding("rest_403", now):
            return rest_api.forbidden()
        if board.holding("rest_510", now):
            return rest_api.throttled()
        if "/kline/" in target and (fault := board.holding("candles", now)):
            return rest_api.odd_candles(fault.value)
        if "/detail" in target and (fault := board.holding("detail", now)):
            return rest_api.odd_detail(fault.value or "1001")
        lag = board.holding("rest_lag", now)
        answer = self._rest.answer(
            target,
            peer.rpartition(":")[0],
            now,
            self.now_ms(),
            lag=int(lag.value or 200) if lag else None,
            stale=board.holding("rest_stale", now) is not None,
        )
        return rest_api.with_a_bad_byte(answer) if board.holding("rest_byte", now) else answer

    async def _handle(self, connection: ServerConnection) -> None:
        number = len(self.connections) + 1
        request = connection.request
        assert request is not None
        info = ConnectionInfo(number, _peer(connection), self.config.clock_ns(), request.headers.get("User-Agent", ""))
        sent = ConnectionLog(number, info.peer, info.opened_ns, self.config.keep_sent, self.config.log_dir)
        session = Session(number, connection, self, sent, self._rng.random() * 0.15)
        self.connections.append(info)
        self.logs.append(sent)
        self.sessions[number] = session
        log.info("connection opened", extra={"fields": {"conn": number, "peer": info.peer}})
        try:
            async for message in connection:
                if self.config.keep_sent:
                    self.received.append(ClientMessage(number, self.config.clock_ns(), message))
                session.message(message)
        except ConnectionClosed:
            pass  # how it ended is recorded below
        finally:
            del self.sessions[number]
            for symbol, stream in list(session.streams):
                self.unsubscribe(session, symbol, stream)
            info.end = session.ended()
            info.closed_ns = self.config.clock_ns()
            sent.end(info.closed_ns, info.end)
            log.info("connection ended", extra={"fields": {"conn": number, "reason": info.end}})

    async def _housekeeping(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            now = loop.time()
            self.board.expire(now)
            for session in list(self.sessions.values()):
                session.log.flush()
                session.release_held()
                if session.open and session.outlived(now):
                    session.close(1001, "session limit")
                if session.open and session.overdue(now):
                    if self.config.heartbeat_end == "notice":
                        session.notice_and_close("heartbeat")
                    else:
                        session.abort("heartbeat")

    # Faults

    async def _scheduled(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        self.inject(fault)
        while fault.every is not None:
            await asyncio.sleep(fault.every)
            self.inject(fault)

    def inject(self, fault: Fault) -> int:
        """Make a fault happen now; return how many open connections it concerns."""
        matching = [
            session
            for session in list(self.sessions.values())
            if session.open
            and any(
                fault.matches(session.number, symbol or None, None)
                for symbol in ({s for s, _ in session.streams} or {""})
            )
        ]
        log.info("fault", extra={"fields": {"kind": fault.kind, "connections": len(matching)}})
        if fault.effect is Effect.LISTENER:
            self._replaced = asyncio.Event()
            self._spawn(self._replace_listener(fault, self._replaced))
        elif fault.effect is Effect.MARKET:
            named = [feed for symbol, feed in self.feeds.items() if fault.symbol in (None, symbol)]
            for _ in range(fault.count if named else 0):
                feed = self._rng.choice(named)
                self._publish(feed.change_specification(self.now_ms()))
                self._rest.specification(feed)
        elif fault.effect in (Effect.NEXT, Effect.WINDOW):
            self.board.add(fault, asyncio.get_running_loop().time())
        else:
            if fault.kind == "reset_versions":
                for symbol in {
                    s for session in matching for s, _ in session.streams if s and fault.symbol in (None, s)
                }:
                    self.feeds[symbol].market.reset_versions(int(fault.value or 1000))
            for session in matching:
                self._strike(session, fault)
        return len(matching)

    async def listener_replaced(self) -> None:
        """Wait until the newest fault of the listener is in place."""
        await self._replaced.wait()

    def _strike(self, session: Session, fault: Fault) -> None:
        match fault.kind:
            case "reset" if fault.value:
                self._spawn(session.reset_acknowledged())
            case "reset":
                session.reset()
            case "abort" | "reset_versions":
                session.abort()
            case "close":
                session.close(int(fault.value or 1001))
            case "close_notice":
                session.notice_and_close("close with notice")
            case "garbage":
                session.garbage()
            case _:
                for _ in range(fault.count):
                    session.send_fault(fault)

    async def _replace_listener(self, fault: Fault, replaced: asyncio.Event) -> None:
        """Close the port, or put an impostor behind it, for a while; open connections go on. One fault after another:
        two cannot have the port at once."""
        async with self._replacing:
            await self._replace(fault, replaced)

    async def _replace(self, fault: Fault, replaced: asyncio.Event) -> None:
        for server in self._servers:
            server.close(close_connections=False)
        await asyncio.sleep(0)
        writers: list[asyncio.StreamWriter] = []

        async def impostor(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            if fault.kind == "tls_failure":
                writer.write(b"this is not TLS\r\n")
                writer.close()

        try:
            if fault.kind != "refuse_connect":
                self._impostor = await self._once_free(
                    lambda: asyncio.start_server(impostor, self.config.host, self.port)
                )
            replaced.set()
            await asyncio.sleep(5.0 if fault.seconds is None else fault.seconds)
        finally:
            for writer in writers:
                writer.transport.abort()
            if self._impostor is not None:
                self._impostor.close()
                self._impostor = None
        await asyncio.sleep(0)
        await self._once_free(self._listen)

    async def _once_free(self, bind: Callable[[], Awaitable[_T]]) -> _T:
        """Bind the port that was given up for a moment, and that another connection of this machine may have by chance
        meanwhile."""
        deadline = asyncio.get_running_loop().time() + REBIND_S
        while True:
            try:
                return await bind()
            except (OSError, UserError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.1)


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)


def _prepare(folder: Path) -> None:
    """Make the log folder; logs of another run are evidence and not overwritten."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("conn-*.log")):
            raise UserError(f"{folder} holds the logs of an earlier run; choose another --log-dir")
    except OSError as error:
        raise UserError(f"cannot write logs to {folder}: {error.strerror}") from error


def _tls(config: SimulatorConfig) -> ssl.SSLContext | None:
    if (config.tls_cert is None) != (config.tls_key is None):
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    if config.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except OSError as error:
        raise UserError(f"cannot read the TLS certificate or key: {error}") from error
    return context
