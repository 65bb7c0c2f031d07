"""kill -9 of a collector at any moment: nothing committed is lost or there twice, and the next start says so."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import time
from pathlib import Path

import pyarrow.parquet as pq

from mexc_pipeline.config import load
from mexc_pipeline.export import main as export
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from mexc_pipeline.spool.walk import in_order
from mexc_pipeline.verify import exports
from support.collecting import Collector, check_whole, collecting, frames, site_of, wanted
from support.scheduling import due, measured
from support.spooled import by_connection, check, named
from support.waiting import until

KILLS, STARTS_S, KILLED_S, RATE = 12, 0.7, 3.0, 400.0
"""A process is killed within so long of its start, or of its first connection."""
DURABLE_NS = 250_000_000
"""How old a frame may be that was sent and not committed when the process died; what the machine's scheduling held back
in that moment comes on top."""


def test_any_moment(tmp_path: Path) -> None:
    rng = random.Random(20261121)
    with Simulator(SimulatorConfig(rate=RATE)) as sim, measured(tmp_path / "waits") as scheduling:
        site = site_of(tmp_path, sim, period="2s")
        killed_ns: dict[int, int] = {}
        starts = 0
        for n in range(KILLS):
            collector = Collector(site)
            try:
                if n % 3:  # every third one dies while it starts
                    connections = len(sim.connections)
                    until(lambda before=connections: len(sim.connections) > before, 40)  # type: ignore[misc]
                    time.sleep(rng.random() * KILLED_S)
                else:
                    time.sleep(rng.random() * STARTS_S)
            finally:
                killed_at = time.time_ns()
                collector.kill()
            killed_ns.update({c.number: killed_at for c in sim.connections if c.number not in killed_ns})
            found = named(check(site.spool()), "started") if site.spool().exists() else []
            assert starts <= len(found) <= n + 1, "that of a process whose rows wait for their numbers comes with them"
            starts = len(found)
        waits = scheduling.finish()
        last = Collector(site)
        try:
            last.live(5)
        finally:
            assert last.stop(10) == 0
    rows = check(site.spool())
    started = named(rows, "started")
    assert started[0]["clean"]
    assert not any(event["clean"] for event in started[1:]), "each of the others followed a kill"
    groups = {json.loads(group[0].m)["local"]: group for group in by_connection(rows)}
    assert groups.keys() <= {c.peer for c in sim.connections}
    recorded = judged = 0
    for connection in sim.connections:
        group, whole = groups.get(connection.peer, []), sim.sent_on(connection.number)
        got, sent = frames(group), [frame for frame in whole if wanted([frame])]
        recorded += len(got)
        if connection.number not in killed_ns:
            check_whole(group, whole)
            continue
        assert got == wanted(sent)[: len(got)], "each once, in order"
        end_ns = min(killed_ns[connection.number], connection.closed_ns or killed_ns[connection.number])
        must = due([frame.time_ns for frame in sent], end_ns, DURABLE_NS, waits)
        assert len(got) >= must, f"{must - len(got)} of {must} frames lost"
        judged += must
    assert recorded == sum(r.mt in (1, 2, 3, 4) for r in rows), "every frame belongs to a connection"
    assert judged > KILLS * KILLED_S * RATE / 20, "too few frames were due for this to show anything"


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


def test_a_row_altered_between_two_processes_is_in_no_proven_file(tmp_path: Path) -> None:
    """It was proven by a digest made anew from the altered segment."""
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim)
        config = load(site.config)
        first = Collector(site)
        try:
            first.live(50)
            assert export(config, once=True).ok
            first.live(150)
        finally:
            first.kill()
        path = in_order(site.spool()).readable[-1].path
        with contextlib.closing(sqlite3.connect(path)) as db:
            (row,) = db.execute("SELECT min(seq) + 5 FROM rows").fetchone()
            change = "UPDATE rows SET m = CAST(replace(CAST(m AS TEXT), '1', '9') AS BLOB) WHERE seq = ?"
            db.execute(change, (row,))
            (altered,) = db.execute("SELECT m FROM rows WHERE seq = ?", (row,)).fetchone()
            db.commit()
        with collecting(site) as second:
            second.live(50)
            assert second.stop() == 0
    assert export(config, once=True).ok
    files = [table for file in sorted(site.exports.glob("*.parquet")) for table in [pq.read_table(file)]]
    assert len(files) == 2, "what was received before and later is in files"
    assert altered.decode() not in [m for table in files for m in table["m"].to_pylist()]
    started = [json.loads(m) for table in files for m in table["m"].to_pylist() if m.startswith('{"event":"started"')]
    assert started[-1]["set_apart"][0].startswith(f"{path.name}.damaged-")
    assert not exports(config).ok, "its rows are in no file"
