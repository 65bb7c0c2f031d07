"""One place to be broken: a configuration, the recorder's real processes with the library preloaded, and the end of
every scenario: faults off, settle, export, verify, judge."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from faults.forks import Forked, ForkServer
from faults.oracle import (
    TAIL_NS,
    Verdict,
    check_frames,
    check_minutes,
    check_order,
    check_trades,
    check_witness,
    read_files,
)
from faults.powerloss import lose_power
from faults.shim import Control, Crash, Kill, crashes, library
from faults.witness import Witness
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig, Style
from mexc_pipeline.simulator.frames import DealId
from support.scheduling import Scheduling, held_ns
from support.standin import StandIn, late_store, silent_store, stand_in
from support.streams import Stream, without_stream
from support.waiting import until

SPOOL, EXPORTS, CLICKHOUSE, DATA = 0, 1, 2, 3
"""Positions of the folders in FAULTS_PREFIX; the first that contains a path counts."""
SYMBOLS = {"btc": "BTC_USDT", "eth": "ETH_USDT", "sol": "SOL_USDT"}
SETTLE_FRAMES = 15
LATE_NS = 500_000_000
"""From sending to the stamp, on a machine that has more to do; how much more the witness measured comes on top."""


Process = subprocess.Popen[bytes] | Forked


@dataclass(slots=True)
class Outcome:
    """What one scenario did and found. ``tries``: faults that really happened; ``steps``: at what."""

    tries: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    notes: dict[str, Any] = field(default_factory=dict)

    def expect(self, is_so: bool, text: str) -> None:
        """A promise that is not about rows: a violation where it does not hold."""
        if not is_so:
            self.verdict.wrong(text)

    def happened(self, step: str) -> None:
        self.tries += 1
        self.steps[step] += 1


class Bench:
    """Folders, configuration and processes of one scenario."""

    def __init__(
        self,
        folder: Path,
        sim: Simulator,
        rng: random.Random,
        *,
        period: str = "2s",
        keep: str = "24h",
        ids: Iterable[str] = ("btc",),
        clickhouse: str = "",
        websocket: str = "",
        exchange: str = "",
        candles: str = "1h",
        journal: bool = False,
    ) -> None:
        self.folder = folder
        self.sim = sim
        self.rng = rng
        self.ids = tuple(ids)
        self.data, self.exports = folder / "data", folder / "exports"
        self.spool = self.data / "spool"
        for path in (self.data, self.exports):
            path.mkdir(parents=True)
        self.config = folder / "config.toml"
        self.config.write_text(
            f"symbols = {json.dumps([SYMBOLS[i] for i in self.ids])}\n"
            f'data_dir = "{self.data}"\nexport_dir = "{self.exports}"\nperiod = "{period}"\nspool_keep = "{keep}"\n'
            f'[spool]\nreserve_mib = 4\n[checks]\ncandles = "{candles}"\n'
            f'[exchange]\nwebsocket = "{websocket or sim.ws_url}"\nrest = "{sim.rest_url}"\n{exchange}\n{clickhouse}\n'
        )
        self.control = Control(folder / "control")
        self._crash_file = folder / "crashes"
        self._journal, self._grave = folder / "journal", folder / "grave"
        self._grave.mkdir()
        self._with_journal = journal
        self._processes: list[Process] = []
        self._forks: ForkServer | None = None
        self._store: StandIn | None = None
        self._crashes_before = 0
        self.witness = Witness(self.spool / self.ids[0])
        self.scheduling: Scheduling | None = None
        """Where it is measured, what is forgiven is what it held back in a moment, not the longest gap of all."""
        self.known_as: dict[str, str] = {}
        """Far ends as the simulator sees them and as the collector names its own end, where something stands between.
        """
        self.channels: dict[str, int] | None = None
        """Row types of the channels where they are not the usual ones."""
        self.stopped: list[tuple[int, int]] = []
        """From when to when (Unix ns) a collector was stopped and could read nothing."""
        self.repeats = False
        """Whether each deal that is sent again must be counted: not where what deals look like is changed."""
        self.shaped = False
        """Whether frames do not tell what the exchange had to say."""
        self.all_trades = False
        """Whether each trade must be there or said to be missing: not where the socket leaves some out unnoticed."""
        self.exact = False
        """Whether the socket brings trades as they were made, or the recorder can know that it did not."""
        self.log = folder / "log"

    # -- processes

    def environment(self, kill: Kill | None = None) -> dict[str, str]:
        """Of a process that runs on this place's disk and clock."""
        folders = (self.spool, self.exports, self.data / "clickhouse", self.data)
        env = {
            **os.environ,
            "MEXC_PIPELINE_LOG": "json",
            "LD_PRELOAD": str(library()),
            "FAULTS_PREFIX": ":".join(map(str, folders)),
            "FAULTS_CONTROL": str(self.control.path),
            "FAULTS_CRASH": str(self._crash_file),
        }
        if kill is not None:
            env["FAULTS_KILL"] = str(kill)
        if self._with_journal:
            env |= {"FAULTS_JOURNAL": str(self._journal), "FAULTS_GRAVE": str(self._grave)}
        return env

    def fork(self, *args: str, kill: Kill | None = None) -> Process:
        """A command of the recorder, forked from an interpreter that has it loaded."""
        self._stand_in(args)
        if args[0] == "collect":
            # Twenty collectors started in a minute would wait for their turn: a campaign starts more than anybody does.
            shutil.rmtree(self.data / "control" / "attempts", ignore_errors=True)
        if self._forks is None:
            self._forks = ForkServer(self.environment(), self.log)
        command = ["--config", str(self.config), *args]
        process = Forked(self._forks, command, self.log, str(kill) if kill else "")
        self._processes.append(process)
        return process

    def start(self, *args: str, kill: Kill | None = None, errors: Stream | None = None) -> Process:
        """A command of the recorder; ``errors`` is its standard error, without one the log."""
        self._stand_in(args)
        closed = without_stream(2) if errors is not None and errors.fd is None else []
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*closed, sys.executable, "-m", "mexc_pipeline", "--config", str(self.config), *args],
                stdout=log,
                stderr=log if errors is None or errors.fd is None else errors.fd,
                env=self.environment(kill),
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def run(self, *args: str, timeout_s: float = 90) -> tuple[int, str]:
        """A command to its end, in a process of its own: exit status and what it said."""
        self._stand_in(args)
        done = subprocess.run(
            [sys.executable, "-m", "mexc_pipeline", "--config", str(self.config), *args],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment(),
        )
        return done.returncode, done.stdout + done.stderr

    @contextlib.contextmanager
    def store_is(self, how: str, after_s: float) -> Iterator[None]:
        """While it lasts nothing is in the store's place (``away``), or what answers so late (``late``), or never
        (``silent``)."""
        if self._store is not None:
            self._store.close()
            self._store = None
        in_place = {"late": lambda: late_store(self.data, after_s), "silent": lambda: silent_store(self.data)}
        with in_place.get(how, contextlib.nullcontext)():
            yield

    def _stand_in(self, args: tuple[str, ...]) -> None:
        """Where no store runs, an empty spool would wait for one."""
        wanted = {"collect", "export"} & set(args)
        if self._store is not None and (wanted or {"store", "run"} & set(args)):
            self._store.close()
            self._store = None
        if wanted:
            self._store = stand_in(self.data, self.ids)

    def status(self, name: str = "btc") -> dict[str, Any] | None:
        """What a process says of itself on its control socket, None while it does not answer."""
        from mexc_pipeline.control import ControlError, ask  # the socket is a process's voice, not its judge

        try:
            return ask(self.data / "control" / f"{name}.sock", "status", timeout_s=5)
        except ControlError:
            return None

    def recorded(self, process: Process, frames: int, name: str = "btc", timeout_s: float = 120) -> None:
        """Wait until a collector has committed that many frames since its start."""

        def enough() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"collector {name} ended with {process.returncode}: {self.said()}")
            status = self.status(name)
            return status is not None and sum(status["rows"][t] for t in ("t", "d", "dp")) >= frames

        until(enough, timeout_s, f"{frames} frames of {name}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def crashes(self) -> list[Crash]:
        return crashes(self._crash_file)

    def died(self, process: Process, within_s: float) -> bool:
        """Whether it came to its end by itself; otherwise it is killed now."""
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            return False
        return True

    def stand_still(self, process: Process, seconds: float, then: Callable[[], object] | None = None) -> None:
        """The process is stopped for so long, and goes on; before that, ``then`` is done and has half a second."""
        since = time.time_ns()
        process.send_signal(signal.SIGSTOP)
        pause(seconds)
        if then is not None:
            then()
            pause(0.5)
        process.send_signal(signal.SIGCONT)
        self.stopped.append((since, time.time_ns()))

    def lose_power(self, outcome: Outcome) -> None:
        """All processes gone at once, then what the disk did not have by then is gone too."""
        self.witness.stop()  # first: what is read after the kill may be what was never synced
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait(10)
        self._processes.clear()
        dead = self.crashes()[self._crashes_before :]
        self._crashes_before += len(dead)
        if dead:
            self.witness.forget_after(dead[0].time_ns)
        loss = lose_power(self._journal, self._grave, (self.data, self.exports), self.rng)
        for name in ("writes_dropped", "writes_torn", "writes_kept", "names_undone"):
            outcome.notes[name] = outcome.notes.get(name, 0) + getattr(loss, name)

    # -- the end

    def settle(
        self, outcome: Outcome, *, tail_ns: int = TAIL_NS, export_status: int = 0, late_ns: int = LATE_NS
    ) -> None:
        """Faults off; record a little more in order; cut, export, verify; judge."""
        self.control.heal()
        self.sim.clear_faults()
        collectors = [(i, self.fork("collect", i)) for i in self.ids]
        for symbol_id, process in collectors:
            self.recorded(process, SETTLE_FRAMES, symbol_id)
            # Starting takes long on a busy machine, and what came meanwhile is more than an orderly end has time for.
            until(lambda i=symbol_id: self._has_caught_up(i), 60, f"an empty inbox of {symbol_id}")  # type: ignore[misc]
        for symbol_id, process in collectors:
            status = end(process)
            outcome.expect(status == 0, f"collector {symbol_id} ended with {status}: {self.said()[-500:]}")
        self.judge(outcome, tail_ns=tail_ns, export_status=export_status, late_ns=late_ns)

    def judge(
        self, outcome: Outcome, *, tail_ns: int = TAIL_NS, export_status: int = 0, late_ns: int = LATE_NS
    ) -> None:
        """Cut and export what is left, verify, compare with what was sent; ``late_ns`` as in ``check_frames``."""
        self.witness.stop()
        if self.scheduling is None:
            tail_ns += 2 * self.witness.longest_gap_ns
            late_ns += 2 * self.witness.longest_gap_ns
            waits = []
        else:
            waits = self.scheduling.finish()
        outcome.notes["longest_gap_ms"] = self.witness.longest_gap_ns // 10**6
        status, said = self.run("export", "--once")
        outcome.expect(status == export_status, f"export ended with {status}: {said[-600:]}")
        status, said = self.run("verify", "exports")
        outcome.expect(status == 0, f"verify exports ended with {status}: {said[-600:]}")
        if self.exact:
            agree, unknown = check_minutes(said, outcome.verdict)
            outcome.notes |= {"minutes agree": agree, "minutes unknown": unknown}
        until(lambda: not self.sim.open_connections, 20, "the end of all connections")
        for symbol_id in self.ids:
            verdict = Verdict()
            rows = read_files(self.exports, symbol_id, verdict)
            verdict.rows = len(rows)
            check_order(rows, verdict)
            blamed = [row.seq for row in rows if row.mt == "ev" and row.m.startswith(b'{"event":"mistimed"')]
            outcome.expect(not blamed, f"the exchange's times, which were right, are called wrong at seq {blamed[:5]}")
            symbol = SYMBOLS[symbol_id]
            seen = [replace(c, peer=self.known_as.get(c.peer, c.peer)) for c in self.sim.connections]
            mine = [c for c in seen if len(self.ids) == 1 or self._is_of(c.number, symbol)]
            sent = [f for c in mine for f in self.sim.sent_on(c.number)]
            late = (late_ns, self.channels, self.control.shown, self.stopped, self.repeats, partial(held_ns, waits))
            served = self.sim.specifications(symbol)
            check_frames(rows, mine, sent, symbol, verdict, tail_ns, *late, served=served)
            whole = self.all_trades and self.sim.config.style.rest_deal_id != "absent"
            check_trades(rows, self.sim.trades(symbol), verdict, shaped=self.shaped, whole=whole)
            if symbol_id == self.ids[0]:
                check_witness(rows, self.witness.rows, verdict)
            outcome.expect(bool(rows), f"{symbol_id}: nothing was recorded at all")
            outcome.verdict.add(verdict)

    def _has_caught_up(self, symbol_id: str) -> bool:
        status = self.status(symbol_id)
        return status is not None and status["inbox_bytes"] < 10_000

    def _is_of(self, connection: int, symbol: str) -> bool:
        return any(f.symbol == symbol for f in self.sim.sent_on(connection))

    def close(self) -> None:
        """End whatever still runs."""
        self.witness.stop()
        if self.scheduling is not None:
            self.scheduling.close()
        if self._store is not None:
            self._store.close()
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        if self._forks is not None:
            self._forks.close()
        self.control.close()


def settings_of(seed: int, rate: float, faults: tuple[Fault, ...] = ()) -> SimulatorConfig:
    """An exchange of one symbol whose REST gives its trades without ids, with text, with numbers."""
    ids: tuple[DealId, ...] = ("absent", "string", "int")
    style = Style(rest_deal_id=ids[seed % 3])
    return SimulatorConfig(symbols=("BTC_USDT",), rate=rate, seed=seed, style=style, faults=faults)


@contextlib.contextmanager
def bench(*args: Any, **kwargs: Any) -> Iterator[Bench]:
    """A bench that leaves no process behind."""
    made = Bench(*args, **kwargs)
    try:
        yield made
    finally:
        made.close()


def end(process: Process, within_s: float = 20) -> int:
    """SIGTERM, and the exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(within_s)


def pause(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(seconds)
