"""`probe` against the simulator: as it is, and with each difference that an exchange may show switched on."""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit
from typing import Any

import pytest
import trustme

from mexc_pipeline.cli import app
from mexc_pipeline.config import Config, parse
from mexc_pipeline.egress.dial import Dialled, dial
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.feed.attempts import MOST, Attempts, key
from mexc_pipeline.probe import session
from mexc_pipeline.probe.judge import ProbeReport
from mexc_pipeline.probe.main import probe
from mexc_pipeline.simulator import KINDS, Fault, Simulator, SimulatorConfig, Style
from mexc_pipeline.simulator.bundle import read_bundle
from mexc_pipeline.simulator.faults import CHOICES
from mexc_pipeline.simulator.shapes import STEPS, TS
from support.peers import SocksProxy, certificates, free_port, saying, serving
from support.waiting import until

SECONDS = 2.6
"""Half of it on one connection, half on the next; what is not acknowledged by then is judged."""


def configuration(sim: Simulator, extra: str = "") -> Config:
    return parse(
        f'symbols = ["BTC_USDT"]\n[exchange]\nwebsocket = "{sim.ws_url}"\nrest = "{sim.rest_url}"\n{extra}', None
    )


def probed(sim: Simulator, *, seconds: float = SECONDS, extra: str = "", save: Path | None = None) -> ProbeReport:
    config = configuration(sim, extra)
    return probe(config, config.symbols, seconds, save)


def said(report: ProbeReport) -> str:
    return "\n".join(f"{finding.kind}: {finding.text}" for finding in report.findings)


@pytest.fixture(autouse=True)
def _quick_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "REST_PAUSE_S", 0.05)
    monkeypatch.setattr(session, "REST_WINDOW_S", 0.1)


@pytest.fixture
def settings() -> SimulatorConfig:
    return SimulatorConfig(rate=150.0, symbols=("BTC_USDT",))


@pytest.mark.parametrize(
    "extra",
    ["", '[channels]\ndeal = "each"\ndepth = "each"', '[channels]\ndepth = "merged"', '[channels]\ndepth = "full5"'],
)
def test_the_exchange_as_it_is(settings: SimulatorConfig, extra: str) -> None:
    with Simulator(settings) as sim:
        report = probed(sim, extra=extra)
        assert said(report) == ""
        assert report.verdict == "as expected"
        assert report.ok
        configured = [c for c in report.channels if c.configured]
        assert len(configured) == 3
        for channel in configured:
            assert channel.asked == channel.acked == 1
            assert channel.frames > 0
            assert channel.fields_seen == channel.fields_expected
            assert list(channel.ts) == ["ms"]
        assert {c.channel for c in report.channels if not c.configured} >= {"push.kline", "push.index.price"}
        assert report.pings == report.pongs >= 3
        assert report.clock_ahead_ms is not None
        assert abs(report.clock_ahead_ms) < 1000
        assert [a.status for a in report.answers] == [200] * 8
        assert len(report.connections) == 3, "two in a row, and one for channels that are not configured"
        assert max(map(len, report.lines())) <= 80


def test_what_is_printed(settings: SimulatorConfig) -> None:
    """Per channel and then of all together: each figure of the report has its place."""
    with Simulator(settings) as sim:
        sim.inject(Fault("retired", channel="ticker"))
        sim.inject(shape("set=data.fee:0.1", "deal"))
        sim.inject(shape("exponent=data.asks", "depth.full"))
        sim.inject(shape("ts=us", "depth.full"))
        sim.inject(Fault("rest_gzip"))
        report = probed(sim)
    table, rest = "\n".join(report.lines()).split("\n\n")[1:3]
    head, *lines = table.splitlines()
    assert head.split() == ["channel", "acked", "frames", "ts", "ms", "p50", "/", "p99", "fields", "versions"]
    assert "not configured, for information:" in lines
    by_name = {c.channel: c for c in report.channels}
    assert {line.split()[0] for line in lines if line.startswith("push.")} == set(by_name)
    for name, acked, units, fields, versions in (
        ("push.ticker", "NO", "-", "-", "-"),
        ("push.deal", "yes", "ms", "10/10+1", "-"),
        ("push.depth.full", "yes", "us", "7/7", "continuous"),
    ):
        figures = by_name[name]
        delay = " / ".join(f"{ms:.0f}" for ms in figures.delay_ms) if figures.delay_ms else "-"
        (line,) = [line for line in lines if line.split()[0] == name]
        assert line.split() == [name, acked, str(figures.frames), units, *delay.split(), fields, versions]
        assert (figures.frames > 0) == (units != "-")
    assert by_name["push.deal"].delay_ms
    heartbeat = f"heartbeat    {report.pings} pings, {report.pongs} pongs, {report.pong_ms:.0f} ms"
    assert heartbeat in rest.splitlines()
    assert report.pings > 0
    assert f"clock        {report.clock_ahead_ms:+.0f} ms against the exchange" in rest.splitlines()
    numbers = " ".join(rest.partition("\nnumbers ")[2].partition("\nREST ")[0].split())
    spelled = {
        name: ", ".join(f"{count} {how}" for how, count in by_name[name].spellings.items())
        for name in ("push.deal", "push.depth.full")
    }
    longest = {name: by_name[name].longest_number for name in spelled}
    assert numbers == " ".join(f"{name}: {said}; longest {longest[name]} digits" for name, said in spelled.items())
    assert {"decimal", "integer"} <= set(by_name["push.deal"].spellings), "each channel's own, side by side"
    assert "exponent" in by_name["push.depth.full"].spellings
    assert "exponent" not in by_name["push.deal"].spellings
    assert longest["push.deal"] >= 13, "the times"
    channels = {channel["channel"]: channel for channel in report.to_json()["channels"]}
    assert channels["push.depth.full"]["spellings"] == by_name["push.depth.full"].spellings
    answers = [entry.split() for entry in rest.split("\nREST ")[1:]]
    paths = [re.sub(r"start=\d+", "start=…", words[0]) for words in answers]
    assert [(path, words[1], words[3], " ".join(words[4:])) for path, words in zip(paths, answers, strict=True)] == [
        ("ping", "200", "ms", "as expected, gzip"),
        ("detail?symbol=BTC_USDT", "200", "ms", "lists BTC_USDT, gzip"),
        ("depth/BTC_USDT?limit=20", "200", "ms", "as expected, gzip"),
        ("depth_commits/BTC_USDT/20", "200", "ms", "as expected, gzip"),
        ("deals/BTC_USDT?limit=20", "200", "ms", "as expected, gzip"),
        ("funding_rate/BTC_USDT", "200", "ms", "as expected, gzip"),
        ("kline/BTC_USDT?interval=Min1&start=…", "200", "ms", "as expected, gzip"),
        ("ping", "200", "ms", "as expected, gzip"),
    ]


