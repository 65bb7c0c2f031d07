"""The numbers and what they mean, made of what the parts said. Pure.

Series are few for each symbol, as there may be a thousand: what needs many, as histograms and counts by type, is of a
process. What is not known has no sample: an absent number is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from mexc_pipeline import health
from mexc_pipeline.overview import FileSystem, behind_s

_SYMBOL = ("symbol", "id")
WATCHED_EVENTS = ("gap", "repaired", "unrepaired", "filled", "unfilled", "stalled", "given_up", "repeated")
"""Counted from nothing: the first of a name that was not there before is not seen as an increase."""


_Kind = type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily]


_WORDS: dict[_Kind, str] = {
    CounterMetricFamily: "counter",
    GaugeMetricFamily: "gauge",
    HistogramMetricFamily: "histogram",
    InfoMetricFamily: "info",
}


class Meaning(NamedTuple):
    """One metric: its name as it is exposed, without ``mexc_``; its labels; unit; and what it says."""

    kind: _Kind
    labels: tuple[str, ...]
    unit: str
    text: str

    @property
    def word(self) -> str:
        """What Prometheus calls its kind; what is told by labels alone is a gauge there."""
        return _WORDS[self.kind]


MEANINGS: dict[str, Meaning] = {
    "version_info": Meaning(InfoMetricFamily, ("version",), "", "The version of this program."),
    "scrape_success": Meaning(
        GaugeMetricFamily, ("part",), "0 or 1", "Whether a part (a symbol's collector, the store) has answered."
    ),
    "scrape_duration_seconds": Meaning(GaugeMetricFamily, (), "s", "How long it took to ask all parts."),
    "disk_free_bytes": Meaning(GaugeMetricFamily, ("folder",), "bytes", "Room left for us where the folder is."),
    "disk_used_ratio": Meaning(GaugeMetricFamily, ("folder",), "0 to 1", "How full the folder's disk is."),
    "clickhouse_reachable": Meaning(GaugeMetricFamily, (), "0 or 1", "Whether ClickHouse answers the store."),
    "insert_seconds": Meaning(HistogramMetricFamily, (), "s", "How long inserts into ClickHouse took."),
    "rows_total": Meaning(CounterMetricFamily, ("process", "type"), "rows", "Rows made durable, by type."),
    "bytes_total": Meaning(CounterMetricFamily, ("process", "type"), "bytes", "Bytes of those rows' `m`."),
    "dead_letters_total": Meaning(
        CounterMetricFamily, ("process", "reason"), "frames", "Frames kept as dead letters, by what is wrong with them."
    ),
    "events_total": Meaning(
        CounterMetricFamily, ("process", "event"), "events", "Events of the recording, as gaps and their repair."
    ),
    "connection_ends_total": Meaning(
        CounterMetricFamily,
        ("process", "reason"),
        "times",
        "How often a connection ended or could not be made: closed by the exchange, broken, refused, unreachable, left "
        "by us, unexpected.",
    ),
    "clock_error_seconds": Meaning(
        GaugeMetricFamily, ("process",), "s", "By so much this host's clock is ahead of the exchange's."
    ),
    "outdated": Meaning(
        GaugeMetricFamily, ("process",), "0 or 1", "Whether the process does not do what is on the disk by now."
    ),
    "log_lines_lost_total": Meaning(
        CounterMetricFamily, ("process",), "lines", "Log lines that nobody took from the process."
    ),
    "feed_delay_seconds": Meaning(
        HistogramMetricFamily, ("process",), "s", "From the exchange's time to ours, one frame of each commit."
    ),
    "durable_seconds": Meaning(
        HistogramMetricFamily, ("process",), "s", "From receiving the oldest frame of a commit to its being durable."
    ),
    "symbol_healthy": Meaning(GaugeMetricFamily, _SYMBOL, "0 or 1", "Whether the symbol has no fault."),
    "symbol_fault": Meaning(
        GaugeMetricFamily, (*_SYMBOL, "kind"), "1", "A fault that there is now; none of a kind without one."
    ),
    "frames_total": Meaning(CounterMetricFamily, _SYMBOL, "frames", "Frames of the market made durable."),
    "frame_bytes_total": Meaning(CounterMetricFamily, _SYMBOL, "bytes", "Their bytes."),
    "symbol_dead_letters_total": Meaning(CounterMetricFamily, _SYMBOL, "frames", "Frames kept as dead letters."),
    "channel_age_seconds": Meaning(
        GaugeMetricFamily, (*_SYMBOL, "channel"), "s", "Since the channel's last frame; none before the first."
    ),
    "backlog_rows": Meaning(GaugeMetricFamily, _SYMBOL, "rows", "Recorded, and not in ClickHouse yet."),
    "backlog_seconds": Meaning(
        GaugeMetricFamily, _SYMBOL, "s", "By so much ClickHouse's newest row is older than the recording's."
    ),
    "reconnects_total": Meaning(
        CounterMetricFamily, _SYMBOL, "times", "Connections after the first, attempts that came to nothing included."
    ),
    "gaps_open": Meaning(GaugeMetricFamily, _SYMBOL, "gaps", "Gaps of the book that are being repaired."),
    "export_age_seconds": Meaning(
        GaugeMetricFamily, _SYMBOL, "s", "Since the newest proven file was written; none before the first."
    ),
    "egress_info": Meaning(
        InfoMetricFamily, (*_SYMBOL, "mode", "exit", "peer"), "", "How the symbol's connection leaves, and where to."
    ),
}
"""Every metric that there may be, in the order in which they are exposed."""


class _Samples:
    """The families of one scrape, made where their first sample is added."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {}

    def add(self, name: str, labels: Iterable[object], value: float | None) -> None:
        """One sample; None where it is not known."""
        if value is not None:
            self._family(name).add_metric([str(label) for label in labels], value)

    def each(self, name: str, labels: tuple[object, ...], values: Mapping[str, Any] | None) -> None:
        """A sample for each key, which is the last label."""
        for key, value in (values or {}).items():
            self.add(name, (*labels, key), value)

    def info(self, name: str, labels: Mapping[str, object]) -> None:
        """What is told by labels alone."""
        own = [label for label in MEANINGS[name].labels if label in _SYMBOL]
        rest = {key: str(value) for key, value in labels.items() if key not in own}
        self._family(name).add_metric([str(labels[label]) for label in own], rest)

    def histogram(self, name: str, labels: Iterable[object], found: Mapping[str, Any] | None) -> None:
        """A :meth:`~mexc_pipeline.histogram.Histogram.snapshot`."""
        if not found:
            return
        bounds = [*(repr(float(bound)) for bound in found["bounds"]), "+Inf"]
        buckets = list(zip(bounds, accumulate(found["counts"]), strict=True))
        self._family(name).add_metric([str(label) for label in labels], buckets=buckets, sum_value=found["sum"])

    def listed(self) -> Iterator[Metric]:
        """In the order of :data:`MEANINGS`."""
        for name in MEANINGS:
            if name in self._families:
                yield self._families[name]

    def _family(self, name: str) -> Any:
        if name not in self._families:
            meaning = MEANINGS[name]
            bare = name.removesuffix("_total").removesuffix("_info")
            labels = (
                meaning.labels if meaning.kind is not InfoMetricFamily else [x for x in meaning.labels if x in _SYMBOL]
            )
            self._families[name] = meaning.kind(f"mexc_{bare}", meaning.text, labels=labels)
        return self._families[name]


