"""Every fault the simulator knows really happens on the wire, and is in its records as it happened."""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import trustme
import websocket
from websocket import ABNF

from mexc_pipeline.simulator import KINDS, Effect, Fault, Simulator, SimulatorConfig, read_sent_log
from mexc_pipeline.simulator.faults import CHOICES
from support.simulator_client import Client, connected, rest, rest_data

RATE = 400.0


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(rate=RATE, rest_lag=0, rest_limit=0)) as running:
        yield running


def recorded(sim: Simulator, client: Client) -> None:
    """Assert that what arrived is what the log says was sent."""
    sent = [(f.opcode, f.payload) for f in sim.sent_on(1)]
    assert sent[: len(client.frames)] == client.frames


def not_utf8(payload: bytes) -> bool:
    return b"\xff\xfe" in payload


SENT: dict[str, Callable[[bytes], bool]] = {
    "bad_json": lambda p: p.startswith(b"{") and not p.endswith(b"}"),
    "not_object": lambda p: p.startswith(b"["),
    "unknown_channel": lambda p: b'"push.surprise"' in p,
    "foreign_symbol": lambda p: b'"FOREIGN_USDT"' in p,
    "invalid_utf8": not_utf8,
    "huge": lambda p: len(p) == 2 * 1024 * 1024,
    "ts_null": lambda p: b'"ts":null' in p,
    "ts_type": lambda p: b'"ts":"' in p,
    "ts_missing": lambda p: b'"ts":' not in p and p.endswith(b'"push.ticker"}'),
    "empty": lambda p: p == b"",
    "rs_error": lambda p: b'"rs.error"' in p,
    "binary": lambda p: p.startswith(b"\x1f\x8b"),
    "client_id": lambda p: b'"clientId"' in p,
    "extra_pong": lambda p: b'"pong"' in p,
    "frame": lambda p: p == b"given",
}


def test_the_table_below_names_every_kind_that_is_sent() -> None:
    assert set(SENT) | {"ws_ping"} == {kind for kind, (effect, _) in KINDS.items() if effect is Effect.SEND}


@pytest.mark.parametrize("kind", SENT)
def test_frames_that_are_sent_at_once(sim: Simulator, kind: str) -> None:
    with connected(sim, "depth.full") as client:
        client.channel("push.depth.full")
        assert sim.inject(Fault(kind, count=2, value="given" if kind == "frame" else "")) == 1
        for _ in range(2):
            found = client.until(SENT[kind])
        opcode = next(opcode for opcode, payload in client.frames if payload == found)
        assert opcode == (2 if kind == "binary" else 1)
        assert client.channel("push.depth.full"), "the feed goes on"
        recorded(sim, client)


def test_a_websocket_ping(sim: Simulator) -> None:
    with connected(sim) as client:
        sim.wait_for(lambda s: len(s.connections) == 1)
        sim.inject(Fault("ws_ping"))
        assert client.ws.recv_data(control_frame=True)[0] == 9


@pytest.mark.parametrize("kind", ["version_gap", "drop"])
def test_a_version_gap_that_rest_can_fill(sim: Simulator, kind: str) -> None:
    with connected(sim, "depth", "deal") as client:
        last = client.channel("push.depth")["data"]["end"]
        assert sim.inject(Fault(kind, channel="depth")) == 1
        while (data := client.channel("push.depth")["data"])["begin"] == last + 1:
            last = data["end"]
        commits = rest_data(sim, "depth_commits/BTC_USDT/1000")
        assert set(range(last + 1, data["begin"])) < {commit["version"] for commit in commits}
        assert client.channel("push.depth")["data"]["begin"] == data["end"] + 1, "one gap only"
        recorded(sim, client)


def test_a_version_that_goes_back(sim: Simulator) -> None:
    with connected(sim, "depth.full") as client:
        last = client.channel("push.depth.full")["data"]["version"]
        sim.inject(Fault("version_back"))
        versions = [last] + [client.channel("push.depth.full")["data"]["version"] for _ in range(50)]
        assert versions != sorted(versions)
        recorded(sim, client)