def test_it_listens_for_a_minute_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def look(_config: Config, _chosen: object, seconds: float, *_: object) -> ProbeReport:
        asked.append(seconds)
        raise UserError("enough")

    monkeypatch.setattr("mexc_pipeline.probe.main.probe", look)
    assert app.invoke(["probe"]) == 1
    assert asked == [60.0]


def test_it_connects_by_the_configured_proxy(settings: SimulatorConfig) -> None:
    name = "contract.exchange.invalid"
    proxy = SocksProxy({name: "127.0.0.1"})
    with Simulator(settings) as sim, serving(proxy.serve) as front:
        config = parse(
            f'[exchange]\nwebsocket = "ws://{name}:{sim.port}/edge"\nrest = "http://{name}:{sim.port}"\n'
            f'[egress]\nmode = "socks5h://127.0.0.1:{front.port}"\n',
            None,
        )
        report = probe(config, config.symbols[:1], SECONDS)
        assert report.verdict == "as expected", said(report)
        assert f"socks5h://127.0.0.1:{front.port}" in " ".join(report.lines()[:3])
        assert proxy.asked == [(3, name, sim.port)] * (len(report.connections) + len(report.answers))
        assert len(sim.connections) == len(report.connections)


@pytest.mark.parametrize(
    ("given", "said_of_it"),
    [
        ("scout\nsecret-word\n", None),
        ("scout\nanother\n", "refuses the name or the password"),
        (None, "asks for a name and a password; egress.credentials_file names a file with both"),
    ],
)
def test_a_proxy_that_asks_for_a_login(
    settings: SimulatorConfig, tmp_path: Path, given: str | None, said_of_it: str | None
) -> None:
    name, login = "contract.exchange.invalid", tmp_path / "login"
    if given is not None:
        login.write_text(given)
        login.chmod(0o600)
    bundle = tmp_path / "bundle.ndjson"
    proxy = SocksProxy({name: "127.0.0.1"}, login=(b"scout", b"secret-word"))
    with Simulator(settings) as sim, serving(proxy.serve) as front:
        config = parse(
            f'[exchange]\nwebsocket = "ws://{name}:{sim.port}/edge"\nrest = "http://{name}:{sim.port}"\n'
            f'[egress]\nmode = "socks5h://127.0.0.1:{front.port}"\n'
            + (f'credentials_file = "{login}"\n' if given is not None else ""),
            None,
        )
        report = probe(config, config.symbols[:1], SECONDS, bundle)
    if said_of_it is None:
        assert report.verdict == "as expected", said(report)
        assert report.frames > 0
    else:
        assert report.verdict == "not reached"
        where = f"proxy 127.0.0.1:{front.port}: connect to {name}:{sim.port}: {said_of_it}"
        assert report.why_not_reached == f"connection: ws://{name}:{sim.port}/edge: {where}"
        assert len(report.findings) == 2, "one line of the socket, one of REST"
    told = "\n".join(report.lines()) + json.dumps(report.to_json()) + bundle.read_text()
    assert "secret-word" not in told
    assert "scout" not in told


@pytest.mark.parametrize("days", [-400, 400])
def test_a_certificate_of_another_time_is_clock_or_certificate(
    settings: SimulatorConfig, tmp_path: Path, days: int
) -> None:
    begin = datetime.now(UTC) + timedelta(days=days)
    files = certificates(tmp_path / "tls", "127.0.0.1", not_before=begin, not_after=begin + timedelta(days=30))
    with Simulator(replace(settings, tls_cert=files.certificate, tls_key=files.key)) as sim:
        config = parse(
            f'symbols = ["BTC_USDT"]\n[exchange]\nwebsocket = "{sim.ws_url}"\nrest = "{sim.rest_url}"\n'
            f'ca_file = "{files.authority}"\n',
            None,
        )
        report = probe(config, config.symbols, 1.5)
    assert report.verdict == "not reached"
    assert re.match(
        r"connection: wss://.*: TLS with 127.0.0.1: clock or certificate: certificate .*, and this host's clock says "
        r".* UTC; set the clock \(NTP\) \(name and TCP were fine\)",
        report.why_not_reached,
    )
    rest = [finding.text for finding in report.findings if finding.text.startswith("REST")]
    assert rest
    assert all("clock or certificate" in text for text in rest)


