"""From the socket to ``read.book``: books out of exported files equal the simulator's own, through everything."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from mexc_pipeline import read
from mexc_pipeline.config import load
from mexc_pipeline.errors import UserError
from mexc_pipeline.exchange.depth import span
from mexc_pipeline.export import main as export
from mexc_pipeline.read import GapError
from mexc_pipeline.simulator import BookView, Fault, Simulator, SimulatorConfig
from support.collecting import Collector, Site, collecting, site_of
from support.spooled import Stored, events, named, read_segments
from support.waiting import until

Sides = dict[str, dict[Decimal, tuple[int, int]]]


def of_frame(df: pd.DataFrame) -> Sides:
    rows = zip(df.side, df.price, df.volume, df.orders, strict=True)
    found: Sides = {"ask": {}, "bid": {}}
    for side, price, volume, orders in rows:
        found[side][price.normalize()] = (int(volume), int(orders))
    return found


def of_view(view: BookView) -> Sides:
    return {
        "ask": {p.normalize(): level for p, level in view.asks.items()},
        "bid": {p.normalize(): level for p, level in view.bids.items()},
    }


def exported(site: Site, sim: Simulator, collector: Collector) -> list[Stored]:
    """Stop, export everything, and return the rows."""
    assert collector.stop() == 0
    rows = site.rows()
    assert export(load(site.config), once=True).ok
    return rows


def check_books(site: Site, sim: Simulator, rows: list[Stored], every: int) -> int:
    """Compare the book at every so-many-th depth row with the simulator's; how many were compared."""
    first = named(rows, "snapshot")[0]["seq"]
    at = [r.rx for r in rows if r.mt == 3 and r.seq > first][::every]
    for rx in at:
        df = read.book("btc", at=rx, export_dir=site.exports)
        assert of_frame(df) == of_view(sim.book("BTC_USDT", int(df.version[0])))
    return len(at)


@pytest.mark.parametrize("depth", ["merged", "each"])
def test_books_equal_the_simulators_through_gaps_lag_throttling_and_reconnects(tmp_path: Path, depth: str) -> None:
    with Simulator(SimulatorConfig(rate=30)) as sim:
        site = site_of(tmp_path, sim, period="6s", extra=f'[channels]\ndepth = "{depth}"')
        with collecting(site) as btc:
            btc.event("snapshot")
            sim.inject(Fault("version_gap", count=2))
            btc.event("repaired")
            sim.inject(Fault("begin_end", count=2, value="missing"))
            sim.inject(Fault("rest_lag", value="150", seconds=4))
            sim.inject(Fault("version_gap"))
            btc.event("repaired", count=2)
            sim.inject(Fault("rest_510", seconds=1))
            sim.inject(Fault("version_back", channel="depth"))
            sim.inject(Fault("duplicate", channel="depth"))
            btc.event("repaired", count=3)
            sim.inject(Fault("refuse_connect", seconds=1))  # the next connection is made at once: it would miss nothing
            sim.inject(Fault("reset"))
            btc.event("disconnected")
            until(lambda: len([e for e in named(site.rows(), "gap") if e.get("after") == "reconnect"]), 40)
            seen = len(read_segments(site.spool()))
            until(
                lambda: any(named(s.rows, "snapshot") for s in read_segments(site.spool())[seen:]), 40, "another hour"
            )
            until(lambda: btc.status()["gaps"]["open"] == 0)  # type: ignore[index]
            rows = exported(site, sim, btc)
        assert not [e for e in events(rows) if e["event"] == "unrepaired" and e["reason"] != "stopped"]
        assert check_books(site, sim, rows, 4 if depth == "merged" else 60) >= 10
        segment = [s for s in read_segments(site.spool()) if named(s.rows, "snapshot")][-1]
        for file in site.exports.glob("*.parquet"):
            if not file.name.startswith("btc" + segment.file.partition(".")[0]):
                file.unlink()
        df = read.book("btc", at=segment.rows[-1].rx, export_dir=site.exports, levels=5)
        view = sim.book("BTC_USDT", int(df.version[0]))
        assert list(df.price[:5]) == sorted(view.asks)[:5], "from one file alone"
        assert list(df.price[5:]) == sorted(view.bids, reverse=True)[:5]
        assert list(df.level) == [1, 2, 3, 4, 5] * 2


def test_across_an_unrepaired_gap_only_on_request(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=30)) as sim:
        site = site_of(tmp_path, sim, extra='[channels]\ndepth = "merged"')
        with collecting(site) as btc:
            btc.event("snapshot")
            sim.inject(Fault("rest_403"))
            sim.inject(Fault("version_gap"))
            gap = btc.event("gap")
            until(lambda: any(r.mt == 3 and r.seq > gap["seq"] + 5 for r in site.rows()))
            rows = exported(site, sim, btc)
        newest = [r.rx for r in rows if r.mt == 3][-1]
        before = next(r.rx for r in reversed(rows) if r.mt == 3 and r.seq < gap["seq"])
        df = read.book("btc", at=before, export_dir=site.exports)
        assert of_frame(df) == of_view(sim.book("BTC_USDT", int(df.version[0])))
        with pytest.raises(GapError, match=f"versions {gap['from']} to {gap['to']} of the book are in no file"):
            read.book("btc", at=newest, export_dir=site.exports)
        df = read.book("btc", at=newest, export_dir=site.exports, across_gaps=True)
        assert df.attrs["gaps"] == [(gap["from"], gap["to"])]
        with pytest.raises(UserError, match="no snapshot of the book at or before"):
            read.book("btc", at=rows[0].rx, export_dir=site.exports)
        with pytest.raises(ValueError, match="at is one instant"):
            read.book("btc", newest, at=newest, export_dir=site.exports)