@pytest.mark.parametrize(
    ("value", "shape"), [("missing", None), ("null", b'"end":null,"begin":null,'), ("zero", b'"end":0,"begin":0,')]
)
def test_begin_and_end_missing_null_or_zero(sim: Simulator, value: str, shape: bytes | None) -> None:
    with connected(sim, "depth") as client:
        client.channel("push.depth")
        sim.inject(Fault("begin_end", value=value))
        found = client.until(lambda p: shape in p if shape else b"push.depth" in p and b'"begin"' not in p)
        assert json.loads(found)["data"]["version"] > 0
        assert client.channel("push.depth")["data"]["begin"]
        recorded(sim, client)


def test_a_duplicate_frame(sim: Simulator) -> None:
    with connected(sim, "deal") as client:
        client.channel("push.deal")
        sim.inject(Fault("duplicate"))
        for _ in range(100):
            client.read()
        payloads = [payload for _, payload in client.frames]
        assert len(payloads) - len(set(payloads)) == 1
        recorded(sim, client)


def test_a_fragmented_message_is_one_frame_in_the_log(sim: Simulator) -> None:
    with connected(sim) as client:
        sim.inject(Fault("fragmented"))
        client.subscribe("depth.full")
        read: Callable[[], ABNF] = client.ws.recv_frame
        assert read().opcode == 1, "the ack"
        pieces = [read() for _ in range(3)]
        assert [(piece.opcode, piece.fin) for piece in pieces] == [(1, 0), (0, 0), (0, 1)]
        whole = b"".join(bytes(piece.data) for piece in pieces if not isinstance(piece.data, str))
        assert [f.payload for f in sim.sent_on(1)][1] == whole


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_half_a_frame_then_the_end(tmp_path: Path, how: str) -> None:
    with Simulator(SimulatorConfig(rate=RATE, log_dir=tmp_path)) as sim, connected(sim, "depth.full") as client:
        client.channel("push.depth.full")
        sim.inject(Fault("half", value=how))
        error = client.to_end()
        assert isinstance(error, ConnectionResetError) == (how == "reset")
        assert client.closed_with is None
        sim.wait_for(lambda s: not s.open_connections)
        sent = sim.sent_on(1)
        assert [f.whole for f in sent] == [True] * (len(sent) - 1) + [False]
        assert [f.payload for f in sent[:-1]] == [payload for _, payload in client.frames]
        assert list(read_sent_log(tmp_path / "conn-000001.log")) == sent
        assert sim.connections[0].end == "half frame"


def test_two_pongs_for_one_ping(sim: Simulator) -> None:
    with connected(sim) as client:
        sim.inject(Fault("double_pong"))
        client.ping()
        client.ping()
        for _ in range(3):
            assert json.loads(client.read()[1])["channel"] == "pong"
        assert client.quiet(0.2)


def test_no_pong(sim: Simulator) -> None:
    with connected(sim) as client:
        sim.inject(Fault("no_pong", seconds=0.4))
        client.ping()
        assert client.quiet(0.2)
        time.sleep(0.3)
        client.ping()
        assert client.channel("pong")


def test_an_oversized_first_tickers_frame(sim: Simulator) -> None:
    with connected(sim) as client:
        sim.inject(Fault("big_tickers", size=1_500_000))
        client.ws.send('{"method":"sub.tickers","param":{}}')
        frame = client.until(lambda p: b'"push.tickers"' in p)
        assert len(frame) > 1_500_000
        recorded(sim, client)


ENDS: dict[str, tuple[type[Exception], bytes | None]] = {
    "reset": (ConnectionResetError, None),
    "abort": (websocket.WebSocketConnectionClosedException, None),
    "close": (ConnectionError, b"\x03\xe9"),
    "close_notice": (ConnectionError, b""),
}


