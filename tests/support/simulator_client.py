"""A plain client of the simulator: websocket-client and http.client, nothing of the recorder."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import websocket

from mexc_pipeline.simulator import Simulator


class Client:
    """One WebSocket connection; `frames` holds (opcode, payload) of every data frame received."""

    def __init__(
        self, sim: Simulator, sslopt: dict[str, Any] | None = None, sockopt: tuple[tuple[int, int, int], ...] = ()
    ) -> None:
        self.ws = websocket.create_connection(
            sim.ws_url, timeout=10, sslopt=sslopt, sockopt=sockopt, skip_utf8_validation=True, http_no_proxy=["*"]
        )
        self.frames: list[tuple[int, bytes]] = []
        self.closed_with: bytes | None = None

    def subscribe(self, topic: str, symbol: str = "BTC_USDT", action: str = "sub", **param: object) -> None:
        self.ws.send(json.dumps({"method": f"{action}.{topic}", "param": {"symbol": symbol, **param}}))

    def ping(self) -> None:
        self.ws.send('{"method":"ping"}')

    def read(self) -> tuple[int, bytes]:
        """Read one frame; a close frame is noted in `closed_with` and raised as ConnectionError."""
        opcode, payload = self.ws.recv_data(control_frame=True)
        while opcode in (9, 10):
            opcode, payload = self.ws.recv_data(control_frame=True)
        data = payload if isinstance(payload, bytes) else bytes(payload)
        if opcode == 8:
            self.closed_with = data
            raise ConnectionError("close frame")
        self.frames.append((opcode, data))
        return opcode, data

    def until(self, wanted: Callable[[bytes], bool], timeout: float = 10.0) -> bytes:
        """Read until a frame satisfies `wanted` and return it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if wanted(payload := self.read()[1]):
                return payload
        raise TimeoutError("the wanted frame did not come")

    def channel(self, name: str, timeout: float = 10.0) -> dict[str, Any]:
        """Read until a frame of that channel and return it parsed."""
        tail = f'"channel":"{name}"'.encode()
        parsed = json.loads(self.until(lambda payload: tail in payload, timeout))
        assert isinstance(parsed, dict)
        return parsed

    def to_end(self, timeout: float = 10.0) -> Exception:
        """Read until the connection ends and return how."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                self.read()
            except (OSError, websocket.WebSocketException) as error:
                return error
        raise TimeoutError("the connection did not end")

    def quiet(self, seconds: float) -> bool:
        """Whether nothing arrives for that long."""
        self.ws.settimeout(seconds)
        try:
            self.read()
        except websocket.WebSocketTimeoutException:
            return True
        finally:
            self.ws.settimeout(10)
        return False

    def count(self, part: bytes) -> int:
        return sum(part in payload for _, payload in self.frames)


@contextmanager
def connected(
    sim: Simulator,
    *topics: str,
    sslopt: dict[str, Any] | None = None,
    sockopt: tuple[tuple[int, int, int], ...] = (),
) -> Iterator[Client]:
    """Connect, subscribe to topics of BTC_USDT and close at the end."""
    client = Client(sim, sslopt, sockopt)
    try:
        for topic in topics:
            client.subscribe(topic)
        yield client
    finally:
        client.ws.close(timeout=0)


def rest(sim: Simulator, target: str) -> tuple[int, bytes]:
    """GET a path below /api/v1/contract/ and return (status, body)."""
    connection = http.client.HTTPConnection(sim.config.host, sim.port, timeout=10)
    try:
        connection.request("GET", f"/api/v1/contract/{target}")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def rest_data(sim: Simulator, target: str) -> Any:
    """GET and return the answer's `data`, with exact numbers."""
    status, body = rest(sim, target)
    assert status == 200
    answer = json.loads(body, parse_float=Decimal)
    assert answer["success"], answer
    return answer["data"]