def test_full_depth_needs_no_rebuilding(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=30)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as btc:
            btc.wait(lambda s: s["rows"]["dp"] >= 3)
            rows = exported(site, sim, btc)
        second = [r for r in rows if r.mt == 3][1]
        df = read.book("btc", at=second.rx + 1, export_dir=site.exports)
        all_of_it = read.book("btc", export_dir=site.exports)
        own = all_of_it[all_of_it.seq == second.seq].reset_index(drop=True)
        assert df.equals(own)


def test_both_kinds_of_depth_side_by_side(tmp_path: Path) -> None:
    """The book has every level; through a gap, and a restart that misses some, full depth stands in for it."""
    with Simulator(SimulatorConfig(rate=30)) as sim:
        site = site_of(tmp_path, sim, extra='[channels]\ndepth = ["full20", "merged"]')
        with collecting(site) as btc:
            btc.event("snapshot")
            btc.wait(lambda s: s["rows"]["dp"] >= 20)
            assert btc.stop() == 0
        sim.inject(Fault("rest_403"))
        with collecting(site) as btc:
            gap = btc.event("gap")
            assert gap["after"] == "restart"
            until(lambda: sum(r.mt == 3 and r.seq > gap["seq"] for r in site.rows()) > 10)
            rows = exported(site, sim, btc)
        begun = named(rows, "snapshot")[0]["seq"]
        again = named(rows, "started")[1]["seq"]
        seen = set()
        full_again = False
        for row in [r for r in rows if r.mt == 3 and r.seq > begun + 10]:
            full_again = full_again or (row.seq > again and b"push.depth.full" in row.m)
            if row.seq > again and not full_again:
                with pytest.raises(GapError):
                    read.book("btc", at=row.rx, export_dir=site.exports)
                continue
            df = read.book("btc", at=row.rx, export_dir=site.exports)
            own = of_view(sim.book("BTC_USDT", int(df.version[0])))
            seen.add((df.attrs["channel"], row.seq > again))
            if df.attrs["channel"] == "push.depth":
                assert of_frame(df) == own
            else:
                assert row.seq > again
                assert of_frame(df) == {
                    "ask": dict(sorted(own["ask"].items())[:20]),
                    "bid": dict(sorted(own["bid"].items(), reverse=True)[:20]),
                }
        assert ("push.depth", False) in seen
        assert ("push.depth.full", True) in seen
        full = read.book("btc", export_dir=site.exports)
        depths = sum(r.mt == 3 for r in rows)
        assert full.seq.nunique() + full.attrs["incremental"] == depths
        assert 0 < full.attrs["incremental"] < depths


@pytest.mark.parametrize("depth", ["merged", "each"])
def test_versions_that_begin_low_after_a_reconnect_are_a_new_count_at_once(tmp_path: Path, depth: str) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        site = site_of(tmp_path, sim, extra=f'[channels]\ndepth = "{depth}"')
        with collecting(site) as btc:
            btc.event("snapshot")
            assert sim.inject(Fault("reset_versions", value="7000")) == 1
            btc.event("snapshot", count=2)
            first = btc.wait(lambda s: s["reconnects"] >= 1)["rows"]["dp"]
            btc.wait(lambda s: s["rows"]["dp"] >= first + 40)
            rows = exported(site, sim, btc)
    events = [(r.seq, json.loads(r.m)) for r in rows if r.mt == 5]
    (seq, regressed) = next((seq, e) for seq, e in events if e["event"] == "regressed")
    assert (regressed["anew"], regressed["after"]) == (True, "reconnect")
    new = next(r for r in rows if r.seq == seq + 1)
    covered = span(new.m)
    assert covered is not None
    assert covered.last == regressed["to"] < regressed["from"], "said before the first frame of the new count"
    assert sum(e["event"] == "regressed" for _, e in events) == 1
    assert not [e for _, e in events if e["event"] == "unrepaired"]
    connected = max(s for s, e in events if e["event"] == "connected")
    book = next(e for s, e in events if s > connected and e["event"] == "snapshot")
    assert book["version"] < regressed["from"], "REST gives the book of the new count"
    compared = 0
    for row in (r for r in rows if r.mt == 3 and r.seq > seq):
        of_row = span(row.m)
        assert of_row is not None
        if of_row.last < book["version"]:  # before the first book of the new count
            with pytest.raises(UserError, match="no snapshot of the book"):
                read.book("btc", at=row.rx, export_dir=site.exports)
            continue
        df = read.book("btc", at=row.rx, export_dir=site.exports)
        assert df.version[0] < regressed["from"], "never the old book"
        assert of_frame(df) == of_view(sim.book("BTC_USDT", int(df.version[0])))
        compared += 1
    assert compared > 10
