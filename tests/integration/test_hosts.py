"""The exchange moves its host: one configuration that names both records on, and says which is in use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig
from support.collecting import Site, check_whole, collecting, site_of
from support.peers import free_port, saying, serving, silent
from support.spooled import check, named
from support.waiting import until


def _two(first: str, second: str) -> str:
    """For a line of the configuration that has a string already."""
    return json.dumps([first, second])


def _site(folder: Path, old: int, sim: Simulator) -> Site:
    site = Site(folder, "ws://OLD", "http://OLD")
    text = site.config.read_text()
    text = text.replace('"ws://OLD"', _two(f"ws://127.0.0.1:{old}/edge", sim.ws_url))
    site.config.write_text(text.replace('"http://OLD"', _two(f"http://127.0.0.1:{old}", sim.rest_url)))
    return site


@pytest.mark.parametrize("status", [b"404 Not Found", b"403 Forbidden", b"301 Moved", b"200 OK", b""])
def test_a_host_that_has_moved_is_left_at_once(tmp_path: Path, status: bytes) -> None:
    gone = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n" % status if status else b""
    with Simulator(SimulatorConfig(rate=100)) as sim, serving(saying(gone)) as old:
        site = _site(tmp_path, old.port, sim)
        with collecting(site) as btc:
            live = btc.wait(lambda s: s["rows"]["t"] >= 3 and s["listing"] == "listed")
            assert btc.stop() == 0
        rows = check(site.spool())
        check_whole(rows, sim.sent)
        assert live["egress"]["url"] == sim.ws_url
        assert [event["url"] for event in named(rows, "connected")] == [sim.ws_url]
        assert len(named(rows, "disconnected")) == 2, "one from the old host, one at the end"
        assert f'"next": "{sim.ws_url}"' in btc.said()


def test_a_dead_first_host_costs_no_pause_and_the_working_one_is_kept(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = _site(tmp_path, free_port(), sim)
        with collecting(site) as btc:
            btc.wait(lambda s: s["rows"]["t"] >= 3)
            sim.inject(Fault("close"))
            btc.wait(lambda s: s["reconnects"] == 2 and s["state"] == "live")
            assert btc.stop() == 0
        rows = check(site.spool())
        check_whole(rows, sim.sent)
    refused = [event for event in named(rows, "disconnected") if "refused" in event["reason"]]
    assert len(refused) == 1, "the dead one is not asked again while the other delivers"


def _asking(folder: Path, sim: Simulator, *rest: str, extra: str = "") -> Site:
    """The socket's address is the right one, REST's are these."""
    site = site_of(folder, sim, extra=extra)
    site.config.write_text(site.config.read_text().replace(f'"{sim.rest_url}"', json.dumps(rest)))
    return site


def test_a_rest_address_that_has_gone_is_left_by_all_who_ask_and_the_one_in_use_is_said(tmp_path: Path) -> None:
    """Listing and time went to the dead one first, each by itself and at every question."""
    gone = b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n"
    with Simulator(SimulatorConfig(rate=100)) as sim, serving(saying(gone)) as old:
        site = _asking(tmp_path, sim, f"http://127.0.0.1:{old.port}", sim.rest_url)
        with collecting(site) as btc:
            live = btc.wait(lambda s: s["listing"] == "listed")
            sim.wait_for(lambda s: any(r.target.endswith("/ping") for r in s.requests), 20)
            command = [sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "status"]
            said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
            assert btc.stop() == 0
    assert live["rest"] == {"url": sim.rest_url, "of": 2, "answered": True, "patience_s": 0.0}
    assert f"REST in use by btc: {sim.rest_url}" in said
    assert old.accepted == 1


def test_the_patience_that_rest_asks_for_is_kept_by_all_who_ask(tmp_path: Path) -> None:
    busy = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"
    with Simulator(SimulatorConfig(rate=100)) as sim, serving(saying(busy)) as rest:
        site = _asking(tmp_path, sim, f"http://127.0.0.1:{rest.port}", extra='[channels]\ndepth = "merged"')
        with collecting(site) as btc:
            btc.wait(lambda s: s["rest"]["patience_s"] > 500 and s["rows"]["d"] > 5)  # a gap is behind a known version
            sim.inject(Fault("version_gap"))
            btc.event("gap")
            asking = btc.wait(lambda s: str(s["gaps"]["trouble"]).endswith("asks for patience"))
            assert any("asks for patience: nothing is asked of it for" in line for line in asking["warnings"])
            until(lambda: "exchange's time unknown" in btc.said(), what="the question for the time")
            assert btc.stop() == 0
    assert rest.accepted <= 2, "the listing's question and, in the same moment, the book's"


def test_a_host_that_accepts_and_says_nothing_more_is_left(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim, serving(silent) as old:
        site = _site(tmp_path, old.port, sim)
        with collecting(site) as btc:
            btc.wait(lambda s: s["rows"]["t"] >= 3, timeout_s=30)
            assert btc.stop() == 0
        assert "WebSocket handshake: not done within" in named(check(site.spool()), "disconnected")[0]["reason"]


def test_one_hosts_wish_for_patience_keeps_nobody_from_the_other(tmp_path: Path) -> None:
    """The first asks for ten minutes, the other fails once: it is the other's turn again, not ten minutes later."""
    busy = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"
    with Simulator(SimulatorConfig(rate=100)) as sim, serving(saying(busy)) as old:
        sim.inject(Fault("refuse_handshake", value="404"))
        site = _site(tmp_path, old.port, sim)
        with collecting(site) as btc:
            sim.wait_for(lambda s: any(r.status == 404 for r in s.requests), 20)
            sim.clear_faults()
            btc.wait(lambda s: s["rows"]["t"] >= 3, timeout_s=30)
            assert btc.stop() == 0
        rows = check(site.spool())
        check_whole(rows, sim.sent)
    said = [event.get("status") for event in named(rows, "disconnected")]
    assert said.count(429) == 1, "it is left alone for as long as it asked"
    assert 404 in said


def test_a_host_that_does_not_know_the_contract_is_left_for_one_that_does(tmp_path: Path) -> None:
    with (
        Simulator(SimulatorConfig(rate=100)) as sim,
        Simulator(SimulatorConfig(symbols=("ETH_USDT",), rate=100)) as old,
    ):
        site = _site(tmp_path, int(old.ws_url.split(":")[2].partition("/")[0]), sim)
        with collecting(site) as btc:
            live = btc.wait(lambda s: s["rows"]["t"] >= 3 and s["state"] == "live", timeout_s=15)
            assert live["egress"]["url"] == sim.ws_url
            assert btc.stop() == 0
        rows = check(site.spool())
    assert [event["url"] for event in named(rows, "connected")] == [old.ws_url, sim.ws_url]
    assert "not exists" in named(rows, "disconnected")[0]["reason"]


def test_where_no_host_knows_the_contract_its_listing_is_awaited(tmp_path: Path) -> None:
    other = SimulatorConfig(symbols=("ETH_USDT",))
    with Simulator(other) as sim, Simulator(other) as old:
        site = _site(tmp_path, int(old.ws_url.split(":")[2].partition("/")[0]), sim)
        with collecting(site) as btc:
            status = btc.wait(lambda s: s["reconnects"] >= 2 and s["state"] == "waiting: not listed", timeout_s=20)
            (said,) = [text for text in status["warnings"] if "does not list" in text]
            assert "BTC_USDT" in said
            assert not [text for text in status["warnings"] if "given up" in text]
            assert btc.stop() == 0
        rows = check(site.spool())
    assert {event["url"] for event in named(rows, "connected")} == {old.ws_url, sim.ws_url}
