"""The tables of docs/sizing.md: what a symbol costs and what the parts take, from results and the roles' limits."""

from __future__ import annotations

import re
from pathlib import Path

from bench.model import Report
from bench.paper import HOURS_KEPT, RATE, SPOOL_OVERHEAD, mean_frame, measured, need
from bench.table import rounded

EACH_RATE, EACH_BYTES = 2_200.0, 250.0
"""Unmerged depth of BTC_USDT as the exchange sent it in November 2026: frames a second, bytes a frame."""
FILE_SHARE = 5
"""How many times smaller than its frames a file is taken to be: real books compress less than the simulator's."""
HOURS_IN_TABLES = 2
"""The running hour, and the one before until its file is proven."""
ROLES = Path(__file__).parents[1] / "roles"

Rows = dict[str, tuple[str, ...]]


def sizing(page: str, report: Report) -> str:
    """The page with both tables written anew. KeyError or ValueError where a row or a figure is missing."""
    lines = page.splitlines()
    for name, cells in (per_symbol(report) | parts(report)).items():
        (at,) = (n for n, line in enumerate(lines) if line.startswith(f"| {name} |"))
        lines[at] = " | ".join((f"| {name}", *cells)) + " |"
    return "\n".join(lines) + "\n"


def per_symbol(report: Report) -> Rows:
    """What one symbol costs with merged channels and with unmerged depth."""
    paces = ((RATE, mean_frame(report)), (EACH_RATE, EACH_BYTES))
    hours = [rate * size * 3600 / 1e6 for rate, size in paces]  # MB
    one = need(report, 1)
    many = report.results["fifty"].curves["symbols"][-1]
    spool = [mb * HOURS_KEPT * SPOOL_OVERHEAD / 1e3 for mb in hours]
    cpu = measured(report, "ingest", "20,000 frames/s: CPU of collector and store")
    flood = measured(report, "ingest", "flat out for 60 s: memory of the collector")
    return {
        "frames": tuple(f"{rate:,.0f} a second of {size:,.0f} bytes" for rate, size in paces),
        "rows an hour": tuple(f"{rate * 3600:,.0f}" for rate, _ in paces),
        "frames an hour, as sent": tuple(f"{rounded(mb)} MB" for mb in hours),
        f"spool, {HOURS_KEPT} hours kept": tuple(f"{rounded(gb)} GB" for gb in spool),
        "files": tuple(f"{rounded(mb * 24 / FILE_SHARE / 1e3)} GB a day" for mb in hours),
        "ClickHouse, what is not yet proven": tuple(f"{rounded(mb * HOURS_IN_TABLES / 1e3)} GB" for mb in hours),
        "CPU of collector and store": (
            f"{rounded(100 * (one.collector_cores + one.store_cores))} % of a core",
            f"{rounded(cpu * EACH_RATE / 1e4)} % of a core or more",
        ),
        "memory of its collector": (
            f"{rounded(many['collectors MB'] / many['symbols'])} MB",
            f"up to {rounded(flood)} MB",
        ),
    }


def parts(report: Report) -> Rows:
    """What each process of a machine takes, and where its unit ends it."""
    three, *_, many = report.results["fifty"].curves["symbols"]
    clickhouse = measured(report, "live", "memory with ClickHouse") - measured(
        report, "live", "memory of all, collectors, store, export"
    )
    return {
        "a collector": (f"{rounded(measured(report, 'live', 'memory of a collector'))} MB", _limit("collector")),
        "the store": (
            f"{rounded(three['store MB'])} MB with {three['symbols']:.0f} symbols, {rounded(many['store MB'])} MB with "
            f"{many['symbols']:.0f}",
            _limit("store"),
        ),
        "an export, while it runs": (f"{rounded(measured(report, 'export', 'peak memory'))} MB", _limit("job")),
        "ClickHouse": (f"{rounded(clickhouse)} MB with three symbols, more for queries", _limit("clickhouse")),
        "a dozen symbols, ClickHouse at its limit": (f"{dozen_mb(report):,.0f} MB", ""),
    }


def dozen_mb(report: Report) -> float:
    """Memory of twelve collectors, the store of the next larger measurement, an export, and ClickHouse at its limit."""
    symbols = 12
    points = report.results["fifty"].curves["symbols"]
    next_larger = next(point for point in points if point["symbols"] >= symbols)
    collectors: float = symbols * next_larger["collectors MB"] / next_larger["symbols"]
    limit = re.search(r"(\d+)M", _limit("clickhouse"))
    if limit is None:
        raise ValueError("ClickHouse's limit is not in megabytes")
    store: float = next_larger["store MB"]
    return collectors + store + measured(report, "export", "peak memory") + int(limit[1])


def _limit(part: str) -> str:
    """The variable that bounds it, and its default."""
    name = "clickhouse_memory_max" if part == "clickhouse" else f"mexc_pipeline_{part}_memory_max"
    role = "clickhouse" if part == "clickhouse" else "mexc_pipeline"
    defaults = (ROLES / role / "defaults" / "main.yml").read_text()
    (value,) = re.findall(rf"^{name}: (\S+)$", defaults, re.MULTILINE)
    return f"{value} (`{name}`)"
