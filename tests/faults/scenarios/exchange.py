"""An exchange that changes: a channel it no longer serves, compressed frames, sessions it ends, handshakes and details
it answers in words. The other channels are recorded through all of it."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from faults import channels
from faults.bench import Bench, Outcome, Process, bench, end, pause, settings_of
from faults.oracle import Verdict, read_files
from mexc_pipeline.simulator import Fault, Simulator
from support.waiting import until

EPISODES = 14
CHANNELS = ("ticker", "deal", "depth.full")
RETIRED = ("silent", "ack", "sub.{} has ended", "param error")
GIVEN_UP_S = 60.0
"""Twice asked in vain on one connection and, at most, on a second."""
DETAILS_S = 8.0
DETAILS = ("1001", "510", "empty", "missing", "html", "garbage")
NO_MESSAGES = (0, 3, 7, 11, 15)
"""Opcodes of frames that are none, or nobody knows."""
REFUSALS = (
    ("429", "Retry-After: 1"),
    ("503", "Retry-After: 1"),
    ("503", ""),
    ("302", "Location: /elsewhere"),
    ("200", ""),
    ("403", ""),
)


def exchange(folder: Path, seed: int) -> Outcome:
    """One collector whose exchange has retired a channel; the rest goes wrong while that is given up. In some runs
    every channel is on, and one that has no key of its own is retired too."""
    rng = random.Random(seed)
    are_all_on = channels.are_all_on(seed)
    table = channels.table(*channels.BOTH) if are_all_on else ""
    changes = channels.CONTRACTS if are_all_on else ()
    outcome = Outcome()
    channel, how = rng.choice(CHANNELS), rng.choice(RETIRED)
    retired = Fault("retired", channel=channel, value=how.format(channel))
    with (
        Simulator(settings_of(seed, rng.choice((60.0, 200.0)), changes)) as sim,
        bench(folder, sim, rng, period="5s", exchange=f'ping_interval = "2s"{table}', candles="2s") as place,
    ):
        sim.inject(retired)
        place.exact = channel != "deal"  # one that is confirmed and silent may as well have no trades
        if are_all_on:
            place.channels = channels.types(*channels.BOTH)
            channels.old_prices(sim)
            sim.inject(Fault("retired", channel="depth.step"))
            outcome.notes["channels"] = "all"
        # Whether it lists the symbol is asked until it says so, and then no more.
        answer = rng.choice(DETAILS)
        sim.inject(Fault("detail", value=answer, seconds=DETAILS_S))
        outcome.happened(f"answers about the contract: {answer}")
        if rng.random() < 0.5:
            sim.inject(Fault("rest_gzip"))
            outcome.happened("answers compressed")
        place.witness.start()
        collector = place.fork("collect", "btc")
        place.recorded(collector, 5)
        for _ in range(EPISODES // 2):
            _episode(place, sim, rng, outcome)
            outcome.expect(collector.poll() is None, "the collector ended")
        until(lambda: (place.status() or {}).get("listing") == "listed", 60, "the contract to be known by REST")
        if are_all_on:
            _given_up(place, "push.depth.step")
            outcome.happened("silent depth.step")
        if how != "ack":  # one that was confirmed is missed by its pace, which takes minutes
            _given_up(place, f"push.{channel}")
            outcome.happened(f"{how} {channel}" if " " not in how else f"refused {channel}")
        for _ in range(EPISODES // 2):
            _episode(place, sim, rng, outcome)
        _comes_back(place, sim, collector, channel, outcome)
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
        place.settle(outcome)
        _judge_connections(place, outcome)
    return outcome


def _given_up(place: Bench, channel: str) -> None:
    def so() -> bool:
        status = place.status()
        return status is not None and "given_up" in status["channels"].get(channel, {})

    until(so, GIVEN_UP_S, f"{channel} given up")


def _episode(place: Bench, sim: Simulator, rng: random.Random, outcome: Outcome) -> None:
    """Something happens for a moment, and what the exchange delivers is recorded through it and after it."""
    seconds = rng.uniform(0.3, 1.5)
    what = rng.choice(("packed", "packed", "closed", "limit", "refused", "refused", "error", "opcode"))
    match what:
        case "packed":
            packing = rng.choice(("gzip", "zlib", "deflate", "binary"))
            sim.inject(Fault("shape", value=packing, seconds=seconds))
            what = f"packed by {packing}"
            pause(seconds)
        case "opcode":
            for opcode in rng.choices(NO_MESSAGES, k=5):
                payload = rng.choice((b"", b"new", gzip.compress(b'{"channel":"push.deal","symbol":"BTC_USDT"}')))
                sim.inject(Fault("frame", opcode=opcode, payload=payload, value="odd"))
        case "closed":
            sim.inject(Fault("close", value=rng.choice(("1000", "1001", "1012"))))
        case "limit":
            sim.inject(Fault("session_limit", value="1", seconds=seconds + 1))
            pause(seconds + 1)
        case "refused":
            status, headers = rng.choice(REFUSALS)
            sim.inject(
                Fault("refuse_handshake", value=status, headers=headers, seconds=seconds, payload=b"<h1>\x1b[2J")
            )
            sim.inject(Fault("reset"))
            what = f"handshake {status}"
        case "error":
            sim.inject(Fault("rs_error", value=rng.choice(("no", "Contract [BTC_USDT] not exists", "\x1b[2J"))))
    outcome.happened(what)
    before = _rows(place)
    until(lambda: _rows(place) > before + 15, 90, f"recording after {what}")


def _rows(place: Bench) -> int:
    status = place.status()
    return sum(status["rows"][name] for name in ("t", "d", "dp", "dl")) if status is not None else -1


def _comes_back(place: Bench, sim: Simulator, collector: Process, channel: str, outcome: Outcome) -> None:
    """The channel is served again: a new connection has it at once."""
    sim.clear_faults()
    sim.inject(Fault("abort"))
    name = f"push.{channel}"

    def so() -> bool:
        status = place.status()
        known = (status or {"channels": {}})["channels"].get(name, {})
        return known.get("confirmed") in ("ack", "data") and ("given_up" not in known)

    until(so, 60, f"{name} back")
    outcome.happened("back again")
    outcome.expect(collector.poll() is None, "the collector ended")


def _judge_connections(place: Bench, outcome: Outcome) -> None:
    """At most one connection was left for the sake of the channel."""
    rows = read_files(place.exports, "btc", Verdict())
    events = [json.loads(row.m) for row in rows if row.mt == "ev"]
    left = [e["reason"] for e in events if e["event"] == "stalled" and "reason" in e]
    outcome.expect(len(left) <= 1, f"connections were left for {left}")
