"""A running command that answers over HTTP, and the dashboard's stream of news."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from support.collecting import Site
from support.waiting import until


@contextmanager
def answering(site: Site, command: str) -> Iterator[int]:
    """The port on loopback of a running ``command``, which then ends with 0 on SIGTERM."""
    words = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), command, "--listen", "127.0.0.1:0"]
    log = site.folder / f"{command}.log"
    with log.open("w") as stream, subprocess.Popen(words, stderr=stream) as process:
        try:
            yield int(until(lambda: re.search(r"port=(\d+)", log.read_text()), what="a port")[1])
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, log.read_text()
        finally:
            process.kill()


class News:
    """What the dashboard's stream says, one after the other."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer

    def next(self) -> dict[str, Any]:
        """The next that is said, each symbol's row by its id in ``rows``."""
        while not (line := self._answer.readline()).startswith(b"data:"):
            assert line, "the stream has ended"
        found: dict[str, Any] = json.loads(line[5:])
        rows = [dict(zip(found["columns"], row, strict=True)) for row in found["symbols"]]
        return {**found, "rows": {row["id"]: row for row in rows}}

    def until(self, wanted: Callable[[dict[str, Any]], Any], timeout_s: float = 60.0) -> dict[str, Any]:
        """The first that satisfies ``wanted``."""
        end = time.monotonic() + timeout_s
        while not wanted(found := self.next()):
            assert time.monotonic() < end, f"did not come within {timeout_s:g} s: {found}"
        return found


@contextmanager
def news(port: int) -> Iterator[News]:
    """The stream of a dashboard."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert answer.status == 200
        yield News(answer)


def details(port: int, symbol_id: str) -> dict[str, Any]:
    """All that a dashboard tells of one symbol."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", f"/symbol?id={symbol_id}")
        found: dict[str, Any] = json.load(connection.getresponse())
        return found
