"""The contract in every file: asked for once by a host, byte for byte as it was served, and again where it changes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq

from mexc_pipeline import read
from mexc_pipeline.config import load
from mexc_pipeline.export import main
from mexc_pipeline.export.parquet import metadata
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from mexc_pipeline.verify import exports
from support.collecting import Site, check_whole, collecting, site_of
from support.spooled import Segment, check, read_segments, specifications
from support.waiting import until

SYMBOLS = {"btc": "BTC_USDT", "eth": "ETH_USDT", "sol": "SOL_USDT"}
DETAILS = "/api/v1/contract/detail"
MARKET = (1, 2, 3)
NEAR = 2
"""Rows of a segment among which it is to be found, where it was known when that began."""


def closed_after(site: Site, symbol_id: str, seq: int) -> list[Segment]:
    """Closed segments that began after that row."""
    found = read_segments(site.spool(symbol_id))
    return [segment for segment in found if segment.meta["state"] != "open" and segment.rows[0].seq > seq]


def files(site: Site, symbol_id: str) -> dict[str, list[tuple[str, bytes]]]:
    """Type and bytes of the rows of each file."""
    found = {}
    for path in sorted(site.exports.glob(f"{symbol_id}[0-9]*.parquet")):
        table = pq.read_table(path)
        texts = [m.encode() for m in table["m"].to_pylist()]
        found[path.name] = list(zip(table["mt"].to_pylist(), texts, strict=True))
    return found


def test_three_collectors_of_a_host_ask_once_and_each_file_has_it(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=30)) as sim, ExitStack() as running:
        site = site_of(tmp_path, sim, period="4s", symbols=tuple(SYMBOLS.values()))
        collectors = [running.enter_context(collecting(site, symbol_id)) for symbol_id in SYMBOLS]
        known = {c.id: c.wait(lambda s: s["rows"]["c"] and s["listing"] == "listed")["last_seq"] for c in collectors}
        for symbol_id, seq in known.items():
            until(lambda i=symbol_id, seq=seq: len(closed_after(site, i, seq)) >= 2, 90, "periods")  # type: ignore[misc]
        assert [collector.stop() for collector in collectors] == [0, 0, 0]
        assert sim.asked(DETAILS) == 1, "once a host and hour"
        served = {symbol_id: sim.specifications(name) for symbol_id, name in SYMBOLS.items()}
        sent = [sim.sent_on(n) for n in (1, 2, 3)]
    config = load(site.config)
    assert main(config, once=True).ok
    report = exports(config)
    assert report.ok, report.lines()
    for symbol_id, name in SYMBOLS.items():
        (specification,) = served[symbol_id]
        rows = check(site.spool(symbol_id))
        check_whole(rows, next(frames for frames in sent if any(frame.symbol == name for frame in frames)), name)
        for segment in closed_after(site, symbol_id, known[symbol_id]):
            if any(row.mt in MARKET for row in segment.rows):  # not where it ended at once
                assert specifications(segment.rows[:NEAR]) == specifications(segment.rows) == [specification]
        size = json.loads(specification, parse_float=str, parse_int=str)["contractSize"]
        held = files(site, symbol_id)
        assert len(held) >= 3
        for file, of in held.items():
            told, said = [m for mt, m in of if mt == "c"], metadata(site.exports / file)
            is_early = int(said["first_seq"]) <= known[symbol_id]
            assert told == [specification] or (told == [] and (is_early or all(mt == "ev" for mt, _ in of))), file
            assert said.get("contract_size") == (size if told else None)


def test_a_change_while_it_runs_is_one_more_row(tmp_path: Path) -> None:
    """An hour is half a second here. One of the two contracts changes, and changes again."""
    hurried = "import mexc_pipeline.feed.contracts as contracts; contracts.FRESH_S = 0.5"
    with Simulator(SimulatorConfig(rate=30)) as sim, ExitStack() as running:
        site = site_of(tmp_path, sim, period="24h", symbols=("BTC_USDT", "ETH_USDT"))
        for symbol_id in ("btc", "eth"):
            running.enter_context(collecting(site, symbol_id, first=hurried))

        def told(count: int) -> list[bytes]:
            until(lambda: len(specifications(site.rows())) >= count, 60, "one more")
            return specifications(site.rows())

        told(1)
        until(lambda: specifications(site.rows("eth")), 60, "that of the other")
        asked = sim.asked(DETAILS)
        sim.wait_for(lambda s: s.asked(DETAILS) >= asked + 2, 60)  # without a change there is nothing to say
        assert len(told(1)) == 1
        for count in (2, 3):
            sim.inject(Fault("contract_change", symbol="BTC_USDT"))
            assert len(told(count)) == count
        assert told(3) == sim.specifications("BTC_USDT")
        assert len(set(told(3))) == 3
        assert specifications(site.rows("eth")) == sim.specifications("ETH_USDT")
    for symbol_id in ("btc", "eth"):
        check(site.spool(symbol_id))
    config = load(site.config)
    assert main(config, once=True).ok
    assert exports(config).ok
    sizes = [metadata(path).get("contract_size") for path in sorted(site.exports.glob("*.parquet"))]
    assert sizes == ["0.0001", "0.01"] or len(sizes) > 2, "a day may have ended meanwhile"


def test_a_change_that_is_pushed_is_in_every_file_from_then_on(tmp_path: Path) -> None:
    """The host's copy of the list is up to an hour older than what the socket brought."""
    with Simulator(SimulatorConfig(rate=30)) as sim, ExitStack() as running:
        site = site_of(tmp_path, sim, period="4s", extra="[channels]\ncontract = true")
        btc = running.enter_context(collecting(site))
        btc.wait(lambda s: s["rows"]["c"] and s["channels"]["push.contract"]["confirmed"])
        sim.inject(Fault("contract_change", symbol="BTC_USDT"))
        until(lambda: len(set(specifications(site.rows()))) == 2, 60, "it")
        before, changed = sim.specifications("BTC_USDT")
        after = (btc.status() or {})["last_seq"]
        until(lambda: len(closed_after(site, "btc", after)) >= 2, 90, "periods")
        assert btc.stop() == 0
        assert sim.asked(DETAILS) == 1, "nothing is asked for it"
    rows = check(site.spool())
    told = specifications(rows)
    first = told.index(changed)
    assert (set(told[:first]), set(told[first:])) == ({before}, {changed}), "never again what was before"
    for segment in closed_after(site, "btc", after):
        if any(row.mt in MARKET for row in segment.rows):
            assert specifications(segment.rows[:NEAR]) == [changed]
    assert main(load(site.config), once=True).ok
    assert len(read.contracts("btc", export_dir=site.exports)) == 2


