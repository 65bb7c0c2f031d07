"""A disk that takes its time over commits, across the edges of periods and over cuts: rows keep their times, their
order and their period, and an orderly end waits for them."""

from __future__ import annotations

import random
import time
from pathlib import Path

from faults.bench import EXPORTS, SPOOL, Bench, Outcome, bench, end
from faults.shim import Op
from mexc_pipeline.control import ask
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.waiting import until

EPISODES = 12
PERIOD_S = 2
LONGEST_S = 3.0
WHAT: dict[str, tuple[Op, ...]] = {
    "syncs": (Op.SYNC,),
    "writes": (Op.WRITE,),
    "names": (Op.CREATE, Op.LINK, Op.UNLINK, Op.DIRSYNC),
    "anything": (Op.WRITE, Op.SYNC, Op.DIRSYNC, Op.CREATE, Op.LINK, Op.UNLINK, Op.TRUNCATE),
}


def slow(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """One collector; slow calls at seeded moments, most of them so that a period ends meanwhile; in some of them a cut,
    an export beside, or the collector's orderly end."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((60.0, 300.0)), seed=seed)) as sim,
        bench(folder, sim, rng, period=f"{PERIOD_S}s") as place,
    ):
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 5)
        for _ in range(round(EPISODES * size)):
            name = _slow_down(place, rng)
            match rng.choice(("on", "on", "cut", "cut", "export", "end")):
                case "cut":
                    name += " over a cut"
                    ask(place.data / "control" / "btc.sock", "cut", timeout_s=30)
                case "export":
                    name += " beside an export"
                    status = place.fork("export").wait(90)
                    outcome.expect(status == 0, f"slow {name}: export ended with {status}: {place.said()[-400:]}")
                case "end":
                    name += " at an end"
                    status = end(collector)
                    outcome.expect(
                        status == 0, f"slow {name}: the collector ended with {status}: {place.said()[-400:]}"
                    )
                    collector = place.fork("collect", "btc")
                case _:
                    pass
            _goes_on(place, name)
            if place.control.quicken():
                outcome.happened(f"slow {name}")
            outcome.expect(collector.poll() is None, f"slow {name}: the collector ended: {place.said()[-400:]}")
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
        place.settle(outcome)
    return outcome


def _slow_down(place: Bench, rng: random.Random) -> str:
    """From a moment near a period's edge on, one to three calls take up to ``LONGEST_S`` in all."""
    name = rng.choice(list(WHAT))
    count = rng.choice((1, 1, 1, 2, 3))
    length_s = rng.uniform(0.2, LONGEST_S) / count
    if rng.random() < 0.7:  # so that the edge comes while it lasts, or just before or after
        before_s = rng.uniform(-0.1, min(length_s, PERIOD_S))
        time.sleep((-before_s - time.time()) % PERIOD_S)
    else:
        time.sleep(rng.uniform(0.0, PERIOD_S))
    skip = rng.choice((0, 0, 0, 1, 2, 5))
    place.control.slow(int(length_s * 1e9), WHAT[name], (SPOOL, EXPORTS), skip=skip, count=count)
    return name


def _goes_on(place: Bench, name: str) -> None:
    before = (place.status() or {}).get("last_seq", 0)

    def so() -> bool:
        status = place.status()
        return status is not None and status["last_seq"] > before + 10

    until(so, 60, f"recording after slow {name}")
