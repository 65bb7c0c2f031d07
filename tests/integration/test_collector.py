"""A collector process against the simulator: what was sent is what is in the spool."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.control import ControlServer, ask
from mexc_pipeline.simulator import Fault, FlatOut, Simulator, SimulatorConfig
from support.collecting import IMPATIENT, Collector, Site, check_times, check_whole, collecting, frames, site_of, wanted
from support.exported import write_export
from support.oracle import ALL_CHANNELS
from support.peers import free_port, serving, silent
from support.spooled import check, events, is_fetched, named, read_segments, specifications
from support.waiting import until


def test_what_the_simulator_sent_is_in_the_spool_over_edges_and_a_cut(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=300)) as sim:
        site = site_of(tmp_path, sim, period="2s", symbols=("BTC_USDT", "ETH_USDT"))
        with collecting(site) as btc, collecting(site, "eth") as eth:
            btc.live()
            eth.live()
            control = site.data / "control" / "btc.sock"
            cut = ask(control, "cut", timeout_s=10)
            until(lambda: len(read_segments(site.spool())) >= 4, 40, "three edges")
            status = btc.wait(lambda s: s["delay_ms"] is not None)
            assert (eth.stop(), btc.stop()) == (0, 0)
        for conn in sim.connections:
            symbol = next(f.symbol for f in sim.sent_on(conn.number) if f.symbol)
            symbol_id = symbol.partition("_")[0].lower()
            rows = check(site.spool(symbol_id))
            check_whole(rows, sim.sent_on(conn.number), symbol)
            check_times(rows, symbol)
            order = [e["event"] for e in events(rows) if e["event"] != "sealed"]
            assert order[0] == "started"
            assert order[1] == "connected"
            assert Counter(order) == {"started": 1, "connected": 1, "subscribed": 3, "disconnected": 1, "stopped": 1}
            assert order[-2:] == ["disconnected", "stopped"]
            assert (named(rows, "disconnected")[0]["code"], named(rows, "disconnected")[0]["reason"]) == (
                1000,
                "stopped",
            )
        assert cut["segment"] in {s.file for s in read_segments(site.spool())}
        assert sum(s.meta["cut"] for s in read_segments(site.spool())) == 1
        assert [json.loads(m.data)["method"] for m in sim.received if m.conn == 1][:4] == [
            "sub.ticker", "sub.deal", "sub.depth.full", "ping",
        ]  # fmt: skip
    assert status["id"] == "btc"
    assert status["state"] == "live"
    assert status["warnings"] == []
    assert status["egress"]["mode"] == "direct"
    assert status["egress"]["peer"] == f"127.0.0.1:{sim.port}"
    assert {c["confirmed"] for c in status["channels"].values()} <= {"ack", "data"}
    assert status["durable_ms"]["p99"] >= status["durable_ms"]["p50"] > 0
    assert not control.exists()


EVERYTHING = """
[channels]
depth = ["full50", "merged"]
funding = true
index_price = true
fair_price = true
kline = "Min1"
contract = true
extra = ["sub.depth.step"]
"""


@pytest.mark.parametrize(("symbol", "name"), [("BTC_USDT", "btc"), ("BTC_USD", "btcusd")])
def test_every_channel_is_recorded_as_what_it_is(tmp_path: Path, symbol: str, name: str) -> None:
    listed = ("BTC_USDT", "BTC_USD", "ETH_USDT")
    changes = (Fault("contract_change", every=0.1, at=0.1),)
    with Simulator(SimulatorConfig(symbols=listed, rate=200, faults=changes)) as sim:
        sim.inject(Fault("old_prices"))
        site = site_of(tmp_path, sim, symbols=(symbol,), extra=EVERYTHING)
        with collecting(site, name) as collector:
            types = ("t", "d", "dp", "f", "i", "p", "k", "c", "x")
            status = collector.wait(lambda s: all(s["rows"][mt] >= 2 for mt in types))
            assert collector.stop() == 0
        rows = check(site.spool(name))
        check_whole(rows, sim.sent_on(1), symbol, ALL_CHANNELS)
        assert not [r for r in rows if r.mt == 4]
        assert {json.loads(r.m)["channel"] for r in rows if r.mt == 3} == {"push.depth", "push.depth.full"}
        pushed = [json.loads(r.m) for r in rows if r.mt == 11 and not is_fetched(r.mt, r.m)]
        assert {frame["data"]["symbol"] for frame in pushed} == {symbol}
        assert set(specifications(rows)) <= set(sim.specifications(symbol))
        others = {json.loads(r.m)["channel"]: json.loads(r.m) for r in rows if r.mt == 12}
        assert others.keys() == {"push.contract", "push.depth.step"}
        assert {json.loads(r.m)["symbol"] for r in rows if r.mt == 8} == {"BTC_USDT"}, "also of the inverse contract"
        fifty = next(json.loads(r.m)["data"] for r in rows if r.mt == 3 and b"push.depth.full" in r.m)
        assert len(fifty["asks"]) == 50
    assert status["state"] == "live"
    assert set(status["channels"]) == set(ALL_CHANNELS)
    assert {c["confirmed"] for c in status["channels"].values()} <= {"ack", "data"}
    assert status["delay_ms"]["p99"] < 60_000, "prices of ten minutes before say nothing of the way"
    assert status["recent"]["dead_letters"] == {}


def test_every_bad_frame_is_kept_and_recording_goes_on(tmp_path: Path) -> None:
    kinds = [
        Fault("bad_json"), Fault("not_object"), Fault("unknown_channel"), Fault("foreign_symbol"),
        Fault("invalid_utf8"),
        Fault("huge"), Fault("ts_null"), Fault("ts_type", value="string"), Fault("ts_type", value="float"),
        Fault("ts_type", value="short"), Fault("ts_type", value="bool"), Fault("ts_missing"), Fault("empty"),
        Fault("rs_error"), Fault("binary"), Fault("client_id"), Fault("extra_pong"), Fault("ws_ping"),
        Fault("frame", payload=b'{"base64":"x","opcode":1}'), Fault("frame", payload=b"", opcode=2),
        Fault("fragmented"), Fault("duplicate"), Fault("double_pong"), Fault("frame", payload=b'"\xed\xa0\x80"'),
    ]  # fmt: skip
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim, period="2s", ping="2s")
        with collecting(site) as btc:
            btc.live()
            for fault in kinds:
                assert sim.inject(fault) == 1
            pinged = len(sim.received)
            sim.wait_for(lambda s: len(s.received) > pinged)
            before = btc.wait(lambda s: s["rows"]["dl"] >= 16)["rows"]["t"]
            status = btc.wait(lambda s: s["rows"]["t"] > before)
            assert btc.stop() == 0
        assert len(sim.connections) == 1
        rows = check(site.spool())
        check_whole(rows, sim.sent)
        check_times(rows)
        assert sum(r.mt == 4 for r in rows) == status["rows"]["dl"] == 17
        assert max(len(r.m) for r in rows) == 2 * 1024 * 1024
    assert status["exchange_said"] == "Contract [BTC_USDT] not exists"


def test_a_busy_connection_lives_by_its_own_pings(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=400, heartbeat=3)) as sim:
        site = site_of(tmp_path, sim, ping="2s")
        with collecting(site) as btc:
            btc.live()
            sim.wait_for(lambda s: sum(m.data == '{"method":"ping"}' for m in s.received) >= 3, 40)
            assert btc.stop() == 0
        assert len(sim.connections) == 1, "the exchange closes after 3 s without a ping, however busy"
        check_whole(check(site.spool()), sim.sent)


def test_flat_out_nothing_is_lost(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(flat_out=FlatOut(frames=20_000))) as sim:
        site = site_of(tmp_path, sim, period="2s")
        with collecting(site) as btc:
            btc.wait(lambda s: sum(s["rows"][k] for k in ("t", "d", "dp")) >= 20_000, 60)
            assert btc.stop() == 0
        rows = check(site.spool())
        check_whole(rows, sim.sent)


def test_a_collector_carries_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    script = (
        f"import atexit, os, runpy, sys\n{IMPATIENT}\n"
        "names = lambda: ' '.join(sorted(m.partition('.')[0] for m in sys.modules))\n"
        "atexit.register(lambda: os.write(2, f'LOADED {names()}\\n'.encode()))\n"
        "sys.argv[1:] = ['--config', sys.argv[1], 'collect', 'btc']\n"
        "runpy.run_module('mexc_pipeline', run_name='__main__')\n"
    )
    with Simulator() as sim:
        site = site_of(tmp_path, sim)
        site.exports.mkdir()
        write_export(site.exports / "btc2026112120.parquet", 700)
        with subprocess.Popen([sys.executable, "-c", script, str(site.config)], stderr=subprocess.PIPE) as process:
            try:
                until(lambda: any(mt in (1, 2, 3) for mt, _ in frames(site.rows())), 40)
                resident = Path(f"/proc/{process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
            finally:
                process.terminate()
            said = process.communicate(timeout=10)[1].decode()
    loaded = set(next(line for line in said.splitlines() if line.startswith("LOADED")).split())
    assert "websocket" in loaded
    assert not loaded & {"pyarrow", "pandas", "numpy", "chdb", "clickhouse_driver", "rich"}
    assert int(resident) < 45_000, "kB"
    assert check(site.spool(), 701)[0].seq == 701, "above what the files know"


def test_a_wrong_configuration_starts_nothing(tmp_path: Path) -> None:
    with serving(silent) as trap:
        address = f"127.0.0.1:{trap.port}"
        site = Site(tmp_path, f"ws://{address}/edge", f"http://{address}", extra='[channels]\ndepth = "full7"')
        with collecting(site, alone=True) as btc:
            assert btc.process.wait(40) == 2
        assert trap.accepted == 0
    (line,) = btc.said().splitlines()
    assert "channels.depth" in line
    assert "full5, full10, full20" in line
    assert not site.data.exists()


def test_a_symbol_that_is_not_listed_is_waited_for(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(symbols=("ETH_USDT",))) as sim, collecting(site_of(tmp_path, sim)) as btc:
        status = btc.wait(lambda s: s["state"] == "waiting: not listed" and "does not exist" in s["listing"])
        assert any("does not list BTC_USDT (yet)" in w for w in status["warnings"])
        assert status["exchange_said"] == "Contract [BTC_USDT] not exists"
        sim.wait_for(lambda s: sum("/detail" in r.target for r in s.requests) >= 2, 40)
        assert len(sim.connections) == 1
        assert btc.stop() == 0


@pytest.mark.parametrize("way", ["missing", "unread"])
def test_recording_does_not_depend_on_who_is_to_be_told_of_it(tmp_path: Path, way: str) -> None:
    with (
        Simulator(SimulatorConfig(rate=100)) as sim,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        address = str(tmp_path / "notify")
        if way == "unread":
            systemd.bind(address)
            systemd.setblocking(False)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler, contextlib.suppress(BlockingIOError):
                filler.setblocking(False)
                while True:
                    filler.sendto(b"full", address)
        site = site_of(tmp_path, sim)
        with collecting(site, env={"NOTIFY_SOCKET": address}) as btc:
            btc.live(300)
            assert btc.stop() == 0
        check_whole(check(site.spool()), sim.sent_on(1))


def test_a_process_that_stood_still_says_that_its_rows_are_late(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=50)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as btc:
            btc.live(50)
            btc.process.send_signal(signal.SIGSTOP)
            sent = len(sim.sent)
            sim.wait_for(lambda s: len(s.sent) > sent + 200, 60)
            btc.process.send_signal(signal.SIGCONT)
            said = btc.event("paused")
            status = btc.wait(lambda s: s["paused"] is not None)
            assert any(w.startswith("nothing was read for ") for w in status["warnings"])
            assert btc.stop() == 0
        rows = check(site.spool())
        check_whole(rows, sim.sent_on(1))
        at = next(n for n, row in enumerate(rows) if row.m.startswith(b'{"event":"paused"'))
        late = [row.rx - row.ts * 1_000_000 for row in rows[:at] if row.mt in (1, 2, 3)]
        after = [row.rx - row.ts * 1_000_000 for row in rows[at:] if row.mt in (1, 2, 3)]
        assert max(late) < said["for_s"] * 1e9 / 2, "all that is late comes after it"
        assert max(after) <= said["for_s"] * 1e9 + 0.6e9


def test_without_a_store_an_empty_spool_waits_and_then_says_so(tmp_path: Path) -> None:
    """What came meanwhile is kept, and numbered in its order."""
    with Simulator(SimulatorConfig(rate=20)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site, alone=True) as btc:
            missing = f"store is not running (no answer at {site.data}/control/store.sock)"
            status = btc.wait(lambda s: s["pending"] > 100)
            assert not list(site.spool().glob("*.sqlite"))
            assert status["warnings"] == [f"not asked for the last seq: tables: {missing}"]
            status = btc.live(100)
            assert status["warnings"] == [f"not asked for the last seq: tables: {missing}"]
            assert btc.stop() == 0
        check_whole(check(site.spool()), sim.sent_on(1))


def test_a_symbol_that_is_listed_later_is_recorded_by_the_same_process(tmp_path: Path) -> None:
    port = free_port()
    with Simulator(SimulatorConfig(symbols=("ETH_USDT",), port=port)) as sim:
        site = site_of(tmp_path, sim)
        btc = Collector(site)
        try:
            btc.wait(lambda s: s["state"] == "waiting: not listed")
        except BaseException:
            btc.kill()
            raise
    try:
        with Simulator(SimulatorConfig(rate=50, port=port)) as sim:
            status = btc.wait(lambda s: s["state"] == "live" and s["listing"] == "listed" and s["rows"]["t"] > 10)
            assert not any("list" in warning for warning in status["warnings"])
            assert btc.stop() == 0
            sent = sim.sent_on(1)
    finally:
        btc.kill()
    rows = check(site.spool())
    assert len(named(rows, "started")) == 1
    assert len(named(rows, "resumed")) == 3, "each channel"
    check_whole([row for row in rows if row.mt != 4], sent)  # but for the answers that it is not listed


@pytest.mark.parametrize("kind", ["1001", "510", "empty", "missing", "html", "garbage"])
def test_the_socket_outranks_rest(kind: str, tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(faults=(Fault("detail", value=kind),))) as sim:
        sim.wait_for(lambda s: bool(s._exchange.board))
        with collecting(site_of(tmp_path, sim)) as btc:
            status = btc.wait(lambda s: s["rows"]["t"] and s["listing"] not in ("listed", "not asked yet"))
            assert status["state"] == "live"
            assert not any("REST" in w for w in status["warnings"]), "data flow"
            sim.clear_faults()
            btc.wait(lambda s: s["listing"] == "listed")  # asked again until it is clear
            assert btc.stop() == 0
    assert "symbol not confirmed by REST" in btc.said()


def test_without_an_answer_about_the_symbol_that_is_said_until_data_flow(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(faults=(Fault("rest_403"), Fault("stall")))) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as btc:
            status = btc.wait(lambda s: "HTTP 403" in s["listing"])
            assert any("not confirmed by the exchange's REST: HTTP 403" in w for w in status["warnings"])
            sim.clear_faults()
            sim.inject(Fault("rest_403"))
            status = btc.wait(lambda s: s["rows"]["t"])
            assert not any("REST" in w for w in status["warnings"])
            assert btc.stop() == 0


def test_the_second_writer_on_this_host_is_told_who_records(tmp_path: Path) -> None:
    with Simulator() as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as first:
            pid = first.live()["pid"]
            with collecting(site) as second:
                assert second.process.wait(40) == 1
            line = second.said().splitlines()[-1]
            assert f"in use by process {pid} on {socket.gethostname()}" in line
            assert "Traceback" not in second.said()
            assert first.stop() == 0
        assert len(sim.connections) == 1
        check(site.spool())


class FakeStore:
    """A store that knows what it is told to."""

    def __init__(self, site: Site, last_seq: int, writer: dict[str, Any] | None = None, delay: float = 0.0) -> None:
        self.asked = threading.Event()

        def known(_: dict[str, Any]) -> dict[str, Any]:
            self.asked.set()
            time.sleep(delay)
            return {"last_seq": last_seq, "writer": writer}

        self.server = ControlServer(site.data / "control" / "store.sock", {"known": known})


def test_a_writer_on_another_host_is_known_by_the_store(tmp_path: Path) -> None:
    with Simulator() as sim:
        site = site_of(tmp_path, sim)
        store = FakeStore(site, 500, {"host": "other-host", "pid": 7, "spool_id": "theirs", "age_s": 4.0})
        with collecting(site) as btc:
            assert btc.process.wait(40) == 1
        store.server.close()
    assert "recorded already by process 7 on other-host" in btc.said()
    assert "Traceback" not in btc.said()
    assert site.rows() == []


def test_a_deleted_and_a_restored_folder_go_on_above_everything_known(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim)
        with collecting(site) as btc:
            btc.live(5)
            assert btc.stop() == 0
        shutil.copytree(site.spool(), tmp_path / "copy")
        with collecting(site) as btc:
            btc.live(5)
            btc.kill()
        old = named(site.rows(), "started")[0]["spool_id"]
        last = site.rows()[-1].seq

        shutil.rmtree(site.data)
        store = FakeStore(site, last)
        with collecting(site) as btc:
            btc.live()
            assert btc.stop() == 0
        deleted = check(site.spool(), last + 1)
        started = named(deleted, "started")[0]
        assert (started["seq"], started["clean"]) == (last + 1, False)
        assert started["spool_id"] != old
        store.server.close()

        shutil.rmtree(site.data)
        shutil.copytree(tmp_path / "copy", site.spool())
        store = FakeStore(site, deleted[-1].seq)
        with collecting(site) as btc:
            btc.live()
            assert btc.stop() == 0
        store.server.close()
        restored = check(site.spool(), deleted[-1].seq + 1)
        started = named(restored, "started")[0]
        assert (started["replaced"], started["clean"]) == (True, False)
        assert started["spool_id"] not in (old, named(deleted, "started")[0]["spool_id"])
        assert (site.spool() / started["set_apart"][0]).exists()


def test_sigterm_ends_it_soon_wherever_it_is(tmp_path: Path) -> None:
    """Connecting to who says nothing, to nobody, and while the store takes its time."""
    with serving(silent) as black_hole:
        address = f"127.0.0.1:{black_hole.port}"
        site = Site(tmp_path, f"ws://{address}/edge", f"http://{address}")
        with collecting(site) as btc:
            btc.wait(lambda s: s["state"] == "connecting")
            until(lambda: black_hole.accepted >= 2, 40)
            began = time.monotonic()
            assert btc.stop(5) == 0
            assert time.monotonic() - began < 5
        assert [e["event"] for e in events(check(site.spool()))] == ["started", "stopped"]
        store = FakeStore(site, 0, delay=8)
        with collecting(site) as btc:
            assert store.asked.wait(10)
            began = time.monotonic()
            assert btc.stop(5) == 0
            assert time.monotonic() - began < 3
        store.server.close()


def test_systemd_is_told_when_it_is_ready_and_that_its_loops_run(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(15)
        port = free_port()  # no exchange: readiness is not about data
        site = Site(tmp_path, f"ws://127.0.0.1:{port}/edge", f"http://127.0.0.1:{port}")
        with collecting(site, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as btc:
            assert systemd.recv(100) == b"READY=1"
            assert ask(site.data / "control" / "btc.sock", "status")["state"] == "connecting"
            assert systemd.recv(100) == b"WATCHDOG=1"
            assert btc.stop() == 0
            said = {systemd.recv(100)}
            while b"STOPPING=1" not in said:
                said.add(systemd.recv(100))


def test_the_collectors_environment_proxies_are_ignored(tmp_path: Path) -> None:
    with Simulator() as sim, serving(silent) as trap:
        proxy = f"http://127.0.0.1:{trap.port}"
        env = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
        with collecting(site_of(tmp_path, sim), env={**env, "no_proxy": ""}) as btc:
            btc.wait(lambda s: s["rows"]["t"] and s["listing"] == "listed")
            assert btc.stop() == 0
        assert trap.accepted == 0


def test_what_is_received_while_the_store_is_silent_is_committed_and_numbered_later(tmp_path: Path) -> None:
    """Rows are durable meanwhile, a stop leaves them, and the next to come numbers them."""
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim)
        store = FakeStore(site, 0, delay=30)
        with collecting(site) as btc:
            status = btc.wait(lambda s: s["rows"]["d"] > 20)
            assert (status["state"], status["last_seq"]) == ("live", 0)
            assert status["pending"] > 20
            assert status["durable_ms"]["p50"] < 1000
            assert btc.stop(5) == 0
        assert store.asked.is_set()
        assert site.rows() == []
        store.server.close()
        whole = len(sim.connections)
        with collecting(site) as btc:
            btc.live(5)
            rows = check(site.spool())
            until(lambda: not (site.spool() / "pending.db").exists(), 10, "the end of the pending rows' file")
            btc.kill()
        assert [e["event"] for e in events(rows)][:3] == ["started", "connected", "subscribed"]
        assert [e["clean"] for e in named(rows, "started")] == [True, True]
        before = [r for r in rows if r.seq < named(rows, "started")[1]["seq"]]
        check_whole(before, sim.sent_on(whole))


def test_an_export_numbers_what_a_collector_that_is_gone_left(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim)
        store = FakeStore(site, 0, delay=30)
        with collecting(site) as btc:
            btc.wait(lambda s: s["rows"]["d"] > 20)
            btc.kill()
        store.server.close()
        impatient = f"{IMPATIENT}; from mexc_pipeline.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", impatient, "--config", str(site.config), "export", "--once"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        rows = check(site.spool())
        assert len(frames(rows)) > 20
        assert frames(rows) == wanted(sim.sent_on(1))[: len(frames(rows))]
        assert len(list(site.exports.rglob("*.parquet"))) == 1


def test_another_living_writer_is_no_reason_to_drop_what_was_received(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=100)) as sim:
        site = site_of(tmp_path, sim)
        writer = {"host": "elsewhere", "pid": 1, "spool_id": "f" * 32, "age_s": 1}
        store = FakeStore(site, 500, writer=writer, delay=1.5)
        btc = Collector(site)
        try:
            assert btc.process.wait(20) == 1
        finally:
            btc.kill()
        assert "is being recorded already by process 1 on elsewhere" in btc.said()
        store.server.close()
        assert site.rows() == []
        with collecting(site) as btc:
            btc.live(5)
            rows = check(site.spool())
        assert len([r for r in rows if r.mt < 4 and r.seq < named(rows, "started")[1]["seq"]]) > 20