@pytest.mark.parametrize("kind", ENDS)
def test_the_ways_a_connection_ends(sim: Simulator, kind: str) -> None:
    expected, code = ENDS[kind]
    with connected(sim, "deal") as client:
        client.channel("push.deal")
        assert sim.inject(Fault(kind)) == 1
        assert isinstance(client.to_end(), expected)
        assert client.closed_with == code
        assert client.count(b"no response, close the channel") == (1 if kind == "close_notice" else 0)
        sim.wait_for(lambda s: not s.open_connections)
        recorded(sim, client)
    with connected(sim, "deal") as client:
        assert client.channel("push.deal"), "the next connection works"


def test_a_reset_after_everything_was_acknowledged_comes_behind_all_that_was_sent(sim: Simulator) -> None:
    with connected(sim, "deal") as client:
        client.channel("push.deal")
        assert sim.inject(Fault("reset", value="acked")) == 1
        sim.wait_for(lambda s: not s.open_connections)
        assert isinstance(client.to_end(), ConnectionResetError)
        assert client.frames == [(f.opcode, f.payload) for f in sim.sent_on(1)]
        assert sim.connections[0].end == "reset, all acknowledged"


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_what_comes_for_a_connection_that_has_ended_keeps_the_market_going(sim: Simulator, how: str) -> None:
    with connected(sim, "deal"), connected(sim, "deal") as other:
        sim.inject(Fault("burst", value="50", seconds=2))
        sim.inject(Fault("half", value=how, count=100, conn=1))
        sim.wait_for(lambda s: len(s.open_connections) == 1)
        for _ in range(200):
            other.channel("push.deal")


def test_faults_hit_only_the_connection_or_symbol_they_name(sim: Simulator) -> None:
    with connected(sim, "deal") as first, connected(sim) as second:
        second.subscribe("deal", "ETH_USDT")
        first.channel("push.deal")
        second.channel("push.deal")
        assert sim.inject(Fault("reset", symbol="SOL_USDT")) == 0
        assert sim.inject(Fault("reset", conn=2)) == 1
        second.to_end()
        assert sim.inject(Fault("reset", symbol="BTC_USDT")) == 1
        first.to_end()


def test_garbage_breaks_the_framing(sim: Simulator) -> None:
    with connected(sim, "deal") as client:
        client.channel("push.deal")
        sim.inject(Fault("garbage"))
        client.to_end()
        sim.wait_for(lambda s: not s.open_connections)
        assert sim.connections[0].end == "garbage"


def test_a_stall_of_everything_with_the_socket_open(sim: Simulator) -> None:
    with connected(sim, "deal", "depth") as client:
        client.channel("push.depth")
        sim.inject(Fault("stall", seconds=1.0))
        while not client.quiet(0.4):
            pass
        client.ping()
        assert client.quiet(0.2), "pongs too"
        assert len(sim.open_connections) == 1
        last = max(json.loads(p)["data"]["end"] for _, p in client.frames if b'"push.depth"' in p)
        assert client.channel("push.depth")["data"]["begin"] > last + 1, "what was due meanwhile is lost"
        recorded(sim, client)


def test_a_stall_that_holds_frames_back_loses_none(sim: Simulator) -> None:
    with connected(sim, "depth") as client:
        client.channel("push.depth")
        sim.inject(Fault("stall", seconds=0.5, value="hold"))
        while not client.quiet(0.2):
            pass
        for _ in range(30):
            client.read()
        data = [json.loads(p)["data"] for _, p in client.frames if b'"push.depth"' in p]
        assert all(after["begin"] == before["end"] + 1 for before, after in itertools.pairwise(data))
        recorded(sim, client)


def test_a_stall_of_one_channel_until_the_client_subscribes_again(sim: Simulator) -> None:
    with connected(sim, "deal", "depth") as client:
        client.channel("push.depth")
        sim.inject(Fault("stall", channel="depth", value="resubscribe"))
        for _ in range(3):
            client.channel("push.deal")
        depth = client.count(b'"push.depth"')
        for _ in range(100):
            client.channel("push.deal")
        assert client.count(b'"push.depth"') - depth <= 1
        client.subscribe("depth")
        assert client.channel("push.depth")


