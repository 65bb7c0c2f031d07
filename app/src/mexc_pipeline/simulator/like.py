"""An exchange that does again what a probe saw (`simulate --like`): acknowledgements, frames, pongs, ends, REST.

The first connection that subscribes a topic gets what the probe's first one got, the second what its second got, and
so on round; each is played over and over, with times, versions and ids further on, so that the stream continues.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import Coroutine
from http import HTTPStatus
from itertools import count
from typing import Any
from urllib.parse import unquote

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from mexc_pipeline.errors import UserError
from mexc_pipeline.simulator import wire
from mexc_pipeline.simulator.bundle import (
    BINARY,
    TEXT,
    Bundle,
    Counting,
    RecordedAnswer,
    RecordedEnd,
    RecordedFrame,
    Shift,
    Track,
    advanced,
)
from mexc_pipeline.simulator.exchange import WS_PATH
from mexc_pipeline.simulator.listening import cannot_listen

_GOODBYE_S = 2.0
"""How long a client may take to end a connection that was closed."""
_SAME_MS = 1_000
"""By so much at most the next connection begins later or earlier than it did in the bundle, for all that is known."""
_AGAIN = ("content-type", "retry-after", "location")

log = logging.getLogger("mexc_pipeline.simulator")


class _Talk:
    """One connection and what is being told to it."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.opened = time.monotonic()
        self.subscribed: set[tuple[str, str]] = set()
        self.pings = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, telling: Coroutine[Any, Any, None]) -> None:
        """Tell something beside the rest, until the connection is over."""
        task = asyncio.get_running_loop().create_task(telling)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ConnectionClosed):
            log.error("simulator task failed", exc_info=error)

    async def end(self) -> None:
        """Tell no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # errors are logged as they happen


class Imitation:
    """An exchange that plays a bundle. Everything runs on one event loop. `port` 0 picks a free one."""

    def __init__(self, bundle: Bundle, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._bundle = bundle
        self._handshakes = count()
        self._later_ms = 0
        self._played: dict[tuple[str, str], int] = {}
        self._versions = {key: Counting(tracks, True) for key, tracks in bundle.tracks.items() if "depth" in key[1]}
        self._ids = {key: Counting(tracks, False) for key, tracks in bundle.tracks.items() if key[1] == "deal"}
        self._asked: dict[str, int] = {}
        self._server: Server | None = None

    async def start(self) -> None:
        """Listen. Raises UserError where the port cannot be had."""
        try:
            self._server = await serve_websocket(
                self._handle,
                self.host,
                self.port,
                process_request=self._request,
                compression=None,
                ping_interval=None,
                close_timeout=2,
                server_header=None,
            )
        except OSError as error:
            raise UserError(cannot_listen(self.host, self.port, error)) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    # WebSocket

    async def _handle(self, connection: ServerConnection) -> None:
        talk = _Talk(connection)
        try:
            async for message in connection:
                request = _request_of(message)
                if request is None:
                    continue
                if request["method"] == "ping":
                    talk.begin(self._pong(connection, talk.pings))
                    talk.pings += 1
                elif request["method"].startswith("sub."):
                    self._subscribe(talk, request)
        except ConnectionClosed:
            pass  # what it was told until then is over, too
        finally:
            await talk.end()

    def _subscribe(self, talk: _Talk, request: dict[str, Any]) -> None:
        topic = request["method"].removeprefix("sub.")
        param = request.get("param")
        symbol = str(param.get("symbol", "")) if isinstance(param, dict) else ""
        if symbol and symbol not in self._bundle.symbols:
            text = wire.error(f"Contract [{json.dumps(symbol)[1:-1]}] not exists", time.time_ns() // 1_000_000)
            talk.begin(talk.connection.send(text, text=True))
            return
        key = symbol or self._bundle.symbols[0], topic
        tracks = self._bundle.tracks.get(key)
        if tracks is None or key in talk.subscribed:
            return  # not in the bundle: nothing is known of what the exchange would say
        talk.subscribed.add(key)
        number = self._played.get(key, 0) % len(tracks)
        self._played[key] = number + 1
        talk.begin(self._play(talk, tracks, number))

    async def _play(self, talk: _Talk, tracks: list[Track], number: int) -> None:
        track = tracks[number]
        key = track.symbol, track.topic
        due = time.monotonic()
        for turn in count():
            begin_ms = time.time_ns() // 1_000_000
            versions = self._versions[key].begin(number) if key in self._versions else 0
            ids = self._ids[key].begin(number) if key in self._ids else 0
            shift = Shift(self._ms_since(begin_ms, track.begin), versions, ids)
            for frame in track.frames:
                if turn and b'"rs.' in frame.inside:
                    continue  # an answer to the request, which comes once
                await asyncio.sleep(max(0.0, due + frame.after / 1000 - time.monotonic()))
                await _send(talk.connection, frame, shift)
            if track.end is not None:  # not before the last frame, which may say why
                await self._end(talk, track.end)
                return
            due += track.seconds
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _ms_since(self, now_ms: int, at: float) -> int:
        """How much later it is now than it was for the exchange at `at` of the bundle. What is nearly so late is just
        so late: a trade that comes again on the next connection has the time that it had."""
        if self._bundle.base is None:
            return 0
        later = round(now_ms - self._bundle.base - at)
        if abs(later - self._later_ms) > _SAME_MS:
            self._later_ms = later
        return self._later_ms

    async def _pong(self, connection: ServerConnection, number: int) -> None:
        if not self._bundle.pongs:
            return
        begin_ms = time.time_ns() // 1_000_000
        for frame in self._bundle.pongs[number % len(self._bundle.pongs)]:
            await asyncio.sleep(frame.after / 1000)
            was = _time_of(frame.inside)
            shift = Shift(begin_ms + round(frame.after / 2) - was if was else 0)
            await _send(connection, frame, shift)

    async def _end(self, talk: _Talk, end: RecordedEnd) -> None:
        connection = talk.connection
        await asyncio.sleep(max(0.0, talk.opened + end.after / 1000 - time.monotonic()))
        if end.breach:
            connection.transport.write(wire.BREACHES[end.breach])
        elif end.code == 1006:
            connection.transport.abort()
        else:  # written as it came: codes that RFC 6455 has no use for were seen, too
            connection.transport.write(wire.close(None if end.code == 1005 else end.code, end.reason))
            try:
                await asyncio.wait_for(connection.wait_closed(), _GOODBYE_S)
            except TimeoutError:
                connection.transport.abort()

    # HTTP

    async def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.partition("?")[0] == WS_PATH and "upgrade" in request.headers:
            refusal = self._bundle.handshakes[next(self._handshakes) % len(self._bundle.handshakes)]
            if refusal is None:
                return None
            response = _response(RecordedAnswer(*refusal), refusal.body)
            if refusal.status <= HTTPStatus.SWITCHING_PROTOCOLS:  # what no library sends: a 101 that is none, and 042
                head, _, rest = response.serialize().partition(b" %d " % refusal.status)
                connection.transport.write(head + b" %03d " % refusal.status + rest)
                connection.transport.close()
                response.status_code = HTTPStatus.BAD_REQUEST  # goes nowhere, and the library asks for one
            return response
        answer = self._answer(request.path)
        if answer is None:
            body = b'{"success":false,"code":404,"message":"Not Found"}'
            return _response(RecordedAnswer(404, {"content-type": "application/json"}, body), body)
        return _response(answer, self._now(request.path, answer.body))

    def _answer(self, target: str) -> RecordedAnswer | None:
        """What was answered to the same request, or else to one of the same kind for the same symbol, or for any where
        all are asked for; in turn."""
        name, symbol = _kind(target)
        of_kind = [(path, answers) for path, answers in self._bundle.answers.items() if _kind(path)[0] == name]
        same = self._bundle.answers.get(target) or next(
            (answers for path, answers in of_kind if not symbol or _kind(path)[1] == symbol), None
        )
        if not same:
            return None
        number = self._asked.get(target, 0)
        self._asked[target] = number + 1
        return same[number % len(same)]

    def _now(self, target: str, body: bytes) -> bytes:
        symbol = _kind(target)[1]
        versions = max((c.shift for (name, _), c in self._versions.items() if name == symbol), default=0)
        was = _time_of(body)
        now_ms = time.time_ns() // 1_000_000
        return advanced(body, Shift(now_ms - was if was else 0, versions), rest=True)


async def _send(connection: ServerConnection, frame: RecordedFrame, shift: Shift) -> None:
    moved = frame._replace(inside=advanced(frame.inside, shift))
    if frame.opcode in (TEXT, BINARY):
        await connection.send(moved.bytes(), text=frame.opcode == TEXT)
    else:
        connection.transport.write(wire.encode(frame.opcode, moved.bytes()))


def _request_of(message: str | bytes) -> dict[str, Any] | None:
    request = wire.parsed(message)
    return request if isinstance(request, dict) and isinstance(request.get("method"), str) else None


def _time_of(body: bytes) -> int:
    """The time of an answer in ms; 0 where it holds none."""
    value = wire.parsed(body)
    if not isinstance(value, dict):
        return 0
    times = (
        value.get("data"),
        value.get("ts"),
        value["data"].get("timestamp") if isinstance(value.get("data"), dict) else 0,
    )
    return next((time for time in times if type(time) is int and 10**12 <= time < 10**13), 0)


def _kind(target: str) -> tuple[str, str]:
    """Endpoint and symbol of a REST request."""
    path, _, query = unquote(target).partition("?")
    parts = path.removeprefix("/api/v1/contract/").split("/")
    symbol = parts[1] if len(parts) > 1 else query.removeprefix("symbol=") if query.startswith("symbol=") else ""
    return parts[0], symbol.upper()


def _response(answer: RecordedAnswer, body: bytes) -> Response:
    headers = Headers({name: answer.headers[name] for name in _AGAIN if name in answer.headers})
    if "gzip" in answer.headers.get("content-encoding", "").lower():  # the bundle has it unpacked
        body = gzip.compress(body, mtime=0)
        headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else "Unknown"
    return Response(answer.status, phrase, headers, body)
