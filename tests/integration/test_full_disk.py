"""A spool whose disk fills up: the feed stops in good order, goes on by itself, and nothing received is lost."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mexc_pipeline.config import load
from mexc_pipeline.export import main as export
from mexc_pipeline.simulator import FlatOut, Simulator, SimulatorConfig
from mexc_pipeline.verify import by_hour, exports, ledger
from support.collecting import Collector, Site, collecting, frames, site_of, wanted
from support.small_disk import MIB, small_disk, take
from support.spooled import CODES, Stored, check, events, named

pytestmark = pytest.mark.timeout(300)  # a disk is filled twice, on a machine that may be busy

RESERVE = "[spool]\nreserve_mib = 8\n"
FULL = "stopped: spool full"


def command(site: Site, *args: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), *args]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def exported(site: Site) -> list[Stored]:
    """The rows of all files."""
    assert export(load(site.config), once=True).ok
    rows: list[Stored] = []
    for path in sorted(site.exports.glob("*.parquet")):
        table = pq.read_table(path)
        columns = [table[name].cast("int64").to_pylist() for name in ("seq", "rx", "ts")]
        mts = [CODES[name] for name in table["mt"].to_pylist()]
        rows += map(Stored._make, zip(*columns, mts, (m.encode() for m in table["m"].to_pylist()), strict=True))
    return rows


def connections(rows: list[Stored]) -> list[list[Stored]]:
    """The rows of each connection, from ``connected`` to what follows its end."""
    starts = [n for n, r in enumerate(rows) if r.m.startswith(b'{"event":"connected"')]
    return [rows[a:b] for a, b in zip(starts, [*starts[1:], len(rows)], strict=True)]


def check_equal(site: Site, sim: Simulator, reasons: list[str]) -> None:
    """Assert that the files hold what was sent on each connection until we closed it for that reason."""
    rows = exported(site)
    assert [r.seq for r in rows] == list(range(1, len(rows) + 1))
    parts = connections(rows)
    assert len(parts) == len(sim.connections) == len(reasons)
    for part, conn, reason in zip(parts, sim.connections, reasons, strict=True):
        assert named(part, "disconnected")[0]["reason"] == reason
        assert frames(part) == wanted(sim.sent_on(conn.number))
    assert exports(load(site.config)).ok


def stopped(collector: Collector) -> dict[str, Any]:
    return collector.wait(lambda s: s["state"] == FULL, 90)


def goes_on(collector: Collector, rows: int) -> None:
    before = collector.wait(lambda s: s["state"] == "live")["last_seq"]
    collector.wait(lambda s: s["last_seq"] > before + rows)


def test_a_spool_that_fills_its_disk_stops_in_good_order_and_goes_on_where_there_is_room(tmp_path: Path) -> None:
    flood = FlatOut(rate=1500)  # slow enough for several looks, a second apart, between one mark and the next
    with (
        Simulator(SimulatorConfig(flat_out=flood)) as sim,
        small_disk(tmp_path / "data", 64),
    ):
        site = site_of(tmp_path, sim, extra=RESERVE)
        ballast = take(site.data, 24 * MIB)
        with collecting(site) as btc:
            btc.live()
            status = stopped(btc)
            assert status["disk"]["level"] == "full"
            assert status["disk"]["reserve_mib"] == 0
            assert any("with 18 MiB free recording goes on by itself" in w for w in status["warnings"])
            shown = command(site, "status")
            assert shown.returncode == 1
            assert "FAULT btc: stopped: recording has stopped" in shown.stdout
            assert "free some" in shown.stdout
            assert not (site.spool() / "reserve").exists()
            btc.event("stopped")
            rows = check(site.spool())
            told = [e["event"] if e["event"] != "spool_low" else e["level"] for e in events(rows)]
            order = [e for e in told if e in ("warn", "alert", "full", "disconnected", "stopped")]
            assert order == ["warn", "alert", "full", "disconnected", "stopped"]
            assert named(rows, "stopped")[0]["reason"] == "spool full"
            assert btc.stop() == 0
        ballast.unlink()
        ballast = take(site.data, 12 * MIB)
        with collecting(site) as btc:
            stopped(btc)
            assert len(sim.connections) == 1, "nothing is asked of the exchange while nothing can be kept"
            ballast.unlink()
            goes_on(btc, 2000)
            assert (site.spool() / "reserve").stat().st_size == 8 * MIB
            assert btc.stop() == 0
        check_equal(site, sim, ["spool full", "stopped"])
        assert {hour.verdict for hour in by_hour(load(site.config), ledger(load(site.config), {}))} == {"proven"}


def test_a_stop_right_after_the_disk_was_filled_still_commits_what_was_received(tmp_path: Path) -> None:
    with (
        Simulator(SimulatorConfig(flat_out=FlatOut(rate=1000))) as sim,
        small_disk(tmp_path / "data", 64),
    ):
        site = site_of(tmp_path, sim, extra=RESERVE)
        with collecting(site) as btc:
            btc.live(500)
            ballast = take(site.data, 0)
            assert btc.stop() == 0
        assert not (site.spool() / "reserve").exists()
        ballast.unlink()
        assert named(check(site.spool()), "stopped")
        (reason,) = {e["reason"] for e in named(check(site.spool()), "disconnected")}
        check_equal(site, sim, [reason])


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_start_without_any_room_waits_for_it_and_harms_nothing(tmp_path: Path, end: str) -> None:
    with (
        Simulator(SimulatorConfig(rate=100)) as sim,
        small_disk(tmp_path / "data", 64),
    ):
        site = site_of(tmp_path, sim, extra=RESERVE)
        with collecting(site) as btc:
            btc.live(20)
            btc.stop() if end == "stop" else btc.kill()
        recorded = len(site.rows())
        (site.spool() / "reserve").unlink(missing_ok=True)
        ballast = take(site.data, 0)
        with collecting(site) as btc:
            status = stopped(btc)
            assert (status["last_seq"], status["spool_id"], status["segment"]) == (0, "", None)
            assert any("recording has stopped" in warning for warning in status["warnings"])
            assert btc.stop() == 0
        assert len(sim.connections) == 1
        with collecting(site) as btc:
            stopped(btc)
            ballast.unlink()
            goes_on(btc, 20)
            assert btc.stop() == 0
        rows = check(site.spool())
        assert len(rows) > recorded
        assert not list(site.spool().glob("*.damaged-*")), "nothing was set apart"
        assert named(rows, "started")[1]["clean"] == (end == "stop")


def test_a_disk_that_somebody_else_fills_at_once_loses_nothing_that_was_received(tmp_path: Path) -> None:
    """Again until a commit met the full disk before the look of each second did."""
    with (
        Simulator(SimulatorConfig(flat_out=FlatOut(rate=1000))) as sim,
        small_disk(tmp_path / "data", 64),
    ):
        site = site_of(tmp_path, sim, extra=RESERVE)
        with collecting(site) as btc:
            btc.live(1000)
            for times in range(1, 6):
                ballast = take(site.data, 0)
                stopped(btc)
                btc.event("stopped", count=times)
                ballast.unlink()
                goes_on(btc, 500)
                if '"spool refuses, trying again"' in btc.said():
                    break
            else:
                pytest.fail("no commit was refused")
            assert btc.stop() == 0
        check_equal(site, sim, [*["spool full"] * times, "stopped"])


def test_a_spool_that_refuses_for_another_reason_than_room_stops_the_feed_too(tmp_path: Path) -> None:
    """What was received was in memory only for as long as that lasted, and a kill took all of it."""
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim, extra=RESERVE)
        with collecting(site) as btc:
            btc.live(100)
            resource.prlimit(btc.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            status = btc.wait(lambda s: s["state"] == "stopped: spool refuses", 60)
            assert status["disk"]["level"] == "refused"
            assert any("refuses what is written to it (" in w for w in status["warnings"])
            assert "FAULT btc: stopped: recording has stopped" in command(site, "status").stdout
            resource.prlimit(btc.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            goes_on(btc, 100)
            assert btc.stop() == 0
        rows = check(site.spool())
        assert named(rows, "stopped")[0]["reason"] == "spool refuses"
        assert "refused" in [e["level"] for e in named(rows, "spool_low")]
        check_equal(site, sim, ["spool refuses", "stopped"])


def test_a_collector_that_cannot_commit_what_it_received_ends_with_1(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim, extra=RESERVE)
        with collecting(site) as btc:
            btc.live(100)
            resource.prlimit(btc.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            btc.wait(lambda s: s["inbox_bytes"] > 0 and s["trouble"] is not None)
            assert btc.stop(10) == 1
        rows = check(site.spool())
        assert not named(rows, "stopped")
        assert frames(rows) == wanted(sim.sent_on(1))[: len(frames(rows))], "what it had committed before is there"
