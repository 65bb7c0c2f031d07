"""The query copy in trouble: server or embedded engine killed, frozen, damaged, late, out of disk. Recording and files
must not notice, and in the end the tables hold what the files hold."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from faults.bench import CLICKHOUSE, Bench, Outcome, Process, bench, end, pause
from faults.lossy import LossyProxy
from faults.shim import DISK_FULL, IO_ERROR, READ_ONLY, Control, Op, library
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.clickhouse_server import ClickHouseServer
from support.waiting import until

EPISODES = 6
PERIOD = "4s"
LOADED_S = 180.0
HUGE = 1 << 33
LOGGED = "SELECT file, received, rows, stored, verdict FROM ch_mexc.export_log"

TROUBLES: dict[str, tuple[int, tuple[Op, ...]]] = {
    "disk full": (DISK_FULL, (Op.WRITE, Op.CREATE, Op.MKDIR)),
    "disk read-only": (READ_ONLY, (Op.WRITE, Op.CREATE, Op.MKDIR, Op.OPEN, Op.RENAME, Op.UNLINK)),
    "disk failing": (IO_ERROR, (Op.WRITE, Op.SYNC)),
}

Fetch = Callable[[str], list[Any]]


def server(folder: Path, seed: int) -> Outcome:
    """A ClickHouse server (Debian's 18.16) behind a proxy that can lose replies."""
    rng = random.Random(seed)
    outcome = Outcome()
    engine = ClickHouseServer(folder / "clickhouse")
    late = rng.random() < 0.3
    proxy = LossyProxy(engine.port)
    settings = f'[clickhouse]\nmode = "server"\nhost = "127.0.0.1"\nport = {proxy.port}\n'
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((60.0, 300.0)), seed=seed)) as sim,
        bench(folder / "site", sim, rng, period=PERIOD, clickhouse=settings) as place,
    ):
        try:
            if not late:
                start_engine(engine, place.control)
            store, collector = place.start("store"), place.fork("collect", "btc")
            place.witness.start()
            place.recorded(collector, 20)
            if late:
                start_engine(engine, place.control)
                outcome.happened("absent at the start")
            for _ in range(EPISODES):
                store = _server_episode(place, engine, proxy, store, rng, outcome)
                place.recorded(collector, 1)
            conclude(place, collector, store, outcome, lambda sql: list(engine.client().execute(sql)))
        finally:
            proxy.close()
            engine.kill()
    return outcome


def _server_episode(
    place: Bench, engine: ClickHouseServer, proxy: LossyProxy, store: Process, rng: random.Random, outcome: Outcome
) -> Process:
    # a table that is still empty has no file to be damaged, so what is drawn may be replaced by a kill
    name = rng.choice(
        ("killed", "stopped", "frozen", "damaged", "reply lost", "late answers", "store killed", "dropped", *TROUBLES)
    )
    pause(rng.uniform(0.2, 2.0))
    match name:
        case "killed" | "stopped" | "damaged":
            engine.stop() if name == "stopped" else engine.kill()
            if name == "damaged" and (done := _damage(engine.data, rng)):
                name = f"damaged: {done}"
            pause(rng.uniform(0.2, 2.0))
            start_engine(engine, place.control)
        case "frozen":
            engine._signal(signal.SIGSTOP)
            pause(rng.uniform(1.0, 6.0))
            engine._signal(signal.SIGCONT)
        case "reply lost":
            before = proxy.lost
            proxy.lose_a_reply()
            until(lambda: proxy.lost > before, 30, "a reply to lose")
        case "disk full" | "disk read-only" | "disk failing":
            place.control.fail(*TROUBLES[name], (CLICKHOUSE,), skip=rng.choice((0, 1, 5)), short=rng.random() < 0.5)
            pause(rng.uniform(1.0, 4.0))
            if not place.control.heal():
                return store
        case "late answers":
            proxy.answer_late(True)
            pause(rng.uniform(1.0, 4.0))
            proxy.answer_late(False)
        case "dropped":
            tables = [
                r[0]
                for r in engine.client().execute("SELECT name FROM system.tables WHERE database = 'ch_mexc'")
                if str(r[0]).startswith("btc_")
            ]
            if not tables:
                return store
            table = rng.choice(tables)
            engine.client().execute(f"DROP TABLE IF EXISTS ch_mexc.{table}")
            name = "a table dropped: " + ("the current one" if table == "btc_current" else "a sealed one")
        case _:
            store.kill()
            store.wait(10)
            pause(rng.uniform(0.0, 1.0))
            store = place.start("store")
    outcome.happened(name)
    return store


def start_engine(engine: ClickHouseServer, control: Control) -> None:
    """Start the server on a disk that can be made to fail."""
    other = {
        "LD_PRELOAD": str(library()),
        "FAULTS_PREFIX": f"/nowhere/0:/nowhere/1:{engine.data}",
        "FAULTS_CONTROL": str(control.path),
    }
    with mock.patch.dict(os.environ, other):
        engine.start(120)


