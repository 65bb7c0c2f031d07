"""kill -9 of a collector at any moment: nothing committed is lost or there twice, and the next start says so."""

from __future__ import annotations

import random
import time
from pathlib import Path

from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.collecting import Collector, check_whole, frames, site_of, wanted
from support.spooled import Stored, check, named
from support.waiting import until

KILLS = 12
TAIL_S = 2.0
"""How old a frame may be that was sent and not committed when the process died; a loaded test machine stalls."""


def by_connection(rows: list[Stored]) -> list[list[Stored]]:
    """The rows of each connection, from its ``connected`` event on."""
    groups: list[list[Stored]] = []
    for row in rows:
        if row.mt == 5 and row.m.startswith(b'{"event":"connected"'):
            groups.append([])
        if groups:
            groups[-1].append(row)
    return groups


def test_any_moment(tmp_path: Path) -> None:
    rng = random.Random(20261121)
    with Simulator(SimulatorConfig(rate=400)) as sim:
        site = site_of(tmp_path, sim, period="2s")
        killed_ns: dict[int, int] = {}
        starts = 0
        for n in range(KILLS):
            collector = Collector(site)
            try:
                if n % 3:  # every third one dies while it starts
                    connections = len(sim.connections)
                    until(lambda before=connections: len(sim.connections) > before, 40)  # type: ignore[misc]
                time.sleep(rng.random() * 0.7)
            finally:
                killed_at = time.time_ns()
                collector.kill()
            killed_ns.update({c.number: killed_at for c in sim.connections if c.number not in killed_ns})
            found = named(check(site.spool()), "started") if site.spool().exists() else []
            assert len(found) - starts in (0, 1)
            starts = len(found)
        last = Collector(site)
        try:
            last.live(5)
        finally:
            assert last.stop(10) == 0
    rows = check(site.spool())
    started = named(rows, "started")
    assert started[0]["clean"]
    assert not any(event["clean"] for event in started[1:]), "each of the others followed a kill"
    groups = by_connection(rows)
    sent = [wanted(sim.sent_on(c.number)) for c in sim.connections]
    times = [[f.time_ns for f in sim.sent_on(c.number) if f.whole] for c in sim.connections]
    recorded = 0
    for group in groups:
        got = frames(group)
        recorded += len(got)
        if not got:
            continue
        (number,) = [n for n, frames_sent in enumerate(sent) if frames_sent[: len(got)] == got]
        if number + 1 not in killed_ns:
            check_whole(group, sim.sent_on(number + 1))
        elif len(got) < len(sent[number]):
            sent_rows = [t for t, f in zip(times[number], sim.sent_on(number + 1), strict=False) if wanted([f])]
            assert killed_ns[number + 1] - sent_rows[len(got)] < TAIL_S * 1e9
    assert recorded == sum(r.mt in (1, 2, 3, 4) for r in rows), "every frame belongs to a connection"
    assert recorded > 50


def test_a_clean_stop_is_told_from_a_kill(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim)
        for how in ("stop", "kill", "stop"):
            collector = Collector(site)
            try:
                collector.live(3)
            finally:
                if how == "stop":
                    assert collector.stop(10) == 0
                else:
                    collector.kill()
    rows = check(site.spool())
    assert [event["clean"] for event in named(rows, "started")] == [True, True, False]
    for event in named(rows, "started")[1:]:
        before = rows[event["seq"] - 2]
        assert (event["last_seq"], event["last_rx"]) == (before.seq, before.rx)
    groups = by_connection(rows)
    until_next_start = [row for row in groups[0] if row.seq < named(rows, "started")[1]["seq"]]
    check_whole(until_next_start, sim.sent_on(1))
    check_whole(groups[2], sim.sent_on(3))
