"""Row 8: an hour of a million rows from the spool to a proven file, against the original's export by pandas."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from bench import child
from bench.material import DAY_START_NS, STEP_NS, closed_segment, pool
from bench.model import Result
from bench.site import Place, clickhouse
from mexc_pipeline.config import parse
from mexc_pipeline.export.minutes import FileMinutes
from mexc_pipeline.export.source import blocks
from mexc_pipeline.spool.segment import SegmentInfo, SegmentReader
from mexc_pipeline.store.engine import row_table_sql
from mexc_pipeline.store.server import ServerEngine
from support.clickhouse_server import ClickHouseServer

TITLE = "Export of 1,000,000 rows: read, write, fsync, read back, digest, compare"
TABLE = "btc_export"
_MADE = re.compile(rb'"t":\d{13}')


def run(place: Place) -> Result:
    result = Result("export", TITLE)
    rows = 100_000 if place.quick else 1_000_000
    frames = pool()
    small, large = (_Hour(place.new("hour"), n, frames) for n in (rows // 10, rows))
    rounds = 1 if place.quick else 2
    ours: list[child.Done] = []
    pandas: list[child.Done] = []
    with clickhouse(place.new("server")) as server:
        _load(server, large.segment)
        for _ in range(rounds):
            ours.append(large.export())
            pandas.append(_by_pandas(server, place.new("pandas")))
    small_done = small.export()
    result.add("whole command, start of Python included", "ours", [rows / d.seconds for d in ours], "rows/s")
    result.add("end to end", "ours", [rows / large.inside(d) for d in ours], "rows/s", at_least=200_000)
    result.add("end to end", "pandas", [rows / json.loads(d.output)["seconds"] for d in pandas], "rows/s")
    result.add("CPU", "ours", [d.cpu_s / rows * 1e6 for d in ours], "µs/row")
    result.add("CPU", "pandas", [d.cpu_s / rows * 1e6 for d in pandas], "µs/row")
    once = closed_segment(place.new("checked"), len(frames), _made_when_sent(frames))  # each trade once
    checked = [_checking_us(once) for _ in range(3)]
    result.add("CPU of checking trades by candles, within it", "ours", checked, "µs/row", at_most=1.0)
    result.add("peak memory", "ours", [d.peak_mb for d in ours], "MB", at_most=200)
    result.add("peak memory, a tenth of the rows", "ours", small_done.peak_mb, "MB")
    result.add("peak memory", "pandas", [d.peak_mb for d in pandas], "MB")
    result.add("memory, a tenth divided by the whole", "ours", small_done.peak_mb / ours[0].peak_mb, "×")
    result.add("raw JSON divided by the file", "ours", large.ratio(ours[0]), "×")
    result.add("mean frame", "ours", large.segment.bytes / rows, "bytes")
    if place.long:
        ten = _Hour(place.new("hour"), 10_000_000, frames)
        done = ten.export(keep=False)
        result.add("hour of 10 million rows, verified after", "ours", done.seconds, "s", at_most=120)
        result.add("hour of 10 million rows, end to end", "ours", 10_000_000 / ten.inside(done), "rows/s")
        result.add("hour of 10 million rows, peak memory", "ours", done.peak_mb, "MB", at_most=200)
    result.notes.append("pandas reads the rows from ClickHouse and checks their number only; ours reads the spool")
    return result


def _made_when_sent(frames: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The frames, their trades made at the time of the frame: those of the pool are all made within a second, at the
    edge of a minute."""
    step_ms, start_ms = STEP_NS // 10**6, DAY_START_NS // 10**6
    return [(mt, _MADE.sub(b'"t":%d' % (start_ms + n * step_ms), m)) for n, (mt, m) in enumerate(frames)]


def _checking_us(segment: SegmentInfo) -> float:
    """CPU that holding a segment's trades against candles costs, by itself (µs per row of all types)."""
    spent, rows = 0.0, 0
    minutes = FileMinutes(segment.symbol, segment.name.start_ns, segment.name.part)
    for block in blocks(segment):
        began = time.thread_time()
        minutes.add(block)
        spent += time.thread_time() - began
        rows += len(block)
    began = time.thread_time()
    minutes.counts(segment.edge_ns, final=True)
    return (spent + time.thread_time() - began) / rows * 1e6


class _Hour:
    """A closed segment that can be exported again and again."""

    def __init__(self, folder: Path, rows: int, frames: Sequence[tuple[int, bytes]]) -> None:
        self._data = folder / "data"
        self._exports = folder / "exports"
        self.segment: SegmentInfo = closed_segment(folder / "kept", rows, frames)
        self._config = folder / "config.toml"
        self._config.write_text(
            f'symbols = ["BTC_USDT"]\ndata_dir = "{self._data}"\nexport_dir = "{self._exports}"\nperiod = "24h"\n'
        )

    def export(self, *, keep: bool = True) -> child.Done:
        """Run the command on a fresh copy of the segment, or, where it is not to be kept, on the segment itself."""
        for folder in (self._data, self._exports):
            shutil.rmtree(folder, ignore_errors=True)
        spool = self._data / "spool" / "btc"
        spool.mkdir(parents=True)
        self._exports.mkdir()
        (shutil.copy if keep else shutil.move)(self.segment.path, spool)
        return child.run(["-m", "mexc_pipeline", "--config", str(self._config), "export", "--json"])

    @staticmethod
    def inside(done: child.Done) -> float:
        """Seconds the export itself says it took."""
        return float(_file(done)["seconds"])

    @staticmethod
    def ratio(done: child.Done) -> float:
        return int(_file(done)["raw_bytes"]) / int(_file(done)["bytes"])


def _file(done: child.Done) -> dict[str, str]:
    found: dict[str, str] = json.loads(done.output[done.output.index("{") :])["files"][0]
    return found


def _load(server: ClickHouseServer, segment: SegmentInfo) -> None:
    engine = ServerEngine(parse(f'[clickhouse]\nmode = "server"\nport = {server.port}\n', None).clickhouse)
    capabilities = engine.connect()
    engine.execute(row_table_sql(TABLE, capabilities))
    with SegmentReader(segment.path) as reader:
        for n, block in enumerate(reader.blocks(max_rows=10_000)):
            engine.insert_block(TABLE, block, f"bench-export-{n}")
    engine.close()


def _by_pandas(server: ClickHouseServer, folder: Path) -> child.Done:
    done = child.run(["-m", "bench.peers.pandas_export", str(server.port), f"ch_mexc.{TABLE}", str(folder)])
    shutil.rmtree(folder)
    return done
