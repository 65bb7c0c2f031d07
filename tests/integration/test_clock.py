"""A host whose clock is wrong: the collector finds out, says so, corrects nothing and deletes nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mexc_pipeline.collector.process import prune_for_room
from mexc_pipeline.collector.recording import Recording
from mexc_pipeline.config import load
from mexc_pipeline.rows import Frame
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from mexc_pipeline.spool.lifecycle import mark_exported
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.verify import services
from support.collecting import Site, collecting, site_of
from support.peers import certificates
from support.spooled import named
from support.spools import open_spool
from support.waiting import until

DAY_S = 86_400


@pytest.mark.parametrize("ahead_s", [300, -300, 8 * 3600, -30 * DAY_S, 400 * DAY_S])
def test_a_wrong_clock_is_known_within_seconds_of_the_first_pong(tmp_path: Path, ahead_s: int) -> None:
    """The exchange's is off here; the difference is all that either can know."""
    with Simulator(SimulatorConfig(clock_ns=lambda: time.time_ns() - ahead_s * 10**9)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as btc:
            said = btc.event("clock", timeout_s=30)
            assert said["error_ms"] == pytest.approx(ahead_s * 1000, abs=1000)
            status = btc.wait(lambda s: s["clock"]["suspect"])
            assert status["clock"]["error_ms"] == pytest.approx(ahead_s * 1000, abs=1000)
            assert abs(status["clock"]["compared_at_ns"] - time.time_ns()) < 60 * 10**9
            (warning,) = [w for w in status["warnings"] if w.startswith("this host's clock")]
            assert f"{abs(ahead_s):,}" in warning
            (finding,) = [f for f in services(load(site.config)).findings if f.subject == "clock"]
            assert not finding.ok
            assert btc.stop() == 0
        rows = site.rows()
        assert abs(rows[-1].rx - time.time_ns()) < 60 * 10**9, "nothing is corrected"
        assert not [e for e in named(rows, "clock") if e.get("restarted")]


def test_a_right_clock_is_known_to_be_right(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig()) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as btc:
            status = btc.wait(lambda s: s["clock"]["compared_at_ns"])
            assert abs(status["clock"]["error_ms"]) < 1000
            assert not status["clock"]["suspect"]
            (finding,) = [f for f in services(load(site.config)).findings if f.subject == "clock"]
            assert finding.ok
        assert not named(site.rows(), "clock")


def proven_long_ago(site: Site) -> Path:
    """A segment that was proven in a file a month ago, and one after it."""
    month = time.time_ns() - 30 * DAY_S * 10**9
    spool = open_spool(load(site.config))
    for n in range(2):
        spool.append([Frame(month + n, month // 10**6, 1, b"{}")])
        spool.cut(month + n)
    spool.close()
    path = segments(site.spool())[0][1]
    mark_exported(path, {"at_ns": month + DAY_S})
    return path


def test_a_collector_prunes_nothing_while_its_clock_is_wrong(tmp_path: Path) -> None:
    error_ns = 8 * 3600 * 10**9
    with Simulator(SimulatorConfig(rate=100, clock_ns=lambda: time.time_ns() - error_ns)) as sim:
        site = site_of(tmp_path, sim, ping="2s")
        old = proven_long_ago(site)
        with collecting(site) as btc:
            before = btc.wait(lambda s: s["clock"]["suspect"])["rows"]["t"]
            btc.wait(lambda s: s["rows"]["t"] > before + 100)
            assert old.exists()
            error_ns = 0
            btc.wait(lambda s: not s["clock"]["suspect"])
            until(lambda: not old.exists(), 20, "the pruned segment")
            assert btc.stop() == 0


def test_a_clock_that_is_wrong_makes_no_room_on_a_full_disk(tmp_path: Path) -> None:
    error_ns = 8 * 3600 * 10**9
    with Simulator(SimulatorConfig(clock_ns=lambda: time.time_ns() - error_ns)) as sim:
        site = site_of(tmp_path, sim)
        old = proven_long_ago(site)
        config = load(site.config)
        with SpoolLock(site.spool()) as lock:
            recording = Recording(config, config.symbols[0], lock)
            prune_for_room(recording, [recording])
            assert old.exists()
            error_ns = 0
            prune_for_room(recording, [recording])
            assert not old.exists()
    with SpoolLock(site.spool()) as lock:
        old = proven_long_ago(site)
        recording = Recording(config, config.symbols[0], lock)
        prune_for_room(recording, [recording])
    assert old.exists(), "the exchange cannot be asked"


@pytest.mark.parametrize("days", [-400, 400])
def test_over_tls_a_clock_that_is_far_off_is_said_as_clock_or_certificate(tmp_path: Path, days: int) -> None:
    """No certificate holds by such a clock: here it is the certificate that is of another time."""
    begin = datetime.now(UTC) + timedelta(days=days)
    files = certificates(tmp_path / "tls", "127.0.0.1", not_before=begin, not_after=begin + timedelta(days=30))
    with Simulator(SimulatorConfig(tls_cert=files.certificate, tls_key=files.key)) as sim:
        site = site_of(tmp_path, sim, exchange=f'ca_file = "{files.authority}"')
        with collecting(site) as btc:
            status = btc.wait(lambda s: any("clock or certificate" in w for w in s["warnings"]))
            assert status["state"] == "connecting"
            clock = {"error_ms": None, "compared_at_ns": None, "suspect": False, "warning": None, "todo": ""}
            assert status["clock"] == clock, "nothing was compared, so nothing is known"
            assert btc.stop() == 0