def test_of_several_addresses_one_that_is_dead_is_passed_over(settings: SimulatorConfig) -> None:
    with Simulator(settings) as sim:
        dead = f"127.0.0.1:{free_port()}"
        config = parse(
            f'[exchange]\nwebsocket = ["ws://{dead}/edge", "{sim.ws_url}"]\n'
            f'rest = ["http://{dead}", "{sim.rest_url}"]\n',
            None,
        )
        report = probe(config, config.symbols[:1], 2 * SECONDS)
    assert all(c.acked and c.frames for c in report.channels if c.configured)
    assert [answer.status for answer in report.answers] == [200] * 8
    assert report.verdict == "as expected", said(report)
    refused = f"connection: ws://{dead}/edge: connect to {dead}: 127.0.0.1: Connection refused"
    assert report.notes == [f"{refused}; another address of [exchange] websocket was used"], "it is said, once"
    assert "another address of [exchange] websocket was used" in " ".join(" ".join(report.lines()).split())


def shape(steps: str, channel: str | None = None) -> Fault:
    return Fault("shape", channel=channel, value=steps)


def now_and_then(kind: str, **fields: Any) -> Fault:
    return Fault(kind, every=0.7, **fields)


def once(kind: str, **fields: Any) -> Fault:
    return Fault(kind, at=0.8, **fields)


