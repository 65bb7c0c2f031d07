"""The whole promise at once: what the exchange sent is what the files hold, whatever dies meanwhile.

The judge shares no code with the product: it classifies the simulator's sent log with the json module and reads the
files with PyArrow alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.clickhouse_server import ClickHouseServer
from support.waiting import until

SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
IDS = ("btc", "eth", "sol")
PERIOD_S = 4
CUT_SHORT_S = 2.0
"""A killed collector may lose what was sent in the moment before; a test machine under load stretches the moment."""


class Run:
    """``mexc-pipeline run`` in a process of its own, and what can be done to it."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.config.write_text(config)
        self.log = folder / "run.log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen([*self.command(), "run"], stdout=log, stderr=log, start_new_session=True)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "mexc_pipeline", "--config", str(self.config)]

    def call(self, *args: str, expect: int = 0) -> str:
        done = subprocess.run([*self.command(), *args], capture_output=True, text=True, timeout=60)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    def problems(self) -> list[str]:
        """What its end called a problem, as far as the first colon of each sentence."""
        said = [line.removeprefix("problem: ") for line in self.log.read_text().splitlines() if "problem: " in line]
        return [":".join(line.split(":")[:2]) for line in said]

    def left(self) -> list[str]:
        """Command lines of what is still there."""
        return [Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ") for pid in self.children()]

    def children(self, *words: str) -> list[int]:
        """Processes of this run whose command line holds all the words."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().decode().split("\0")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if str(self.config) in line and all(word in line for word in words):
                    found.append(int(entry.name))
        return [pid for pid in found if pid != self.process.pid]

    def kill(self, *words: str) -> None:
        """kill -9 the one child with these words as soon as there is one."""
        pids = until(lambda: self.children(*words), 30, f"a child {' '.join(words)}")
        os.kill(pids[0], signal.SIGKILL)

    def seq(self, symbol_id: str) -> int:
        """The collector's last seq, 0 while it does not answer."""
        done = subprocess.run([*self.command(), "status", "--json"], capture_output=True, text=True, timeout=60)
        entry = next(e for e in json.loads(done.stdout)["symbols"] if e["id"] == symbol_id)
        return int(entry["collector"].get("last_seq") or 0)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


def files(folder: Path, symbol_id: str) -> list[Path]:
    """A symbol's files in the order of their rows."""
    names = list(folder.glob(f"{symbol_id}[0-9]*.parquet"))
    return sorted(
        names,
        key=lambda p: (p.name.split(".")[0], int(p.name.split(".part")[1].split(".")[0]) if ".part" in p.name else 0),
    )


def exported(folder: Path, symbol_id: str) -> list[tuple[int, str, str]]:
    """(seq, mt, m) of all rows of all files, in the order of the files."""
    rows: list[tuple[int, str, str]] = []
    for path in files(folder, symbol_id):
        table = pq.read_table(path)
        rows += zip(table["seq"].to_pylist(), table["mt"].to_pylist(), table["m"].to_pylist(), strict=True)
    return rows


def is_data(payload: bytes) -> bool:
    channel = json.loads(payload).get("channel", "")
    return not (channel == "pong" or channel.startswith("rs.sub.") or channel == "clientId")


def judge(sim: Simulator, folder: Path, symbol: str, symbol_id: str) -> dict[str, int]:
    """Every connection's exported frames are what was sent on it: all of it where the connection ended in order, and
    otherwise all but a tail of the last moments."""
    rows = exported(folder, symbol_id)
    assert [seq for seq, _, _ in rows] == list(range(1, len(rows) + 1)), "a hole or a repeat in seq"
    sent_on: dict[str, list[Any]] = {}
    ended: dict[str, int | None] = {}
    for connection in sim.connections:
        frames = [f for f in sim.sent_on(connection.number) if f.symbol in (symbol, "") and is_data(f.payload)]
        if any(f.symbol == symbol for f in frames):
            sent_on[connection.peer] = frames
            ended[connection.peer] = connection.closed_ns
    made = {trade.m for trade in sim.trades(symbol)}
    current: list[str] = []
    got: dict[str, list[str]] = {}
    orderly: set[str] = set()
    local = ""
    for _, mt, m in rows:
        if mt == "ev":
            event = json.loads(m)
            if event["event"] == "connected":
                local = event["local"]
                current = got.setdefault(local, [])
            elif event["event"] == "disconnected" and event["code"] == 1000:
                orderly.add(local)
        elif mt == "c":
            assert m.encode() in sim.specifications(symbol), "a specification that was not served"
        elif mt == "r":
            assert m.encode() in made, "a trade that was fetched and never made"
        else:
            current.append(m)
    assert set(got) <= set(sent_on), "frames of a connection that the exchange does not know"
    missing = 0
    for peer, frames in sent_on.items():
        wanted = [f.payload.decode() for f in frames]
        have = got.get(peer, [])
        assert have == wanted[: len(have)], f"{symbol_id}: frames differ on {peer}"
        if peer in orderly:
            assert len(have) == len(wanted), f"{symbol_id}: {len(wanted) - len(have)} frames missing on {peer}"
        elif len(have) < len(wanted):
            closed = ended[peer]
            assert closed is not None
            assert frames[len(have)].time_ns > closed - CUT_SHORT_S * 1e9, f"{symbol_id}: more than a tail is missing"
            missing += len(wanted) - len(have)
    assert sum(map(len, got.values())) > 0
    return {"frames": sum(map(len, got.values())), "unread_tail": missing, "connections": len(sent_on)}


def config_text(folder: Path, sim: Simulator, clickhouse: str) -> str:
    return f"""
symbols = ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
data_dir = "{folder}/data"
export_dir = "{folder}/exports"
period = "{PERIOD_S}s"

[exchange]
websocket = "{sim.ws_url}"
rest = "{sim.rest_url}"

{clickhouse}
"""


@pytest.fixture
def exchange() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(symbols=SYMBOLS, rate=60.0, seed=7)) as sim:
        yield sim


