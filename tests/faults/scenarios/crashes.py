"""kill -9 of collector and exporter at seeded calls, and the same with the power going too."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Iterator
from pathlib import Path

from faults.bench import EXPORTS, SPOOL, Bench, Outcome, Process, bench, pause, settings_of
from faults.shim import Kill, Op, Where
from mexc_pipeline.simulator import Simulator
from support.scheduling import Scheduling, spinning
from support.waiting import until

BUSY, BUSY_ROUNDS, BUSY_S = 8, 12, 4.0
BUSY_DUE = 20
"""At least so many frames a round must have been due on the disk."""
DURABLE_NS = 250_000_000
"""From receipt to the disk, from a process's first frame on; what the machine's scheduling held back in that moment
comes on top."""
COLLECTOR_ROUNDS, EXPORTER_ROUNDS, MIXED_ROUNDS = 14, 10, 2
POWER_ROUNDS = 12
ALIVE_S = 3.0
"""A process that did not reach its point by then is killed where it happens to be."""

# (calls, ending, how many such calls there are in a few seconds)
COLLECTOR: tuple[tuple[tuple[Op, ...], str, int], ...] = (
    ((Op.WRITE,), "-wal", 200),
    ((Op.SYNC,), "-wal", 60),
    ((Op.CREATE, Op.WRITE, Op.SYNC), ".new", 12),
    ((Op.WRITE, Op.SYNC, Op.CREATE, Op.UNLINK), "-journal", 8),
    ((Op.LINK,), ".sqlite", 2),
    ((Op.UNLINK,), ".new", 2),
    ((Op.DIRSYNC,), "", 6),
    ((Op.CREATE,), "-wal", 2),
    ((Op.WRITE, Op.SYNC), ".sqlite", 20),
    ((Op.TRUNCATE,), "-wal", 2),
    ((Op.UNLINK,), "-wal", 2),
    ((Op.UNLINK,), ".sqlite", 3),
    ((Op.WRITE, Op.TRUNCATE, Op.MKDIR), "", 6),
)
EXPORTER: tuple[tuple[tuple[Op, ...], str, int], ...] = (
    ((Op.CREATE,), ".tmp", 2),
    ((Op.WRITE,), ".tmp", 6),
    ((Op.SYNC,), ".tmp", 2),
    ((Op.LINK,), ".parquet", 2),
    ((Op.UNLINK,), ".tmp", 2),
    ((Op.DIRSYNC,), "", 3),
    ((Op.WRITE, Op.SYNC), "-wal", 4),
    ((Op.WRITE, Op.SYNC), ".sqlite", 4),
    ((Op.CREATE, Op.TRUNCATE, Op.UNLINK), "-wal", 3),
)


def point(rng: random.Random, places: tuple[tuple[tuple[Op, ...], str, int], ...]) -> Kill:
    """A seeded point: first a step, so that rare ones are reached as often as the many, then one of its calls."""
    ops, ending, calls = rng.choice(places)
    nth = rng.randint(1, calls)
    return Kill(ops, nth, rng.choice(list(Where)), ending, (SPOOL, EXPORTS))


def kills(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """Collector and exporter killed again and again over one data folder: the one, then the other, then both."""
    rng, stores = random.Random(seed), random.Random(f"{seed} stores")
    outcome = Outcome()
    with _place(folder, seed, rng, outcome) as place:
        place.witness.start()
        for _ in range(round(COLLECTOR_ROUNDS * size)):
            how, after_s = _store(stores)
            outcome.notes[f"store {how}"] = outcome.notes.get(f"store {how}", 0) + 1
            with place.store_is(how, after_s):
                _ended(place, place.fork("collect", "btc", kill=point(rng, COLLECTOR)), outcome, "collector")
        for _ in range(round(EXPORTER_ROUNDS * size)):
            _ended(place, place.fork("export", kill=point(rng, EXPORTER)), outcome, "exporter")
        for _ in range(round(MIXED_ROUNDS * size)):
            collector = place.fork("collect", "btc", kill=point(rng, COLLECTOR))
            _ended(place, place.fork("export", kill=point(rng, EXPORTER)), outcome, "exporter")
            _ended(place, collector, outcome, "collector")
        place.settle(outcome)
    return outcome


def busy(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """Collectors killed at random moments of their first seconds, beside processes that take all there is."""
    rng = random.Random(seed)
    outcome = Outcome()
    rounds = round(BUSY_ROUNDS * size)
    with _place(folder, seed, rng, outcome) as place, spinning(BUSY):
        place.scheduling = Scheduling(folder / "waits")
        place.witness.start()
        for _ in range(rounds):
            how, after_s = _store(rng)
            with place.store_is(how, after_s):
                before = len(place.sim.connections)
                collector = place.fork("collect", "btc")
                until(lambda: len(place.sim.connections) > before or collector.poll() is not None, 60)  # noqa: B023
                pause(rng.random() * BUSY_S)
                collector.kill()
                collector.wait(10)
            outcome.happened(f"collector: at a random moment, the store {how}")
        place.settle(outcome, tail_ns=DURABLE_NS, late_ns=DURABLE_NS)
    due = outcome.verdict.due
    outcome.expect(due >= BUSY_DUE * rounds, f"only {due} frames were due in {rounds} rounds: the run shows nothing")
    return outcome


def _store(rng: random.Random) -> tuple[str, float]:
    """What a collector finds in the store's place, and after how long that answers: until it has, rows wait for their
    numbers, and those that a kill leaves are the next one's to number."""
    return rng.choice(("away", "away", "late", "silent")), rng.uniform(0.2, 2.0)


def power(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """The same, and each time the file system loses what was not synced."""
    rng = random.Random(seed)
    outcome = Outcome()
    with _place(folder, seed, rng, outcome, journal=True) as place:
        for number in range(round(POWER_ROUNDS * size)):
            place.witness.start()
            with_export = number > 2 and rng.random() < 0.5
            before = len(place.crashes())
            last = place.fork("collect", "btc", kill=None if with_export else point(rng, COLLECTOR))
            if with_export:
                place.recorded(last, 1)
                last = place.fork("export", kill=point(rng, EXPORTER))
            place.died(last, ALIVE_S)
            outcome.expect(last.returncode in (0, -9), f"ended with {last.returncode}: {place.said()[-400:]}")
            place.lose_power(outcome)
            dead = place.crashes()[before:]
            outcome.happened(f"power lost: {dead[0].step}" if dead else "power lost: at a random moment")
        place.settle(outcome)
    return outcome


@contextlib.contextmanager
def _place(folder: Path, seed: int, rng: random.Random, outcome: Outcome, *, journal: bool = False) -> Iterator[Bench]:
    rate = rng.choice((60.0, 200.0, 600.0))
    keep = rng.choice(("24h", "1s"))
    outcome.notes |= {"rate": rate, "spool_keep": keep}
    with (
        Simulator(settings_of(seed, rate)) as sim,
        bench(folder, sim, rng, keep=keep, journal=journal) as place,
    ):
        place.all_trades = True
        yield place


def _ended(place: Bench, process: Process, outcome: Outcome, who: str) -> None:
    """Wait for a process's end, kill it where it outlives its point, and count the crash by its step."""
    place.died(process, ALIVE_S)
    if process.returncode == -signal.SIGKILL:
        mine = [c for c in place.crashes() if c.pid == process.pid]
        outcome.happened(f"{who}: {mine[-1].step}" if mine else f"{who}: at a random moment")
    elif who == "collector" or process.returncode != 0:
        outcome.expect(False, f"{who} ended with {process.returncode}: {place.said()[-400:]}")
