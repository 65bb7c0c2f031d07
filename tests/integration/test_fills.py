"""Trades that the socket did not bring, against an exchange that knows all it made: in the rows once, or said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mexc_pipeline import config
from mexc_pipeline.exchange import silence
from mexc_pipeline.exchange.fills import ORDER_MS
from mexc_pipeline.feed import watch
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.simulator import Fault, MadeTrade, Simulator, SimulatorConfig, Style
from mexc_pipeline.simulator.frames import DealId
from support.collecting import collecting, site_of
from support.gathering import Gathered
from support.spooled import check
from support.waiting import until

CHANNELS = '[channels]\nticker = false\ndepth = "off"\n'
RATE = 40.0
"""Some 33 trades a second: REST's hundred reach three seconds back."""


class Rig:
    """A feed of deals on its thread; what it hands over is kept."""

    def __init__(self, sim: Simulator) -> None:
        settings = config.parse(CHANNELS, None)
        exchange = config.ExchangeTable(websocket=sim.ws_url, rest=sim.rest_url)
        self.sim = sim
        self.got: list[Frame] = []
        self.feed = Feed(settings.symbols[0], exchange, Gathered(self.got.extend))

    def rows(self, mt: Mt) -> list[bytes]:
        return [frame.m for frame in list(self.got) if frame.mt == mt]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [said for m in self.rows(Mt.EVENT) if (said := json.loads(m))["event"] == name]

    def wait(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        until(lambda: len(self.events(name)) >= count, 60, f"{count} events {name}")
        return self.events(name)

    def deals(self, more: int) -> None:
        """Wait for so many frames more."""
        wanted = len(self.rows(Mt.DEAL)) + more
        until(lambda: len(self.rows(Mt.DEAL)) >= wanted, 60, f"{wanted} frames of deals")

    def without_connection(self, trades: int) -> None:
        """The connection ends, and none can be made until so many trades have been made."""
        connected = len(self.events("connected"))
        self.sim.inject(Fault("refuse_handshake"))
        self.sim.inject(Fault("abort"))
        made = len(self.sim.trades("BTC_USDT"))
        until(lambda: len(self.sim.trades("BTC_USDT")) >= made + trades, 60, f"{trades} trades")
        self.sim.clear_faults()
        self.wait("connected", connected + 1)


@contextmanager
def feeding(ids: DealId = "absent", rate: float = RATE, **settings: Any) -> Iterator[Rig]:
    with Simulator(SimulatorConfig(rate=rate, style=Style(rest_deal_id=ids), rest_limit=0, **settings)) as sim:
        rig = Rig(sim)
        thread = Thread(target=rig.feed.run)
        thread.start()
        try:
            yield rig
        finally:
            rig.feed.stop()
            thread.join(20)
        assert not thread.is_alive()


def numbers(frames: list[bytes]) -> list[int]:
    return [int(deal["i"]) for m in frames for deal in json.loads(m)["data"]]


def check_union(
    made: list[MadeTrade], frames: list[bytes], fetched: list[bytes], unfilled: list[dict[str, Any]]
) -> None:
    """Each trade from the first that came to the last is there once, as the exchange made it, or its time is said."""
    brought = numbers(frames)
    of_rest = {trade.m: trade.number for trade in made}
    kept = [of_rest[m] for m in fetched]
    assert max(Counter(brought + kept).values()) == 1
    spans = [(said["from"], said["to"]) for said in unfilled]
    covered = [trade for trade in made if min(brought) <= trade.number <= max(brought)]
    absent = [trade for trade in covered if trade.number not in {*brought, *kept}]
    assert not [trade for trade in absent if not any(a <= trade.time_ms <= b for a, b in spans)]
    assert {trade.number for trade in covered} >= set(kept)


@pytest.mark.parametrize("ids", ["string", "int"])
def test_what_was_traded_between_connections_is_there_once(ids: DealId) -> None:
    with feeding(ids) as rig:
        rig.deals(5)
        for n in range(1, 4):
            rig.without_connection(20)
            filled = rig.wait("filled", n)[-1]
            assert filled["count"] >= 20
        rig.deals(5)
        made = rig.sim.trades("BTC_USDT")
    assert not rig.events("unfilled")
    check_union(made, rig.rows(Mt.DEAL), rig.rows(Mt.REPAIRED), [])
    assert len(rig.rows(Mt.REPAIRED)) == sum(said["count"] for said in rig.events("filled"))
    status = rig.feed.status()["trades"]
    nothing = {"unfilled": 0, "why": None, "open": False, "trouble": None, "ids_shared": False}
    assert status == {"filled": len(rig.rows(Mt.REPAIRED)), **nothing}


def test_what_a_hundred_do_not_reach_is_said_with_its_times() -> None:
    with feeding("string", rate=150) as rig:
        rig.deals(5)
        rig.without_connection(300)
        rig.wait("filled")
        made = rig.sim.trades("BTC_USDT")
    (said,) = rig.events("unfilled")
    frames, fetched = rig.rows(Mt.DEAL), rig.rows(Mt.REPAIRED)
    brought = set(numbers(frames))
    kept = sorted(int(json.loads(m)["i"]) for m in fetched)
    before = max(trade for trade in brought if trade < kept[0])
    times = {trade.number: trade.time_ms for trade in made}
    assert abs(said["from"] - times[before]) <= ORDER_MS
    assert abs(said["to"] - times[kept[0]]) <= ORDER_MS
    assert said["reason"] == "at most 100 trades could be asked for"
    check_union(made, frames, fetched, [said])


def test_without_ids_no_trade_is_invented() -> None:
    with feeding() as rig:
        rig.deals(5)
        for n in range(1, 4):
            rig.without_connection(20)
            rig.wait("filled", n)
        rig.deals(5)
        made = rig.sim.trades("BTC_USDT")
    frames, fetched = rig.rows(Mt.DEAL), rig.rows(Mt.REPAIRED)
    assert len(fetched) >= 30
    brought = set(numbers(frames))
    missed = Counter(trade.m for trade in made if trade.number not in brought)
    assert Counter(fetched) <= missed
    outside = sum(missed.values()) - len(fetched)
    first, last = min(brought), max(brought)
    outside -= sum(trade.number < first or trade.number > last for trade in made)
    assert outside == sum(said["count"] for said in rig.events("unfilled")), "those at the edges are counted"


@pytest.mark.parametrize("fault", ["rest_lag", "rest_510", "rest_slow"])
def test_answers_that_are_late_or_refused_are_asked_for_again(fault: str) -> None:
    with feeding("string") as rig:
        rig.deals(5)
        rig.sim.inject(Fault(fault, seconds=4, value="60" if fault == "rest_lag" else "", delay=1.5))
        connected = len(rig.events("connected"))
        rig.sim.inject(Fault("abort"))
        rig.wait("connected", connected + 1)
        rig.wait("filled")
        made = rig.sim.trades("BTC_USDT")
    check_union(made, rig.rows(Mt.DEAL), rig.rows(Mt.REPAIRED), rig.events("unfilled"))


def test_a_rest_that_goes_back_in_time_is_given_up_and_said() -> None:
    with feeding("string") as rig:
        rig.deals(5)
        rig.sim.inject(Fault("rest_stale"))
        rig.sim.inject(Fault("rest_lag", value="50000"))
        rig.sim.inject(Fault("abort"))
        rig.wait("unfilled")
        rig.wait("filled")
        made = rig.sim.trades("BTC_USDT")
    assert rig.events("unfilled")[-1]["reason"] in ("REST lags behind the socket", "REST shows no trade")
    check_union(made, rig.rows(Mt.DEAL), rig.rows(Mt.REPAIRED), rig.events("unfilled"))


def test_a_channel_that_was_silent_and_comes_again_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes on all the while."""
    short = silence.SilenceBounds(floor=0.8, start=0.8, most=0.8)
    monkeypatch.setattr(watch, "bounds", lambda channel: short)
    with feeding("string") as rig:
        rig.deals(5)
        rig.sim.inject(Fault("stall", channel="deal", seconds=2.0))
        rig.wait("stalled")
        rig.deals(1)
        filled = rig.wait("filled")[-1]
        made = rig.sim.trades("BTC_USDT")
    assert filled["count"] > 0
    assert len(rig.events("connected")) == 1
    check_union(made, rig.rows(Mt.DEAL), rig.rows(Mt.REPAIRED), rig.events("unfilled"))


def test_what_is_only_late_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange holds its deals back, shows them over REST, and sends them after all."""
    short = silence.SilenceBounds(floor=0.8, start=0.8, most=0.8)
    monkeypatch.setattr(watch, "bounds", lambda channel: short)
    with feeding("string") as rig:
        rig.deals(5)
        rig.sim.inject(Fault("stall", channel="deal", value="hold", seconds=2.0))
        rig.wait("stalled")
        rig.deals(5)
        (filled,) = rig.wait("filled")
        made = rig.sim.trades("BTC_USDT")
    assert filled["count"] == 0
    check_union(made, rig.rows(Mt.DEAL), rig.rows(Mt.REPAIRED), rig.events("unfilled"))


def test_kills_leave_each_trade_once(tmp_path: Path) -> None:
    """What a killed process had received and not committed is missing too, and is fetched."""
    settings = SimulatorConfig(rate=RATE, style=Style(rest_deal_id="string"), rest_limit=0)
    with Simulator(settings) as sim:
        site = site_of(tmp_path, sim, extra=CHANNELS)
        for n in range(4):
            with collecting(site) as collector:
                collector.live(5)
                if n:
                    collector.event("filled", count=n)
        rows = check(site.spool())
        made = sim.trades("BTC_USDT")
    frames, fetched = ([row.m for row in rows if row.mt == mt] for mt in (Mt.DEAL, Mt.REPAIRED))
    said = [json.loads(row.m) for row in rows if row.mt == Mt.EVENT]
    assert len(fetched) > 10
    check_union(made, frames, fetched, [event for event in said if event["event"] == "unfilled"])
