"""``demo``: one command, offline, everything proven; nothing of it survives it."""

from __future__ import annotations

import functools
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from support import waiting

_until = functools.partial(waiting.until, timeout_s=40.0)


def _start(folder: Path, *args: str) -> subprocess.Popen[str]:
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "mexc_pipeline", "demo", "--dir", str(folder / "demo"), *args],
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            text=True,
        )


def _port(folder: Path) -> int | None:
    """The simulator's port, once the demo has written its configuration."""
    for path in (folder / "demo").glob("*/demo.toml"):
        found = re.search(r"ws://127\.0\.0\.1:(\d+)/", path.read_text())
        if found:
            return int(found[1])
    return None


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_the_demo_proves_three_symbols_and_leaves_nothing_running(tmp_path: Path) -> None:
    process = _start(tmp_path, "--duration", "11s", "--json")
    try:
        assert process.wait(110) == 0, (tmp_path / "err").read_text()
    finally:
        process.kill()
        process.wait()
    answer = json.loads((tmp_path / "out").read_text())
    assert answer["ok"]
    assert {line["symbol"] for line in answer["periods"]} == {"BTC_USDT", "ETH_USDT", "SOL_USDT"}
    assert len(answer["periods"]) >= 6, "at least one rotation"
    for line in answer["periods"]:
        assert line["received"] == line["stored"] == line["exported"] > 0
    port = _port(tmp_path)
    assert port is not None
    assert not _listens(port)


def test_kill_9_of_the_demo_ends_its_simulator_too(tmp_path: Path) -> None:
    process = _start(tmp_path)
    try:
        port: int = _until(lambda: _port(tmp_path), what="the simulator's address")
        assert _listens(port)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _until(lambda: not _listens(port), what="the simulator to end", timeout_s=3.0)
    finally:
        process.kill()
        process.wait()