EACH = '[channels]\ndepth = "each"'
MERGED = '[channels]\ndepth = "merged"'
DEAD = r"different: push.ticker: \d+ of \d+ would be recorded as dead letters"
END = r"different: connection: ended by the exchange after \d s, (once|2 times)"
FINE = ""
"""As expected: the recorder copes, and nothing is another thing than it was. Why that holds stands behind it."""
SEEN: list[tuple[Fault, str] | tuple[Fault, str, str]] = [
    # frames of their own
    (now_and_then("bad_json"), r"different: frames: \d+ of \d+ are not JSON"),
    (now_and_then("not_object"), r"different: frames: \d+ of \d+ are not an object"),
    (now_and_then("unknown_channel"), r"richer: push.surprise: \d+ frames of a channel that was not asked for"),
    (now_and_then("foreign_symbol"), r"different: push.ticker: \d+ frames of FOREIGN_USDT, which was not asked for"),
    (now_and_then("invalid_utf8"), r"different: frames: \d+ of \d+ are not UTF-8"),
    (now_and_then("huge"), rf"{DEAD} \(too large\)"),
    (now_and_then("ts_null"), r"different: push.ticker: ts is null in \d+ of \d+; expected milliseconds"),
    (now_and_then("ts_type", value="string"), "different: push.ticker: ts is text in"),
    (now_and_then("ts_type", value="float"), "different: push.ticker: ts is no whole number in"),
    (now_and_then("ts_type", value="short"), "different: push.ticker: ts is in seconds in"),
    (now_and_then("ts_type", value="bool"), "different: push.ticker: ts is boolean in"),
    (now_and_then("ts_missing"), "different: push.ticker: ts is absent in"),
    (now_and_then("empty"), r"different: frames: \d+ of \d+ are not JSON"),
    (now_and_then("rs_error", value="maintenance"), "different: the exchange says 'rs.error: maintenance'"),
    (now_and_then("binary"), r"different: frames: \d+ of \d+ are binary; expected is text"),
    (now_and_then("client_id"), FINE),  # clients of this exchange expect it
    (now_and_then("extra_pong"), r"richer: heartbeat: \d+ pongs? more than pings"),
    (now_and_then("frame", opcode=0, payload=b"odd"), r"different: frames: \d+ of \d+ are no message: of an undefined"),
    (now_and_then("frame", opcode=3, payload=b"odd"), r"different: frames: \d+ of \d+ are no message: of an undefined"),
    (
        now_and_then("frame", opcode=11, payload=b"odd"),
        r"different: frames: \d+ of \d+ are no message: of an undefined",
    ),
    (now_and_then("ws_ping"), FINE),  # it is answered
    # the market's own frames, now and then
    (now_and_then("drop", channel="depth"), r"different: push.depth: \d+ versions missing in \d+ gaps", MERGED),
    (now_and_then("version_gap", channel="depth"), r"different: push.depth: \d+ versions missing in \d+ gaps", MERGED),
    (now_and_then("version_back", channel="depth.full"), "different: push.depth.full: versions went back"),
    (now_and_then("version_back", channel="depth"), "different: push.depth: versions went back", EACH),
    (now_and_then("duplicate", channel="deal"), r"different: push.deal: \d+ trades came (twice|again)"),
    (now_and_then("begin_end", channel="depth", value="missing"), "different: push.depth: .* versions missing", MERGED),
    (now_and_then("begin_end", channel="depth", value="null"), "different: push.depth: .* versions missing", MERGED),
    (now_and_then("begin_end", channel="depth", value="zero"), "different: push.depth: .* versions missing", MERGED),
    (now_and_then("fragmented"), FINE),  # any message may come so
    (Fault("double_pong", count=99), r"richer: heartbeat: \d+ pongs more than pings"),
    (Fault("big_tickers"), FINE),  # of a channel that nobody records
    # connections
    (once("half", value="fin"), rf"{END} \(code 1006"),
    (once("half", value="reset"), rf"{END} \(code 1006"),
    (once("reset"), rf"{END} \(code 1006, '.*reset by peer'\); expected to stay"),
    (once("reset", value="acked"), rf"{END} \(code 1006, '.*reset by peer'\); expected to stay"),
    (once("abort"), rf"{END} \(code 1006"),
    (once("close", value="1012"), rf"{END} \(code 1012\); expected to stay"),
    (once("close_notice"), rf"{END} \(code 1005\).*\n(.*\n)*different: the exchange says 'rs.error: more than 60 s"),
    (once("reset_versions"), "different: push.depth.full: versions began lower after a new connection, once"),
    (
        once("garbage"),
        r"different: connection: cut after \d s, .*no frame \(reserved bits\).*; the recorder cuts it too",
    ),
    (
        Fault("session_limit", value="1"),
        r"different: connection: ended by the exchange after 1 s, \d times \(code 1001",
    ),
    # what holds on
    (Fault("stall", value="lose"), "different: BTC_USDT: no channel acknowledged and no frame in"),
    (Fault("stall", value="hold"), "different: BTC_USDT: no channel acknowledged and no frame in"),
    (Fault("stall", value="resubscribe"), FINE),  # the subscription is what it waits for
    (
        Fault("retired", channel="depth.full"),
        "different: push.depth.full: not acknowledged and no frame in .* depth = ",
    ),
    (Fault("retired", channel="deal", value="Not supported"), "different: the exchange says 'rs.error: Not supported'"),
    (Fault("retired", channel="depth.full", value="ack"), FINE),  # 30 s of silence would be judged: see its unit tests
    (Fault("no_ack"), "different: push.ticker: delivered, but not acknowledged; it is recorded all the same"),
    (Fault("slow_ack", delay=0.5), FINE),  # it came
    (Fault("no_pong"), r"different: heartbeat: \d+ pings?, 0 pongs; the recorder reconnects where none come"),
    (Fault("old_prices"), FINE),  # known of a sister venue; the recorder measures no delay by it
    (Fault("contract_change", at=0.8), FINE),  # a contract may
    (Fault("contract_change", at=0.8, symbol="ETH_USDT"), FINE, "[channels]\ncontract = true"),  # and another one
    (Fault("resend_deals", value="30"), r"different: push.deal: \d+ trades came again after a new connection"),
    (Fault("burst", value="3"), FINE),  # a market may
    # handshakes
    *(
        (
            Fault("refuse_handshake", value=status, headers="Retry-After: 60"),
            rf"not reached: handshake: HTTP {status} in place of the upgrade, .* \(retry-after 60\): .*Denied",
        )
        for status in CHOICES["refuse_handshake"]
    ),
    (Fault("refuse_connect", seconds=60), "not reached: connection: ws://.*: connect to .*: Connection refused"),
    (Fault("mute", seconds=60), r"not reached: connection: .*: WebSocket handshake: not done within 2 s \(the conn"),
    (Fault("tls_failure", seconds=60), "not reached: connection: ws://.* handshake"),
    # REST
    (
        Fault("detail", value="1001"),
        r"different: REST detail: BTC_USDT is not said .*\(code 1001.*; the socket delivers",
    ),
    (Fault("detail", value="510"), "different: REST detail: code 510, too many requests, each time"),
    (Fault("detail", value="empty"), "different: REST detail: BTC_USDT is not said to be listed"),
    (Fault("detail", value="missing"), "different: REST detail: BTC_USDT is not said to be listed"),
    (Fault("detail", value="html"), r"different: REST detail: HTTP 200 with what is not JSON \(text/html\)"),
    (Fault("detail", value="garbage"), "different: REST detail: HTTP 200 with what is not JSON"),
    (Fault("rest_403"), r"different: REST ping: HTTP 403 \(text/html\)"),
    (Fault("rest_510"), "different: REST detail: code 510, too many requests, each time"),
    (Fault("candles", value="510"), "different: REST kline: code 510, too many requests, each time"),
    (Fault("candles", value="429"), "different: REST kline: HTTP 429"),
    (Fault("candles", value="none"), FINE),  # nobody traded for so long
    (Fault("candles", value="empty"), "different: REST kline: "),
    (Fault("candles", value="missing"), "different: REST kline: "),
    (Fault("candles", value="short"), "different: REST kline: "),
    (Fault("candles", value="html"), r"different: REST kline: HTTP 200 with what is not JSON \(text/html\)"),
    (Fault("candles", value="garbage"), "different: REST kline: HTTP 200 with what is not JSON"),
    (Fault("rest_lag"), FINE),  # a repair asks again
    (Fault("rest_stale"), FINE),  # the same
    (Fault("rest_gzip"), FINE),  # we ask for it
    (Fault("rest_byte"), r"different: REST depth: HTTP 200 with what is not JSON \(application/json\)"),
    (Fault("rest_slow", delay=0.3), FINE),  # how long each took is printed
    # shapes
    (shape("ts=us"), r"different: push.deal: \d+ of \d+ would be recorded as dead letters \(ts\)"),
    (shape("ts=us"), "different: push.ticker: ts is in microseconds in .* expected milliseconds"),
    (shape("ts=ns"), "different: push.ticker: ts is in nanoseconds in"),
    (shape("ts=s"), "different: push.ticker: ts is in seconds in"),
    (shape("ts=float"), "different: push.ticker: ts is no whole number in"),
    (shape("ts=text"), "different: push.depth.full: ts is text in"),
    (shape("ts=zero"), "different: push.deal: ts is 0 in"),
    (shape("ts=null"), "different: push.deal: ts is null in"),
    (
        shape("ts=absent", "deal"),
        r"different: push.deal: ts is absent in .*\n.*push.deal: ts is missing in (\d+) of \1",
    ),
    (shape("set=data.asks:null", "depth.full"), "different: push.depth.full: data.asks is null in .* expected is list"),
    (shape("set=symbol:ETH_USDT", "deal"), "different: push.deal: .* frames of ETH_USDT, which was not asked for"),
    (shape("set=data.fee:0.1", "deal"), r"richer: push.deal: data\[\].fee is new \(number\)"),
    (shape("set=news:{}", "ticker"), r"richer: push.ticker: news is new \(object\)"),
    (shape("drop=data.bids", "depth.full"), r"different: push.depth.full: data.bids is missing in (\d+) of \1"),
    (shape("drop=data.lastPrice", "ticker"), "different: push.ticker: data.lastPrice is missing in"),
    (shape("rename=data.p:price", "deal"), r"different: push.deal: data\[\].p is missing in"),
    (shape("text=data.p", "deal"), r"different: push.deal: data\[\].p is text in .* expected is number"),
    (shape("number=data.symbol", "ticker"), FINE),  # it holds no number
    (shape("exponent=data.p", "deal"), FINE),  # read exactly, and counted
    (shape("digits=data.p:30", "deal"), FINE),  # the same
    (shape("digits=data.p:140", "deal"), r"different: push.deal: data\[\].p has a number of 1\d\d digits"),
    (shape("object=data", "deal"), "different: push.deal: data is object in .* expected is list"),
    (shape("list=data", "ticker"), "different: push.ticker: data is list in .* expected is object"),
    (shape("gzip"), r"different: frames: (\d+) of \1 are compressed \(gzip\)"),
    (shape("zlib"), r"different: frames: (\d+) of \1 are compressed \(zlib\)"),
    (shape("deflate"), r"different: frames: (\d+) of \1 are compressed \(deflate\)"),
    (shape("rfc7692"), r"different: frames: (\d+) of \1 are compressed \(deflate\)"),
    (
        shape("shift=ts:-86400000", "ticker"),
        r"different: push\.ticker: ts is 24\.0 h behind the exchange's clock in (\d+) of \1",
    ),
    (shape("binary", "deal"), r"different: frames: \d+ of \d+ are binary"),
]