def _damage(data: Path, rng: random.Random) -> str:
    """Truncate or overwrite a file of a row table while the server is down; says what, empty where there is none."""
    found = [p for p in data.glob("data/ch_mexc/btc_*/*") if p.is_file() and p.stat().st_size]
    if not found:
        return ""
    return f"{spoil(path := rng.choice(sorted(found)), rng)} of {path.name}"


def spoil(path: Path, rng: random.Random) -> str:
    size = path.stat().st_size
    if rng.random() < 0.5:
        os.truncate(path, rng.randint(0, size - 1))
        return "truncation"
    with path.open("r+b") as file:
        file.seek(rng.randint(0, size - 1))
        file.write(rng.randbytes(min(16, size)))
    return "overwriting"


def embedded(folder: Path, seed: int) -> Outcome:
    """The embedded engine: store killed, its folder damaged or deleted, or files of it replaced by what would hold it
    up. (Its calls cannot be made to fail: it does not look them up where a preloaded library stands.)"""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((60.0, 300.0)), seed=seed)) as sim,
        bench(folder, sim, rng, period=PERIOD, clickhouse='[clickhouse]\nmode = "embedded"\n') as place,
    ):
        store, collector = place.start("store"), place.fork("collect", "btc")
        place.witness.start()
        place.recorded(collector, 20)
        for _ in range(EPISODES - 2):
            store = _embedded_episode(place, store, rng, outcome)
            place.recorded(collector, 1)
        conclude(place, collector, store, outcome, lambda sql: query(place, sql))
    return outcome


def _embedded_episode(place: Bench, store: Process, rng: random.Random, outcome: Outcome) -> Process:
    name = rng.choice(("killed", "damaged", "damaged", "deleted", "FIFOs", "huge files"))
    answers(place)
    pause(rng.uniform(0.2, 2.0))
    store.kill()
    store.wait(10)
    where = place.data / "clickhouse"
    if name == "deleted":
        where.rename(place.folder / f"deleted-{rng.getrandbits(40)}")
    elif name != "killed":
        files = [p for p in where.rglob("*") if p.is_file() and p.stat().st_size]
        for path in rng.sample(sorted(files), min(len(files), rng.choice((1, 3, 20)))):
            _DAMAGES[name](path, rng)
    store = place.start("store")
    outcome.happened(f"embedded store {'killed' if name == 'killed' else 'folder: ' + name}")
    return store


def _fifo(path: Path, _: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _huge(path: Path, _: random.Random) -> None:
    os.truncate(path, HUGE)


_DAMAGES: dict[str, Callable[[Path, random.Random], object]] = {"damaged": spoil, "FIFOs": _fifo, "huge files": _huge}


def answers(place: Bench) -> None:
    until(lambda: place.status("store") is not None, 60, "the store's answer")


def query(place: Bench, sql: str) -> list[Any]:
    try:
        answer = ask(place.data / "control" / "store.sock", "query", timeout_s=60, sql=sql, max_rows=1_000_000)
    except ControlError as error:
        raise AssertionError(f"query: {error}") from error
    return [tuple(row) for row in answer["rows"]]


def conclude(
    place: Bench,
    collector: Process,
    store: Process,
    outcome: Outcome,
    fetch: Fetch,
    *,
    refused: int = 0,
    before_the_end: Callable[[], None] = lambda: None,
) -> None:
    """Stop recording; the tables must come to hold every row but the ``refused``, then every file must be logged as
    proven. ``before_the_end`` is called while the store still runs."""
    status = end(collector)
    outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
    place.settle(Outcome())  # cut and exported, so that every segment is closed; judged once more below

    def names() -> set[str]:
        return {p.name for p in place.exports.glob("*.parquet")}

    def logged() -> list[tuple[str, int, int, int, str]]:
        try:
            return [tuple(row) for row in fetch(LOGGED)]
        except Exception as error:  # noqa: BLE001 - drivers differ in what they raise; the deadline decides
            outcome.notes["last query error"] = str(error)[:200]
            return []

    try:
        until(lambda: {row[0] for row in logged()} >= names(), LOADED_S, "every file in export_log")
    except AssertionError:
        missing = sorted(names() - {row[0] for row in logged()})
        outcome.expect(False, f"not in export_log: {missing}; {outcome.notes}; {place.said()[-1200:]}")
    rows = logged()
    short = sum(int(received) - int(stored) for _, received, _, stored, _ in rows)
    outcome.expect(short == refused, f"{short} rows are not in ClickHouse, {refused} were refused")
    for file, received, written, stored, verdict in rows:
        held = pq.read_metadata(place.exports / file).num_rows
        outcome.expect(
            int(received) == int(written) == held and (verdict == "verified") == (int(stored) == held),
            f"{file}: {held} rows, logged as received {received}, exported {written}, stored {stored}, {verdict}",
        )
    outcome.expect(len(rows) == len({row[0] for row in rows}), "a file is logged twice")
    before_the_end()
    status = end(store, 30)
    outcome.expect(status == 0, f"the store ended with {status}")
    place.judge(outcome)
