"""Rows 2 to 4: three symbols at 40 frames/s: delays, memory, CPU, and the peers reading the same at the same time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import child
from bench.material import closed_segment, pool
from bench.measure import Spent, Window, quantile, rss_mb
from bench.model import Result
from bench.site import SYMBOLS, Place, Simulator, Site, clickhouse, peer_result, server_pid, settle, start_peer
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.export.files import export_segment
from mexc_pipeline.spool.segment import SegmentReader
from mexc_pipeline.spool.walk import segments
from support.clickhouse_server import ClickHouseServer

TITLE = "Three symbols at 40 frames/s each, server and embedded engine"
RATE = 40
LOOK_S = 0.01
PEERS = {
    "bare": "bare websocket-client",
    "synced": "the same, each frame synced",
    "committed": "the same, each frame committed to SQLite",
    "original": "the original's shape",
}


DISK = "a reader alone that syncs each frame"


@dataclass(slots=True)
class Seen:
    """When a reader of ClickHouse saw which seq: (Unix ns at which the answer was there, highest seq)."""

    looks: list[tuple[int, int]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


def run(place: Place) -> Result:
    result = Result("live", TITLE)
    with clickhouse(place.new("server")) as server:
        peers = _measure(place, result, server, place.seconds(20, 6))
    _measure(place, result, None, place.seconds(10, 3))
    for name, who in PEERS.items():
        found = peers[name]
        result.add("CPU of one reader", who, found["cpu_s"] / found["frames"] * 1e6, "µs/frame")
        result.add("memory of one reader", who, found["peak_mb"], "MB")
    for name, what in (("disk", "durable"), ("original", "queryable")):
        delays = peers[name][f"{what}_ms"]
        who = DISK if name == "disk" else PEERS[name]
        result.add(f"receive to {what} p50", who, delays["p50"], "ms")
        result.add(f"receive to {what} p99", who, delays["p99"], "ms")
    result.notes.append(
        "the original states for three symbols 500-750 MB, 15-30 % CPU, 50-150 KB/s and 500 MB of files a day"
    )
    result.notes.append(
        f"queryable is seen by asking every {LOOK_S * 1000:g} ms: up to that and the query's own time too high"
    )
    return result


def _measure(place: Place, result: Result, server: ClickHouseServer | None, seconds: float) -> dict[str, Any]:
    """Ours alone for that long, for delays and memory; with a server, then beside the peers for half as long, for CPU;
    and at last the disk, which one peer has to itself."""
    folder = place.new("live")
    engine = "" if server else ", embedded engine"
    found: dict[str, Any] = {}
    with Simulator(folder, SYMBOLS, rate=RATE, commit_rate=5) as sim:
        with Site(folder, sim, symbols=SYMBOLS, server=server) as site:
            site.store()
            for symbol_id in site.ids:
                site.record(symbol_id)
            for symbol_id in site.ids:
                site.recording(symbol_id, 20)
            settle(place.seconds(15, 2))  # until the spool's log is written over from its start, as for most of an hour
            seen = Seen()
            looking = threading.Thread(target=_look, args=(site, server, seen))
            looking.start()
            pids = site.pids(**({"ClickHouse": server_pid(server)} if server else {}))
            alone = _spend(site, pids, seconds)
            seen.stop.set()
            looking.join()
            durable = [s["durable_ms"] for i in site.ids if (s := site.status(i)) is not None]
            memory = {name: rss_mb(pid) for name, pid in pids.items()}
            if server:
                options = {"warmup": 2, "seconds": seconds / 2, "port": server.port, "folder": folder}
                peers = {n: start_peer(n, sim, **options) for n in PEERS}
                settle(2.5)
                beside = _spend(site, pids, seconds / 2)
                found = {name: peer_result(process) for name, process in peers.items()}
            exported = child.run(["-m", "mexc_pipeline", "--config", str(site.config), "export", "--once", "--json"])
            delays = _delays(site.data / "spool" / "btc", seen)
        if server:
            found["disk"] = peer_result(start_peer("synced", sim, warmup=1, seconds=seconds / 2, folder=folder))
    for p in ("p50", "p99"):
        bound = 5 if p == "p99" else None
        result.add(f"receive to durable {p}{engine}", "ours", [d[p] for d in durable], "ms", at_most=bound)
    result.add(f"receive to queryable p50{engine}", "ours", quantile(delays, 0.5), "ms")
    result.add(f"receive to queryable p99{engine}", "ours", quantile(delays, 0.99), "ms", at_most=250)
    _costs(result, engine, alone, memory, exported.peak_mb)
    if server:
        _beside_peers(result, beside, found)
        size, spent_s = alone.bytes, alone.spent.seconds
        result.add("frames as received", "ours", size / spent_s / 1024, "KB/s")
        daily = size / spent_s * 86_400 / 1e6
        result.add("frames a day, at this rate", "ours", daily, "MB")
        result.add("files a day, by what an hour of them becomes", "ours", daily / _ratio(place.new("hour")), "MB")
    place.drop(folder)
    return found


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a stretch of recording cost, with its rows and the bytes of their frames."""

    spent: Spent
    rows: int
    bytes: int

    @property
    def per_frame(self) -> float:
        """Microseconds of the collectors' CPU."""
        return self.spent.of("collector") / self.rows * 1e6


