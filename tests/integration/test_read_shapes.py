"""From a changed exchange to what is read: right, or said."""

from __future__ import annotations

from pathlib import Path

import pytest

from mexc_pipeline import read
from mexc_pipeline.config import load
from mexc_pipeline.exchange.protocol import unwrap
from mexc_pipeline.export import main as export
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from mexc_pipeline.verify.exports import exports
from support.collecting import Site, collecting, site_of
from support.spooled import named

TS = ["us", "ns", "s", "float", "text", "zero", "null"]


def recorded(tmp_path: Path, sim: Simulator, frames: int, mt: str = "dl", extra: str = "") -> Site:
    """So many rows of a type, stopped and exported."""
    site = site_of(tmp_path, sim, extra=extra)
    with collecting(site) as btc:
        btc.wait(lambda s: s["rows"][mt] >= frames)
        assert btc.stop() == 0
    assert export(load(site.config), once=True).ok
    return site


@pytest.mark.parametrize("ts", TS)
def test_frames_whose_only_fault_is_their_ts_are_read_and_said(tmp_path: Path, ts: str) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        sim.inject(Fault("shape", value=f"ts={ts}"))
        site = recorded(tmp_path, sim, 80)
    rows = site.rows()
    assert not [r for r in rows if r.mt in (1, 2, 3)], "the classification is what it promises"
    sent = {r.seq for r in rows if r.mt == 4 and b'"push.deal"' in r.m}
    with pytest.warns(read.DeadLetterWarning, match="dead letters .* ts"):
        trades = read.trades("btc", export_dir=site.exports)
    assert set(trades.seq) == sent
    dead = sum(r.mt == 4 for r in rows)
    assert (trades.attrs["dead_letters"], trades.attrs["dead_letter_reasons"]) == (dead, {"ts": dead})
    with pytest.warns(read.DeadLetterWarning):
        assert len(read.tickers("btc", export_dir=site.exports)) == sum(
            b'"push.ticker"' in r.m for r in rows if r.mt == 4
        )
    with pytest.warns(read.DeadLetterWarning):
        books = read.book("btc", export_dir=site.exports)
    with pytest.warns(read.DeadLetterWarning):
        assert not len(read.frames("btc", export_dir=site.exports, types=["d"]))
    with pytest.warns(read.DeadLetterWarning) as caught:
        at = read.book("btc", at=books.rx.max(), export_dir=site.exports)
    assert {w.filename for w in caught} == {__file__}, "the warning is for the line that asked"
    assert at.attrs["dead_letter_reasons"].keys() == {"ts"}
    assert at.version.max() == books.version.max()
    report = exports(load(site.config))
    assert report.ok
    assert any(f"{dead:,} of {dead:,} frames are dead letters ({dead:,} ts)" in note for note in report.notes)


def test_incremental_depth_whose_ts_is_wrong_is_checked_repaired_and_rebuilt(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        sim.inject(Fault("shape", value="ts=us"))
        site = site_of(tmp_path, sim, extra='[channels]\ndepth = "merged"')
        with collecting(site) as btc:
            btc.event("snapshot")
            sim.inject(Fault("version_gap"))
            btc.event("repaired")
            btc.stop()
            dead = max(r.rx for r in site.rows() if b'"push.depth"' in r.m and r.mt == 4)
        with collecting(site) as btc:
            gap = btc.event("gap", count=2)
            assert btc.stop() == 0
        assert gap["after"] == "restart"
        assert export(load(site.config), once=True).ok
        book = read.book("btc", at=dead, export_dir=site.exports)
        assert {side: len(levels) for side, levels in book.groupby("side")} == {
            "ask": len(sim.book("BTC_USDT", int(book.version[0])).asks),
            "bid": len(sim.book("BTC_USDT", int(book.version[0])).bids),
        }


@pytest.mark.parametrize("side", ["asks", "bids"])
@pytest.mark.parametrize(("depth", "channel"), [("full20", "depth.full"), ("merged", "depth")])
@pytest.mark.parametrize("change", ["set=data.{}:null", "drop=data.{}"])
def test_a_side_that_is_null_or_absent_is_empty(
    tmp_path: Path, side: str, depth: str, channel: str, change: str
) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        sim.inject(Fault("shape", channel=channel, value=change.format(side)))
        site = site_of(tmp_path, sim, extra=f'[channels]\ndepth = "{depth}"')
        with collecting(site) as btc:
            btc.wait(lambda s: s["rows"]["dp"] >= 10)
            if depth == "merged":
                btc.event("snapshot")
            btc.wait(lambda s: s["rows"]["dp"] >= 40)
            assert btc.stop() == 0
        rows = site.rows()
        assert export(load(site.config), once=True).ok
    newest = max(r.rx for r in rows if r.mt == 3)
    book = read.book("btc", at=newest, export_dir=site.exports)
    assert set(book.side) == ({"ask", "bid"} if depth == "merged" else {"ask", "bid"} - {side[:-1]})
    if depth == "full20":
        every = read.book("btc", export_dir=site.exports)
        assert every.attrs["skipped"] == 0
        assert set(every.side) == {"ask", "bid"} - {side[:-1]}


@pytest.mark.parametrize("depth", ["merged", "each"])
def test_a_side_by_another_name_is_said_of_the_book_that_goes_without_it(tmp_path: Path, depth: str) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        sim.inject(Fault("shape", channel="depth", value="rename=data.bids:b"))
        site = site_of(tmp_path, sim, extra=f'[channels]\ndepth = "{depth}"')
        with collecting(site) as btc:
            btc.event("snapshot")
            n = (btc.status() or {"rows": {"dp": 0}})["rows"]["dp"]
            btc.wait(lambda s: s["rows"]["dp"] >= n + 30)
            assert btc.stop() == 0
        newest = max(r.rx for r in site.rows() if r.mt == 3)
        assert export(load(site.config), once=True).ok
    with pytest.warns(read.StaleBookWarning, match="none of the .* changes since the book's snapshot has bids"):
        book = read.book("btc", at=newest, export_dir=site.exports)
    assert book.attrs["missing"]["bids"] >= 10
    assert "asks" not in book.attrs["missing"]


def test_answers_that_are_not_utf8_are_stored_exported_and_built_on(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=40)) as sim:
        sim.inject(Fault("rest_byte"))
        site = site_of(tmp_path, sim, extra='[channels]\ndepth = "merged"')
        with collecting(site) as btc:
            btc.event("snapshot")
            sim.inject(Fault("version_gap", count=2))
            btc.event("repaired")
            assert btc.stop() == 0
        rows = site.rows()
        repaired = [r for r in rows if r.mt == 6 and not r.m.startswith(b'{"p":')]  # trades are fetched, too
        assert repaired
        assert all(b"\xff" in (unwrap(r.m) or (0, b""))[1] for r in repaired)
        assert named(rows, "snapshot")
        assert export(load(site.config), once=True).ok
        book = read.book("btc", at=max(r.rx for r in rows if r.mt == 3), export_dir=site.exports)
        truth = sim.book("BTC_USDT", int(book.version[0]))
    assert {p.normalize() for p in book[book.side == "ask"].price} == {p.normalize() for p in truth.asks}