def test_there_is_a_line_for_each_fault_of_the_simulator() -> None:
    faults = [fault for fault, *_ in SEEN]
    assert {fault.kind for fault in faults} == set(KINDS)
    for kind, choices in CHOICES.items():
        assert {fault.value for fault in faults if fault.kind == kind} - {"ack", ""} >= set(choices) - {""}, kind
    steps = {step for fault in faults if fault.kind == "shape" for step in fault.value.split(";")}
    assert {step.partition("=")[0] for step in steps} == {form.partition("=")[0] for form in STEPS}
    assert {step.partition("=")[2] for step in steps if step.startswith("ts=")} == set(TS)


@pytest.mark.parametrize("row", SEEN, ids=lambda row: " ".join(filter(None, (row[0].kind, row[0].value))))
def test_each_fault_has_its_line_and_verdict(
    settings: SimulatorConfig, row: tuple[Fault, str] | tuple[Fault, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HANDSHAKE_S", 2.0)
    fault, line, *extra = row
    timed = bool(fault.at or fault.every)
    with Simulator(replace(settings, faults=(fault,) if timed else ())) as sim:
        if not timed:
            sim.inject(fault)
        report = probed(sim, extra="".join(extra))
    verdict, _, text = line.partition(": ")
    assert report.verdict == (verdict or "as expected"), said(report)
    assert report.ok is (verdict in ("", "richer"))
    if not line:
        assert said(report) == ""
    elif verdict == "not reached":
        assert re.match(text, report.why_not_reached), said(report)
        assert report.lines()[-1] == f"verdict: not reached: {report.why_not_reached}"
    else:
        assert re.search(line, said(report)), said(report)
        assert report.lines()[-1] == f"verdict: {verdict}"
        printed = " ".join(" ".join(report.lines()).split())
        assert all(" ".join(finding.text.split()) in printed for finding in report.findings)
    assert max(map(len, report.lines()[:-1])) <= 80


@pytest.mark.parametrize("depth", ["merged", "each"])
@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ("set=data.asks:null", r"push.depth: data.asks is null in (\d+) of \1; expected is list"),
        ("drop=data.bids", r"push.depth: data.bids is missing in (\d+) of \1"),
    ],
)
def test_a_side_that_is_null_or_absent_in_incremental_depth_is_named(
    settings: SimulatorConfig, depth: str, steps: str, line: str
) -> None:
    with Simulator(settings) as sim:
        sim.inject(shape(steps, "depth"))
        report = probed(sim, extra=f'[channels]\ndepth = "{depth}"')
    assert re.fullmatch(f"different: {line}", said(report)), said(report)
    (channel,) = [c for c in report.channels if c.channel == "push.depth"]
    assert channel.versions == "continuous", "the versions are there all the same"


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (Fault("garbage", at=0.7), r"cut after \d s, \d times?: what came is no frame \(reserved bits\)"),
        (
            Fault("frame", at=0.7, payload=b"x" * (65 << 20)),
            r"cut after \d s, \d times?: a frame of more than 64 MiB began to come",
        ),
    ],
)
def test_what_the_recorder_cuts_a_connection_for_is_not_the_exchanges_end(
    settings: SimulatorConfig, fault: Fault, line: str
) -> None:
    with Simulator(replace(settings, faults=(fault,), max_backlog=1 << 30)) as sim:
        report = probed(sim, seconds=4)
    assert re.search(f"different: connection: {line}.*; the recorder cuts it too", said(report)), said(report)
    assert "ended by the exchange" not in said(report)


@pytest.mark.parametrize(("off_s", "side"), [(-300.0, "ahead of"), (86_400.0, "behind")])
def test_a_clock_that_differs(settings: SimulatorConfig, off_s: float, side: str) -> None:
    with Simulator(replace(settings, clock_ns=lambda: time.time_ns() + round(off_s * 1e9))) as sim:
        report = probed(sim)
        assert re.fullmatch(
            rf"different: clock: this machine is {abs(off_s):.1f} s {side} the exchange \(\d+ answers\); .*",
            said(report),
        )


