"""One process with several recordings: whatever becomes of one, the others record on, and all end side by side."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.collector.process import Process
from mexc_pipeline.collector.recording import Recording
from mexc_pipeline.config import load
from mexc_pipeline.control import ControlError, ControlServer, ask
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.health import market_frames
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.segment import FORMAT
from mexc_pipeline.spool.walk import segments
from support.collecting import Site, check_whole, frames, site_of, wanted
from support.spooled import check, events, named
from support.spools import open_spool, some_frames, written
from support.waiting import until

END_S = 10.0
"""A process told to end takes five seconds at most; twice that on a machine that has more to do, still less than its
recordings would take one after another."""
RESERVE = "[spool]\nreserve_mib = 4\n"


def names(count: int) -> tuple[str, ...]:
    return tuple(f"C{chr(65 + n)}_USDT" for n in range(count))


class Lock(SpoolLock):
    """A lock that fails where its writer sees to it that it is still its own, while it has an ``error`` to raise."""

    error: Exception | None = None

    def keep(self) -> bool:
        if self.error is not None and threading.current_thread().name == "recorder":
            raise self.error
        return super().keep()


class Running:
    """A process with a recording for each of the site's symbols, on a thread."""

    def __init__(self, site: Site, locks: Mapping[str, Lock]) -> None:
        self.site = site
        self.locks = locks
        self.stop = threading.Event()
        self.status: Future[int] = Future()
        settings = load(site.config)
        self._recordings = [Recording(settings, symbol, locks[symbol.id]) for symbol in settings.symbols]
        self._process = Process(settings, self._recordings, self.stop, threading.Event())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._process as process:
                status = process.run()
        except Exception as error:  # noqa: BLE001 - handed to the test
            self.status.set_exception(error)
        else:
            self.status.set_result(status)

    def end(self) -> float:
        """Tell it to end; for how many seconds that took."""
        began = time.monotonic()
        self.stop.set()
        self.status.exception(60)
        return time.monotonic() - began

    def ask(self, symbol_id: str) -> dict[str, Any] | None:
        """What one of its recordings says of itself; None where it does not answer."""
        try:
            return ask(self.site.data / "control" / f"{symbol_id}.sock", "status", timeout_s=10)
        except ControlError:
            return None

    def wait(self, symbol_id: str, wanted: Callable[[dict[str, Any]], Any], timeout_s: float = 60.0) -> dict[str, Any]:
        def probe() -> dict[str, Any] | None:
            said = self.ask(symbol_id)
            return said if said is not None and wanted(said) else None

        found = until(probe, timeout_s, f"the wanted status of {symbol_id}")
        assert found is not None
        return found

    def live(self, *symbol_ids: str, more: int = 1) -> None:
        """Wait until each has committed and numbered so many more market frames."""
        before = {name: market_frames(self.wait(name, lambda said: True)["rows"]) for name in symbol_ids}
        for name in symbol_ids:
            enough = before[name] + more
            self.wait(name, lambda said, n=enough: market_frames(said["rows"]) >= n and not said["pending"])  # type: ignore[misc]


@contextlib.contextmanager
def store(site: Site, elsewhere: str | None, says_so: threading.Event | None) -> Iterator[None]:
    """A store that has no rows, and knows of a symbol that another process records it; it says that once it is told
    to."""
    writer = {"host": "elsewhere", "pid": 1, "spool_id": "f" * 32, "age_s": 1}

    def known(request: dict[str, Any]) -> dict[str, Any]:
        if request["id"] != elsewhere:
            return {"last_seq": 0, "writer": None}
        assert says_so is not None
        says_so.wait(60)
        return {"last_seq": 0, "writer": writer}

    handlers = {"known": known, "given": lambda _: {"held": []}}
    server = ControlServer(site.data / "control" / "store.sock", handlers)
    try:
        yield
    finally:
        server.close()