def test_slow_acks_and_no_acks_while_data_flows(sim: Simulator) -> None:
    with connected(sim) as client:
        sim.inject(Fault("slow_ack", delay=0.5))
        client.subscribe("deal")
        client.channel("push.deal")
        assert client.count(b"rs.sub.deal") == 0, "data first"
        assert client.channel("rs.sub.deal")
        sim.clear_faults()
        sim.inject(Fault("no_ack"))
        client.subscribe("depth")
        client.channel("push.depth")
        for _ in range(50):
            client.read()
        assert client.count(b"rs.sub.depth") == 0


def test_a_burst(sim: Simulator) -> None:
    def frames_per_second(seconds: float) -> float:
        before, begin = len(sim.sent_on(1)), time.monotonic()
        while time.monotonic() - begin < seconds:
            client.read()
        return (len(sim.sent_on(1)) - before) / (time.monotonic() - begin)

    with connected(sim, "deal") as client:
        client.channel("push.deal")
        usual = frames_per_second(0.5)
        sim.inject(Fault("burst", symbol="BTC_USDT", value="5", seconds=0.6))
        assert frames_per_second(0.5) > 2.5 * usual


def test_a_retired_channel_is_not_answered_refused_or_silent(sim: Simulator) -> None:
    with connected(sim, "deal", "ticker") as client:
        client.channel("push.deal")
        for how, answer in (("silent", b""), ("ack", b'"rs.sub.deal"'), ("it has ended", b'"it has ended"')):
            sim.inject(Fault("retired", channel="deal", value=how))
            client.frames.clear()
            client.subscribe("deal")
            if answer:
                client.until(lambda p, answer=answer: answer in p)  # type: ignore[misc]
            client.ping()
            client.until(lambda p: b'"pong"' in p)
            assert (client.count(b'"rs.') == 1) == bool(answer)
            client.frames.clear()
            client.channel("push.ticker")
            assert client.count(b'"push.deal"') == 0
            sim.clear_faults()
            client.channel("push.deal")


def test_connections_are_closed_at_a_certain_age(sim: Simulator) -> None:
    sim.inject(Fault("session_limit", value="1"))
    for _ in range(2):
        began = time.monotonic()
        with connected(sim, "deal") as client:
            client.to_end()
            assert client.closed_with is not None
            assert client.closed_with[:2] == (1001).to_bytes(2, "big")
            assert time.monotonic() - began >= 0.9


@pytest.mark.parametrize("kind", ["1001", "510", "empty", "missing", "html", "garbage"])
def test_details_that_do_not_tell(sim: Simulator, kind: str) -> None:
    sim.inject(Fault("detail", value=kind))
    status, body = rest(sim, "detail?symbol=BTC_USDT")
    assert status == 200
    assert b"BTC_USDT" not in body
    if kind in ("1001", "510"):
        assert json.loads(body)["code"] == int(kind)
    assert rest(sim, "ping")[0] == 200
    sim.clear_faults()
    assert rest_data(sim, "detail?symbol=BTC_USDT")["symbol"] == "BTC_USDT"


CANDLES: dict[str, Callable[[int, bytes], bool]] = {
    "510": lambda status, body: status == 200 and json.loads(body)["code"] == 510,
    "429": lambda status, body: status == 429 and json.loads(body)["code"] == 429,
    "none": lambda _, body: json.loads(body)["data"]["time"] == json.loads(body)["data"]["vol"] == [],
    "empty": lambda _, body: json.loads(body)["success"] and json.loads(body)["data"] == {},
    "missing": lambda _, body: not {"vol", "amount"} & set(json.loads(body)["data"]),
    "short": lambda _, body: len(json.loads(body)["data"]["time"]) > len(json.loads(body)["data"]["vol"]),
    "html": lambda _, body: body.lstrip().lower().startswith(b"<html"),
    "garbage": lambda _, body: body == bytes(range(256)),
}


