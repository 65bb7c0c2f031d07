"""Disks that are really full: a small tmpfs in the place of a folder, filled to the last byte and given room again.

The preloaded library can fail any call of the recorder's own processes; the embedded engine makes its calls past it,
and a real file system fails in the order and at the sizes of its own choosing.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from faults.bench import Bench, Outcome, Process, bench, pause
from faults.scenarios.clickhouse import answers, conclude, query
from faults.scenarios.tables import served
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.waiting import until

EPISODES = 3
MIB = 1 << 20
PERIOD = "4s"
LEFT = (0, 0, 4096, 100_000, MIB)
"""Bytes that the filler leaves."""


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of that many bytes in the place of a folder, with what the folder held."""
    if os.geteuid():
        raise PermissionError("mounting a small disk takes root")
    held = folder.with_name(f"{folder.name}.held")
    folder.rename(held)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{held}/.", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: Path, leave: int) -> Iterator[None]:
    """Nobody can write more than ``leave`` bytes there meanwhile."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(64 << 10)):
                    pass
            with contextlib.suppress(OSError):
                while file.write(bytes(512)):
                    pass
            file.truncate(max(0, file.tell() - leave))
        yield
    finally:
        filler.unlink(missing_ok=True)


def mounts(folder: Path, seed: int) -> Outcome:
    """By turns the exports, the embedded engine and the server on a disk that fills up."""
    rng = random.Random(seed)
    return (_exports, _embedded, _server)[seed % 3](folder, seed, rng)


def _exports(folder: Path, seed: int, rng: random.Random) -> Outcome:
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=300.0, seed=seed)) as sim,
        bench(folder, sim, rng) as place,
        small_disk(place.exports, 4 * MIB),
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
        where.mkdir()
        with small_disk(where, 96 * MIB):
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
    (folder / "clickhouse" / "data").mkdir(parents=True)
    with (
        small_disk(folder / "clickhouse" / "data", 48 * MIB),
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