def _spend(site: Site, pids: dict[str, int], seconds: float) -> Stretch:
    rows, size = _totals(site)
    window = Window(pids)
    settle(seconds)
    spent = window.close()
    rows_now, size_now = _totals(site)
    return Stretch(spent, rows_now - rows, size_now - size)


def _costs(result: Result, engine: str, alone: Stretch, memory: dict[str, float], export_mb: float) -> None:
    if not engine:
        collectors = [mb for name, mb in memory.items() if name.startswith("collector")]
        result.add("CPU of a collector", "ours", alone.per_frame, "µs/frame")
        result.add("memory of a collector", "ours", collectors, "MB", at_most=45)
        result.add("memory of an export", "ours", export_mb, "MB")
    ours = sum(mb for n, mb in memory.items() if n != "ClickHouse") + export_mb
    bound = None if engine else 300
    spent = alone.spent
    result.add(f"memory of the store{engine}", "ours", memory["store"], "MB")
    result.add(f"memory of all, collectors, store, export{engine}", "ours", ours, "MB", at_most=bound)
    result.add(f"CPU of all{engine}", "ours", spent.of("collector", "store") / spent.seconds * 100, "% of a core")
    if not engine:
        result.add("memory with ClickHouse", "ours", ours + memory["ClickHouse"], "MB")
        result.add("CPU with ClickHouse", "ours", spent.of("") / spent.seconds * 100, "% of a core")


def _beside_peers(result: Result, ours: Stretch, peers: dict[str, Any]) -> None:
    """What a frame costs in CPU as a multiple of what it costs those that read the same at the same time."""
    theirs = {name: peer["cpu_s"] / peer["frames"] * 1e6 for name, peer in peers.items()}
    what = "CPU of a collector divided by"
    result.add(f"{what} bare websocket-client", "ours", ours.per_frame / theirs["bare"], "×", at_most=2.5)
    result.add(f"{what} a reader that syncs each frame", "ours", ours.per_frame / theirs["synced"], "×")
    result.add(f"{what} a reader that commits each to SQLite", "ours", ours.per_frame / theirs["committed"], "×")
    committed = theirs["committed"] / theirs["bare"]
    result.add("CPU divided by bare websocket-client", PEERS["committed"], committed, "×")


def _ratio(folder: Path) -> float:
    """Raw JSON divided by the file, for an hour of one symbol at this pace."""
    exported = export_segment(closed_segment(folder / "spool", RATE * 3600, pool()), folder, lambda: None)
    return exported.raw_bytes / exported.bytes


def _totals(site: Site) -> tuple[int, int]:
    """Rows and bytes of frames of all symbols."""
    statuses = [s for i in site.ids if (s := site.status(i)) is not None]
    return sum(sum(s["rows"].values()) for s in statuses), sum(sum(s["bytes"].values()) for s in statuses)


def _look(site: Site, server: ClickHouseServer | None, seen: Seen) -> None:
    sql = "SELECT max(seq) FROM ch_mexc.btc_current"
    client = server.client() if server else None
    while not seen.stop.wait(LOOK_S):
        if client is not None:
            newest = int(client.execute(sql)[0][0])
        else:
            try:
                newest = int(ask(site.data / "control" / "store.sock", "query", timeout_s=5, sql=sql)["rows"][0][0])
            except ControlError:
                continue  # the table is not there yet
        seen.looks.append((time.time_ns(), newest))


def _delays(spool: Path, seen: Seen) -> list[float]:
    """Milliseconds from ``rx`` to the first look that saw the row, of every row that came while we looked."""
    received: dict[int, int] = {}
    for _, path in segments(spool):
        with SegmentReader(path) as reader:
            received |= {seq: rx for block in reader.blocks() for seq, rx in zip(block.seq, block.rx, strict=True)}
    delays: list[float] = []
    (_, newest), *looks = seen.looks
    for at, seq in looks:
        delays += [(at - received[n]) / 1e6 for n in range(newest + 1, seq + 1) if n in received]
        newest = max(newest, seq)
    return delays
