"""Trades held against the exchange's candles while connections end, the collector is killed and REST has no candles to
give: what was not taken or altered never differs."""

from __future__ import annotations

import random
import time
from pathlib import Path

from faults import channels
from faults.bench import Bench, Outcome, Process, bench, end, pause, settings_of
from mexc_pipeline.simulator import Fault, Simulator
from mexc_pipeline.simulator.faults import CHOICES
from support.waiting import until

ROUGH_S = 45
"""For so long connections end and the collector is killed."""
CALM_S = 130
"""For so long after it they do not: a whole minute with its edges, whenever it begins."""
LATE_S = 4.0
ENDS = (("reset", ""), ("abort", ""), ("close", "1001"), ("half", "fin"), ("half", "reset"))


def candles(folder: Path, seed: int) -> Outcome:
    """One collector that asks for candles every two seconds. In every third run there never are any; otherwise there
    are none, or they come late, at times, and the last answer is a good one. In some runs every channel is on, pushed
    candles and contracts that change among them."""
    rng = random.Random(seed)
    outcome = Outcome()
    never = seed % 3 == 2
    are_all_on = channels.are_all_on(seed) and not never  # of pushed candles there would be some
    table = channels.table(*channels.BOTH) if are_all_on else ""
    changes = channels.CONTRACTS if are_all_on else ()
    with (
        Simulator(settings_of(seed, rng.choice((60.0, 200.0)), changes)) as sim,
        bench(folder, sim, rng, period=rng.choice(("1m", "5s")), exchange=table, candles="2s") as place,
    ):
        place.exact = True
        if are_all_on:
            place.channels = channels.types(*channels.BOTH)
            channels.old_prices(sim)
            outcome.notes["channels"] = "all"
        if rng.random() < 0.5:
            sim.inject(Fault("resend_deals"))
        if never:
            answer = rng.choice([kind for kind in CHOICES["candles"] if kind != "none"])
            sim.inject(Fault("candles", value=answer))
            outcome.happened(f"never any candles: {answer}")
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 5)
        began = time.monotonic()
        while (gone_s := time.monotonic() - began) < ROUGH_S + CALM_S:
            collector = _episode(place, sim, collector, rng, outcome, rough=gone_s < ROUGH_S)
            pause(rng.uniform(2.0, 8.0))
        if not never:
            _ask_again(sim)
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
        if never:
            place.judge(outcome)  # the end of faults would bring candles
            outcome.expect(not outcome.notes["minutes agree"], "minutes agree without candles")
        else:
            place.settle(outcome)
            outcome.expect(outcome.notes["minutes agree"] > 0, "no minute agrees")
    return outcome


def _ask_again(sim: Simulator) -> None:
    """Wait until candles were given once more, whole."""
    sim.clear_faults()
    asked = sim.asked("/api/v1/contract/kline/BTC_USDT")
    until(lambda: sim.asked("/api/v1/contract/kline/BTC_USDT") >= asked + 2, 90, "candles")


def _episode(
    place: Bench, sim: Simulator, collector: Process, rng: random.Random, outcome: Outcome, *, rough: bool
) -> Process:
    what = rng.choice(("packed", "no candles", "no candles", "late", *(("ended", "ended", "killed") if rough else ())))
    seconds = rng.uniform(1.0, 4.0)
    match what:
        case "ended":
            kind, value = rng.choice(ENDS)
            sim.inject(Fault(kind, value=value))
            what = f"{kind} {value}".strip()
        case "killed":
            collector.kill()
            collector.wait(10)
            collector = place.fork("collect", "btc")
        case "packed":
            packings = (
                "gzip",
                "zlib",
                "deflate",
                *(("binary",) if rough else ()),
            )  # of the last nobody knows what it is
            sim.inject(Fault("shape", value=rng.choice(packings), seconds=seconds))
        case "no candles":
            kind = rng.choice(CHOICES["candles"])
            sim.inject(Fault("candles", value=kind, seconds=seconds))
            what = f"no candles: {kind}"
        case _:
            sim.inject(Fault("rest_slow", delay=LATE_S, seconds=seconds))
            what = "answers late"
    outcome.happened(what)
    place.recorded(collector, 5)
    return collector