def families(
    found: Mapping[str, Any], disks: Mapping[str, FileSystem], version: str, took_s: float
) -> Iterator[Metric]:
    """The metrics of what :func:`mexc_pipeline.overview.gather` found within ``took_s``, and of the disks by what is on
    them."""
    samples = _Samples()
    samples.info("version_info", {"version": version})
    samples.add("scrape_duration_seconds", (), took_s)
    for folder, disk in disks.items():
        samples.add("disk_free_bytes", (folder,), disk.free)
        samples.add("disk_used_ratio", (folder,), 1 - disk.free / disk.total if disk.total else None)
    _of_store(samples, found["store"])
    for symbol in found["symbols"]:
        said = symbol["collector"]
        samples.add("scrape_success", (symbol["id"],), "problem" not in said)
        if "problem" not in said:
            _of_process(samples, symbol["id"], said)
        _of_symbol(samples, symbol)
    return samples.listed()


def _of_store(samples: _Samples, store: Mapping[str, Any]) -> None:
    answers = "problem" not in store
    samples.add("scrape_success", ("store",), answers)
    if answers:
        samples.add("clickhouse_reachable", (), bool(store.get("reachable")))
        samples.histogram("insert_seconds", (), store.get("inserts"))
        samples.add("outdated", ("store",), bool(store.get("outdated")))


def _of_process(samples: _Samples, process: str, said: Mapping[str, Any]) -> None:
    """A collector records one symbol; what it counts of it by many labels is the process's."""
    samples.each("rows_total", (process,), said.get("rows"))
    samples.each("bytes_total", (process,), said.get("bytes"))
    samples.each("dead_letters_total", (process,), said.get("dead_letters"))
    if "events" in said:
        samples.each("events_total", (process,), dict.fromkeys(WATCHED_EVENTS, 0) | said["events"])
    samples.each("connection_ends_total", (process,), said.get("endings"))
    error_ms = (said.get("clock") or {}).get("error_ms")
    samples.add("clock_error_seconds", (process,), None if error_ms is None else error_ms / 1e3)
    samples.add("outdated", (process,), bool(said.get("outdated")))
    samples.add("log_lines_lost_total", (process,), said.get("log_lines_lost"))
    histograms = said.get("histograms") or {}
    samples.histogram("feed_delay_seconds", (process,), histograms.get("delay"))
    samples.histogram("durable_seconds", (process,), histograms.get("durable"))


def _of_symbol(samples: _Samples, symbol: Mapping[str, Any]) -> None:
    said, loaded, export = symbol["collector"], symbol["store"] or {}, symbol["last_export"]
    labels = (symbol["symbol"], symbol["id"])
    samples.add("symbol_healthy", labels, symbol["health"]["ok"])
    for kind in {reason["kind"] for reason in symbol["health"]["reasons"]}:
        samples.add("symbol_fault", (*labels, kind), 1)
    rows, sizes = said.get("rows"), said.get("bytes")
    if rows is not None and sizes is not None:
        samples.add("frames_total", labels, health.market_frames(rows))
        samples.add("frame_bytes_total", labels, health.market_frames(sizes))
        samples.add("symbol_dead_letters_total", labels, rows.get("dl", 0))
    for name, channel in (said.get("channels") or {}).items():
        samples.add("channel_age_seconds", (*labels, name), channel.get("age_s"))
    samples.add("backlog_rows", labels, loaded.get("backlog"))
    samples.add("backlog_seconds", labels, behind_s(said, loaded))
    samples.add("reconnects_total", labels, said.get("reconnects"))
    samples.add("gaps_open", labels, (said.get("gaps") or {}).get("open"))
    samples.add("export_age_seconds", labels, max(0.0, export["age_s"]) if export else None)
    egress = said.get("egress")
    if egress:
        shown = {"mode": egress.get("mode"), "exit": egress.get("exit", ""), "peer": egress.get("peer", "")}
        samples.info("egress_info", {"symbol": labels[0], "id": labels[1], **shown})
