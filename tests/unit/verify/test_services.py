"""The judgement of running parts by what they say, and of the far end of a data socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline import verify
from mexc_pipeline.config import Config, parse
from mexc_pipeline.control import ControlServer
from mexc_pipeline.verify.egress import judge_peer

LIVE = {
    "state": "live",
    "last_seq": 9,
    "reconnects": 0,
    "connected_since_ns": 1,
    "channels": {"push.ticker": {"confirmed": "ack", "age_s": 1.0}},
    "egress": {"mode": "direct", "peer": "127.0.0.1:1", "local": "127.0.0.1:2"},
    "exchange_said": None,
    "warnings": [],
}
STORE = {"engine": "embedded", "reachable": True, "error": None, "symbols": {"btc": {"backlog": 0, "compared": {}}}}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    text = f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}"\n[exchange]\nwebsocket = "ws://127.0.0.1:1/edge"\n'
    return parse(text + 'rest = "http://127.0.0.1:1"\n', None)


@contextmanager
def running(config: Config, collector: dict[str, Any], store: dict[str, Any] | None = None) -> Iterator[None]:
    parts = {"btc": {"status": lambda _: dict(collector)}}
    if store is not None:
        parts["store"] = {"status": lambda _: dict(store), "verify": lambda _: dict(store)}
    with ExitStack() as stack:
        for name, handlers in parts.items():
            stack.callback(ControlServer(config.control_dir / f"{name}.sock", handlers).close)
        yield


def test_everything_in_order(config: Config) -> None:
    with running(config, LIVE, STORE):
        report = verify.services(config)
    assert report.ok, report.lines()
    assert {finding.subject for finding in report.findings} == {"collector", "store", "loading"}
    assert report.notes == []


@pytest.mark.parametrize(("waited_s", "state", "ok"), [(20.0, "quiet", True), (99.0, "silent", False)])
def test_a_collector_to_which_nothing_comes_is_not_called_live(
    config: Config, waited_s: float, state: str, ok: bool
) -> None:
    market = {"age_s": waited_s, "waited_s": waited_s, "limit_s": 30.0}
    with running(config, {**LIVE, "market": market}, STORE):
        report = verify.services(config)
    (found,) = (finding for finding in report.findings if finding.subject == "collector")
    assert (found.ok, found.text) == (ok, f"{state}, seq 9, 0 reconnects")


def test_nothing_runs(config: Config) -> None:
    report = verify.services(config)
    assert [finding.ok for finding in report.findings] == [False, False]
    assert "btc is not running" in report.lines()[0]


@pytest.mark.parametrize(
    ("collector", "store", "said"),
    [
        ({"state": "connecting"}, {}, "connecting"),
        ({"state": "connecting", "exchange_said": "Contract not exists"}, {}, "Contract not exists"),
        ({}, {"reachable": False, "error": "refused"}, "does not answer: refused"),
        ({}, {"symbols": {"btc": {"backlog": 1, "skipped_rows": 2}}}, "2 rows refused by ClickHouse"),
        ({}, {"symbols": {"btc": {"unreadable_segment": "x.sqlite"}}}, "segment x.sqlite cannot be read"),
        ({}, {"symbols": {"btc": {"skipped_rows": 2}}}, "backlog not known; 2 rows refused"),
        (
            {},
            {"symbols": {"btc": {"compared": {"x.sqlite": {"ok": False, "columns": ["m"]}}}}},
            "table of x.sqlite differs in m",
        ),
    ],
)
def test_what_is_wrong_is_a_finding(
    config: Config, collector: dict[str, Any], store: dict[str, Any], said: str
) -> None:
    with running(config, {**LIVE, **collector}, {**STORE, **store}):
        report = verify.services(config)
    assert not report.ok
    assert any(said in finding.text for finding in report.findings if not finding.ok)


def test_a_quiet_channel_and_warnings_are_notes(config: Config) -> None:
    channels = {"push.deal": {"confirmed": "ack", "age_s": 300.0}, "push.depth": {"confirmed": "none", "age_s": None}}
    with running(config, {**LIVE, "channels": channels, "warnings": ["disk is slow"]}, STORE):
        report = verify.services(config)
    assert report.ok
    assert report.notes == ["btc push.deal: no frame for 300 s", "btc push.depth: no frame yet", "btc: disk is slow"]


def test_clickhouse_is_judged_by_the_store(config: Config) -> None:
    findings = [{"symbol": "btc", "table": "btc_current", "ok": False, "text": "loading does not keep up"}]
    with running(config, LIVE, {**STORE, "findings": findings, "held": []}):
        report = verify.clickhouse(config)
    assert [finding.line() for finding in report.findings] == ["FAIL btc btc_current: loading does not keep up"]
    assert not verify.clickhouse(config).ok, "no store, no proof"


def test_egress_needs_a_connection_by_the_configured_way(config: Config) -> None:
    with running(config, LIVE):
        data, rest = verify.egress(config).findings
    assert data.ok, data
    assert not rest.ok, "nothing listens there"
    # The second still names the connection before.
    states: tuple[dict[str, Any], ...] = ({"egress": {}}, {"connected_since_ns": None})
    for gone in states:
        with running(config, {**LIVE, **gone}):
            assert "not connected" in verify.egress(config).findings[0].text
    other = {"mode": "socks5h://127.0.0.1:9", "peer": "127.0.0.1:9", "local": ""}
    with running(config, {**LIVE, "egress": other}):
        found = verify.egress(config).findings[0]
    assert not found.ok
    assert "configured is direct" in found.text


@pytest.mark.parametrize(
    ("mode", "peer", "websocket", "ok"),
    [
        ("direct", "127.0.0.1:80", "ws://127.0.0.1/edge", True),
        ("direct", "127.0.0.2:80", "ws://127.0.0.1/edge", False),
        ("direct", "127.0.0.1:81", "ws://127.0.0.1/edge", False),
        ("direct", "203.0.113.5:443", "wss://127.0.0.1/edge", True),
        ("direct", "203.0.113.5:9050", "wss://127.0.0.1/edge", False),
        ("direct", "[::1]:8765", "ws://[::1]:8765/edge", True),
        ("socks5h://127.0.0.1:1080", "127.0.0.1:1080", "wss://example.invalid/edge", True),
        ("socks5h://127.0.0.1:1080", "203.0.113.5:443", "wss://example.invalid/edge", False),
        ("socks5h://127.0.0.1:1080", "203.0.113.5:1080", "wss://example.invalid/edge", False),
    ],
)
def test_the_far_end_must_be_what_the_mode_says(mode: str, peer: str, websocket: str, ok: bool) -> None:
    found, text = judge_peer(mode, peer, websocket)
    assert found is ok, text
    assert peer in text


def test_of_a_wrong_clock_it_is_said_once_what_to_do(config: Config) -> None:
    clock = {"error_ms": 90_000.0, "suspect": True, "warning": "this host's clock is 90.0 s ahead", "todo": "set it"}
    said = {**LIVE, "clock": clock, "warnings": ["this host's clock is 90.0 s ahead; set it"]}
    with running(config, said, STORE):
        report = verify.services(config)
    assert sum(line.count("set it") for line in report.lines()) == 1