@pytest.mark.parametrize(("steps", "spelled"), [("exponent=data", "exponent"), ("digits=data:30", "integer")])
def test_spellings_that_are_read_exactly_are_as_expected(settings: SimulatorConfig, steps: str, spelled: str) -> None:
    """Prices of ten millions and more, exponents: they are counted, and nothing is wrong with them."""
    with Simulator(settings) as sim:
        sim.inject(shape(steps, "depth.full"))
        sim.inject(shape(steps, "ticker"))
        report = probed(sim)
    # Of so many digits no number is a version or a time any more.
    assert [text for text in said(report).splitlines() if not re.search("version|timestamp|cts", text)] == []
    assert report.spellings[spelled] > 100
    assert steps.startswith("exponent") or 25 <= report.longest_number <= 38


def test_compressed_answers_are_understood(settings: SimulatorConfig) -> None:
    with Simulator(settings) as sim:
        sim.inject(Fault("rest_gzip"))
        report = probed(sim)
        assert report.verdict == "as expected"
        assert {answer.said for answer in report.answers} == {"as expected, gzip", "lists BTC_USDT, gzip"}


def test_a_symbol_that_is_not_listed(settings: SimulatorConfig) -> None:
    with Simulator(replace(settings, symbols=("ETH_USDT",))) as sim:
        report = probed(sim)
    assert said(report) == (
        "different: BTC_USDT: the exchange has no such contract (code 1001: Contract does not exist); "
        "look at how its name is written"
    )
    assert report.verdict == "different"


def test_a_symbol_that_is_not_listed_beside_one_that_is(settings: SimulatorConfig) -> None:
    """What follows from one name says nothing of the other's channels."""
    with Simulator(settings) as sim:
        sim.inject(Fault("retired", channel="depth.full"))
        config = parse(
            f'symbols = ["BTC_USDT", "NOPE_USDT"]\n[exchange]\nwebsocket = "{sim.ws_url}"\nrest = "{sim.rest_url}"\n',
            None,
        )
        report = probe(config, config.symbols, SECONDS)
    channels = [line for line in said(report).splitlines() if "push." in line]
    assert len(channels) == 1, channels
    assert re.search(
        r"push.depth.full: not acknowledged and no frame in \d s for BTC_USDT; set \[channels\]", channels[0]
    )
    assert "NOPE_USDT: the exchange has no such contract" in said(report)


def test_a_first_address_that_refuses_is_passed_over(settings: SimulatorConfig) -> None:
    with Simulator(settings) as left, Simulator(settings) as sim:
        left.inject(Fault("refuse_handshake", value="403"))
        config = parse(f'[exchange]\nwebsocket = ["{left.ws_url}", "{sim.ws_url}"]\nrest = "{sim.rest_url}"\n', None)
        report = probe(config, config.symbols[:1], SECONDS)
    assert report.verdict == "as expected", said(report)
    (note,) = report.notes
    assert note.startswith("handshake: HTTP 403 in place of the upgrade, ")
    assert note.endswith("; another address of [exchange] websocket was used")


def test_a_name_in_another_script(settings: SimulatorConfig) -> None:
    name = "龙虾_USDT"
    with Simulator(replace(settings, symbols=(name,))) as sim:
        config = parse(
            f'symbols = ["{name}"]\n[exchange]\nwebsocket = "{sim.ws_url}"\nrest = "{sim.rest_url}"\n'
            f'[symbol."{name}"]\nid = "lobster"\n',
            None,
        )
        report = probe(config, config.symbols, SECONDS)
    assert said(report) == ""
    assert [answer.status for answer in report.answers] == [200] * 8
    assert any(answer.said == f"lists {name}" for answer in report.answers)


def test_deals_of_former_years(settings: SimulatorConfig) -> None:
    with Simulator(replace(settings, style=Style(deal_form="object"))) as sim:
        assert "push.deal: data is object in" in said(probed(sim))


@pytest.mark.parametrize("status", ["200", "302", "403", "404", "429", "503"])
def test_a_refused_handshake(settings: SimulatorConfig, status: str) -> None:
    with Simulator(settings) as sim:
        sim.inject(Fault("refuse_handshake", value=status, headers="Retry-After: 7; Location: /elsewhere"))
        report = probed(sim, seconds=2)
        assert re.search(
            rf"handshake: HTTP {status} in place of the upgrade, (once|2 times) "
            rf"\({'location /elsewhere, ' if status == '302' else ''}retry-after 7\): .*Access Denied",
            said(report),
        )
        assert report.verdict == "not reached"
        assert not report.ok
        assert 1 <= len(handshakes(sim)) <= 2, "one of each connection that is wanted, in 7 s"


def handshakes(sim: Simulator) -> list[int]:
    """When those came that were refused, ns."""
    return [request.time_ns for request in sim.requests if request.target == "/edge"]


def test_the_patience_that_is_asked_for_is_kept_and_then_it_connects(settings: SimulatorConfig) -> None:
    with Simulator(settings) as sim:
        sim.inject(Fault("refuse_handshake", value="429", headers="Retry-After: 2", seconds=1))
        report = probed(sim, seconds=5)
        refused = handshakes(sim)
        opened = min(connection.opened_ns for connection in sim.connections)
    assert len(refused) <= 2
    assert opened - min(refused) >= 2e9
    assert report.reached
    assert re.search(r"handshake: HTTP 429 in place of the upgrade, .*retry-after 2", said(report))


