"""A server that is away for a minute, refuses a row, or whose tables somebody alters: the spool makes good for it."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from faults.bench import SYMBOLS, Bench, Outcome, Process, bench, end, pause
from faults.lossy import LossyProxy
from faults.scenarios.clickhouse import LOGGED, answers, conclude, start_engine
from faults.scenarios.neighbours import damage
from mexc_pipeline.config import load
from mexc_pipeline.control import NotRunningError
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from mexc_pipeline.store.client import compared
from support.clickhouse_server import ClickHouseServer
from support.waiting import until

PERIOD = "4s"
STOPS, STOPPED_S = 2, 60.0
EXPORT_EVERY_S = 8.0
RECORDS = ("export_log", "egress_log", "collector_stats", "refused_rows")
FORGET = {
    "emptied": ("TRUNCATE TABLE {}",),
    "dropped": ("DROP TABLE {}",),
    "with other columns": ("DROP TABLE {}", "CREATE TABLE {} (x UInt8) ENGINE = MergeTree ORDER BY x"),
}
MARK = b"a row that the server will not take"


class Site(NamedTuple):
    """A server behind a proxy, a store that loads it, a collector that records."""

    place: Bench
    sim: Simulator
    engine: ClickHouseServer
    proxy: LossyProxy
    store: Process
    collector: Process

    def fetch(self, sql: str) -> list[Any]:
        return list(self.engine.client().execute(sql))

    def conclude(self, outcome: Outcome, **more: Any) -> None:
        conclude(self.place, self.collector, self.store, outcome, self.fetch, **more)


@contextlib.contextmanager
def served(folder: Path, seed: int, rng: random.Random, rate: float, ids: tuple[str, ...] = ("btc",)) -> Iterator[Site]:
    """All of it, recording the first of the ids."""
    engine = ClickHouseServer(folder / "clickhouse")
    proxy = LossyProxy(engine.port)
    settings = f'[clickhouse]\nmode = "server"\nhost = "127.0.0.1"\nport = {proxy.port}\n'
    with (
        Simulator(SimulatorConfig(symbols=tuple(SYMBOLS[i] for i in ids), rate=rate, seed=seed)) as sim,
        bench(folder / "site", sim, rng, period=PERIOD, clickhouse=settings, ids=ids) as place,
    ):
        try:
            start_engine(engine, place.control)
            store, collector = place.start("store"), place.fork("collect", "btc")
            place.witness.start()
            place.recorded(collector, 20)
            answers(place)
            yield Site(place, sim, engine, proxy, store, collector)
        finally:
            proxy.close()
            engine.kill()


def outage(folder: Path, seed: int, stops: int = STOPS, stopped_s: float = STOPPED_S) -> Outcome:
    """The server stopped under load for a minute at a time: rows are recorded and files exported all the while."""
    rng = random.Random(seed)
    outcome = Outcome()
    with served(folder, seed, rng, rng.choice((300.0, 600.0))) as site:
        for _ in range(stops):
            pause(rng.uniform(1.0, 4.0))
            before, files = _last_seq(site.place), len(list(site.place.exports.glob("*.parquet")))
            site.engine.stop()
            began = time.monotonic()
            while (left := stopped_s - (time.monotonic() - began)) > 0:
                pause(min(left, EXPORT_EVERY_S))
                status = site.place.fork("export").wait(60)
                outcome.expect(status == 0, f"export without ClickHouse ended with {status}")
            outcome.expect(_last_seq(site.place) > before + stopped_s * 20, "recording slackened without ClickHouse")
            more = len(list(site.place.exports.glob("*.parquet"))) - files
            outcome.expect(more > 0, "no file was exported without ClickHouse")
            start_engine(site.engine, site.place.control)
            outcome.happened(f"stopped for {stopped_s:.0f} s")
            site.place.recorded(site.collector, 1)
        site.conclude(outcome)
    return outcome


def _last_seq(place: Bench) -> int:
    status = until(place.status, 30, "the collector's answer")
    return int(status["last_seq"])


def refused(folder: Path, seed: int) -> Outcome:
    """One row that the server refuses, whatever batch it comes in: skipped there, counted, said, and in the file."""
    rng = random.Random(seed)
    outcome = Outcome()
    with served(folder, seed, rng, rng.choice((60.0, 300.0))) as site:
        site.proxy.refuse(MARK)
        pause(rng.uniform(0.0, 3.0))
        payload = b'{"symbol":"BTC_USDT","channel":"push.deal","data":{"note":"%s"},"ts":1700000000000}' % MARK
        until(lambda: site.sim.inject(Fault("frame", payload=payload)), 60, "a connection that the row can come over")
        found = "SELECT count() FROM ch_mexc.refused_rows"
        until(lambda: site.fetch(found) == [(1,)], 90, "the refused row to be found")
        outcome.happened("one row refused")
        outcome.notes["refusals"] = site.proxy.refused
        last = _last_seq(site.place)

        def goes_on() -> bool:
            status = site.place.status("store")
            return status is not None and status["symbols"]["btc"]["loaded_seq"] > last

        until(goes_on, 180, "loading after the refused row")
        site.conclude(outcome, refused=1, before_the_end=lambda: _is_said(site, outcome))
        held = sum(MARK in m.encode() for p in site.place.exports.glob("*.parquet") for m in _texts(p))
        outcome.expect(held == 1, f"the row refused by ClickHouse is in the files {held} times")
    return outcome


def _texts(path: Path) -> list[str]:
    texts: list[str] = pq.read_table(path, columns=["m"])["m"].to_pylist()
    return texts


def _is_said(site: Site, outcome: Outcome) -> None:
    """The row stands in the ledger (stored is one less than received) and in the verdict of its file."""
    _, said = site.place.run("ledger", "--json")
    stored = [entry for entry in json.loads(said)["entries"] if entry["stored"] is not None]
    short = sum(entry["stored"] == entry["received"] - 1 for entry in stored)
    outcome.expect(short == 1, f"the ledger shows {short} files with a row that ClickHouse refused")
    verdicts = [row[4] for row in site.fetch(LOGGED) if row[4] != "verified"]
    outcome.expect(verdicts == ["1 rows refused by ClickHouse"], f"export_log says {verdicts}")


def altered(folder: Path, seed: int) -> Outcome:
    """Sealed tables altered by hand before their files are exported: noticed, said, set apart and loaded again."""
    rng = random.Random(seed)
    outcome = Outcome()
    with served(folder, seed, rng, 200.0) as site:
        compared = until(lambda: _compared(site, 6), 90, "six sealed tables that were compared")
        tables = [f"btc_{file.removesuffix('.sqlite')}" for file in sorted(compared)[:5]]
        kinds = dict(zip(tables, rng.sample(list(ALTERATIONS), len(ALTERATIONS)), strict=True))
        for table, kind in kinds.items():
            ALTERATIONS[kind](site, f"ch_mexc.{table}", rng)
        status, said = site.place.run("verify", "clickhouse")
        outcome.expect(status == 1, f"verify clickhouse ended with {status} beside altered tables")
        for table, kind in kinds.items():
            # a table that is gone is no lie; it is loaded again
            told = kind == "dropped" or any(table in line and "FAIL" in line for line in said.splitlines())
            outcome.expect(told, f"verify clickhouse does not name {table}, {kind}: {said[-600:]}")
            outcome.happened(f"a sealed table {kind}")
        site.conclude(outcome)
        log = site.place.log.read_text(errors="replace")
        for table, kind in kinds.items():
            phrase = "sealed table is missing" if kind == "dropped" else "sealed table differs from its segment"
            told = any(phrase in line and f'"{table}"' in line for line in log.splitlines())
            outcome.expect(told, f"{table} was {kind}, and the log does not say so")
    return outcome


def _compared(site: Site, count: int) -> list[str]:
    names = [path.name for path in (site.place.data / "spool" / "btc").glob("*.sqlite")]
    try:
        found = dict(compared(load(site.place.config), "btc", names))
    except NotRunningError:
        return []  # not yet: it is starting
    return list(found) if len(found) >= count else []


def _rewrite(select: str) -> Callable[[Site, str, random.Random], None]:
    """Replaces a table by what ``select`` makes of it; StripeLog knows no ALTER."""

    def alter(site: Site, table: str, rng: random.Random) -> None:
        seqs = [row[0] for row in site.fetch(f"SELECT seq FROM {table} ORDER BY seq")]
        with_seq = select.format(table=table, seq=rng.choice(seqs))
        site.engine.client().execute(f"CREATE TABLE {table}_by_hand ENGINE = StripeLog AS {with_seq}")
        site.engine.client().execute(f"DROP TABLE {table}")
        site.engine.client().execute(f"RENAME TABLE {table}_by_hand TO {table}")

    return alter


ALTERATIONS: dict[str, Callable[[Site, str, random.Random], None]] = {
    "with a row's bytes altered": _rewrite(
        "SELECT ts, mt, if(seq = {seq}, concat(m, ' '), m) AS m, rx, seq FROM {table} ORDER BY seq"
    ),
    "with a row's time altered": _rewrite(
        "SELECT ts, mt, m, if(seq = {seq}, rx + 1, rx) AS rx, seq FROM {table} ORDER BY seq"
    ),
    "with a row deleted": _rewrite("SELECT ts, mt, m, rx, seq FROM {table} WHERE seq != {seq} ORDER BY seq"),
    "with a row twice": _rewrite(
        "SELECT * FROM (SELECT ts, mt, m, rx, seq FROM {table} UNION ALL "
        "SELECT ts, mt, m, rx, seq FROM {table} WHERE seq = {seq}) ORDER BY seq"
    ),
    "dropped": lambda site, table, _rng: site.engine.client().execute(f"DROP TABLE {table}"),
}


def forgotten(folder: Path, seed: int) -> Outcome:
    """ClickHouse's own records emptied, dropped or made with other columns by hand: nothing of
    either symbol stops, and ``export_log``, the index of the files, is written again from what the spool has. The
    store's lock is damaged, too, while nobody holds it."""
    rng = random.Random(seed)
    outcome = Outcome()
    with served(folder, seed, rng, 100.0, ids=("btc", "eth")) as site:
        neighbour = site.place.fork("collect", "eth")
        for symbol_id in site.place.ids:
            until(lambda i=symbol_id: len(list(site.place.spool.glob(f"{i}/*.sqlite"))) > 3, 60, "some segments")  # type: ignore[misc]
        outcome.expect(site.place.fork("export").wait(60) == 0, "the export failed")
        files = {p.name for p in site.place.exports.glob("*.parquet")}
        until(lambda: {row[0] for row in site.fetch(LOGGED)} >= files, 60, "every file in export_log")
        table, kind = rng.choice(RECORDS), rng.choice(tuple(FORGET))
        for statement in FORGET[kind]:
            site.engine.client().execute(statement.format(f"ch_mexc.{table}"))
        outcome.happened(f"{table} {kind}")
        store = site.store
        outcome.expect(end(store, 30) == 0, "the store did not end in order")
        outcome.happened(f"the store's lock {damage(site.place.data / 'store' / 'lock', rng, also=('a FIFO',))}")
        outcome.expect(end(neighbour) == 0, f"the collector of eth did not end in order: {site.place.said()[-500:]}")
        again = site._replace(store=site.place.start("store"))
        again.conclude(outcome)
    return outcome
