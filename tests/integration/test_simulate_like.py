"""`simulate --like` does again what a probe saw: a probe of it finds the same."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import websocket

from mexc_pipeline.config import Config, parse
from mexc_pipeline.feed.handshake import HandshakeRefusedError, shake
from mexc_pipeline.probe import session
from mexc_pipeline.probe.bundle import BundleWriter
from mexc_pipeline.probe.judge import ProbeReport
from mexc_pipeline.probe.main import probe
from mexc_pipeline.probe.records import Closed, Opened, Received, Record, Refused, Sent
from mexc_pipeline.simulator import Fault, Simulator, SimulatorConfig

SECONDS = 2.6


@pytest.fixture(autouse=True)
def _quick_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "REST_PAUSE_S", 0.05)
    monkeypatch.setattr(session, "REST_WINDOW_S", 0.1)


def configuration(ws: str, rest: str, extra: str = "") -> Config:
    return parse(f'symbols = ["BTC_USDT"]\n[exchange]\nwebsocket = "{ws}"\nrest = "{rest}"\n{extra}', None)


@contextmanager
def imitating(bundle: Path) -> Iterator[tuple[str, str]]:
    """WebSocket and REST address of a simulator of that bundle."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mexc_pipeline", "simulate", "--like", str(bundle), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        found = re.search(r"on (ws://\S+) and (http://\S+)", process.stdout.readline())
        assert found is not None, process.stderr.read()
        yield found[1], found[2]
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def lines(report: ProbeReport) -> set[str]:
    """Findings without their counts."""
    counts = re.compile(r"[0-9]+( to [0-9]+)?( times)?|once")
    return {f"{finding.kind}: {counts.sub('N', finding.text)}" for finding in report.findings}


def shape(steps: str, channel: str | None = None) -> Fault:
    return Fault("shape", channel=channel, value=steps)


@pytest.mark.parametrize(
    ("faults", "extra"),
    [
        ((), ""),
        ((), '[channels]\ndeal = "each"\ndepth = "merged"'),
        ((Fault("retired", channel="depth.full"),), ""),
        ((Fault("retired", channel="deal", value="Not supported"), shape("set=data.fee:1", "ticker")), ""),
        ((shape("ts=us"),), ""),
        ((shape("ts=text"), shape("text=data", "deal")), ""),
        ((shape("ts=absent", "deal"), shape("set=data.asks:null", "depth.full")), ""),
        ((shape("gzip"),), ""),
        ((shape("zlib"),), ""),
        ((shape("deflate"),), ""),
        ((shape("rfc7692"),), ""),
        ((shape("binary", "deal"),), ""),
        ((Fault("frame", opcode=3, payload=b"odd", at=0.8),), ""),
        ((Fault("garbage", at=0.8),), ""),
        ((Fault("invalid_utf8", at=0.8), Fault("huge", at=0.9)), ""),
        ((Fault("close_notice", at=0.8),), ""),
        ((Fault("close", at=0.8, value="1012"), Fault("double_pong", count=99)), ""),
        ((Fault("reset_versions", at=0.8),), ""),
        ((Fault("resend_deals", value="30"),), ""),
        ((Fault("begin_end", at=0.8, channel="depth", value="null"),), '[channels]\ndepth = "merged"'),
        ((Fault("no_pong"), Fault("detail", value="empty")), ""),
        ((Fault("rest_gzip"), Fault("no_ack")), ""),
        ((Fault("session_limit", value="1"),), ""),
        ((Fault("rest_403"), shape("object=data", "deal"), shape("rename=data.bid1:bid", "ticker")), ""),
        ((Fault("refuse_handshake", value="503", headers="Retry-After: 3"),), ""),
        ((Fault("refuse_handshake", value="302", headers="Location: /elsewhere"),), ""),
    ],
)
def test_a_probe_of_the_imitation_finds_the_same(tmp_path: Path, faults: tuple[Fault, ...], extra: str) -> None:
    path = tmp_path / "bundle.ndjson.gz"
    begun = tuple(fault for fault in faults if fault.at)
    with Simulator(SimulatorConfig(rate=100.0, symbols=("BTC_USDT",), faults=begun)) as sim:
        for fault in faults:
            if fault not in begun:
                sim.inject(fault)
        config = configuration(sim.ws_url, sim.rest_url, extra)
        first = probe(config, config.symbols, SECONDS, path)
    assert bool(lines(first)) is bool(faults)
    with imitating(path) as (ws, rest):
        config = configuration(ws, rest, extra)
        second = probe(config, config.symbols, SECONDS - 0.2)  # within the bundle's first round
    assert lines(second) == lines(first)
    assert second.verdict == first.verdict
    assert [a.status for a in second.answers] == [a.status for a in first.answers]
    if first.reached and not faults:
        assert abs(second.clock_ahead_ms or 0) < 1000
        delays = [channel.delay_ms for channel in second.channels if channel.delay_ms]
        assert delays
        assert all(abs(median) < 1000 for median, _ in delays)


