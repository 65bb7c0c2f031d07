"""Disk full, read-only and failing, for the spool and for the exports: waited out, said, and nothing lost."""

from __future__ import annotations

import random
from pathlib import Path

from faults.bench import EXPORTS, SPOOL, Bench, Outcome, bench, end, pause
from faults.shim import DISK_FULL, IO_ERROR, READ_ONLY, Op
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.waiting import until

EPISODES = 6
REFUSED_S = 5.0
"""After so long without a commit the feed is to be stopped."""
TROUBLES: dict[str, tuple[int, tuple[Op, ...]]] = {
    "full": (DISK_FULL, (Op.WRITE, Op.CREATE, Op.MKDIR, Op.LINK)),
    "full when syncing": (DISK_FULL, (Op.SYNC, Op.DIRSYNC)),
    "read-only": (READ_ONLY, (Op.WRITE, Op.CREATE, Op.OPEN, Op.LINK, Op.UNLINK, Op.TRUNCATE, Op.MKDIR, Op.RENAME)),
    "failing writes": (IO_ERROR, (Op.WRITE, Op.TRUNCATE)),
    "failing syncs": (IO_ERROR, (Op.SYNC, Op.DIRSYNC)),
    "failing names": (IO_ERROR, (Op.CREATE, Op.LINK, Op.UNLINK)),
}


def disk(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """A collector records through troubles of its disk; exports fail beside it and are made up for."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((60.0, 300.0)), seed=seed)) as sim,
        bench(folder, sim, rng) as place,
    ):
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 5)
        for _ in range(round(EPISODES * size)):
            name = rng.choice(list(TROUBLES))
            if rng.random() < 0.65:
                _spool(place, rng, name, outcome)
                outcome.expect(collector.poll() is None, f"spool {name}: the collector ended: {place.said()[-400:]}")
            else:
                _exports(place, rng, name, outcome)
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
        place.settle(outcome)
    return outcome


def _spool(place: Bench, rng: random.Random, name: str, outcome: Outcome) -> None:
    number, ops = TROUBLES[name]
    before = (place.status() or {}).get("last_seq", 0)
    place.control.fail(number, ops, (SPOOL,), skip=rng.choice((0, 0, 1, 2, 5, 20)), short=rng.random() < 0.5)
    if rng.random() < 0.25:
        name += _lasting(place, outcome, name)
    else:
        pause(rng.uniform(0.3, 3.0))
    if place.control.heal():
        outcome.happened(f"spool {name}")

    def goes_on() -> bool:
        status = place.status()
        return status is not None and status["last_seq"] > before + 10

    until(goes_on, 60, f"recording after spool {name}")


def _lasting(place: Bench, outcome: Outcome, name: str) -> str:
    """Longer than what is received may stand in memory: the feed is stopped by then, whatever the reason."""
    pause(1.0)
    refused = (place.status() or {}).get("trouble")
    pause(REFUSED_S + 2.5)
    status = place.status() or {}
    if refused and status.get("trouble"):
        outcome.expect(str(status["state"]).startswith("stop"), f"spool {name} for long: {status['state']}")
        return ", for long"
    return ""


def _exports(place: Bench, rng: random.Random, name: str, outcome: Outcome) -> None:
    number, ops = TROUBLES[name]
    until(lambda: len(list(place.spool.glob("btc/*.sqlite"))) > 1, 30, "a segment to export")
    before = {p.name: p.stat().st_size for p in place.exports.glob("*.parquet")}
    place.control.fail(number, ops, (EXPORTS,), skip=rng.choice((0, 0, 1, 2, 3)), short=rng.random() < 0.5)
    exporter = place.fork("export")
    status = exporter.wait(60)
    failed = place.control.heal()
    if failed:
        outcome.happened(f"exports {name}")
        outcome.expect(
            status == 1 or name in ("failing names", "read-only"),
            f"export on a disk that is {name} ended with {status}",
        )
    after = {p.name: p.stat().st_size for p in place.exports.glob("*.parquet")}
    outcome.expect(before.items() <= after.items(), f"exports {name}: a file was changed or removed")
    outcome.expect("Traceback" not in place.said(), f"exports {name}: a traceback: {place.said()[-800:]}")