def test_refusals_that_ask_for_no_patience_get_a_growing_one(settings: SimulatorConfig) -> None:
    with Simulator(settings) as sim:
        sim.inject(Fault("refuse_handshake", value="503"))
        report = probed(sim, seconds=4)
        assert 2 <= len(handshakes(sim)) <= 6, "both connections at 0, 1 and 3 s"
    assert report.verdict == "not reached"


def test_sessions_that_end_at_once_are_no_more_than_a_recorder_makes(settings: SimulatorConfig) -> None:
    with Simulator(settings) as sim:
        sim.inject(Fault("session_limit", value="0"))
        report = probed(sim, seconds=8)
        assert len(sim.connections) == MOST
    assert re.search(rf"ended by the exchange after 0 s, {MOST} times", said(report))
    shown = [line for line in report.lines() if line.startswith("connection")]
    assert len(shown) == 9
    assert any(line.strip() == f"and {MOST - 9} more, which --json lists" for line in report.lines())


@pytest.mark.parametrize(("patience", "asked"), [(1, 3), (60, 1)])
def test_rest_that_asks_for_patience_gets_it(settings: SimulatorConfig, patience: int, asked: int) -> None:
    answer = f"HTTP/1.1 429 Slow\r\nRetry-After: {patience}\r\nContent-Length: 0\r\n\r\n".encode()
    with Simulator(settings) as sim, serving(saying(answer)) as rest:
        where = f'websocket = "{sim.ws_url}"\nrest = "http://127.0.0.1:{rest.port}"'
        config = parse(f'symbols = ["BTC_USDT"]\n[exchange]\n{where}\n', None)
        report = probe(config, config.symbols, SECONDS)
        assert rest.accepted == asked
    assert f"different: REST ping: HTTP 429 (no type, retry-after {patience})" in said(report)
    assert f"http://127.0.0.1:{rest.port} asks for patience: nothing is asked of it" in said(report)


def sharing(sim: Simulator, folder: Path) -> Config:
    return parse(
        f'symbols = ["BTC_USDT"]\ndata_dir = "{folder}"\n'
        f'[exchange]\nwebsocket = "{sim.ws_url}"\nrest = "{sim.rest_url}"\n',
        None,
    )


def test_attempts_are_counted_with_a_recorders(settings: SimulatorConfig, tmp_path: Path) -> None:
    """Whoever leaves by the same address has one budget, and one patience."""
    with Simulator(settings) as sim:
        config = sharing(sim, tmp_path)
        counted = config.control_dir / "attempts" / key(config.symbols[0])
        recorder = Attempts(counted)
        assert recorder.wait_s("another", free=False)[0] == 0
        inode = counted.stat().st_ino
        report = probe(config, config.symbols, SECONDS)
        assert report.verdict == "as expected", said(report)
        assert report.notes == []
        assert counted.stat().st_ino == inode
        assert len(json.loads(counted.read_text())["attempts"]) == 3, "the recorder's, and two of the probe's"
        recorder.refused(f"127.0.0.1:{sim.port}", 300, "asks for 300 s of patience")
        before, begun = len(sim.connections), time.monotonic()
        report = probe(config, config.symbols, 120)
        assert time.monotonic() - begun < 60, "what is not tried is not waited for"
        assert len(sim.connections) == before
    assert report.verdict == "not reached"
    assert re.fullmatch(
        r"connection: ws://127.0.0.1:\d+/edge: not tried: asks for 300 s of patience", report.why_not_reached
    )


def test_a_count_that_cannot_be_shared_is_said(settings: SimulatorConfig, tmp_path: Path) -> None:
    with Simulator(settings) as sim:
        config = sharing(sim, tmp_path)
        path = config.control_dir / "attempts" / key(config.symbols[0])
        path.mkdir(parents=True)
        report = probe(config, config.symbols, 2)
    assert report.reached
    assert report.notes == [f"attempts to connect were not counted with the recorder's: {path}: Is a directory"]


def test_an_exchange_that_cannot_be_reached() -> None:
    with Simulator() as sim:
        config = configuration(sim)
    report = probe(config, config.symbols, 2.0)
    assert report.verdict == "not reached"
    assert report.lines()[-1].startswith("verdict: not reached: connection: ws://127.0.0.1")
    assert "Connection refused" in report.lines()[-1]
    assert len([answer for answer in report.answers if answer.status is None]) == 2, "it is not asked nine times"