def test_the_stream_goes_on_without_repeats_when_it_comes_round(tmp_path: Path) -> None:
    """A probe of six times the bundle's length sees no gap, no version twice and no trade twice."""
    path = tmp_path / "bundle.ndjson"
    extra = '[channels]\ndepth = "merged"'
    with Simulator(SimulatorConfig(rate=100.0, symbols=("BTC_USDT",))) as sim:
        config = configuration(sim.ws_url, sim.rest_url, extra)
        probe(config, config.symbols, 1.0, path)
    with imitating(path) as (ws, rest):
        config = configuration(ws, rest, extra)
        report = probe(config, config.symbols, 6.0)
        again = probe(config, config.symbols, 2.0)
    assert lines(report) == lines(again) == set()
    assert report.verdict == "as expected"
    assert report.frames > 300


def test_what_the_bundle_does_not_hold_is_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "bundle.ndjson"
    with Simulator(SimulatorConfig(rate=100.0, symbols=("BTC_USDT",))) as sim:
        config = configuration(sim.ws_url, sim.rest_url)
        probe(config, config.symbols, 1.0, path)
    with imitating(path) as (ws, _):
        client = websocket.create_connection(ws, timeout=10, http_no_proxy=["*"])
        client.send("no JSON")
        client.send('{"method":"sub.nothing","param":{"symbol":"BTC_USDT"}}')
        client.send('{"method":"sub.deal","param":{"symbol":"ETH_USDT"}}')
        assert json.loads(client.recv())["data"] == "Contract [ETH_USDT] not exists"
        client.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a bundle"),
        ("{}", "is not a bundle"),
        ('{"bundle":2,"symbols":[]}', "format 2; this version knows 1"),
        ('{"bundle":1,"symbols":["BTC_USDT"]}', "never reached the exchange"),
        ('{"bundle":1,"symbols":["BTC_USDT"]}\n{"at":1,"conn":7,"text":"x"}', "line 2 is no record"),
        ('{"bundle":1,"symbols":["BTC_USDT"]}\nbroken', "line 2 is no record"),
    ],
)
def test_what_is_no_bundle_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bundle"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline", "simulate", "--like", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_other_settings_do_not_go_with_it(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline", "simulate", "--like", str(path), "--rate", "5"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "--rate does not go with --like" in done.stderr


@pytest.mark.parametrize("code", [0, 999, 1000, 1004, 1015, 3000, 5000, 65535])
def test_a_connection_ends_with_the_code_that_was_seen(tmp_path: Path, code: int) -> None:
    path = tmp_path / "bundle"
    reason = "ä" * 123
    records: list[Record] = [
        Opened(0.0, 1, "BTC_USDT"),
        Sent(0.0, 1, '{"method":"sub.deal","param":{"symbol":"BTC_USDT"}}'),
        Received(1.0, 1, 1, b'{"channel":"push.deal","data":{"version":%b},"ts":1}' % (b"9" * 5000)),
        Closed(2.0, 1, code, reason, False),
    ]
    with BundleWriter(path, ["BTC_USDT"], 1.0) as bundle:
        for record in records:
            bundle.keep(record)
    with imitating(path) as (ws, _):
        for _ in range(2):
            client = websocket.create_connection(ws, timeout=10, http_no_proxy=["*"])
            client.send("[" * 500_000)
            client.send('{"method":"sub.deal","param":{"symbol":"BTC_USDT"}}')
            assert client.sock is not None
            came = b""
            end = b"\x88\x7c" + code.to_bytes(2, "big") + reason.encode()[:122]
            while not came.endswith(end) and (piece := client.sock.recv(65_536)):
                came += piece
            assert came.endswith(end)
            assert came.count(b"9") >= 5000
            client.close()


def test_a_handshake_that_was_none_is_played(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with BundleWriter(path, ["BTC_USDT"], 1.0) as bundle:
        for status in (101, 42, 503):
            bundle.keep(Refused(0.0, 1, "BTC_USDT", status, {}, b"no"))
    with imitating(path) as (ws, _):
        for status in (101, 42, 503):
            where = urlsplit(ws)
            with (
                socket.create_connection((where.hostname, where.port), 10) as sock,
                pytest.raises(HandshakeRefusedError) as said,
            ):
                shake(sock, ws)
            assert said.value.answer.status == status
