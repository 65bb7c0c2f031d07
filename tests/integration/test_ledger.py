"""The ledger of a recording that was killed, disconnected and robbed of frames."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mexc_pipeline.config import load
from mexc_pipeline.export import main as export
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from mexc_pipeline.spool.lifecycle import remove
from mexc_pipeline.spool.walk import exported_files
from mexc_pipeline.verify import by_hour, ledger
from support.collecting import Site, collecting, site_of
from support.spooled import Stored, events, named, read_segments
from support.waiting import until


def call(site: Site, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "ledger", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def ask(site: Site, *options: str) -> tuple[int, dict[str, Any]]:
    done = call(site, "--json", *options)
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


def until_over(site: Site) -> None:
    """Of a period that still runs the ledger counts what is over, and a little more each time."""
    period = load(site.config).period
    end = period.end(period.start(time.time_ns()))
    until(lambda: time.time_ns() >= end, 10, "the end of the running period")


def expected_cover(rows: list[Stored]) -> int:
    """Covered time in ns, told from the rows with none of the ledger's code."""
    since, total, before = 0, 0, 0
    for row in rows:
        said = json.loads(row.m) if row.mt == 5 else {}
        match said.get("event"):
            case "subscribed":
                since = row.rx
            case "disconnected" | "stopped" if since:
                total, since = total + row.rx - since, 0
            case "started" if since:
                total, since = total + before - since, 0
        if said.get("event") != "sealed":  # the end of a segment, whoever writes it, tells nothing of the socket
            before = row.rx
    return total


def test_the_ledger_of_a_troubled_recording(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=60)) as sim:
        site = site_of(tmp_path, sim, period="3s", extra='[channels]\ndepth = "merged"')
        with collecting(site) as btc:
            btc.event("snapshot")
            sim.inject(Fault("version_gap"))
            btc.event("repaired")
            sim.inject(Fault("reset"))
            btc.event("disconnected")
            btc.event("subscribed", count=6)
            until(lambda: len(read_segments(site.spool())) >= 3)
            btc.kill()
        dead = len(site.rows())
        with collecting(site) as btc:
            btc.event("subscribed", count=9)
            until(lambda: len(site.rows()) > dead + 20)
            sim.inject(Fault("rest_403"))
            sim.inject(Fault("version_gap"))
            btc.event("gap", count=len(named(site.rows(), "gap")) + 1)
            assert btc.stop() == 0
    config = load(site.config)
    assert export(config, once=True).ok
    rows = site.rows()
    status, found = ask(site)
    sums = found["totals"]["btc"]
    assert (status, found["ok"], sums["exported"], sums["received"]) == (0, True, len(rows), len(rows))
    assert sums == found["totals"]["all"]
    gaps = named(rows, "gap")
    assert (sums["gaps"], sums["missing"]) == (len(gaps), sum(g["count"] for g in gaps))
    of_books = [r for r in rows if r.mt == 6 and b'"version"' in r.m]  # trades are fetched, too
    assert sums["repaired"] == len(of_books) > 0
    assert sums["missing"] == sums["repaired"] + sums["unrepaired"]
    assert sums["unrepaired"] > 0
    assert sums["reconnects"] == 1, "the process that followed the killed one is none"
    length = sum(h["end_ns"] - h["start_ns"] for h in found["hours"])
    assert sums["coverage"] == pytest.approx(100 * expected_cover(rows) / length, abs=0.05)
    assert 0 < sums["coverage"] < 100
    assert sums["without_socket_s"] > 0
    hours = found["hours"]
    assert [h["start_ns"] for h in hours[1:]] == [h["end_ns"] for h in hours[:-1]], "no hour is left out"
    assert all(0 <= h["coverage"] <= 100 for h in hours)
    assert all(h["verdict"] in ("proven", "absent") for h in hours)

    until_over(site)
    # From the files alone it is the same; also for files of a version that did not write its account down.
    before = [h.to_json() for h in by_hour(config, ledger(config))]
    for segment in read_segments(site.spool()):
        remove(site.spool() / segment.file)
    for _, path in exported_files(site.exports):
        table = pq.read_table(path)
        kept = {
            k: v for k, v in pq.read_metadata(path).metadata.items() if k.startswith(b"mexc.") and b"account" not in k
        }
        pq.write_table(table.replace_schema_metadata(kept), path)
    alone = [h.to_json() for h in by_hour(config, ledger(config))]
    for h in before:
        h["received"] = h["stored"] = None
    assert alone == before

    (_, victim), *_ = exported_files(site.exports)[1:-1]
    victim.unlink()
    done = call(site)
    assert done.returncode == 1
    text = done.stdout
    assert "rows missing, 0 twice before it" in text
    assert "% covered" in text
    assert len(events(rows)) > 10


def test_since_and_symbol_choose(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=60)) as sim:
        site = site_of(tmp_path, sim, period="2s")
        with collecting(site) as btc:
            until(lambda: len(read_segments(site.spool())) >= 3)
            assert btc.stop() == 0
    assert export(load(site.config), once=True).ok
    until_over(site)
    _, everything = ask(site)
    last = everything["hours"][-1]
    text = f"{last['period'][:8]}T{last['period'][8:]}"
    _, newest = ask(site, "--since", text)
    assert newest["hours"] == [last]
    assert [e["file"] for e in newest["entries"]] == list(last["digests"])
    unknown, no_time = call(site, "--symbol", "nothing"), call(site, "--since", "yesterday")
    assert (unknown.returncode, no_time.returncode) == (1, 2)
    assert "nothing of nothing is recorded" in unknown.stderr
    assert "'yesterday' is no time" in no_time.stderr
    assert len(no_time.stderr.splitlines()) == 1
