"""Disks that are really full: a small tmpfs in the place of a folder, filled to the last byte and given room again.

The preloaded library can fail any call of the recorder's own processes; the embedded engine makes its calls past it,
and a real file system fails in the order and at the sizes of its own choosing.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from faults.bench import Bench, Outcome, Process, bench, end, pause
from faults.oracle import Verdict, read_files
from faults.scenarios.clickhouse import answers, conclude, query
from faults.scenarios.tables import served
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.small_disk import MIB, small_disk, take
from support.waiting import until

EPISODES = 3
PERIOD = "4s"
LEFT = (0, 0, 4096, 100_000, MIB)
"""Bytes that are left."""
RESERVE = 4 * MIB
"""Of the bench."""
FULL = "stopped: spool full"
KILLED_NS = 20 * 10**9
"""What waits for room when a process is killed was received and is lost: at most the seconds until the feed stops."""


@contextlib.contextmanager
def filled(folder: Path, leave: int) -> Iterator[None]:
    """Nobody can write much more than ``leave`` bytes there meanwhile."""
    ballast = take(folder, leave)
    try:
        yield
    finally:
        ballast.unlink()


def mounts(folder: Path, seed: int) -> Outcome:
    """By turns the exports, the embedded engine and the server on a disk that fills up."""
    rng = random.Random(seed)
    return (_exports, _embedded, _server)[seed % 3](folder, seed, rng)


def _exports(folder: Path, seed: int, rng: random.Random) -> Outcome:
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=300.0, seed=seed)) as sim,
        bench(folder, sim, rng) as place,
        _in_place_of(place.exports, 4),
    ):
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 20)
        for _ in range(EPISODES * 2):
            done = _names(place)
            until(lambda done=done: len(_closed(place)) > len(done), 30, "a segment to export")  # type: ignore[misc]
            with filled(place.exports, rng.choice(LEFT[:3])):
                status = place.fork("export").wait(60)
                outcome.expect(status == 1, f"export onto a full disk ended with {status}")
                outcome.expect(_names(place) == done, "a file appeared on a full disk")
            outcome.happened("disk of the exports full")
            status = place.fork("export").wait(60)
            outcome.expect(status == 0, f"export with room again ended with {status}: {place.said()[-400:]}")
        outcome.expect("Traceback" not in place.said(), f"a traceback: {place.said()[-800:]}")
        collector.send_signal(15)
        outcome.expect(collector.wait(20) == 0, "the collector did not end in order")
        place.settle(outcome)
    return outcome


def _in_place_of(folder: Path, mib: int) -> contextlib.AbstractContextManager[None]:
    folder.rmdir()  # there and empty
    return small_disk(folder, mib)


def _names(place: Bench) -> set[str]:
    return {path.name for path in place.exports.glob("*.parquet")}


def _closed(place: Bench) -> list[Path]:
    """The segments but for the newest."""
    return sorted(place.spool.glob("btc/*.sqlite"))[:-1]


def _embedded(folder: Path, seed: int, rng: random.Random) -> Outcome:
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((60.0, 300.0)), seed=seed)) as sim,
        bench(folder, sim, rng, period=PERIOD, clickhouse='[clickhouse]\nmode = "embedded"\n') as place,
    ):
        where = place.data / "clickhouse"
        with small_disk(where, 96):
            store, collector = place.start("store"), place.fork("collect", "btc")
            place.witness.start()
            place.recorded(collector, 20)
            for _ in range(EPISODES):
                answers(place)
                store = _fill(place, where, store, rng, outcome, "disk of the embedded engine full")
                place.recorded(collector, 1)
            conclude(place, collector, store, outcome, lambda sql: query(place, sql))
    return outcome


def _server(folder: Path, seed: int, rng: random.Random) -> Outcome:
    outcome = Outcome()
    with (
        small_disk(folder / "clickhouse" / "data", 48),
        served(folder, seed, rng, rng.choice((60.0, 300.0))) as site,
    ):
        store = site.store
        for _ in range(EPISODES):
            store = _fill(site.place, site.engine.data, store, rng, outcome, "disk of the server full")
            site.place.recorded(site.collector, 1)
        site._replace(store=store).conclude(outcome)
    return outcome


def _fill(place: Bench, where: Path, store: Process, rng: random.Random, outcome: Outcome, step: str) -> Process:
    """Fill it for some seconds, now and then with the store killed and started meanwhile."""
    pause(rng.uniform(0.5, 2.0))
    with filled(where, rng.choice(LEFT)):
        pause(rng.uniform(1.0, 4.0))
        if rng.random() < 0.3:
            store.kill()
            store.wait(10)
            store = place.start("store")
            pause(rng.uniform(1.0, 4.0))
            step += ", the store started on it"
    if store.poll() is not None:  # it may refuse to start on a full disk; a supervisor starts it again
        outcome.notes["store ended"] = outcome.notes.get("store ended", 0) + 1
        store = place.start("store")
    outcome.happened(step)
    return store


def spool(folder: Path, seed: int) -> Outcome:
    """The spool's disk filled up, at once or by the recording itself, with the collector killed there now and then: it
    stops the feed in good order, says so, and goes on by itself."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((100.0, 400.0)), seed=seed)) as sim,
        bench(folder, sim, rng, keep="1s") as place,
        _in_place_of(place.data, 64),
    ):
        place.witness.start()
        collector, killed = place.fork("collect", "btc"), False
        for _ in range(EPISODES + 1):
            place.recorded(collector, 20)
            leave = rng.choice((0, 0, RESERVE // 8, RESERVE // 4 + 200_000))
            with filled(place.data, leave):
                if rng.random() < 0.3:
                    pause(rng.uniform(0.0, 8.0))
                else:
                    _stops(place)
                if kill := rng.random() < 0.4:
                    collector.kill()
                    collector.wait(10)
                    collector = place.fork("collect", "btc")
                    _stops(place)
                killed |= kill
            outcome.happened(
                f"spool full {'at once' if leave < RESERVE // 4 else 'little by little'}{', killed' * kill}"
            )
            outcome.expect(place.fork("export").wait(60) == 0, "the export failed")
        place.recorded(collector, 20)
        outcome.expect(end(collector) == 0, f"the collector did not end in order: {place.said()[-500:]}")
        outcome.expect("Traceback" not in place.said(), f"a traceback: {place.said()[-800:]}")
        place.settle(outcome, **({"tail_ns": KILLED_NS} if killed else {}))
        said = [json.loads(row.m) for row in read_files(place.exports, "btc", Verdict()) if row.mt == "ev"]
        told = sum(e["event"] == "spool_low" and e["level"] == "full" for e in said)
        outcome.expect(told > 0, "no spool_low row tells of a full disk")
        outcome.notes["told"] = told
    return outcome


def _stops(place: Bench) -> None:
    until(lambda: (place.status() or {}).get("state") == FULL, 60, "the feed to stop")
