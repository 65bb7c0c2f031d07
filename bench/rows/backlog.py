"""Row 10: ClickHouse comes back after an outage: how fast the store drains what waits while recording goes on."""

from __future__ import annotations

import time
from typing import Any

from bench.material import batches, open_spool, pool
from bench.measure import Window
from bench.model import Result
from bench.site import SYMBOLS, Place, Simulator, Site, clickhouse, server_pid, settle
from support.waiting import until

TITLE = "Backlog after ClickHouse was down, recording going on"
LIVE_RATE = 40
"""Frames per second and symbol."""
CAUGHT_UP = 500


def run(place: Place) -> Result:
    result = Result("backlog", TITLE)
    rows = 60_000 if place.quick else 600_000
    folder = place.new("backlog")
    with (
        clickhouse(folder) as server,
        Simulator(folder, SYMBOLS, rate=LIVE_RATE, commit_rate=5) as sim,
        Site(folder, sim, symbols=SYMBOLS, server=server) as site,
    ):
        spool = open_spool(site.data / "spool" / "btc")
        for batch in batches(rows, pool(), time.time_ns() - rows * 1000, 1000):
            spool.append(batch)
        spool.close()
        for symbol_id in site.ids:
            site.record(symbol_id)
        for symbol_id in site.ids:
            site.recording(symbol_id, 20)
        settle(1)
        live = sum(site.frames(i) for i in site.ids)
        began = time.monotonic()
        site.store()
        window = Window(site.pids(ClickHouse=server_pid(server)))
        points: list[dict[str, Any]] = []
        until(lambda: _looked(site, points, began), 120, "the backlog's end")
        spent = window.close()
        live = sum(site.frames(i) for i in site.ids) - live
        seconds = points[-1]["seconds"]
        status = site.status("btc")
        assert status is not None
        loaded = points[-1]["loaded"]
    rate, live_rate = loaded / seconds, live / seconds
    result.add("drained, start of the store included", "ours", rate, "rows/s")
    result.add("recorded meanwhile, three symbols", "ours", live_rate, "frames/s")
    result.add("drained divided by the live rate of all three", "ours", rate / live_rate, "×", at_least=20)
    result.add("drain without the store's start", "ours", _steady(points), "rows/s")
    result.add("CPU of the store", "ours", spent.of("store") / loaded * 1e6, "µs/row")
    result.add("CPU of ClickHouse", "ours", spent.of("ClickHouse") / loaded * 1e6, "µs/row")
    result.add("durable p99 of the symbol meanwhile", "ours", status["durable_ms"]["p99"], "ms")
    result.curves["backlog"] = points
    result.notes.append(
        f"{rows:,} rows waited in one spool; at 20 times the live rate an hour's outage is gone in 3 minutes"
    )
    return result


def _looked(site: Site, points: list[dict[str, Any]], began: float) -> bool:
    """Note where loading stands; whether it has caught up with every symbol."""
    status = site.status("store")
    if status is None:
        return False
    symbols = status["symbols"].values()
    backlog = sum(s["backlog"] for s in symbols)
    loaded = sum(s["loaded_seq"] for s in symbols)
    points.append({"seconds": time.monotonic() - began, "backlog": backlog, "loaded": loaded})
    settle(0.1)
    return bool(backlog < CAUGHT_UP)


def _steady(points: list[dict[str, Any]]) -> float:
    """Rows per second from the first look at which something was loaded to the last."""
    begun = next(p for p in points if p["loaded"])
    if begun is points[-1]:
        return float("nan")
    return float((points[-1]["loaded"] - begun["loaded"]) / (points[-1]["seconds"] - begun["seconds"]))
