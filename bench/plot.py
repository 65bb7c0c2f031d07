"""The picture of docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.engines import NAMES
from bench.model import Report, Result


def draw(report: Report, target: Path) -> None:
    """Write the picture (SVG). KeyError where a row it shows was not measured."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bench"  # the same picture for the same figures
    import matplotlib.pyplot as plt

    figure, ((cost, batch), (flush, symbols)) = plt.subplots(2, 2, figsize=(11, 8))
    _cost(cost, report.results["ingest"])
    _batch(batch, report.results["batch"])
    _flush(flush, report.results["batch"])
    _symbols(symbols, report.results["fifty"])
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def _cost(axes: Any, ingest: Result) -> None:
    """One bar per reader; ours in its parts."""
    axes.set_title("CPU per frame, flat out (µs, logarithmic)")
    parts = [f for f in ingest.figures if f.what.startswith("flat out: CPU of") and not f.what.endswith("simulator")]
    ours = sum(f.value for f in parts)
    bars = [(f.who, f.value) for f in ingest.figures if f.what == "flat out: CPU"]
    bars = [("ours: collector, store,\nClickHouse", ours), *bars]
    names = [name for name, _ in bars][::-1]
    values = [value for _, value in bars][::-1]
    drawn = axes.barh(names, values, color=["tab:grey"] * (len(bars) - 1) + ["tab:blue"])
    axes.bar_label(drawn, [f" {v:.2g}" if v < 10 else f" {v:.0f}" for v in values])
    axes.set_xscale("log")
    axes.margins(x=0.15)


def _batch(axes: Any, batch: Result) -> None:
    axes.set_title("Rows per second by rows per commit or insert")
    for name in ("spool: rows per commit", *(f"{n}: rows per insert" for n in NAMES.values())):
        points = batch.curves[name]
        axes.plot([p["rows"] for p in points], [p["rows/s"] for p in points], "o-", label=name.partition(":")[0])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend()


def _flush(axes: Any, batch: Result) -> None:
    axes.set_title("By seconds between two flushes")
    points = batch.curves["flush interval"]
    seconds = [p["seconds"] for p in points]
    axes.plot(seconds, [p["p99 ms"] for p in points], "o-", label="queryable p99, ms")
    axes.plot(seconds, [p["CPU µs/row"] for p in points], "s--", label="store and ClickHouse, µs/row")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend()


def _symbols(axes: Any, fifty: Result) -> None:
    axes.set_title("% of a core per symbol, by symbols at 10 frames/s")
    points = fifty.curves["symbols"]
    axes.plot([p["symbols"] for p in points], [p["% of a core per symbol"] for p in points], "o-")
    axes.set_ylim(bottom=0)
