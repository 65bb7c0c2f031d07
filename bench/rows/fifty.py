"""Row 5: from 3 to 50 symbols at 10 frames/s each: what all of it costs, and a symbol of it."""

from __future__ import annotations

from bench.measure import Window, rss_mb
from bench.model import Result
from bench.site import Place, Simulator, Site, clickhouse, server_pid, settle
from support.clickhouse_server import ClickHouseServer

TITLE = "Symbols at 10 frames/s each"
RATE = 10


def run(place: Place) -> Result:
    result = Result("fifty", TITLE)
    sizes = (3, 8) if place.quick else (3, 15, 50)
    points: list[dict[str, float]] = []
    with clickhouse(place.new("server")) as server:
        for size in sizes:
            points.append(_measure(place, server, size, place.seconds(8, 4)))
    result.curves["symbols"] = points
    first, last = points[0], points[-1]
    most = sizes[-1]
    result.add(f"{most} symbols: CPU of collectors and store", "ours", last["cores"], "cores", at_most=1)
    result.add(f"{most} symbols: CPU with ClickHouse", "ours", last["cores with ClickHouse"], "cores")
    result.add(f"{most} symbols: frames", "ours", last["frames/s"], "frames/s")
    result.add("a symbol's CPU, at 3", "ours", first["% of a core per symbol"], "% of a core")
    result.add(f"a symbol's CPU, at {most}", "ours", last["% of a core per symbol"], "% of a core")
    flat = last["% of a core per symbol"] / first["% of a core per symbol"]
    result.add(f"a symbol's CPU, at {most} divided by at 3", "ours", flat, "×", at_most=1.25)
    result.add(f"{most} symbols: memory of collectors", "ours", last["collectors MB"], "MB")
    result.add(f"{most} symbols: memory of the store", "ours", last["store MB"], "MB")
    return result


def _measure(place: Place, server: ClickHouseServer, size: int, seconds: float) -> dict[str, float]:
    folder = place.new(f"{size}-symbols")
    symbols = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}x".upper() + "_USDT" for n in range(size)]
    server.client().execute("DROP DATABASE IF EXISTS ch_mexc")
    with (
        Simulator(folder, symbols, rate=RATE, commit_rate=2) as sim,
        Site(folder, sim, symbols=symbols, server=server) as site,
    ):
        site.store()
        for symbol_id in site.ids:
            site.record(symbol_id)
        for symbol_id in site.ids:
            site.recording(symbol_id, 5)
        settle(3)
        pids = site.pids(ClickHouse=server_pid(server), simulator=sim.pid)
        before = sum(site.frames(i) for i in site.ids)
        window = Window(pids)
        settle(seconds)
        spent = window.close()
        frames = sum(site.frames(i) for i in site.ids) - before
        memory = {name: rss_mb(pid) for name, pid in pids.items()}
    place.drop(folder)
    ours = spent.of("collector", "store") / spent.seconds
    return {
        "symbols": size,
        "cores": ours,
        "cores with ClickHouse": ours + spent.of("ClickHouse") / spent.seconds,
        "% of a core per symbol": ours / size * 100,
        "collector µs/frame": spent.of("collector") / frames * 1e6,
        "store µs/frame": spent.of("store") / frames * 1e6,
        "ClickHouse µs/frame": spent.of("ClickHouse") / frames * 1e6,
        "frames/s": frames / spent.seconds,
        "collectors MB": sum(mb for n, mb in memory.items() if n.startswith("collector")),
        "store MB": memory["store"],
    }
