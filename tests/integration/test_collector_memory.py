"""The largest frames there can be, one after the other: kept whole, within what the collector's unit allows."""

from __future__ import annotations

import base64
import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

from mexc_pipeline.spool.walk import segments
from support.standin import stand_in
from support.waiting import until

ROLE = Path(__file__).parents[2] / "roles" / "mexc_pipeline" / "defaults" / "main.yml"
SIZE = 60 << 20
FRAMES: dict[str, bytes | str] = {
    "text": "x" * SIZE,
    "text that is wide": "x" * (SIZE - 4) + "😀",
    "binary": b"\xff" * SIZE,
}


def _allowed() -> int:
    """Bytes of the unit's MemoryMax."""
    found = re.search(r"^mexc_pipeline_collector_memory_max: (\d+)M$", ROLE.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 20


@contextmanager
def exchange(frame: bytes | str, count: int) -> Iterator[int]:
    """Sends the frame ``count`` times once something is subscribed; the port."""

    def session(connection: ServerConnection) -> None:
        for message in connection:
            said = json.loads(message)
            if said["method"] == "ping":
                connection.send('{"channel":"pong","data":1}')
            elif said["method"] == "sub.ticker":
                for _ in range(count):
                    connection.send(frame)

    with serve(session, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield int(server.socket.getsockname()[1])
        server.shutdown()
        thread.join(10)


def _dead_letters(folder: Path) -> list[int]:
    """Sizes of the dead letters that are committed."""
    sizes: list[int] = []
    for _, path in segments(folder):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        sizes += [size for (size,) in db.execute("SELECT length(m) FROM rows WHERE mt = 4")]
        db.close()
    return sizes


@pytest.mark.parametrize("kind", FRAMES)
def test_three_frames_of_60_mb_fit_into_the_unit(tmp_path: Path, kind: str) -> None:
    frame = FRAMES[kind]
    with exchange(frame, 3) as port:
        settings = tmp_path / "c.toml"
        settings.write_text(
            f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\n'
            f'[exchange]\nwebsocket = "ws://127.0.0.1:{port}/edge"\nrest = "http://127.0.0.1:1"\n'
        )
        command = [sys.executable, "-m", "mexc_pipeline", "--config", str(settings), "collect", "btc"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as collector:
            store = stand_in(tmp_path / "data", ["btc"])
            try:
                until(lambda: len(_dead_letters(tmp_path / "data" / "spool" / "btc")) >= 3, 60)
                status = Path(f"/proc/{collector.pid}/status").read_text()
            finally:
                collector.send_signal(signal.SIGTERM)
                collector.wait(20)
                if store is not None:
                    store.close()
    stored = len(base64.b64encode(frame)) + 24 if isinstance(frame, bytes) else len(frame.encode())
    assert _dead_letters(tmp_path / "data" / "spool" / "btc")[:3] == [stored] * 3
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]
    assert peak < _allowed() * 0.9, f"{peak >> 20} MiB"
