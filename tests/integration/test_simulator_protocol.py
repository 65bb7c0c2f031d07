"""What the simulated exchange does on the wire when nothing is wrong, as mexc documents or shows it."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trustme
import websocket
from click.testing import CliRunner

from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.simulator import FlatOut, Simulator, SimulatorConfig, Style, read_sent_log
from mexc_pipeline.simulator.command import simulate
from support.simulator_client import Client, connected, rest, rest_data

RATE = 200.0


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(rate=RATE)) as running:
        yield running


@pytest.fixture
def manual() -> Iterator[Simulator]:
    """A market that moves only when told, so that silence can be proven."""
    with Simulator(SimulatorConfig(rate=RATE, manual=True, rest_lag=0, rest_limit=0)) as running:
        yield running


def test_acks_name_no_symbol(manual: Simulator) -> None:
    with connected(manual, "depth.full") as client:
        ack = json.loads(client.read()[1])
        assert list(ack) == ["channel", "data", "ts"]
        assert ack["channel"] == "rs.sub.depth.full"
        assert ack["data"] == "success"
        assert isinstance(ack["ts"], int)


def test_every_channel_pushes(sim: Simulator) -> None:
    topics = ("ticker", "deal", "depth", "depth.full", "index.price", "fair.price", "funding.rate", "kline")
    with connected(sim, *topics, "depth.step") as client:
        for topic in (*topics, "depth.step"):
            push = client.channel(f"push.{topic}")
            assert push["symbol"] == "BTC_USDT"
        client.ws.send('{"method":"sub.tickers","param":{}}')
        assert len(client.channel("push.tickers")["data"]) == 100
        client.ws.send('{"method":"sub.contract"}')
        assert client.channel("rs.sub.contract")["data"] == "success"


def test_a_topic_that_never_pushes_stops_nothing(sim: Simulator) -> None:
    with connected(sim, "deal") as client:
        client.ws.send('{"method":"sub.contract"}')
        client.channel("rs.sub.contract")
        assert client.channel("push.deal")
        assert client.channel("push.deal")


def test_a_repeated_subscription_is_acked_and_not_doubled(manual: Simulator) -> None:
    with connected(manual, "deal", "deal", "deal") as client:
        for _ in range(3):
            assert client.channel("rs.sub.deal")
        manual.tick(200)
        manual.wait_for(lambda s: len(s.sent_on(1)) > 20)
        ids = [f.payload for f in manual.sent_on(1)[3:]]
        assert len(set(ids)) == len(ids)


def test_unknown_contract_unknown_method_and_junk(manual: Simulator) -> None:
    with connected(manual) as client:
        client.subscribe("ticker", "NOPE_USDT")
        refused = json.loads(client.read()[1])
        assert (refused["channel"], refused["data"]) == ("rs.error", "Contract [NOPE_USDT] not exists")
        client.ws.send('{"method":"sub.surprise","param":{"symbol":"BTC_USDT"}}')
        client.ws.send("not json")
        client.ws.send('{"method":5}')
        client.subscribe("depth.full", limit=7)
        client.ping()
        assert json.loads(client.read()[1])["channel"] == "pong", "silence on everything unknown"
        assert len(manual.open_connections) == 1


@pytest.mark.parametrize("acked", [False, True])
def test_unsub_is_silent_or_acked_and_ends_the_stream(acked: bool) -> None:
    with Simulator(SimulatorConfig(rate=RATE, manual=True, unsub_ack=acked)) as sim, connected(sim, "deal") as client:
        sim.wait_for(lambda s: len(s.sent_on(1)) == 1)
        sim.tick(50)
        client.channel("push.deal")
        client.subscribe("deal", action="unsub")
        client.ping()
        assert bool(client.channel("pong"))
        assert client.count(b"rs.unsub.deal") == int(acked)
        before = len(sim.sent_on(1))
        sim.tick(200)
        assert len(sim.sent_on(1)) == before


def test_pong_holds_the_time_twice(manual: Simulator) -> None:
    with connected(manual) as client:
        client.ping()
        pong = json.loads(client.read()[1])
        assert list(pong) == ["channel", "data", "ts"]
        assert pong["data"] == pong["ts"]
        assert client.quiet(0.2), "one pong per ping"


@pytest.mark.parametrize("end", ["notice", "abrupt"])
def test_a_busy_connection_without_json_pings_is_closed(end: str) -> None:
    style: Any = end
    with Simulator(SimulatorConfig(rate=RATE, heartbeat=1.0, heartbeat_end=style)) as sim:
        with connected(sim, "deal") as silent, connected(sim, "deal") as pinging:
            begin = time.monotonic()
            error = silent.to_end()
            assert 0.9 < time.monotonic() - begin < 3, "at its heartbeat, and not at some later one"
            last = silent.frames[-1][1]
            if end == "notice":
                assert isinstance(error, ConnectionError)
                assert silent.closed_with == b"", "a close frame without a code"
                assert json.loads(last)["data"] == "more than 60 seconds no response, close the channel"
            else:
                assert isinstance(error, websocket.WebSocketConnectionClosedException)
                assert silent.closed_with is None
                assert b"rs.error" not in last
            del pinging
        sim.wait_for(lambda s: s.connections[0].end == "heartbeat")


def test_json_pings_keep_the_connection_and_control_pings_do_not() -> None:
    with Simulator(SimulatorConfig(rate=RATE, heartbeat=0.6)) as sim, connected(sim, "deal") as client:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            client.ping()
            client.channel("push.deal")
        assert len(sim.open_connections) == 1
        begin = time.monotonic()
        while sim.open_connections and time.monotonic() - begin < 5:
            try:
                client.ws.ping("x")
                client.read()
            except (OSError, websocket.WebSocketException):
                break
        assert time.monotonic() - begin < 1.5


def test_compress_false_sends_each_deal_and_each_version(manual: Simulator) -> None:
    with connected(manual) as client:
        client.subscribe("deal", compress=False)
        client.subscribe("depth", compress=False)
        manual.wait_for(lambda s: len(s.sent_on(1)) == 2)
        first = manual.version("BTC_USDT") + 1
        manual.tick(300)
        last = manual.version("BTC_USDT")
        frames = [json.loads(f.payload) for f in manual.sent_on(1)[2:]]
        versions = [f["data"]["version"] for f in frames if f["channel"] == "push.depth"]
        assert versions == list(range(first, last + 1))
        assert all("begin" not in f["data"] for f in frames)
        assert {len(f["data"]) for f in frames if f["channel"] == "push.deal"} == {1}
        for _ in frames:
            client.read()


def test_legacy_deals_are_objects() -> None:
    style = Style(deal_form="object", deal_id="absent", deal_cts=False)
    with Simulator(SimulatorConfig(rate=RATE, style=style)) as sim, connected(sim, "deal") as client:
        assert list(client.channel("push.deal")["data"]) == ["p", "v", "T", "O", "M", "t"]


def test_full_depth_limits_and_the_last_limit_wins(manual: Simulator) -> None:
    with connected(manual) as client:
        for limit in (5, 10, 50, 20):
            client.subscribe("depth.full", limit=limit)
            client.channel("rs.sub.depth.full")
            manual.tick(5)
            while len(client.channel("push.depth.full")["data"]["asks"]) != limit:
                pass


Sides = dict[str, dict[Decimal, tuple[int, int]]]


def apply(sides: Sides, data: dict[str, Any]) -> None:
    """Apply a depth frame as clients do: absolute sizes, quantity 0 deletes."""
    for side in ("asks", "bids"):
        for price, quantity, orders in data[side]:
            if quantity == 0:
                sides[side].pop(Decimal(price), None)
            else:
                sides[side][Decimal(price)] = (quantity, orders)


@pytest.mark.parametrize("merged", [True, False])
def test_snapshot_and_stream_give_the_simulators_own_book_at_every_version(merged: bool) -> None:
    config = SimulatorConfig(rate=RATE, manual=True, rest_lag=60, rest_limit=0)
    with Simulator(config) as sim, connected(sim) as client:
        client.subscribe("depth", compress=merged)
        sim.wait_for(lambda s: len(s.sent_on(1)) == 1)
        sim.tick(150)
        snapshot = rest_data(sim, "depth/BTC_USDT")
        sim.tick(150)
        book: Sides = {
            side: {Decimal(price): (quantity, orders) for price, quantity, orders in snapshot[side]}
            for side in ("asks", "bids")
        }
        version = snapshot["version"]
        assert version < sim.version("BTC_USDT")
        applied = 0
        for frame in sim.sent_on(1)[1:]:
            data = json.loads(frame.payload, parse_float=Decimal)["data"]
            first, last = data.get("begin", data["version"]), data["version"]
            if last <= version:
                continue
            assert first <= version + 1, "a gap"
            apply(book, data)
            version = last
            truth = sim.book("BTC_USDT", version)
            assert (book["asks"], book["bids"]) == (truth.asks, truth.bids)
            applied += 1
        assert applied > (5 if merged else 200)


def test_commits_over_rest_lead_from_one_snapshot_to_the_next(manual: Simulator) -> None:
    before = rest_data(manual, "depth/BTC_USDT")
    manual.tick(60)
    commits = rest_data(manual, "depth_commits/BTC_USDT/1000")
    missing = [c for c in commits if c["version"] > before["version"]]
    assert [c["version"] for c in missing] == list(range(missing[0]["version"], before["version"], -1))
    book: Sides = {
        side: {Decimal(p): (q, n) for p, q, n in before[side]} for side in ("asks", "bids")
    }  # fmt: skip
    for commit in reversed(missing):
        apply(book, commit)
    after = rest_data(manual, "depth/BTC_USDT")
    assert after["version"] == missing[0]["version"]
    assert book["asks"] == {Decimal(p): (q, n) for p, q, n in after["asks"]}
    assert book["bids"] == {Decimal(p): (q, n) for p, q, n in after["bids"]}
    assert len(rest_data(manual, "depth/BTC_USDT?limit=5")["asks"]) == 5


def test_rest_beside_the_socket(sim: Simulator) -> None:
    assert isinstance(rest_data(sim, "ping"), int)
    assert [c["symbol"] for c in rest_data(sim, "detail")] == ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
    status, body = rest(sim, "detail?symbol=NOPE_USDT")
    assert status == 200
    assert json.loads(body)["code"] == 1001
    codes = [json.loads(rest(sim, "depth/BTC_USDT?limit=100")[1])["code"] for _ in range(21)]
    assert 510 in codes, "more than ten within a window are throttled inside HTTP 200"
    assert rest(sim, "nothing")[0] == 404
    assert [r.status for r in sim.requests][-1] == 404


def test_echo_tells_a_client_its_address(sim: Simulator) -> None:
    with urllib.request.urlopen(f"{sim.rest_url}/echo", timeout=10) as answer:
        assert answer.read() == b"127.0.0.1"
    assert sim.requests[0].peer.startswith("127.0.0.1:")


def test_logs_of_an_earlier_run_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "conn-000001.log").write_bytes(b"evidence")
    with pytest.raises(UserError, match="earlier run"), Simulator(SimulatorConfig(log_dir=tmp_path)):
        pass
    with pytest.raises(UserError, match="cannot write logs"):
        Simulator(SimulatorConfig(log_dir=tmp_path / "conn-000001.log")).__enter__()


def test_flat_out_follows_what_is_subscribed() -> None:
    settings = FlatOut(frames=450, pool=90, settle=0.05)
    with Simulator(SimulatorConfig(rate=1.0, flat_out=settings)) as sim:
        with connected(sim, "depth", "deal") as client:
            while len(client.frames) < 452:
                client.read()
            assert client.count(b'"push.depth"') == 200
            assert client.count(b'"push.deal"') == 250
        with connected(sim, "funding.rate") as client:
            client.channel("rs.sub.funding.rate")
            assert client.quiet(0.3)


def test_what_was_logged_as_sent_is_what_arrived(tmp_path: Path) -> None:
    with Simulator(SimulatorConfig(rate=RATE, log_dir=tmp_path)) as sim:
        with connected(sim, "ticker", "deal", "depth", "depth.full") as client:
            client.subscribe("deal", "ETH_USDT")
            for _ in range(500):
                client.read()
            got = list(client.frames)
        sim.wait_for(lambda s: not s.open_connections)
        sent = sim.sent_on(1)
        assert [(f.opcode, f.payload) for f in sent[:500]] == got
        assert {f.symbol for f in sent} == {"", "BTC_USDT", "ETH_USDT"}
        assert all(json.loads(f.payload).get("symbol", "") == f.symbol for f in sent)
        assert [f.time_ns for f in sent] == sorted(f.time_ns for f in sent)
        assert list(read_sent_log(tmp_path / "conn-000001.log")) == sent
        assert sim.connections[0].peer.startswith("127.0.0.1:")


def test_a_client_that_does_not_read_gets_everything_in_order_later() -> None:
    small = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536),)
    with Simulator(SimulatorConfig(rate=RATE, manual=True)) as sim, connected(sim, sockopt=small) as client:
        client.subscribe("depth.full", limit=50)
        sim.wait_for(lambda s: len(s.sent_on(1)) == 1)
        sim.tick(4_000)  # some 7 MB, more than the socket buffers hold
        stuck = len(sim.sent_on(1))
        client.ping()
        client.channel("pong")
        sim.wait_for(lambda s: b'"pong"' in s.sent_on(1)[-1].payload)
        assert len(sim.sent_on(1)) > stuck + 10, "a frame counts as sent when the system has all of it"
        assert [f.payload for f in sim.sent_on(1)] == [payload for _, payload in client.frames]


def test_same_seed_and_ticks_send_identical_frames() -> None:
    def frames(seed: int) -> list[bytes]:
        config = SimulatorConfig(rate=RATE, seed=seed, manual=True, clock_ns=lambda: 1_790_000_000_123_456_789)
        with Simulator(config) as sim, connected(sim, "ticker", "deal", "depth", "depth.full") as client:
            sim.wait_for(lambda s: len(s.sent_on(1)) == 4)
            sim.tick(300)
            last = sim.sent_on(1)[-1].payload
            client.until(lambda payload: payload == last)
            return [payload for _, payload in client.frames]

    assert frames(5) == frames(5)
    assert frames(5) != frames(6)


def test_tls_with_a_given_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    with Simulator(SimulatorConfig(rate=RATE, tls_cert=cert, tls_key=key)) as sim:
        assert sim.ws_url.startswith("wss://")
        with connected(sim, "depth.full", sslopt={"ca_certs": str(ca)}) as client:
            assert client.channel("push.depth.full")
            assert [f.payload for f in sim.sent_on(1)][: len(client.frames)] == [p for _, p in client.frames]
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(sim, {})


@pytest.mark.parametrize("tls_only_half", [True, False])
def test_what_cannot_start_says_so_in_one_line(tmp_path: Path, tls_only_half: bool) -> None:
    if tls_only_half:
        with pytest.raises(UserError, match="both --tls-cert and --tls-key"):
            Simulator(SimulatorConfig(tls_cert=tmp_path / "x"))
        return
    with Simulator() as sim, pytest.raises(UserError, match=r"cannot listen on 127\.0\.0\.1"):
        Simulator(SimulatorConfig(port=sim.port)).__enter__()


@pytest.mark.parametrize("rate", [None, 20_000.0])
def test_flat_out_sends_exactly_so_many_frames_and_logs_them(tmp_path: Path, rate: float | None) -> None:
    settings = FlatOut(frames=10_000, rate=rate, pool=300, settle=0.1)
    with Simulator(SimulatorConfig(flat_out=settings, log_dir=tmp_path)) as sim:
        begin = time.monotonic()
        with connected(sim, "ticker", "deal", "depth.full") as client:
            while len(client.frames) < 10_004:
                client.read()
                if len(client.frames) == 5_000:
                    client.ping()
            assert client.quiet(0.2)
            took = time.monotonic() - begin
        sim.wait_for(lambda s: not s.open_connections)
        got = [payload for _, payload in client.frames]
        assert [f.payload for f in sim.sent_on(1)] == got
        assert [f.payload for f in read_sent_log(tmp_path / "conn-000001.log")] == got
        mix = {name: client.count(f'"channel":"push.{name}"'.encode()) for name in ("ticker", "deal", "depth.full")}
        assert mix == {"ticker": 1000, "deal": 5000, "depth.full": 4000}
        if rate is not None:
            assert took > 0.5


def test_flat_out_outruns_any_reader() -> None:
    """At least 100,000 frames/s to a reader that only counts bytes."""
    settings = FlatOut(frames=300_000, settle=0.1)
    with (
        Simulator(SimulatorConfig(flat_out=settings)) as sim,
        connected(sim, "ticker", "deal", "depth.full") as client,
    ):
        client.channel("push.deal")
        begin, received = time.monotonic(), 0
        assert client.ws.sock is not None
        client.ws.settimeout(0.5)
        try:
            while chunk := client.ws.sock.recv(1 << 20):
                received += len(chunk)
        except TimeoutError:
            took = time.monotonic() - begin - 0.5
        sent = sim.sent_on(1)
    assert len(sent) == 300_003
    assert sum(len(frame.payload) for frame in sent) < received + 10_000 + 4 * len(sent)
    assert took < 3.0


def test_flat_out_ends_after_so_many_seconds() -> None:
    settings = FlatOut(seconds=0.5, rate=2000, pool=100, settle=0.05)
    with Simulator(SimulatorConfig(flat_out=settings)) as sim, connected(sim, "deal") as client:
        client.channel("push.deal")
        while not client.quiet(0.3):
            pass
        assert 500 <= len(client.frames) <= 1001


def start(tmp_path: Path, *flags: str) -> tuple[subprocess.Popen[str], str]:
    program = "from mexc_pipeline.simulator.command import simulate; simulate()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "--port", "0", *flags], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, line.split(" on ")[1].split()[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    process, url = start(
        tmp_path, "--rate", "200", "--log-dir", str(tmp_path), "--fault", "at=0.3 every=0.3 kind=empty"
    )
    try:
        ws = websocket.create_connection(url, timeout=10)
        ws.send('{"method":"sub.deal","param":{"symbol":"BTC_USDT"}}')
        got = [ws.recv_data()[1]]
        while got.count(b"") < 2:
            got.append(ws.recv_data()[1])
        process.send_signal(number)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    logged = [frame.payload for frame in read_sent_log(tmp_path / "conn-000001.log")]
    assert logged[: len(got)] == got


def test_the_command_explains_itself_and_refuses_nonsense() -> None:
    runner = CliRunner()
    text = runner.invoke(simulate, ["--help"]).output
    for option in simulate.params:
        assert getattr(option, "help", ""), option.name
    assert "version_gap" in text
    for flags, complaint in (
        (["--fault", "kind=melt"], "unknown"),
        (["--symbols", "A_B,A_B"], "different"),
        (["--flat-out-rate", "5"], "need --flat-out"),
    ):
        result = runner.invoke(simulate, flags)
        assert isinstance(result.exception, ConfigError)
        assert complaint in str(result.exception)