@pytest.mark.parametrize("kind", CHOICES["candles"])
def test_candles_that_are_none(sim: Simulator, kind: str) -> None:
    wanted = f"kline/BTC_USDT?interval=Min1&start={int(time.time()) - 600}"
    sim.inject(Fault("candles", value=kind))
    assert CANDLES[kind](*rest(sim, wanted))
    assert rest_data(sim, "detail?symbol=BTC_USDT")["symbol"] == "BTC_USDT", "nothing else is touched"
    sim.clear_faults()
    found = rest_data(sim, wanted)
    assert found["time"]
    assert len({len(values) for values in found.values()}) == 1


def test_a_refusal_says_when_and_where(sim: Simulator) -> None:
    sim.inject(Fault("refuse_handshake", value="429", headers="Retry-After: 7; X-Other: a", payload=b"too many"))
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        Client(sim)
    assert (caught.value.status_code, caught.value.resp_body) == (429, b"too many")
    assert (caught.value.resp_headers or {})["retry-after"] == "7"


@pytest.mark.parametrize("status", [403, 404])
def test_a_refused_handshake(sim: Simulator, status: int) -> None:
    sim.inject(Fault("refuse_handshake", value=str(status)))
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        Client(sim)
    assert caught.value.status_code == status
    assert rest(sim, "ping")[0] == 200, "REST is another matter"
    sim.clear_faults()
    with connected(sim, "deal") as client:
        assert client.channel("push.deal")


def test_the_wrong_path_is_not_found(sim: Simulator) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        websocket.create_connection(sim.ws_url.replace("/edge", "/ws"), timeout=5)
    assert caught.value.status_code == 404


def accepts(sim: Simulator) -> bool:
    try:
        socket.create_connection((sim.config.host, sim.port), timeout=2).close()
    except ConnectionRefusedError:
        return False
    return True


def test_refused_connections_then_the_port_is_back(sim: Simulator) -> None:
    with connected(sim, "deal") as client:
        client.channel("push.deal")
        sim.inject(Fault("refuse_connect", seconds=0.5))
        sim.wait_for(lambda s: not accepts(s))
        assert client.channel("push.deal"), "open connections go on"
        sim.wait_for(accepts)
        with connected(sim, "deal") as again:
            assert again.channel("push.deal")


def test_faults_of_the_port_at_once_come_one_after_another(sim: Simulator) -> None:
    """The second once found the port taken by the first, and whoever injected it waited in vain."""
    sim.inject(Fault("refuse_connect", seconds=0.2))
    began = time.monotonic()
    sim.inject(Fault("mute", seconds=0.2))
    sim.inject(Fault("refuse_connect", seconds=0.2))
    assert time.monotonic() - began < 10
    sim.wait_for(accepts)
    with connected(sim, "deal") as client:
        assert client.channel("push.deal")


def test_a_port_that_another_has_by_chance_comes_back(sim: Simulator) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sim.inject(Fault("refuse_connect", seconds=0.3))
        other.bind((sim.config.host, sim.port))
        other.listen()
        began = time.monotonic()
        sim.wait_for(lambda _: time.monotonic() - began > 0.6)  # the simulator has tried by then
    sim.wait_for(accepts)
    with connected(sim, "deal") as client:
        assert client.channel("push.deal")


def test_tcp_accepted_and_nothing_said(sim: Simulator) -> None:
    sim.inject(Fault("mute", seconds=1.5))

    def is_mute(_: Simulator) -> bool:
        try:
            with socket.create_connection((sim.config.host, sim.port), timeout=0.3) as raw:
                raw.sendall(b"GET /api/v1/contract/ping HTTP/1.1\r\nHost: x\r\n\r\n")
                return raw.recv(100) == b"never"
        except TimeoutError:
            return True
        except ConnectionError:
            return False  # met the port while it changed hands

    def answers(_: Simulator) -> bool:
        try:
            return rest(sim, "ping")[0] == 200
        except OSError:
            return False

    sim.wait_for(is_mute)
    sim.wait_for(answers)


