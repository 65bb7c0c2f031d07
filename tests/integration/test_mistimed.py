"""An exchange whose times are wrong: said in the recording when it begins and when it ends, by status, run and verify;
and a wrong clock of this host is no fault of the exchange's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mexc_pipeline.config import load
from mexc_pipeline.exchange import times
from mexc_pipeline.feed import session
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from mexc_pipeline.verify.exports import exports
from support.collecting import collecting, site_of

HOUR_NS = 3600 * 10**9


def test_it_is_a_fault_of_status_and_ends(tmp_path: Path) -> None:
    first = (
        "from mexc_pipeline.exchange import times\nfrom mexc_pipeline.feed import session\n"
        "times.PERSISTS_S = times.SETTLED_S = 2.0\nsession.TIMES_S = 0.2"
    )
    assert {"PERSISTS_S", "SETTLED_S"} <= vars(times).keys()
    assert "TIMES_S" in vars(session)
    with Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=60.0)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site, first=first) as btc:
            btc.wait(lambda s: s["clock"]["compared_at_ns"])
            sim.inject(Fault("shape", channel="ticker", value="shift=ts:28800000"))
            said = btc.event("mistimed")
            assert (said["channel"], said["why"]) == ("push.ticker", "ahead")
            assert said["late_ms"] == pytest.approx(-28_800_000, abs=5000)
            status = btc.wait(lambda s: s["mistimed"])
            assert list(status["mistimed"]) == ["push.ticker"]
            assert any(w.startswith("push.ticker: ts is 8.0 h ahead of") for w in status["warnings"])
            command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "status"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1
            assert "FAULT btc: times wrong: push.ticker: ts is 8.0 h ahead" in " ".join(done.stdout.split())
            sim.clear_faults()
            assert btc.event("mistimed", count=2)["ended"]
            btc.wait(lambda s: not s["mistimed"])
            assert btc.stop() == 0
        log = btc.log.read_text()
        assert "times of frames are wrong" in log
        assert "times of frames are right" in log


def test_a_run_of_wrong_times_is_no_success_and_verify_says_it_too(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=60.0)) as sim:
        site = site_of(tmp_path, sim)
        sim.inject(Fault("shape", channel="ticker", value="set=ts:1700000000000"))
        command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "run", "--json"]
        done = subprocess.run([*command, "--duration", "25s"], capture_output=True, text=True, timeout=150, check=False)
    answer = json.loads(done.stdout)
    assert [line["verdict"] for line in answer["periods"]] == ["verified"], "every byte is kept and proven"
    assert done.returncode == 1
    (problem,) = answer["problems"]
    assert problem.startswith("btc: push.ticker: ts ")
    assert "days behind the exchange's clock" in problem
    found = exports(load(site.config), newest=0)
    assert found.ok
    (warned,) = found.notes
    assert warned.startswith(f"warn btc {answer['periods'][0]['file']}: push.ticker: ts ")


@pytest.mark.parametrize("hours", [-8, 3])
def test_a_wrong_clock_of_this_host_is_not_blamed_on_the_exchange(tmp_path: Path, hours: int) -> None:
    with Simulator(SimulatorConfig(rate=60.0, clock_ns=lambda: time.time_ns() + hours * HOUR_NS)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as btc:
            btc.wait(lambda s: s["clock"]["suspect"])
            before = btc.wait(lambda s: s["rows"]["t"])["rows"]["t"]
            btc.wait(lambda s: s["rows"]["t"] > before + 60)
            assert btc.status()["mistimed"] == {}  # type: ignore[index]
            assert btc.stop() == 0