def all_exported(folder: Path, count: int) -> bool:
    return all(len(files(folder / "exports", symbol_id)) >= count for symbol_id in IDS)


@pytest.mark.server
@pytest.mark.timeout(240)
def test_sent_equals_exported_through_outage_and_kills_on_a_server(tmp_path: Path, exchange: Simulator) -> None:
    """Several rotations, a forced --once, ClickHouse gone for seconds and back, kill -9 of collector, store, export."""
    server = ClickHouseServer(tmp_path / "clickhouse")
    server.start()
    settings = f'[clickhouse]\nmode = "server"\nhost = "127.0.0.1"\nport = {server.port}\n'
    run = Run(tmp_path, config_text(tmp_path, exchange, settings))
    exports = tmp_path / "exports"

    def two_more(what: str) -> None:
        seen = len(files(exports, "sol"))
        until(lambda: len(files(exports, "sol")) >= seen + 2, 60, what)

    try:
        until(lambda: all_exported(tmp_path, 1), 60, "the first files")
        before = run.seq("btc")
        run.kill("collect", "btc")
        until(lambda: run.seq("btc") > before + 20, 30, "btc recorded again")

        def cut() -> bool:  # at the very edge of a period a cut ends the whole of it
            run.call("export", "--once", "eth")
            return any(".part" in p.name for p in files(exports, "eth"))

        until(cut, 30, "a part of a period that was cut")
        server.kill()
        two_more("exports without ClickHouse")
        server.start()
        run.kill("store")
        run.kill("export")
        two_more("exports after the kills")
        assert run.stop() == 1, run.log.read_text()[-4000:]
        assert run.problems() == ["btc: its collector ended by itself (SIGKILL)"], "and the others' ends cost nothing"
        for symbol, symbol_id in zip(SYMBOLS, IDS, strict=True):
            assert judge(exchange, exports, symbol, symbol_id)["frames"] > 300
        logged = server.client().execute("SELECT file, rows, stored FROM ch_mexc.export_log ORDER BY file")
        assert sorted(row[0] for row in logged) == sorted(p.name for i in IDS for p in files(exports, i))
        assert all(rows == stored for _, rows, stored in logged)
    finally:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
        server.stop()
    assert not run.children(), f"something of the run is left: {run.left()}"


@pytest.mark.timeout(240)
def test_sent_equals_exported_embedded_and_after_kill_of_run(tmp_path: Path, exchange: Simulator) -> None:
    """kill -9 of ``run`` itself ends its children within a second; the next run takes up everything left behind."""
    run = Run(tmp_path, config_text(tmp_path, exchange, '[clickhouse]\nmode = "embedded"\n'))
    try:
        until(lambda: all_exported(tmp_path, 1), 60, "the first files")
        assert json.loads(run.call("query", "--json", "SELECT count() AS n FROM ch_mexc.btc_current"))
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        until(lambda: not run.children(), 2, "children gone")
        run.process = run._start()
        before = until(lambda: run.seq("sol"), 30, "sol recorded again")
        run.kill("collect", "sol")
        until(lambda: run.seq("sol") > before + 20, 30, "sol recorded after its kill")
        seen = len(files(tmp_path / "exports", "sol"))
        until(lambda: len(files(tmp_path / "exports", "sol")) >= seen + 2, 60, "exports after the restart")
        assert run.stop() == 1, run.log.read_text()[-4000:]
        assert run.problems() == ["sol: its collector ended by itself (SIGKILL)"]
    finally:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
    for symbol, symbol_id in zip(SYMBOLS, IDS, strict=True):
        judge(exchange, tmp_path / "exports", symbol, symbol_id)
    started = [json.loads(m) for _, mt, m in exported(tmp_path / "exports", "sol") if mt == "ev" and '"started"' in m]
    cleanly = [event["clean"] for event in started]
    assert cleanly[0]
    assert not all(cleanly), "a killed collector's next start says so"
    assert not run.children(), f"something of the run is left: {run.left()}"