def test_a_tls_failure(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    with Simulator(SimulatorConfig(rate=RATE, tls_cert=cert, tls_key=key)) as sim:
        options = {"ca_certs": str(ca)}
        with connected(sim, "deal", sslopt=options) as client:
            client.channel("push.deal")
            sim.inject(Fault("garbage"))
            assert isinstance(client.to_end(), OSError)
        sim.inject(Fault("tls_failure", seconds=1.0))

        def fails(running: Simulator) -> bool:
            try:
                Client(running, options).ws.close(timeout=0)
            except OSError:
                return True
            return False

        sim.wait_for(fails)
        sim.wait_for(lambda s: not fails(s))


def test_rest_faults(sim: Simulator) -> None:
    sim.inject(Fault("rest_403"))
    status, body = rest(sim, "depth/BTC_USDT")
    assert status == 403
    assert b"Access Denied" in body
    sim.clear_faults()
    sim.inject(Fault("rest_510"))
    status, body = rest(sim, "depth/BTC_USDT")
    assert (status, json.loads(body)["code"]) == (200, 510)
    sim.clear_faults()
    sim.inject(Fault("rest_slow", delay=0.4))
    begin = time.monotonic()
    rest(sim, "ping")
    assert time.monotonic() - begin >= 0.4
    sim.clear_faults()
    sim.wait_for(lambda s: len(rest_data(s, "depth_commits/BTC_USDT/1000")) == 1000)
    sim.inject(Fault("rest_lag", value="900"))
    behind = sim.version("BTC_USDT") - rest_data(sim, "depth/BTC_USDT")["version"]
    assert 800 < behind <= 900
    sim.clear_faults()
    sim.inject(Fault("rest_stale"))
    versions = [rest_data(sim, "depth/BTC_USDT")["version"] for _ in range(4)]
    assert versions == sorted(versions, reverse=True)
    assert len(set(versions)) == 4


def test_scripted_faults_happen_when_they_should() -> None:
    faults = (Fault("rs_error", at=0.5, value="first"), Fault("empty", at=0.8, every=0.2))
    begin = time.monotonic()
    with Simulator(SimulatorConfig(rate=RATE, faults=faults)) as sim, connected(sim, "deal") as client:
        client.until(lambda p: b'"first"' in p)
        assert time.monotonic() - begin >= 0.5
        for _ in range(3):
            client.until(lambda p: p == b"")
        assert time.monotonic() - begin >= 1.2


@pytest.fixture
def manual() -> Iterator[Simulator]:
    """A market that moves only when told."""
    with Simulator(SimulatorConfig(rate=200.0, manual=True)) as running:
        yield running


def test_contracts_of_any_symbol_are_pushed_when_they_change(manual: Simulator) -> None:
    with connected(manual, "ticker") as client:
        before = rest_data(manual, "detail?symbol=ETH_USDT")
        manual.inject(Fault("contract_change", symbol="ETH_USDT"))
        assert rest_data(manual, "detail?symbol=ETH_USDT") != before, "also where nobody listens"
        client.ws.send('{"method":"sub.contract"}')
        client.channel("rs.sub.contract")
        manual.inject(Fault("contract_change", symbol="ETH_USDT"))
        push = client.channel("push.contract")
        assert list(push) == ["channel", "data", "ts"], "the symbol stands inside of data"
        assert push["data"]["symbol"] == "ETH_USDT"
        assert json.loads(json.dumps(push["data"]), parse_float=Decimal) == rest_data(manual, "detail?symbol=ETH_USDT")
        manual.inject(Fault("contract_change", count=30))
        seen = {client.channel("push.contract")["data"]["symbol"] for _ in range(30)}
        assert seen == {"BTC_USDT", "ETH_USDT", "SOL_USDT"}


def test_the_first_price_may_be_an_old_one(manual: Simulator) -> None:
    manual.inject(Fault("old_prices", value="100"))
    with connected(manual, "index.price", "fair.price", "funding.rate") as client:
        for channel in ("push.index.price", "push.fair.price"):
            push = client.channel(channel)
            assert -101_000 < push["ts"] - time.time() * 1000 < -99_000
        manual.tick(300)
        assert abs(client.channel("push.index.price")["ts"] - time.time() * 1000) < 60_000


def test_every_kind_of_fault_is_tried_in_this_module() -> None:
    text = Path(__file__).read_text()
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []


def test_shapes_hold_for_their_channel_one_after_another(sim: Simulator) -> None:
    with connected(sim, "deal", "ticker") as client:
        client.channel("push.deal")
        sim.inject(Fault("shape", channel="deal", value="drop=data.cts"))
        sim.inject(Fault("shape", channel="deal", value="ts=text"))
        found = json.loads(client.until(lambda p: b"push.deal" in p and b'"ts":"' in p))
        assert all("cts" not in deal for deal in found["data"])
        assert isinstance(client.channel("push.ticker")["ts"], int)
        recorded(sim, client)


def test_every_frame_compressed_acks_and_pongs_too(sim: Simulator) -> None:
    sim.inject(Fault("shape", value="gzip"))
    with connected(sim, "ticker") as client:
        client.ws.send('{"method":"ping"}')
        inside: set[str] = set()
        while not {"pong", "rs.sub.ticker", "push.ticker"} <= inside:
            payload = client.until(lambda p: p.startswith(b"\x1f\x8b"))
            inside.add(json.loads(gzip.decompress(payload))["channel"])
        assert {opcode for opcode, _ in client.frames} == {2}
        recorded(sim, client)


def test_rest_compressed_unasked(sim: Simulator) -> None:
    sim.inject(Fault("rest_gzip"))
    connection = http.client.HTTPConnection("127.0.0.1", sim.port, timeout=10)
    connection.request("GET", "/api/v1/contract/ping")
    response = connection.getresponse()
    assert response.getheader("Content-Encoding") == "gzip"
    assert json.loads(gzip.decompress(response.read()))["success"] is True
    connection.close()


def test_versions_that_reset_versions(sim: Simulator) -> None:
    with connected(sim, "depth") as client:
        before = client.channel("push.depth")["data"]["version"]
        assert sim.inject(Fault("reset_versions", value="7000")) == 1
        client.to_end()
        assert client.closed_with is None
    with connected(sim, "depth") as client:
        first = client.channel("push.depth")["data"]
        assert 7000 < first["begin"] <= first["version"] < before
    assert 7000 <= rest_data(sim, "depth/BTC_USDT")["version"] < before


def test_deals_sent_again(sim: Simulator) -> None:
    def deals(client: Client, count: int) -> list[bytes]:
        return [client.until(lambda p: b'"push.deal"' in p) for _ in range(count)]

    def sent(sim: Simulator) -> set[bytes]:
        return {f.payload for f in sim.sent_on(1) if b'"push.deal"' in f.payload}

    sim.inject(Fault("resend_deals", value="5"))
    with connected(sim, "deal"):  # it has every frame, those between the two others too
        with connected(sim, "deal") as client:
            earlier = deals(client, 10)
        with connected(sim, "deal") as client:
            again = deals(client, 5)
        assert len(set(again)) == 5
        sim.wait_for(lambda s: {*again, earlier[-1]} <= sent(s))


def test_rest_with_a_byte_that_is_not_utf8(sim: Simulator) -> None:
    sim.inject(Fault("rest_byte"))
    _, book = rest(sim, "depth/BTC_USDT")
    assert book.count(b"\xff") == 1
    sim.wait_for(lambda s: rest(s, "depth_commits/BTC_USDT/10")[1].count(b"\xff") == 10)
