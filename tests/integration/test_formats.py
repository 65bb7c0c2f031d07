"""Data folders of every released version, and of one before, are opened, finished, exported and proven by this one.

``tests/formats/make.py`` made the fixtures; ``expected.json`` says what is in each.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mexc_pipeline import read
from mexc_pipeline.collector.resume import last_version
from mexc_pipeline.config import Config
from mexc_pipeline.export.job import run
from mexc_pipeline.export.parquet import metadata
from mexc_pipeline.read import frames
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from mexc_pipeline.spool.segment import FORMAT, info
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify import by_hour, exports, ledger
from support.collecting import Site, collecting
from support.peers import serving, silent
from support.spooled import CODES, check
from support.spools import configure, written

REPOSITORY = Path(__file__).parents[2]
FIXTURES = REPOSITORY / "tests" / "fixtures" / "formats"
VERSIONS = sorted(p.name for p in FIXTURES.iterdir())

Row = tuple[int, int, int, int, str]


class Left:
    """A copy of what a version left, and the time right after it."""

    def __init__(self, folder: Path, version: str) -> None:
        self.expected: dict[str, Any] = json.loads((FIXTURES / version / "expected.json").read_text())
        self.config: Config = configure(folder, self.expected["symbol"], period=self.expected["period"])
        shutil.copytree(FIXTURES / version / "spool", self.config.spool_dir)
        shutil.copytree(FIXTURES / version / "exports", self.config.export_dir)
        self.folder = self.config.spool_dir / self.expected["id"]
        self.after_ns = max(info(path).edge_ns for _, path in segments(self.folder)) + 1

    def rows(self, state: str = "") -> list[Row]:
        """Of the segments that were in that state, or of all."""
        found = [s["rows"] for s in self.expected["segments"].values() if s["state"].startswith(state)]
        return [(seq, rx, ts, mt, h) for rows in found for seq, rx, ts, mt, h in rows]


@pytest.fixture(params=VERSIONS)
def left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    found = Left(tmp_path, request.param)
    monkeypatch.setattr(time, "time_ns", lambda: found.after_ns)
    return found


def shown(m: bytes) -> str:
    return hashlib.sha256(m).hexdigest()[:16]


def in_files(config: Config) -> list[Row]:
    """The rows of all files, by PyArrow alone."""
    rows: list[Row] = []
    for path in sorted(config.export_dir.glob("*.parquet")):
        table = pq.read_table(path)
        seq, rx, ts = (table[name].cast("int64").to_pylist() for name in ("seq", "rx", "ts"))
        mt = [CODES[name] for name in table["mt"].to_pylist()]
        rows += zip(seq, rx, ts, mt, (shown(m.encode()) for m in table["m"].to_pylist()), strict=True)
    return rows


def test_every_released_version_has_its_fixture() -> None:
    headings = re.findall(r"^## .*?(\d+\.\d+\.\d+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings
    assert set(headings) <= set(VERSIONS), "tests/formats/make.py makes it"
    for version in VERSIONS:
        found = json.loads((FIXTURES / version / "expected.json").read_text())
        assert {s["state"] for s in found["segments"].values()} == {"exported", "closed", "open"}


def test_what_a_version_left_is_finished_exported_and_proven(left: Left) -> None:
    before = {p.name: p.read_bytes() for p in left.config.export_dir.iterdir()}
    report = run(left.config, now_ns=lambda: left.after_ns)
    assert report.ok, report.failures
    assert before.items() <= {p.name: p.read_bytes() for p in left.config.export_dir.iterdir()}.items()
    rows = in_files(left.config)
    assert rows[:-1] == left.rows()
    sealed = rows[-1]
    assert (sealed[0], sealed[3]) == (len(rows), Mt.EVENT)
    assert exports(left.config).ok
    hours = by_hour(left.config, ledger(left.config, {}), left.after_ns)
    assert {hour.verdict for hour in hours} == {"proven"}
    assert sum(hour.rows("exported") or 0 for hour in hours) == len(rows)
    assert hours[1].coverage == 100
    frame = frames("btc", export_dir=left.config.export_dir)
    assert frame["seq"].tolist() == [row[0] for row in rows]


def test_files_are_proven_by_themselves_and_accounted_for_without_the_spool(left: Left) -> None:
    shutil.rmtree(left.config.spool_dir)
    report = exports(left.config)
    assert report.ok, report.lines()
    assert in_files(left.config) == left.rows("exported")
    assert by_hour(left.config, ledger(left.config, {}), left.after_ns)[1].coverage > 90


def test_files_of_a_version_are_read_as_what_is_in_them(left: Left) -> None:
    """Every reader gives what the frames say, by json alone; of what a version did not write there is nothing."""
    folder = left.config.export_dir
    told: dict[str, list[Any]] = {"d": [], "t": []}
    for path in sorted(folder.glob("*.parquet"), key=lambda path: int(pq.read_table(path)["seq"][0].as_py())):
        table = pq.read_table(path)
        for mt, m in zip(table["mt"].to_pylist(), table["m"].to_pylist(), strict=True):
            if mt in told:
                told[mt].append(json.loads(m, parse_float=Decimal, parse_int=Decimal)["data"])
    deals = [deal for data in told["d"] for deal in data]
    assert deals
    trades = read.trades("btc", export_dir=folder)
    assert [*zip(trades.price, trades.volume, trades.id, strict=True)] == [(d["p"], d["v"], d["i"]) for d in deals]
    assert not trades.filled.any()
    assert list(read.tickers("btc", export_dir=folder)["last"]) == [data["lastPrice"] for data in told["t"]]
    assert not trades.attrs["skipped"]
    for reader in (read.funding, read.index_price, read.fair_price, read.klines, read.contracts):
        assert len(reader("btc", export_dir=folder)) == 0
    assert set(read.completeness("btc", export_dir=folder).verdict) <= {"unknown"}
    assert all("minutes" not in metadata(path) for path in folder.glob("*.parquet"))


def test_a_recording_goes_on_where_a_version_left_it(left: Left) -> None:
    rows = left.rows()
    version = last_version(left.folder)
    spool = Spool(left.folder, left.expected["id"], left.expected["symbol"], left.config.period)
    assert not spool.recovered.clean, "it was killed"
    assert not spool.recovered.set_apart
    assert not spool.recovered.new
    assert spool.last_seq == len(rows) + 1, "the open segment was closed"
    spool.append([Frame(left.after_ns, None, Mt.TICKER, b"{}")])
    spool.close()
    held = check(left.folder)
    assert [(r.seq, r.rx, r.ts, r.mt, shown(r.m)) for r in held[:-2]] == rows
    depth = [json.loads(r.m)["data"] for r in held if r.mt == 3]
    assert version == depth[-1]["version"] > 0


def test_what_a_clock_that_was_ahead_left_ends_at_once_and_the_true_time_goes_on(tmp_path: Path) -> None:
    """0.1.0 gave every row after the clock was set right one and the same time of the far future, in a segment that
    was to end then. It ends at its last row, at the next start."""
    left = Left(tmp_path, "0.1.0-clock-ahead")
    rows = left.rows()
    assert rows[-1][1] > time.time_ns() + 86_400 * 10**9, "made before that time has come"
    with Simulator(SimulatorConfig(rate=60)) as sim:
        site = Site(
            tmp_path, sim.ws_url, sim.rest_url, period=left.expected["period"], extra='[channels]\ndepth="merged"'
        )
        with collecting(site) as btc:
            btc.live(20)
            assert btc.stop() == 0
    assert run(left.config, once=True).ok
    report = exports(left.config, newest=0)
    assert report.ok, report.lines()
    entries = ledger(left.config, {})
    assert {entry.verdict for entry in entries} == {"proven"}
    assert all(hour.files for hour in by_hour(left.config, entries)), "no hour is absent that has not come"
    with pytest.warns(UserWarning, match="clock was set back"):
        df = frames("btc", export_dir=left.config.export_dir)
    assert df.seq.tolist() == list(range(1, len(df) + 1))
    assert df.attrs["set_back"] == [len(rows) + 2], "right after the row that seals what was left"
    after = df[df.seq > len(rows) + 1]
    assert abs(after.rx.iloc[-1].value - time.time_ns()) < 600 * 10**9
    assert json.loads(after.m.iloc[0])["restarted"]


def test_a_later_format_is_refused_in_one_line_and_left_alone(tmp_path: Path) -> None:
    left = Left(tmp_path, "0.1.0")
    for _, path in segments(left.folder):
        written(path, f"PRAGMA user_version = {FORMAT + 1}")
    before = {p.name for p in left.folder.iterdir()}
    reason = f"segment format {FORMAT + 1} is newer than this program knows ({FORMAT})"
    report = run(left.config)
    assert {failure.text.partition("; ")[0].rpartition(": ")[2] for failure in report.failures} == {reason}
    assert not exports(left.config).ok
    with serving(silent) as trap:
        address = f"127.0.0.1:{trap.port}"
        site = Site(tmp_path, f"ws://{address}/edge", f"http://{address}", period=left.expected["period"])
        with collecting(site) as btc:
            assert btc.process.wait(40) == 2
    (line,) = [said for said in btc.said().splitlines() if "segment format" in said]
    assert reason in line
    assert "run the version that wrote it" in line
    assert "Traceback" not in btc.said()
    after = {p.name for p in left.folder.iterdir()}
    assert {name for name in after if ".sqlite" in name and not name.endswith(("-shm", "-wal"))} <= before
