"""What an exchange says to take a terminal or a log over is cleaned wherever people read: from the socket to a file."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

from support.collecting import Site, collecting
from support.sessions import serving_sessions
from support.waiting import until

EVIL = "\x1b[2J\r\nFORGED ok btc: all verified\x9b31m\u202egnp\u2028FORGED"
"""Clears the screen, begins a line of its own, colours, turns the direction of writing round."""
SPELLED = json.dumps(EVIL)


def frames(number: int) -> Iterator[str]:
    """What is to stand in rows, and what nobody can read."""
    ts = time.time_ns() // 1_000_000
    data = f'{{"symbol":"BTC_USDT","lastPrice":{SPELLED},"timestamp":{ts}}}'
    yield f'{{"channel":"push.ticker","symbol":"BTC_USDT","data":{data},"ts":{ts}}}'
    yield f'{{"channel":{SPELLED},"data":{SPELLED},"ts":{ts}}}'
    yield f'{{"channel":"push.deal","symbol":{SPELLED},"data":[{{"p":{SPELLED}}}],"ts":{ts + number}}}'
    yield f'{{"channel":"rs.error","data":{SPELLED},"ts":{ts}}}'
    yield EVIL


def answer(_connection: ServerConnection, request: Request) -> Response | None:
    if request.path == "/edge":
        return None
    body = json.dumps({"success": False, "code": 510, "message": EVIL}).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(HTTPStatus.OK, "OK", headers, body)


@contextmanager
def exchange() -> Iterator[int]:
    over = threading.Event()

    def session(connection: ServerConnection) -> None:
        try:
            for number in itertools.count():
                for frame in frames(number):
                    connection.send(frame)
                if over.wait(0.1):
                    return
                if number == 30:
                    connection.close(4000, "\x1b[2J\nFORGED ok")
                    return
        except ConnectionClosed:
            return

    with serving_sessions(session, answer, over) as port:
        yield port


def test_nothing_that_people_read_has_a_line_or_a_control_of_the_exchanges(tmp_path: Path) -> None:
    said: dict[str, str] = {}
    with exchange() as port:
        site = Site(tmp_path, f"ws://127.0.0.1:{port}/edge", f"http://127.0.0.1:{port}")
        first = "from mexc_pipeline.collector import statistics\nstatistics.LEGIBLE_S = 0.2"
        with collecting(site, first=first) as btc:
            btc.wait(lambda s: s["unreadable"])
            until(lambda: any(row.mt == 5 and b"disconnected" in row.m and b"FORGED" in row.m for row in site.rows()))
            for command in (["status"], ["status", "--json"]):
                said[" ".join(command)] = told_by(site, *command)
            assert btc.stop() == 0
            said["log"] = btc.said()
    for command in (["export", "--once"], ["verify", "exports"], ["ledger"]):
        said[" ".join(command)] = told_by(site, *command)
    assert "FORGED" in said["log"], "it was said, cleaned"
    assert "FORGED" in said["verify exports"]
    for where, text in said.items():
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", text), where
        assert not re.search(r"^\s*FORGED", text, re.MULTILINE), where


def told_by(site: Site, *command: str) -> str:
    whole = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), *command]
    done = subprocess.run(whole, capture_output=True, timeout=120, check=False)
    assert b"Traceback" not in done.stderr
    return (done.stdout + done.stderr).decode()