@contextlib.contextmanager
def running(site: Site, elsewhere: str | None = None, says_so: threading.Event | None = None) -> Iterator[Running]:
    settings = load(site.config)
    ids = [symbol.id for symbol in settings.symbols]
    with store(site, elsewhere, says_so), contextlib.ExitStack() as locks:
        held = {name: Lock(settings.spool_dir / name) for name in ids}
        for lock in held.values():
            locks.enter_context(lock)
        process = Running(site, held)
        try:
            yield process
        finally:
            process.end()


def newer(site: Site, symbol_id: str) -> None:
    """A later version wrote this spool."""
    spool = open_spool(load(site.config), symbol_id)
    spool.append(some_frames(3, time.time_ns() - 10**9))
    spool.close()
    for _, path in segments(site.spool(symbol_id)):
        written(path, f"PRAGMA user_version = {FORMAT + 1}")


def connections(sim: Simulator) -> dict[str, int]:
    """The number of each symbol's connection; each has one."""
    found = [(frame.symbol, frame.conn) for frame in sim.sent if frame.symbol]
    assert len(set(found)) == len(dict(found))
    return dict(found)


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_that_ends_leaves_the_others_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    symbols = names(20)
    refused, lost, killed, *others = [symbol.partition("_")[0].lower() for symbol in symbols]
    with Simulator(SimulatorConfig(symbols=symbols, rate=10)) as sim, caplog.at_level(logging.ERROR):
        site = site_of(tmp_path, sim, symbols=symbols, extra=RESERVE)
        newer(site, refused)
        with running(site) as process:
            process.live(lost, killed, *others)
            assert process.ask(refused) is None, "nothing is said of what is not recorded"
            assert (site.spool(refused) / "reserve").exists() != (site.spool(lost) / "reserve").exists()
            site.spool(lost).rename(site.spool(lost).with_name("going"))
            shutil.rmtree(site.spool(lost).with_name("going"))
            process.locks[killed].error = RuntimeError("what nobody foresaw")
            for symbol_id in (lost, killed):
                until(lambda symbol_id=symbol_id: process.ask(symbol_id) is None, 30, "the end of it")  # type: ignore[misc]
            process.live(*others, more=5)
            until(lambda: (site.spool(others[0]) / "reserve").exists(), 10, "the reserve where somebody records")
            assert process.end() < END_S
            assert process.status.result() == 1
            assert not list((site.data / "control").glob("c?.sock"))
            assert not list(site.data.glob("spool/*/reserve"))
        conn_of = connections(sim)
        assert conn_of.keys() == set(symbols[1:]), "the later version's symbol never connected"
        for symbol, symbol_id in zip(symbols[3:], others, strict=True):
            rows = check(site.spool(symbol_id))
            check_whole(rows, sim.sent_on(conn_of[symbol]), symbol)
            assert [event["event"] for event in events(rows)][-2:] == ["disconnected", "stopped"]
        rows = check(site.spool(lost))
        check_whole(rows, sim.sent_on(conn_of[symbols[1]]), symbols[1])
        assert named(rows, "stopped")[0]["reason"] == "spool folder lost"
        found = frames(check(site.spool(killed)))
        assert found == wanted(sim.sent_on(conn_of[symbols[2]]), symbols[2])[: len(found)]
    said = [record.fields for record in caplog.records if record.msg == "a recording has ended"]  # type: ignore[attr-defined]
    assert sorted(fields["symbol"] for fields in said) == [refused, lost, killed]
    assert f"segment format {FORMAT + 1}" in said[0]["why"]


