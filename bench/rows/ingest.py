"""Row 1: one collector from the socket to the synced spool, flat out and paced, the store loading beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Spent, Window, rss_mb
from bench.model import Result
from bench.site import Place, Simulator, Site, clickhouse, peer_result, server_pid, settle, start_peer
from mexc_pipeline.rows import Mt
from mexc_pipeline.simulator.sentlog import read_sent_log
from mexc_pipeline.spool.segment import SegmentReader
from mexc_pipeline.spool.walk import segments
from support.clickhouse_server import ClickHouseServer

TITLE = "One collector, socket to synced spool, the store loading beside it"
WARMUP_S = 2.0
PEERS = {
    "fastest": "picows alone",
    "bare": "bare websocket-client",
    "ccxt_pro": "ccxt.pro",
    "original": "the original's shape",
}
FLAT = {"flat_out": True, "commit_rate": 5}


@dataclass(frozen=True, slots=True)
class Take:
    """One stretch of recording. Rates per second; CPU per frame in microseconds."""

    rate: float
    loaded_rate: float
    spent: Spent
    frames: int
    lost: int
    durable_ms: dict[str, float]
    collector_mb: float
    store_mb: float

    def us(self, *names: str) -> float:
        return self.spent.of(*names) / self.frames * 1e6


def run(place: Place) -> Result:
    result = Result("ingest", TITLE)
    rounds = 1 if place.quick else 2
    flat: list[Take] = []
    peers: dict[str, list[dict[str, Any]]] = {name: [] for name in PEERS}
    with clickhouse(place.new("server")) as server:
        for _ in range(rounds):
            flat.append(_ours(place, server, place.seconds(6, 3), None))
            for name, takes in peers.items():
                takes.append(_peer(place, name, server, place.seconds(3, 2), None))
        long = _ours(place, server, place.seconds(60, 5), None)
        paced = [_ours(place, server, place.seconds(7, 4), 20_000) for _ in range(rounds)]
        paced_peers = {name: [_peer(place, name, server, place.seconds(3, 3), 20_000)] for name in ("fastest", "bare")}
    embedded = _ours(place, None, place.seconds(6, 4), None)
    _flat_figures(result, flat, long, embedded, peers)
    _paced_figures(result, paced, paced_peers)
    lost = sum(t.lost for t in [*flat, long, embedded, *paced])
    result.add("frames lost, repeated or altered, all takes", "ours", lost, "", at_most=0)
    return result


def _flat_figures(
    result: Result, flat: list[Take], long: Take, embedded: Take, peers: dict[str, list[dict[str, Any]]]
) -> None:
    what = f"flat out for {long.spent.seconds:.0f} s"
    result.add(what, "ours", long.rate, "frames/s", at_least=40_000)
    result.add(f"{what}: loaded into ClickHouse meanwhile", "ours", long.loaded_rate, "rows/s")
    result.add(f"{what}: durable p99", "ours", long.durable_ms["p99"], "ms")
    result.add(f"{what}: memory of the collector", "ours", long.collector_mb, "MB")
    result.add(f"{what}: memory of the store", "ours", long.store_mb, "MB")
    result.add("flat out", "ours", [t.rate for t in flat], "frames/s")
    result.add("flat out, embedded engine", "ours", embedded.rate, "frames/s")
    for name, takes in peers.items():
        result.add("flat out", PEERS[name], [t["frames"] / t["seconds"] for t in takes], "frames/s")
    _per_frame(result, "flat out", flat)
    for name, takes in peers.items():
        result.add("flat out: CPU", PEERS[name], [t["cpu_s"] / t["frames"] * 1e6 for t in takes], "µs/frame")
    for name, takes in peers.items():
        ratios = [o.rate / (t["frames"] / t["seconds"]) for o, t in zip(flat, takes, strict=True)]
        result.add("flat out: our rate divided by theirs", PEERS[name], ratios, "×")


def _per_frame(result: Result, what: str, takes: list[Take]) -> None:
    for part in ("collector", "store", "ClickHouse", "simulator"):
        result.add(f"{what}: CPU of {part}", "ours", [t.us(part) for t in takes], "µs/frame")


def _paced_figures(result: Result, paced: list[Take], peers: dict[str, list[dict[str, Any]]]) -> None:
    what = "20,000 frames/s"
    result.add(what, "ours", [t.rate for t in paced], "frames/s", at_least=19_500)
    both = [t.us("collector", "store") for t in paced]
    result.add(f"{what}: CPU of collector and store", "ours", both, "µs/frame", at_most=40)
    _per_frame(result, what, paced)
    result.add(f"{what}: durable p99", "ours", [t.durable_ms["p99"] for t in paced], "ms")
    for name, takes in peers.items():
        result.add(f"{what}: CPU", PEERS[name], [t["cpu_s"] / t["frames"] * 1e6 for t in takes], "µs/frame")


def _ours(place: Place, server: ClickHouseServer | None, seconds: float, rate: int | None) -> Take:
    folder = place.new("ingest")
    whole = WARMUP_S + seconds + 1.0
    options = {**FLAT, "flat_out_seconds": whole, **({"flat_out_rate": rate} if rate else {})}
    with Simulator(folder, ("BTC_USDT",), **options) as sim, Site(folder, sim, server=server) as site:
        if server is not None:
            server.client().execute("DROP DATABASE IF EXISTS ch_mexc")
        site.store()
        site.record()
        site.recording()
        settle(WARMUP_S)
        others = {"simulator": sim.pid, **({"ClickHouse": server_pid(server)} if server else {})}
        window = Window(site.pids(**others))
        frames, loaded = site.frames(), _loaded(site)
        settle(seconds)
        frames, loaded = site.frames() - frames, _loaded(site) - loaded
        spent = window.close()
        status = site.status()
        assert status is not None
        pids = site.pids()
        memory = rss_mb(pids["collector btc"], "VmHWM"), rss_mb(pids["store"], "VmHWM")
        _drained(site)
        site.end("collector btc")
        lost = differing(site.data / "spool" / "btc", sim.log_dir)
    place.drop(folder)
    rates = frames / spent.seconds, loaded / spent.seconds
    return Take(*rates, spent, frames, lost, status["durable_ms"], *memory)


def _loaded(site: Site) -> int:
    status = site.status("store")
    return int(status["symbols"]["btc"]["loaded_seq"]) if status else 0


def _drained(site: Site) -> None:
    """Wait until nothing more comes: the simulator has sent all it wanted to."""
    before = -1
    while (now := site.frames()) != before:
        before = now
        settle(0.7)


def differing(spool: Path, log_dir: Path) -> int:
    """Frames that are not in the spool exactly once, in the order and with the bytes they were sent with."""
    sent = (f.payload for log in sorted(log_dir.glob("conn-*.log")) for f in read_sent_log(log) if f.symbol)
    wrong = 0
    for payload in _recorded(spool):
        wrong += next(sent, None) != payload
    return wrong + sum(1 for _ in sent)


def _recorded(spool: Path) -> Iterator[bytes]:
    for _, path in segments(spool):
        with SegmentReader(path) as reader:
            for block in reader.blocks():
                yield from (m for mt, m in zip(block.mt, block.m, strict=True) if mt <= Mt.DEAD_LETTER)


def _peer(place: Place, name: str, server: ClickHouseServer, seconds: float, rate: int | None) -> dict[str, Any]:
    folder = place.new(name)
    with Simulator(folder, ("BTC_USDT",), **FLAT, **({"flat_out_rate": rate} if rate else {})) as sim:
        found = peer_result(start_peer(name, sim, warmup=1, seconds=seconds, port=server.port))
    place.drop(folder)
    return found
