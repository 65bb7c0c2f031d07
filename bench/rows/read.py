"""Row 11: a day of trades as a table, by ``read.trades`` and by what one would write instead."""

from __future__ import annotations

import json
from typing import Any

from bench import child
from bench.material import closed_segment, pool
from bench.model import Result
from bench.site import Place
from mexc_pipeline.export.files import export_segment

TITLE = "Reading a day of trades"
WAYS = {
    "ours": "ours",
    "ours_floats": "ours, floats=True",
    "pandas": "pandas and json",
    "pandas_decimal": "pandas and json, exact numbers",
    "duckdb": "DuckDB JSON",
}


def run(place: Place) -> Result:
    result = Result("read", TITLE)
    rows = 100_000 if place.quick else 300_000
    folder = place.new("day")
    exports = folder / "exports"
    exports.mkdir()
    export_segment(closed_segment(folder / "spool", rows, pool()), exports, lambda: None)
    takes: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(1 if place.quick else 2):
        for way, done in takes.items():
            said = child.run(["-m", "bench.peers.reading", way, str(exports)])
            done.append({**json.loads(said.output.splitlines()[-1]), "peak_mb": said.peak_mb})
    if len({(t["rows"], t["volume"]) for done in takes.values() for t in done}) != 1:
        raise RuntimeError(f"the ways of reading do not agree: {takes}")
    for way, done in takes.items():
        result.add("trades read", WAYS[way], [t["rows"] / t["seconds"] for t in done], "rows/s")
    for way, done in takes.items():
        result.add("CPU", WAYS[way], [t["cpu_s"] / t["rows"] * 1e6 for t in done], "µs/trade")
    for way, done in takes.items():
        result.add("peak memory", WAYS[way], [t["peak_mb"] for t in done], "MB")
    for way in ("pandas", "pandas_decimal", "duckdb"):
        ratios = [t["seconds"] / o["seconds"] for t, o in zip(takes[way], takes["ours"], strict=True)]
        result.add("times faster than", WAYS[way], ratios, "×", at_least=5 if way == "pandas" else None)
        cpu = [t["cpu_s"] / o["cpu_s"] for t, o in zip(takes[way], takes["ours"], strict=True)]
        result.add("times less CPU than", WAYS[way], cpu, "×")
    result.add(
        "times faster than, both with binary floats",
        WAYS["pandas"],
        [t["seconds"] / o["seconds"] for t, o in zip(takes["pandas"], takes["ours_floats"], strict=True)],
        "×",
    )
    trades = takes["ours"][0]["rows"]
    result.notes.append(f"{rows:,} rows with {trades:,} trades; ours reads exact decimals unless floats=True")
    return result
