"""Standard error goes away under a collector and under a whole ``run``: in every way, at a seeded moment."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from faults.bench import Bench, Outcome, bench, end, pause
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from support.streams import WAYS, Stream, stream
from support.waiting import until

RUN_END_S = 120.0


def output(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """A collector for each way, with connections that end so that it has much to say; then a ``run``."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((60.0, 300.0)), seed=seed)) as sim,
        bench(folder, sim, rng, period="10s") as place,
    ):
        place.witness.start()
        ways = list(WAYS)
        rng.shuffle(ways)
        for way in ways[: max(1, round(len(ways) * size))]:
            with stream(way) as errors:
                _collect(place, errors, rng, outcome)
        with stream(rng.choice(WAYS)) as errors:
            _run(place, errors, rng, outcome)
        place.settle(outcome)
    return outcome


def _collect(place: Bench, errors: Stream, rng: random.Random, outcome: Outcome) -> None:
    collector = place.start("--debug", "collect", "btc", errors=errors)
    place.recorded(collector, rng.randint(1, 30))
    pause(rng.uniform(0.0, 0.3))
    errors.go_away()
    outcome.happened(f"collect: {errors.way}")
    if rng.random() < 0.5:
        place.sim.inject(Fault(kind=rng.choice(("close", "reset", "bad_json"))))
    _goes_on(place, errors.way)
    status = end(collector)
    outcome.expect(status == 0, f"the collector ended with {status} after its standard error was {errors.way}")


def _run(place: Bench, errors: Stream, rng: random.Random, outcome: Outcome) -> None:
    run = place.start("run", errors=errors)
    place.recorded(run, rng.randint(1, 60))
    pause(rng.uniform(0.0, 0.3))
    errors.go_away()
    outcome.happened(f"run: {errors.way}")
    _goes_on(place, errors.way)
    try:
        status = end(run, RUN_END_S)
    except subprocess.TimeoutExpired:
        outcome.expect(False, f"run did not end after its standard error was {errors.way}")
        return
    outcome.expect(status == 0, f"run ended with {status} after its standard error was {errors.way}")


def _goes_on(place: Bench, way: str) -> None:
    before = (place.status() or {"last_seq": 0})["last_seq"]

    def more() -> bool:
        status = place.status()
        return status is not None and status["last_seq"] > before + 20

    until(more, 60, f"recording after standard error was {way}")