def test_a_part_of_a_contract_that_is_pushed_takes_nothing_from_the_files(tmp_path: Path) -> None:
    """Without its size it would leave the next files without one, for up to an hour."""
    with Simulator(SimulatorConfig(rate=30)) as sim, ExitStack() as running:
        sim.inject(Fault("shape", value="drop=data.contractSize", channel="contract"))
        site = site_of(tmp_path, sim, period="4s", extra="[channels]\ncontract = true")
        btc = running.enter_context(collecting(site))
        btc.wait(lambda s: s["rows"]["c"] and s["channels"]["push.contract"]["confirmed"])
        sim.inject(Fault("contract_change", symbol="BTC_USDT"))
        until(lambda: any(row.m.startswith(b'{"channel":"push.contract"') for row in site.rows()), 60, "it")
        after = (btc.status() or {})["last_seq"]
        until(lambda: len(closed_after(site, "btc", after)) >= 2, 90, "periods")
        assert btc.stop() == 0
    known = specifications(read_segments(site.spool())[0].rows)[0]
    for segment in closed_after(site, "btc", after):
        if any(row.mt in MARKET for row in segment.rows):
            assert specifications(segment.rows[:NEAR]) == specifications(segment.rows) == [known]


def test_a_listing_to_come_is_described_once_it_is_there(tmp_path: Path) -> None:
    """The list does not have it: it is asked for by itself, as before."""
    with Simulator(SimulatorConfig(rate=30)) as sim, ExitStack() as running:
        sim.inject(Fault("detail", value="missing"))
        site = site_of(tmp_path, sim)
        running.enter_context(collecting(site))
        sim.wait_for(lambda s: any("/detail?symbol=BTC_USDT" in r.target for r in s.requests), 60)
        assert not specifications(site.rows())
        sim.clear_faults()
        until(lambda: specifications(site.rows()), 60, "its row")
        assert specifications(site.rows()) == sim.specifications("BTC_USDT")
        assert sum(request.target == DETAILS for request in sim.requests) == 1


def test_without_rest_files_are_as_before(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=30, faults=(Fault("rest_403"),))) as sim:
        sim.wait_for(lambda s: bool(s._exchange.board))
        site = site_of(tmp_path, sim, period="4s")
        with collecting(site) as btc:
            until(lambda: closed_after(site, "btc", 0), 90, "a period")
            status = btc.wait(lambda s: "HTTP 403" in s["listing"])
            assert status["state"] == "live"
            assert btc.stop() == 0
        sent = sim.sent_on(1)
    rows = check(site.spool())
    check_whole(rows, sent)
    assert not specifications(rows)
    config = load(site.config)
    assert main(config, once=True).ok
    assert exports(config).ok
    assert not any("contract_size" in metadata(path) for path in site.exports.glob("*.parquet"))
