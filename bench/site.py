"""The recorder's real processes, the exchange simulator and a ClickHouse server, each on a folder of this run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mexc_pipeline.control import ControlError, ask
from support.clickhouse_server import ClickHouseServer
from support.waiting import until

SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
FRAMES = ("t", "d", "dp")


class Simulator:
    """``mexc-pipeline simulate`` in a process of its own; ``log_dir`` then says what it sent."""

    def __init__(self, folder: Path, symbols: Sequence[str] = SYMBOLS, **options: object) -> None:
        self.log_dir = folder / "sent"
        shutil.rmtree(self.log_dir, ignore_errors=True)
        words = [w for key, value in options.items() for w in _words(key, value)]
        command = ["simulate", "--port", "0", "--symbols", ",".join(symbols), "--log-dir", str(self.log_dir), *words]
        with (folder / "simulator.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mexc_pipeline", *command], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if not words:
            raise RuntimeError(f"the simulator did not start; see {folder / 'simulator.log'}")
        self.websocket, self.rest = words[-3], words[-1]

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        end(self._process)


def _words(key: str, value: object) -> list[str]:
    name = f"--{key.replace('_', '-')}"
    return [name] if value is True else [name, str(value)]


def end(process: subprocess.Popen[Any], within_s: float = 20.0) -> int:
    """SIGTERM, and SIGKILL to what does not end in time; the exit status."""
    process.terminate()
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(5)


class Site:
    """One configuration and the processes that run by it; all are ended when the site is left."""

    def __init__(
        self,
        folder: Path,
        sim: Simulator,
        *,
        symbols: Sequence[str] = SYMBOLS[:1],
        server: ClickHouseServer | None = None,
    ) -> None:
        self.folder = folder
        self.data, self.exports = folder / "data", folder / "exports"
        self.data.mkdir(parents=True, exist_ok=True)
        self.exports.mkdir(exist_ok=True)
        self.config = folder / "config.toml"
        self.ids = [s.removesuffix("_USDT").lower() for s in symbols]
        engine = f'mode = "server"\nport = {server.port}' if server else 'mode = "embedded"'
        self.config.write_text(
            f"symbols = {json.dumps(list(symbols))}\n"
            f'data_dir = "{self.data}"\nexport_dir = "{self.exports}"\nperiod = "24h"\n'
            f'[exchange]\nwebsocket = "{sim.websocket}"\nrest = "{sim.rest}"\n[clickhouse]\n{engine}\n'
        )
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._running.values():
            process.terminate()  # all at once: one after the other fifty would take a minute
        for name in list(self._running):
            self.end(name)

    def start(self, name: str, *command: str) -> None:
        """Start a command of the recorder under a name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "mexc_pipeline", "--config", str(self.config), *command],
                stdout=log,
                stderr=log,
                env={**os.environ, "MEXC_PIPELINE_LOG": "json"},
            )

    def end(self, name: str) -> int:
        return end(self._running.pop(name))

    def record(self, symbol_id: str = "btc") -> None:
        self.start(f"collector {symbol_id}", "collect", symbol_id)

    def store(self) -> None:
        """Start the store and wait until it answers."""
        self.start("store", "store")
        until(lambda: self.status("store"), 60, "the store")

    def pids(self, **others: int) -> dict[str, int]:
        """Process ids by name, those of ``others`` too."""
        return {**{name: process.pid for name, process in self._running.items()}, **others}

    def status(self, name: str = "btc") -> dict[str, Any] | None:
        """What a process says of itself, None while it does not answer. RuntimeError where it has ended."""
        for running, process in self._running.items():
            if running.split()[-1] == name and process.poll() is not None:
                raise RuntimeError(f"{running} ended with {process.returncode}; see {self.folder / running}.log")
        try:
            return ask(self.data / "control" / f"{name}.sock", "status", timeout_s=5)
        except ControlError:
            return None

    def frames(self, symbol_id: str = "btc") -> int:
        """Frames committed since the collector's start, 0 while it does not answer."""
        status = self.status(symbol_id)
        return sum(status["rows"][name] for name in FRAMES) if status else 0

    def recording(self, symbol_id: str = "btc", frames: int = 1) -> None:
        """Wait until that many frames are committed."""
        until(lambda: self.frames(symbol_id) >= frames, 180, f"{frames} frames of {symbol_id}")


@contextmanager
def clickhouse(folder: Path) -> Iterator[ClickHouseServer]:
    """Debian's server, running."""
    server = ClickHouseServer(folder / "clickhouse-server")
    server.start()
    try:
        yield server
    finally:
        server.kill()


def server_pid(server: ClickHouseServer) -> int:
    """The server's process id."""
    wanted = f"--config-file={server.folder / 'config.xml'}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                    return int(entry.name)
            except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
                continue
    raise RuntimeError("the ClickHouse server is not running")


def start_peer(name: str, sim: Simulator, **options: object) -> subprocess.Popen[str]:
    """Start a program of ``bench.peers``; it prints one line of JSON when it has measured itself."""
    words = [w for key, value in options.items() for w in _words(key, value)]
    command = [sys.executable, "-m", f"bench.peers.{name}", sim.websocket, "--rest", sim.rest, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def peer_result(process: subprocess.Popen[str], timeout_s: float = 90.0) -> dict[str, Any]:
    """Wait for a peer's line. RuntimeError where it ended without one."""
    try:
        said, _ = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    if not said.strip():
        raise RuntimeError(f"{process.args!r} said nothing and ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


class Place:
    """The folder of one run, on the disk the checkout is on: a memory file system would make every sync free."""

    def __init__(self, folder: Path, *, quick: bool, long: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.long = long
        self._used = 0

    def new(self, name: str) -> Path:
        """A folder of its own for a step."""
        self._used += 1
        path = self.folder / f"{self._used:02d}-{name}"
        path.mkdir(parents=True)
        return path

    def drop(self, path: Path) -> None:
        """Remove a step's folder, so that what comes later does not share the disk with its write-back."""
        shutil.rmtree(path, ignore_errors=True)

    def seconds(self, whole: float, quick: float) -> float:
        return quick if self.quick else whole


def settle(seconds: float) -> None:
    """Let a stretch of time pass that is itself what is measured or warmed up."""
    time.sleep(seconds)
