"""A clock that steps and slews under a recording: rx never goes back, no row joins a period that is closed."""

from __future__ import annotations

import random
import time
from pathlib import Path

from faults.bench import Bench, Outcome, bench, end, pause
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.waiting import until

EPISODES = 6
HOUR_NS = 3600 * 10**9
PERIOD_S = 2


def clock(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """Steps of an hour and of less, at edges and elsewhere, slews; the collector killed and started in between."""
    rng = random.Random(seed)
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=rng.choice((60.0, 300.0)), seed=seed)) as sim,
        bench(folder, sim, rng, period=f"{PERIOD_S}s") as place,
    ):
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 5)
        offset = 0
        for _ in range(round(EPISODES * size)):
            offset, name = _step(place, rng, offset)
            outcome.happened(name)
            if rng.random() < 0.25:
                collector.kill()
                collector.wait(10)
                collector = place.fork("collect", "btc")
                place.recorded(collector, 5)
            elif rng.random() < 0.3:
                status = place.fork("export").wait(60)
                outcome.expect(status == 0, f"export after {name} ended with {status}: {place.said()[-400:]}")
            _goes_on(place, name)
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
        place.settle(outcome)
    return outcome


def _step(place: Bench, rng: random.Random, offset: int) -> tuple[int, str]:
    kind = rng.choice(("forward", "back", "little back", "at the edge", "over the edge", "slew"))
    slew = 0
    match kind:
        case "forward":
            offset += HOUR_NS
        case "back":
            offset -= HOUR_NS
        case "little back":
            offset -= rng.randint(1, 5 * 10**9)
        case "at the edge" | "over the edge":
            now = time.time() + offset / 1e9
            left = PERIOD_S - now % PERIOD_S
            pause(max(0.0, left - rng.uniform(0.0, 0.02)) if kind == "at the edge" else left + rng.uniform(0, 0.02))
            offset += rng.choice((-1, 1)) * rng.randint(10**6, 3 * 10**9)
        case _:
            slew = rng.choice((-1, 1)) * rng.choice((500_000, 50_000_000))
    place.control.clock(offset, slew)
    if slew:
        pause(1.0)
    return offset, kind


def _goes_on(place: Bench, name: str) -> None:
    before = (place.status() or {"last_seq": 0})["last_seq"]

    def more() -> bool:
        status = place.status()
        return status is not None and status["last_seq"] > before + 10

    until(more, 60, f"recording after a step {name}")