@pytest.mark.timeout(120)
def test_an_exchange_that_answers_no_goodbye_keeps_all_together_no_longer_than_one(tmp_path: Path) -> None:
    symbols = names(8)
    ids = [symbol.partition("_")[0].lower() for symbol in symbols]
    goes = threading.Event()
    goes.set()

    def clock_ns() -> int:
        goes.wait()
        return time.time_ns()

    with Simulator(SimulatorConfig(symbols=symbols, rate=20, clock_ns=clock_ns)) as sim:
        site = site_of(tmp_path, sim, symbols=symbols, extra=RESERVE)
        with running(site) as process:
            process.live(*ids)
            goes.clear()
            try:
                assert process.end() < END_S
                assert process.status.result() == 0
            finally:
                goes.set()
        conn_of = connections(sim)
        assert conn_of.keys() == set(symbols)
        for symbol, conn in conn_of.items():
            rows = check(site.spool(symbol.partition("_")[0].lower()))
            assert named(rows, "disconnected")[0]["reason"] == "stopped, our close was not answered"
            found = frames(rows)
            assert found == wanted(sim.sent_on(conn), symbol)[: len(found)]


@pytest.mark.timeout(120)
def test_one_whose_folder_alone_refuses_is_held_alone(tmp_path: Path) -> None:
    """What it receives would be in memory only; the disk takes what the other one writes."""
    symbols = names(2)
    with Simulator(SimulatorConfig(symbols=symbols, rate=50)) as sim:
        site = site_of(tmp_path, sim, symbols=symbols, extra=RESERVE)
        with running(site) as process:
            process.live("ca", "cb")
            process.locks["ca"].error = OSError(5, "I/O error")
            held = process.wait("ca", lambda said: said["state"] == "stopped: spool refuses")
            assert held["trouble"] == "spool: [Errno 5] I/O error"
            assert held["disk"]["level"] == "ok"
            process.live("cb", more=20)
            process.locks["ca"].error = None
            process.wait("ca", lambda said: said["state"] == "live")
            process.live("ca", more=20)
            process.end()
            assert process.status.result() == 0
        held_once, alone = ([f for f in sim.sent if f.symbol == symbol] for symbol in symbols)
        assert len({frame.conn for frame in held_once}) == 2
        rows = check(site.spool("ca"))
        assert named(rows, "stopped")[0]["reason"] == "spool refuses"
        check_whole(rows, held_once, symbols[0])
        check_whole(check(site.spool("cb")), alone, symbols[1])


@pytest.mark.timeout(120)
def test_a_process_of_which_nothing_is_left_ends_by_itself(tmp_path: Path) -> None:
    """Started again, what only lost its folder records on; so it is that which the exit status tells."""
    symbols = names(2)
    with Simulator(SimulatorConfig(symbols=symbols, rate=20)) as sim:
        site = site_of(tmp_path, sim, symbols=symbols, extra=RESERVE)
        newer(site, "ca")
        with running(site) as process:
            process.live("cb")
            assert not process.status.done()
            site.spool("cb").rename(site.spool("cb").with_name("away"))
            assert process.status.result(30) == 1


@pytest.mark.timeout(120)
def test_a_process_that_can_record_nothing_says_why_and_does_not_get_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols = names(2)
    with (
        Simulator(SimulatorConfig(symbols=symbols)) as sim,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        site = site_of(tmp_path, sim, symbols=symbols, extra=RESERVE)
        newer(site, "ca")
        newer(site, "cb")
        with running(site) as process, pytest.raises(ConfigError, match="segment format"):
            process.status.result(30)
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
        assert not sim.connections


@pytest.mark.timeout(120)
def test_one_that_is_recorded_elsewhere_already_ends_and_its_rows_stay_pending(tmp_path: Path) -> None:
    symbols = names(2)
    with Simulator(SimulatorConfig(symbols=symbols, rate=20)) as sim:
        site = site_of(tmp_path, sim, symbols=symbols, extra=RESERVE)
        with running(site, "ca", says_so := threading.Event()) as process:
            process.live("cb")
            says_so.set()
            until(lambda: process.ask("ca") is None, 30, "the end of it")
            process.live("cb", more=5)
            process.end()
            with pytest.raises(UserError, match="is being recorded already by process 1 on elsewhere"):
                process.status.result()
        assert (site.spool("ca") / "pending.db").exists()
        assert not (site.spool("cb") / "pending.db").exists()
