"""What the parts say becomes numbers that Prometheus reads: each is told apart, and what is unknown is left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from mexc_pipeline.histogram import Histogram
from mexc_pipeline.metrics.families import MEANINGS, families
from mexc_pipeline.overview import FileSystem
from support.examples import examples
from support.repository import ROOT

CHANNELS = ("push.ticker", "push.deal", "push.depth.full")


def histogram(*seconds: float) -> dict[str, Any]:
    found = Histogram((0.01, 0.1, 1.0))
    for one in seconds:
        found.add(one)
    return found.snapshot()


def symbol(name: str, symbol_id: str) -> dict[str, Any]:
    """A symbol of which everything is known."""
    return {
        "id": symbol_id,
        "symbol": name,
        "health": {"state": "silent", "ok": False, "reasons": [{"kind": "silent", "text": "", "for_s": 9.0}]},
        "collector": {
            "state": "live",
            "last_rx_ns": 10_000_000_000,
            "rows": {"t": 5, "d": 2, "dp": 3, "dl": 1, "ev": 7},
            "bytes": {"t": 50, "d": 20, "dp": 30, "dl": 10, "ev": 70},
            "dead_letters": {"not JSON": 1},
            "events": {"connected": 2},
            "endings": {"closed": 1},
            "reconnects": 1,
            "channels": {channel: {"age_s": 0.5} for channel in CHANNELS},
            "clock": {"error_ms": -250.0},
            "gaps": {"seen": 3, "open": 2},
            "outdated": None,
            "log_lines_lost": 0,
            "egress": {"mode": "tor", "exit": "203.0.113.7", "peer": "127.0.0.1:9050"},
            "histograms": {"delay": histogram(0.005, 0.05, -3.0, 7.0), "durable": histogram(0.02)},
        },
        "store": {"backlog": 4, "loaded_rx_ns": 7_500_000_000},
        "last_export": {"file": "btc2026112120.parquet", "bytes": 1, "age_s": 12.5},
    }


def whole(*names: str) -> dict[str, Any]:
    return {
        "ok": False,
        "store": {"reachable": True, "outdated": None, "inserts": histogram(0.004), "health": {"ok": True}},
        "symbols": [symbol(name, name.split("_", maxsplit=1)[0].lower()) for name in names],
    }


class Source:
    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        return self._found


def read(found: Mapping[str, Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples by name and labels, as a reader of the text has them; no two are alike."""
    registry = CollectorRegistry()
    registry.register(Source(list(families(found, {"spool": FileSystem(100, 25)}, "1.2.3", 0.25))))
    text = generate_latest(registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    keys = [(sample.name, frozenset(sample.labels.items())) for sample in samples]
    assert len(set(keys)) == len(keys)
    return {key: sample.value for key, sample in zip(keys, samples, strict=True)}


def value(found: Mapping[str, Any], name: str, **labels: str) -> float | None:
    """One sample's value; None where there is none."""
    return read(found).get((f"mexc_{name}", frozenset(labels.items())))


BTC = {"symbol": "BTC_USDT", "id": "btc"}


@pytest.mark.parametrize(
    ("name", "labels", "wanted"),
    [
        ("version_info", {"version": "1.2.3"}, 1),
        ("scrape_success", {"part": "btc"}, 1),
        ("scrape_success", {"part": "store"}, 1),
        ("scrape_duration_seconds", {}, 0.25),
        ("disk_free_bytes", {"folder": "spool"}, 25),
        ("disk_used_ratio", {"folder": "spool"}, 0.75),
        ("clickhouse_reachable", {}, 1),
        ("insert_seconds_count", {}, 1),
        ("rows_total", {"process": "btc", "type": "dp"}, 3),
        ("bytes_total", {"process": "btc", "type": "ev"}, 70),
        ("dead_letters_total", {"process": "btc", "reason": "not JSON"}, 1),
        ("events_total", {"process": "btc", "event": "connected"}, 2),
        ("events_total", {"process": "btc", "event": "unrepaired"}, 0),
        ("connection_ends_total", {"process": "btc", "reason": "closed"}, 1),
        ("clock_error_seconds", {"process": "btc"}, -0.25),
        ("outdated", {"process": "btc"}, 0),
        ("log_lines_lost_total", {"process": "btc"}, 0),
        ("feed_delay_seconds_bucket", {"process": "btc", "le": "0.01"}, 2),
        ("feed_delay_seconds_bucket", {"process": "btc", "le": "0.1"}, 3),
        ("feed_delay_seconds_bucket", {"process": "btc", "le": "+Inf"}, 4),
        ("feed_delay_seconds_sum", {"process": "btc"}, 7.055),
        ("durable_seconds_count", {"process": "btc"}, 1),
        ("symbol_healthy", BTC, 0),
        ("symbol_fault", {**BTC, "kind": "silent"}, 1),
        ("symbol_fault", {**BTC, "kind": "disk"}, None),
        ("frames_total", BTC, 10),
        ("frame_bytes_total", BTC, 100),
        ("symbol_dead_letters_total", BTC, 1),
        ("channel_age_seconds", {**BTC, "channel": "push.deal"}, 0.5),
        ("backlog_rows", BTC, 4),
        ("backlog_seconds", BTC, 2.5),
        ("reconnects_total", BTC, 1),
        ("gaps_open", BTC, 2),
        ("export_age_seconds", BTC, 12.5),
        ("egress_info", {**BTC, "mode": "tor", "exit": "203.0.113.7", "peer": "127.0.0.1:9050"}, 1),
    ],
)
def test_each_number_says_what_the_part_said(name: str, labels: dict[str, str], wanted: float | None) -> None:
    assert value(whole("BTC_USDT"), name, **labels) == wanted


def test_every_metric_is_made_and_no_other() -> None:
    bare = {re.sub(r"_(bucket|sum|count)$", "", name.removeprefix("mexc_")) for name, _ in read(whole("BTC_USDT"))}
    assert bare == set(MEANINGS)


def test_a_symbol_more_is_few_series_more() -> None:
    """There may be a thousand symbols. What is of a process has no symbol, and a healthy one has no fault."""
    found = whole("BTC_USDT")
    found["symbols"][0]["health"] = {"state": "live", "ok": True, "reasons": []}
    series = Counter(name for name, labels in read(found) if ("symbol", "BTC_USDT") in labels)
    assert series.total() <= 15, series


@pytest.mark.parametrize("part", ["btc", "store"])
def test_what_does_not_answer_has_no_numbers(part: str) -> None:
    found = whole("BTC_USDT")
    if part == "btc":
        found["symbols"][0]["collector"] = {"problem": "btc is not running"}
    else:
        found["store"] = {"problem": "store is not running"}
        found["symbols"][0]["store"] = None
    assert value(found, "scrape_success", part=part) == 0
    names = {name.removeprefix("mexc_") for name, labels in read(found)}
    gone = {"frames_total", "backlog_seconds"} if part == "btc" else {"clickhouse_reachable", "backlog_rows"}
    assert not names & gone


def test_a_backlog_of_unknown_age_has_none() -> None:
    found = whole("BTC_USDT")
    found["symbols"][0]["store"] = {"backlog": 4, "loaded_rx_ns": None}
    assert value(found, "backlog_seconds", **BTC) is None
    found["symbols"][0]["store"] = {"backlog": 0, "loaded_rx_ns": None}
    assert value(found, "backlog_seconds", **BTC) == 0


@given(st.lists(st.floats(-10, 100), max_size=20))
@settings(max_examples=examples(100))
def test_a_histogram_counts_each_once(seconds: list[float]) -> None:
    found = whole("BTC_USDT")
    found["symbols"][0]["collector"]["histograms"]["delay"] = histogram(*seconds)
    for bound in (0.01, 0.1, 1.0):
        wanted = sum(one <= bound for one in seconds)
        assert value(found, "feed_delay_seconds_bucket", process="btc", le=repr(bound)) == wanted
    assert value(found, "feed_delay_seconds_count", process="btc") == len(seconds)


def test_labels_of_any_text_are_read_as_they_are() -> None:
    """An address or a reason may come from anybody."""
    found, odd = whole("BTC_USDT"), 'a"b\\c\n{x="y"} 1\nmexc_forged 1'
    found["symbols"][0]["collector"]["egress"]["peer"] = odd
    found["symbols"][0]["collector"]["dead_letters"] = {odd: 3}
    samples = read(found)
    assert ("mexc_forged", frozenset()) not in samples
    assert value(found, "dead_letters_total", process="btc", reason=odd) == 3


def test_the_page_has_every_metric() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `mexc_(\w+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \| (.*) \|$", page, re.MULTILINE)
    wanted = []
    for name, meaning in MEANINGS.items():
        labels = ", ".join(f"`{label}`" for label in meaning.labels)
        wanted.append((name, meaning.word, labels or "–", meaning.unit or "–", meaning.text))
    assert rows == wanted
