"""The paper calculation: what a given number of symbols needs, from the figures of one report. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bench.model import Report

RATE = 10.0
"""Frames per second and symbol, as in the row it is made from; the exchange's merged channels send 9 for BTC_USDT."""
BUSY = 0.7
"""Share of a machine's cores that may be used: the rest is for bursts and for what else runs there."""
SPOOL_OVERHEAD = 1.15
HOURS_KEPT = 24


@dataclass(frozen=True, slots=True)
class Need:
    """What ``symbols`` at ``RATE`` frames/s each need. Memory in GB, disk in GB and GB a day, ``syncs`` per second."""

    symbols: int
    frames: float
    collector_cores: float
    store_cores: float
    clickhouse_cores: float
    memory_gb: float
    spool_gb: float
    files_gb_day: float
    write_mb_s: float
    syncs: float
    export_s: float
    symbols_per_store: float
    symbols_per_vm: float

    @property
    def cores(self) -> float:
        return self.collector_cores + self.store_cores + self.clickhouse_cores

    @property
    def vms(self) -> float:
        """Machines of two cores."""
        return self.symbols / self.symbols_per_vm


def need(report: Report, symbols: int) -> Need:
    """Raises KeyError or ValueError where the rows it is made from (fifty, codec, export) were not measured."""
    few, *_, many = report.results["fifty"].curves["symbols"]
    frame = mean_frame(report)
    ratio = measured(report, "export", "raw JSON divided by the file")
    rows_per_s = measured(report, "export", "end to end")
    frames = symbols * RATE
    per_frame = {part: many[f"{part} µs/frame"] * RATE / 1e6 for part in ("collector", "store", "ClickHouse")}
    store_mb = (many["store MB"] - few["store MB"]) / (many["symbols"] - few["symbols"])
    memory = symbols * (many["collectors MB"] / many["symbols"] + store_mb) + few["store MB"]
    return Need(
        symbols=symbols,
        frames=frames,
        collector_cores=symbols * per_frame["collector"],
        store_cores=symbols * per_frame["store"],
        clickhouse_cores=symbols * per_frame["ClickHouse"],
        memory_gb=memory / 1024,
        spool_gb=frames * frame * SPOOL_OVERHEAD * HOURS_KEPT * 3600 / 1e9,
        files_gb_day=frames * frame / ratio * 86_400 / 1e9,
        write_mb_s=frames * frame * SPOOL_OVERHEAD / 1e6,
        syncs=frames,  # at this pace nearly every frame is a commit of its own
        export_s=frames * 3600 / rows_per_s,
        symbols_per_store=1 / per_frame["store"],
        symbols_per_vm=2 * BUSY / sum(per_frame.values()),
    )


def mean_frame(report: Report) -> float:
    """Bytes of a frame in the mix."""
    return measured(report, "export", "mean frame")


def measured(report: Report, row: str, what: str) -> float:
    """Ours of a row; ValueError where there is none."""
    value = report.results[row].value(what)
    if value is None:
        raise ValueError(f"{row} has no figure {what!r}")
    return value