def test_a_certificate_that_is_not_trusted_is_named_with_what_worked(settings: SimulatorConfig, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    with Simulator(replace(settings, tls_cert=cert, tls_key=key)) as sim:
        report = probed(sim, seconds=1.5)
    assert report.verdict == "not reached"
    assert re.search(
        r"connection: wss://.*: TLS with 127.0.0.1: .*certificate.* \(name and TCP were fine\)", said(report)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_gives_what_was_seen(settings: SimulatorConfig, tmp_path: Path, number: signal.Signals) -> None:
    """The signal comes once frames have been sent; the report is of those."""
    with Simulator(settings) as sim:
        process = started(tmp_path, sim, "btc", "--seconds", "600", "--json")
        sim.wait_for(lambda s: len(s.sent) > 50, 30)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        report = json.loads(out)
        assert (process.returncode, err) == (0, "")
        assert report["interrupted"]
        assert report["frames"] >= 20
        assert report["seconds"] < 60
        assert all("ended by us" in life for life in report["connections"])


def test_a_stop_does_not_wait_for_a_connection_that_hangs(settings: SimulatorConfig) -> None:
    with Simulator(settings) as sim:
        sim.inject(Fault("mute", seconds=60))
        config, stop = configuration(sim), threading.Event()
        report = probe(config, config.symbols, 600.0, progress=lambda _left, _frames: stop.set(), stop=stop)
    assert report.interrupted
    assert report.seconds < 6
    assert report.verdict == "not reached"


def test_the_bundle_holds_what_was_seen_and_nothing_of_the_machine(
    settings: SimulatorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle.ndjson"
    local: list[str] = []

    def noted(*arguments: object) -> Dialled:
        dialled = dial(*arguments)  # type: ignore[arg-type]
        local.append(dialled.local)
        return dialled

    with Simulator(settings) as sim:
        sim.inject(shape("set=data.zone:seen from 203.0.113.9 and 2001:db8::7", "ticker"))
        config = configuration(sim)
        report = probe(config, config.symbols, SECONDS, path, dialler=noted)
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["symbols"] == ["BTC_USDT"]
    assert sum("text" in line and "rest" not in line for line in lines) == report.frames
    assert sum("rest" in line for line in lines) == len(report.answers)
    assert sum(line.get("closed") is not None for line in lines) == len(report.connections)
    assert [line["at"] for line in lines[1:] if line.get("conn") == 1] == sorted(
        line["at"] for line in lines[1:] if line.get("conn") == 1
    )
    assert local
    for of_the_machine in ("127.0.0.1", "203.0.113.9", "2001:db8::7", f":{sim.port}/", str(tmp_path), *local):
        assert of_the_machine not in text
    sent = {frame.payload.decode() for frame in sim.sent if b"zone" not in frame.payload}
    kept = {line["text"] for line in lines if "text" in line and "rest" not in line and "zone" not in line["text"]}
    assert kept <= sent, "byte for byte"


def test_it_may_run_beside_a_recording(settings: SimulatorConfig, tmp_path: Path) -> None:
    """The spool of a configuration is not touched: not even its folders are made."""
    with Simulator(settings) as sim:
        config = parse(
            f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/out"\n'
            f'[exchange]\nwebsocket = "{sim.ws_url}"\nrest = "{sim.rest_url}"\n',
            None,
        )
        assert probe(config, config.symbols, 2.0).reached
        until(lambda: not sim.open_connections, 10, "the end of its connections")
    assert list(tmp_path.iterdir()) == []


def started(
    folder: Path, sim: Simulator, *arguments: str, preexec: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    config = folder / "config.toml"
    config.write_text(f'[exchange]\nwebsocket = "{sim.ws_url}"\nrest = "{sim.rest_url}"\n')
    return subprocess.Popen(
        [sys.executable, "-m", "mexc_pipeline", "--config", str(config), "probe", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,
    )


def command(folder: Path, sim: Simulator, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = started(folder, sim, *arguments)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_the_command_says_what_it_found_and_ends_with_its_verdict(settings: SimulatorConfig, tmp_path: Path) -> None:
    with Simulator(replace(settings, symbols=("BTC_USDT", "DOGE_USDT"))) as sim:
        done = command(tmp_path, sim, "btc", "DOGE_USDT", "--seconds", "5", "--save", "a.ndjson.gz")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("verdict: as expected\n")
        with gzip.open(tmp_path / "a.ndjson.gz") as bundle:
            assert json.loads(bundle.readline())["symbols"] == ["BTC_USDT", "DOGE_USDT"]
        again = command(tmp_path, sim, "btc", "--save", "a.ndjson.gz")
        assert again.returncode == 1
        assert "is there already" in again.stderr
        sim.inject(Fault("retired", channel="depth.full"))
        done = command(tmp_path, sim, "btc", "--seconds", "5", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["verdict"] == "different"


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz"])
def test_a_bundle_that_finds_no_room_costs_no_report(settings: SimulatorConfig, tmp_path: Path, name: str) -> None:
    with Simulator(settings) as sim:
        process = started(
            tmp_path,
            sim,
            "btc",
            "--seconds",
            "2.5",
            "--save",
            name,
            preexec=lambda: setrlimit(RLIMIT_FSIZE, (2048, 2048)),
        )
        out, err = process.communicate(timeout=60)
    assert out.endswith("verdict: as expected\n")
    assert err == f"mexc-pipeline: --save: {name} is not whole: File too large\n"
    assert process.returncode == 1


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz"])
def test_a_probe_that_is_killed_leaves_what_it_saw(settings: SimulatorConfig, tmp_path: Path, name: str) -> None:
    with Simulator(settings) as sim:
        process = started(tmp_path, sim, "btc", "--seconds", "600", "--save", name)
        try:
            until(lambda: (tmp_path / name).exists() and frames_in(tmp_path / name) > 20, 30, "frames in the bundle")
        finally:
            process.kill()
            process.communicate()
    assert frames_in(tmp_path / name) > 20


def frames_in(bundle: Path) -> int:
    """Of what a program that reads it would play."""
    try:
        return sum(len(track.frames) for tracks in read_bundle(bundle).tracks.values() for track in tracks)
    except ConfigError:
        return 0  # nothing of it is there yet


@pytest.mark.parametrize("name", ["doge", "DOGE", "\x1b[31m"])
def test_a_name_that_is_none_is_refused(settings: SimulatorConfig, tmp_path: Path, name: str) -> None:
    with Simulator(settings) as sim:
        done = command(tmp_path, sim, name)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "such as BTC_USDT" in done.stderr
    assert "\x1b" not in done.stderr


def test_what_the_exchange_says_cannot_forge_a_line(settings: SimulatorConfig, tmp_path: Path) -> None:
    with Simulator(settings) as sim:
        sim.inject(Fault("retired", channel="deal", value="\\u001b[2Jx\\nverdict: as expected"))
        done = command(tmp_path, sim, "btc", "--seconds", "2.5")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("verdict")] == ["verdict: different"]
