"""Trades checked from end to end: a collector, files, verify, ledger and read, while the exchange's clock is moved."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mexc_pipeline import read
from mexc_pipeline.config import load
from mexc_pipeline.export import main as export
from mexc_pipeline.export.minutes import MINUTES
from mexc_pipeline.export.parquet import FileWriter, metadata
from mexc_pipeline.read.minutes import blocks
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from mexc_pipeline.simulator.faults import CHOICES
from mexc_pipeline.simulator.frames import DealId, Style
from mexc_pipeline.verify import exports as verify
from support.collecting import Collector, Site, collecting, site_of
from support.waiting import until

MINUTE = 60


class Market:
    """An exchange whose clock goes by its ticks, a second each."""

    def __init__(self, style: Style | None = None, rate: float = 8.81) -> None:
        now_ns = time.time_ns()
        self.at_ns = now_ns - now_ns % (MINUTE * 10**9) + 30_137_000_000
        self.config = SimulatorConfig(
            manual=True,
            rate=rate,
            tick_seconds=1.0,
            style=style or Style(),
            symbols=("BTC_USDT",),
            levels=20,
            commit_rate=5,
            rest_limit=0,
            clock_ns=lambda: self.at_ns,
        )

    @contextmanager
    def open(self) -> Iterator[Market]:
        with Simulator(self.config) as self.sim:
            yield self

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.at_ns += 10**9
            self.sim.tick()

    def until_second(self, second: int) -> None:
        """Go on to that second of a minute, at least one."""
        self.run((second - self.at_ns // 10**9 % MINUTE - 1) % MINUTE + 1)

    @property
    def minute(self) -> int:
        """The one that runs, Unix s."""
        return self.at_ns // 10**9 // MINUTE * MINUTE

    def until_subscribed(self) -> None:
        def ready() -> bool:
            open_now = {connection.number for connection in self.sim.open_connections}
            return any(b.conn in open_now and "sub.deal" in str(b.data) for b in self.sim.received)

        until(ready, 60, "a subscription")

    def until_fetched(self, site: Site) -> None:
        """Wait for the candles of all minutes but the one that runs."""

        def fetched() -> bool:
            answers = (json.loads(row.m) for row in site.rows() if row.mt == 6)
            return any(self.minute in answer.get("time", ()) for answer in answers)

        until(fetched, 60, "candles")


def files_of(site: Site) -> pd.DataFrame:
    assert export(load(site.config), once=True).ok
    return read.completeness("btc", export_dir=site.exports)


def _is_settled(btc: Collector) -> bool:
    status = btc.status()
    return status is not None and status["trades"] is not None and not status["trades"]["open"]


def ledger(site: Site) -> dict[str, Any]:
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "ledger"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "agree with the exchange's candles" in shown.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def said_of_minutes(site: Site) -> dict[str, int]:
    """The sums of what all files say, read with nothing of ours."""
    said = [json.loads(pq.read_metadata(path).metadata[b"mexc.minutes"]) for path in site.exports.glob("*.parquet")]
    return {name: sum(one[name] for one in said) for name in ("agree", "differ", "unknown")}


@pytest.mark.slow
def test_one_dropped_doubled_and_altered_trade_is_each_found(tmp_path: Path) -> None:
    market = Market(Style(deal_id="absent", deal_cts=False))  # with ids a trade that comes twice is known
    with market.open():
        site = site_of(tmp_path, market.sim, candles="2s")
        with collecting(site) as btc:
            market.until_subscribed()
            market.until_second(20)
            hit: dict[str, int] = {}
            for name, fault in (
                ("dropped", Fault("drop", channel="deal")),
                ("none", None),
                ("doubled", Fault("duplicate", channel="deal")),
                ("altered", Fault("shape", channel="deal", value="set=data.v:123456")),
            ):
                market.until_second(20)
                hit[name] = market.minute
                if fault is not None:
                    market.sim.inject(fault)
                    market.run(2)  # at five deals a second
                    market.sim.clear_faults()
            market.until_second(20)
            market.run(MINUTE)
            market.until_fetched(site)
            assert btc.stop() == 0
        df = files_of(site)
    differing = {int(at.timestamp()): why for at, why in zip(df.minute, df.why, strict=True) if at is not None}
    verdicts = dict(zip((int(at.timestamp()) for at in df.minute), df.verdict, strict=True))
    assert {at for at, verdict in verdicts.items() if verdict == "differs"} == {
        hit["dropped"], hit["doubled"], hit["altered"]
    }  # fmt: skip
    assert verdicts[hit["none"]] == "agrees"
    assert all("volume" in differing[hit[name]] for name in ("dropped", "doubled", "altered"))
    by_minute = df.set_index(df.minute.map(lambda at: int(at.timestamp())))
    assert by_minute.volume_difference[hit["dropped"]] < 0
    assert by_minute.volume_difference[hit["doubled"]] > 0
    assert df.attrs["differ"] == 3

    assert said_of_minutes(site)["differ"] == 3
    total = ledger(site)["totals"]["btc"]["minutes"]
    assert total["differ"] == 3
    assert total["agree"] == df.attrs["agree"] >= 1
    report = verify(load(site.config), newest=0)
    assert report.ok, "what was received is in the files"
    warned = [line for line in report.notes if line.startswith("warn btc: trades differ")]
    assert len(warned) == 3
    assert any("3 differ" in line for line in report.notes)


def _without_minutes(path: Path) -> None:
    """Have a file as the release before made it."""
    said = {name: text for name, text in metadata(path).items() if name != MINUTES}
    rows = list(blocks(path))
    made = path.with_suffix(".former")
    with made.open("wb") as file:
        writer = FileWriter(file, said)
        for block in rows:
            writer.add(replace(block, m=bytes(block.m)))
        writer.finish()
    made.replace(path)


@pytest.mark.slow
def test_files_of_the_release_before_say_nothing_of_minutes_and_read_as_before(tmp_path: Path) -> None:
    market = Market()
    with market.open():
        site = site_of(tmp_path, market.sim)
        with collecting(site) as btc:
            market.until_subscribed()
            market.run(2 * MINUTE)
            assert btc.stop() == 0
    assert export(load(site.config), once=True).ok
    trades = read.trades("btc", export_dir=site.exports)
    assert said_of_minutes(site) != {"agree": 0, "differ": 0, "unknown": 0}
    for path in site.exports.glob("*.parquet"):
        _without_minutes(path)
    shutil.rmtree(site.data / "spool")
    report = verify(load(site.config), newest=0)
    assert report.ok, report
    pd.testing.assert_frame_equal(read.trades("btc", export_dir=site.exports), trades)
    df = read.completeness("btc", export_dir=site.exports)
    assert set(df.verdict) == {"unknown"}
    command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "ledger"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["totals"]["btc"]["minutes"] is None
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "candles" not in shown.stdout
    assert (done.returncode, shown.returncode) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("answer", CHOICES["candles"])
def test_an_answer_without_candles_leaves_minutes_unknown(tmp_path: Path, answer: str) -> None:
    market = Market()
    with market.open():
        site = site_of(tmp_path, market.sim, candles="1s")
        with collecting(site) as btc:
            market.until_subscribed()
            market.sim.inject(Fault("candles", value=answer))
            market.run(3 * MINUTE)
            until(lambda: market.sim.asked("/api/v1/contract/kline/BTC_USDT") >= 2, 60, "two answers")
            assert btc.stop() == 0
        assert export(load(site.config), once=True).ok
        df = read.completeness("btc", export_dir=site.exports)
    assert set(df.verdict) == {"unknown"}
    assert verify(load(site.config), newest=0).ok


@pytest.mark.slow
def test_a_trade_that_came_twice_by_its_id_counts_once_and_is_said_where(tmp_path: Path) -> None:
    market = Market()
    with market.open():
        site = site_of(tmp_path, market.sim, candles="2s")
        with collecting(site) as btc:
            market.until_subscribed()
            market.until_second(20)
            market.until_second(20)
            hit = market.minute
            market.sim.inject(Fault("duplicate", channel="deal"))
            market.run(2)
            market.sim.clear_faults()
            market.until_second(20)
            market.run(MINUTE)
            market.until_fetched(site)
            assert btc.stop() == 0
        df = files_of(site)
    assert df.attrs["differ"] == 0
    again = {int(at.timestamp()): n for at, n in zip(df.minute, df.repeated, strict=True) if n}
    assert list(again) == [hit]
    assert df[df.repeated > 0].verdict.tolist() == ["agrees"]
    assert any("came again and counted once" in line for line in verify(load(site.config), newest=0).notes)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("rest_deal_id", ["string", "absent"])
def test_an_hour_of_ordinary_faults_has_no_false_difference(tmp_path: Path, rest_deal_id: DealId) -> None:
    """Where REST names trades what came while there was no connection is fetched, and its minutes agree too."""
    market = Market(Style(rest_deal_id=rest_deal_id), rate=4.0)
    with market.open():
        site = site_of(tmp_path, market.sim, candles="2s")
        spoiled: set[int] = set()

        def through(btc: Collector, minutes: int) -> None:
            """Minutes without a fault, between two at whose edges one happened."""
            market.until_subscribed()
            market.run(5)
            until(lambda: _is_settled(btc), 60, "what may be missing to be fetched")  # before REST has moved on
            market.run(minutes * MINUTE)
            market.until_fetched(site)
            assert btc.status() is not None

        began = market.minute
        with collecting(site) as btc:
            through(btc, 8)
            for fault in (
                Fault("abort"),
                Fault("reset"),
                Fault("close"),
                Fault("half", channel="deal"),
                Fault("resend_deals", value="20"),
            ):
                market.until_second(25)
                spoiled.add(market.minute)
                last = market.sim.connections[-1]
                market.sim.inject(Fault("refuse_handshake"))
                market.sim.inject(Fault("abort") if fault.kind == "resend_deals" else fault)
                market.run(2)
                until(lambda last=last: last.closed_ns is not None, 60, "the end of the connection")  # type: ignore[misc]
                market.run(3)  # while there is none
                market.sim.clear_faults()
                if fault.kind == "resend_deals":
                    market.sim.inject(fault)
                    resent = market.minute
                through(btc, 6)
            market.sim.clear_faults()
            market.until_second(40)
            spoiled.add(market.minute)
            btc.kill()
        until(lambda: not market.sim.open_connections, 60, "the end of the connection")
        market.run(2)
        with collecting(site) as btc:
            through(btc, 8)
            market.until_second(50)
            spoiled.add(market.minute)
            assert btc.stop() == 0
        market.run(1)
        with collecting(site) as btc:
            through(btc, 8)
            assert btc.stop() == 0
        df = files_of(site)
    assert (market.minute - began) // MINUTE >= 55
    verdicts = dict(zip((int(at.timestamp()) for at in df.minute), df.verdict, strict=True))
    assert "differs" not in verdicts.values()
    agree = {at for at, verdict in verdicts.items() if verdict == "agrees"}
    inside = set(range(began + MINUTE, market.minute, MINUTE))
    if rest_deal_id == "string":
        # Where the socket itself brings old deals again it is not known from when on it brought new ones.
        assert inside - agree <= {resent}, "what the faults took was filled"
        assert (df.filled > 0).sum() >= 5
    else:
        assert inside - agree <= spoiled, "every other minute is known"
    assert said_of_minutes(site)["differ"] == 0
    assert ledger(site)["totals"]["btc"]["minutes"]["differ"] == 0
    assert verify(load(site.config), newest=0).ok
