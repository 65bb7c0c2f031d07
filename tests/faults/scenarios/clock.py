"""A clock that steps and slews under a recording, by milliseconds and by years, at a start and later, over TLS too.

After each: recording goes on at once, files prove, the ledger has no hole, nothing is pruned by age, the store loads
what comes and finds its tables equal, and a process started by that clock records too. At the end: every frame once, in
order, with the time that the false clock showed when it came; no row in another period's file; and in half of the runs
a store that begins anew holds it all.
"""

from __future__ import annotations

import json
import random
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from faults.bench import Bench, Outcome, Process, bench, end, pause
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.peers import certificates
from support.waiting import until

EPISODES = 6
SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
PERIOD_S = 2
VALID_DAYS = 20
FAR = (8 * HOUR_NS, DAY_NS, 30 * DAY_NS, 400 * DAY_NS, 4000 * DAY_NS)
EACH_S = 4
"""What the store may take to load, compare and log a segment, on a machine that has more to do."""
FARTHEST = 35_000 * DAY_NS
"""Where 62 bits of nanoseconds are not enough."""
FRESH_S = 60.0
KEEP = "6h"
"""No row of a run is older, whatever a clock says: nothing may be deleted by age."""


def clock(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """Steps while it runs; the collector killed and started in between."""
    return _run(folder, seed, size, tls=False)


def secure(folder: Path, seed: int, size: float = 1.0) -> Outcome:
    """The same over TLS: with a clock that is years off no certificate holds, and it must be said so."""
    return _run(folder, seed, size, tls=True)


def _run(folder: Path, seed: int, size: float, *, tls: bool) -> Outcome:
    rng = random.Random(seed)
    outcome = Outcome()
    rate = rng.choice((60.0, 300.0))
    settings: dict[str, Any] = {"symbols": ("BTC_USDT",), "rate": rate, "seed": seed}
    exchange = 'ping_interval = "5s"\n'
    if tls:
        now = datetime.now(UTC)
        valid = {"not_before": now - timedelta(days=VALID_DAYS), "not_after": now + timedelta(days=VALID_DAYS)}
        files = certificates(folder / "tls", "127.0.0.1", **valid)
        settings |= {"tls_cert": files.certificate, "tls_key": files.key}
        exchange += f'ca_file = "{files.authority}"\n'
    with (
        Simulator(SimulatorConfig(**settings)) as sim,
        bench(folder, sim, rng, period=f"{PERIOD_S}s", keep=KEEP, exchange=exchange) as place,
    ):
        place.witness.start()
        offset = 0
        if rng.random() < 0.5:
            offset = rng.choice((-1, 1)) * rng.choice(FAR[:1] if tls else FAR)
            place.control.clock(offset)
            outcome.happened("wrong at the start")
        store, collector = place.start("store"), place.fork("collect", "btc")
        place.recorded(collector, 5)
        one_process = rng.random() < 0.3  # sees all of it; else each step has one that starts by its clock
        seen: set[str] = set()
        for _ in range(round(EPISODES * size)):
            offset, name = _step(place, rng, offset)
            outcome.happened(name)
            _goes_on(place, name)
            _check(place, outcome, name, offset, seen)
            _check_store(place, outcome, name)
            if one_process:
                continue
            collector = _restart(place, collector, rng, outcome, offset, tls=tls)
            if tls and abs(offset) > VALID_DAYS * DAY_NS:
                offset = 0
            _goes_on(place, f"{name} and a start")
            if rng.random() < 0.3:
                store.kill()
                store.wait(10)
                store = place.start("store")
                outcome.happened("the store killed and started")
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
        place.control.clock(0)
        place.settle(outcome)
        _check_store(place, outcome, "the end")
        outcome.expect(end(store, 30) == 0, "the store did not end in order")
        if rng.random() < 0.5:
            (place.data / "clickhouse").rename(folder / "clickhouse-before")
            store = place.start("store")
            _check_store(place, outcome, "the loss of its folder")
            outcome.happened("the store's folder gone")
            outcome.expect(end(store, 30) == 0, "the store did not end in order")
    return outcome


def _step(place: Bench, rng: random.Random, offset: int) -> tuple[int, str]:
    kinds = ("far forward", "far back", "right again", "little back", "at the edge", "over the edge", "slew")
    kind = rng.choice(kinds)
    slew = 0
    match kind:
        case "far forward":
            offset = min(max(0, offset) + rng.choice((HOUR_NS, *FAR, FARTHEST)), 2 * FARTHEST)
        case "far back":
            offset = min(0, offset) - rng.choice((HOUR_NS, *FAR))
        case "right again":
            offset = 0
        case "little back":
            offset -= rng.randint(1, 59 * SECOND_NS)
        case "at the edge" | "over the edge":
            now = time.time() + offset / 1e9
            left = PERIOD_S - now % PERIOD_S
            pause(max(0.0, left - rng.uniform(0.0, 0.02)) if kind == "at the edge" else left + rng.uniform(0, 0.02))
            offset += rng.choice((-1, 1)) * rng.randint(10**6, 3 * SECOND_NS)
        case _:
            slew = rng.choice((-1, 1)) * rng.choice((500_000, 50_000_000))
    place.control.clock(offset, slew)
    if slew:
        pause(1.0)
    return offset, kind


def _restart(
    place: Bench, collector: Process, rng: random.Random, outcome: Outcome, offset: int, *, tls: bool
) -> Process:
    """Kill or end it and start another, by the same clock."""
    if rng.random() < 0.5:
        collector.kill()
        collector.wait(10)
    else:
        status = end(collector)
        outcome.expect(status == 0, f"the collector ended with {status}: {place.said()[-500:]}")
    before = len(place.log.read_text())
    collector = place.fork("collect", "btc")
    if tls and abs(offset) > VALID_DAYS * DAY_NS:
        until(lambda: "clock or certificate" in place.log.read_text()[before:], 60, "a word on clock or certificate")
        outcome.happened("refused for its dates")
        place.control.clock(0)
    place.recorded(collector, 5)
    return collector


def _goes_on(place: Bench, name: str) -> None:
    before = (place.status() or {"last_seq": 0})["last_seq"]

    def more() -> bool:
        status = place.status()
        return status is not None and status["last_seq"] > before + 10

    until(more, 60, f"recording after a step {name}")


def _check(place: Bench, outcome: Outcome, name: str, offset: int, seen: set[str]) -> None:
    """What others make of it while it goes on."""
    for command in (["export"], ["verify", "exports"], ["ledger"]):
        status, said = place.run(*command)
        failed = [line for line in said.splitlines() if line.startswith("FAIL")]
        wrong = [line for line in failed if not _just_closed(place, line)]
        judged = wrong or ([] if failed else [said[-600:]])
        outcome.expect(status == 0 or not judged, f"{command[0]} after {name} ended with {status}: {judged[:4]}")
    _, said = place.run("prune", "--keep", KEEP, "--json")
    try:
        deleted = json.loads(said)["deleted"]
    except (ValueError, KeyError):
        outcome.expect(False, f"prune after {name} said {said[-300:]}")
    else:
        outcome.expect(not deleted, f"prune after {name}, the clock {offset / 1e9:+.0f} s off, deleted {deleted[:3]}")
    there = {path.name for path in (place.spool / "btc").glob("*.sqlite")}
    gone = seen - there
    outcome.expect(not gone, f"segments pruned after {name}, the clock {offset / 1e9:+.0f} s off: {sorted(gone)[:3]}")
    seen |= there


def _just_closed(place: Bench, line: str) -> bool:
    """Whether it says that a segment waits for export that was closed since the export just now: what the disk says of
    a file's age is the true time here, whatever clock the programs were given."""
    found = re.search(r"segment (\S+\.sqlite) \([\d,]+ rows\) waits for export", line)
    return found is not None and time.time() - (place.spool / "btc" / found[1]).stat().st_mtime < FRESH_S


def _check_store(place: Bench, outcome: Outcome, name: str) -> None:
    """The store comes to hold what was recorded until now, and finds the table of each closed segment equal to it."""
    running = place.status()
    closed = len(list((place.spool / "btc").glob("*.sqlite"))) - (running is not None)

    def compared() -> dict[str, Any] | None:
        found: dict[str, Any] | None = (place.status("store") or {}).get("symbols", {}).get("btc")
        if found is None:
            return None
        behind = found["loaded_seq"] < running["last_seq"] if running else found["backlog"] > 0
        return found if not behind and found["compared_segments"] >= closed else None

    found = until(
        compared, 60 + EACH_S * closed, f"a comparison of all {closed} closed segments in the store after {name}"
    )
    assert found is not None
    outcome.expect(not found["differing"], f"after {name} tables differ: {list(found['compared'])[:3]}")
    outcome.expect(not found["orphans"], f"after {name} tables are set apart: {found['orphans'][:3]}")
