"""No defect that the campaign found has come back: one test for each, named after what it broke."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow.parquet as pq
import pytest

from faults.bench import CLICKHOUSE, SPOOL, Outcome, bench, end
from faults.powerloss import lose_power
from faults.scenarios.clickhouse import start_engine
from faults.shim import IO_ERROR, Control, NoCompilerError, Op, library
from mexc_pipeline import config, export
from mexc_pipeline.control import ControlServer
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Columns, Frame
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from mexc_pipeline.spool.segment import info
from mexc_pipeline.spool.walk import exported_files
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.store import schema
from mexc_pipeline.store.catalog import Catalog, SegmentKey
from mexc_pipeline.store.embedded import EmbeddedFolder
from mexc_pipeline.store.engine import CIRCUMSTANCES, TYPES_INT64, Capabilities, RefusedError, row_table_sql
from mexc_pipeline.store.leftovers import Leftovers
from mexc_pipeline.store.server import ServerEngine
from mexc_pipeline.verify.clickhouse import clickhouse
from mexc_pipeline.verify.exports import prove
from support import needs
from support.clickhouse_server import ClickHouseServer
from support.spooled import read_rows
from support.waiting import until

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

T = TypeVar("T")
WRITE = """
import sys, time
from pathlib import Path
from mexc_pipeline import config, export
from mexc_pipeline.spool.walk import exported_files
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Frame
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.writer import Spool
folder = Path(sys.argv[1]) / "data" / "spool" / "btc"
with SpoolLock(folder):
    spool = Spool(folder, "btc", "BTC_USDT", Period(3600 * 10**9))
    spool.append([Frame(time.time_ns(), None, 5, b"{}")] * 3)
"""


class Worst(random.Random):
    """Draws what takes the most: nothing unsynced reaches the disk."""

    def random(self) -> float:
        return 0.4

    def choice(self, seq: SupportsLenAndGetItem[T]) -> T:
        return seq[0]


@pytest.fixture
def preloaded() -> Path:
    try:
        return library()
    except NoCompilerError as error:
        needs.missing(str(error))


def environment(folder: Path, preloaded: Path) -> dict[str, str]:
    (folder / "grave").mkdir()
    return {
        "LD_PRELOAD": str(preloaded),
        "FAULTS_PREFIX": str(folder / "data"),
        "FAULTS_JOURNAL": str(folder / "journal"),
        "FAULTS_GRAVE": str(folder / "grave"),
    }


def test_a_new_spool_folder_does_not_vanish_with_the_power(tmp_path: Path, preloaded: Path) -> None:
    """The folder of a symbol recorded for the first time was made without a sync of the folder above it."""
    (tmp_path / "data").mkdir()
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path)], env=environment(tmp_path, preloaded), check=True)
    loss = lose_power(tmp_path / "journal", tmp_path / "grave", [tmp_path / "data"], Worst(1))
    assert loss.names_undone, "nothing was lost: the test shows nothing"
    assert len(read_rows(tmp_path / "data" / "spool" / "btc")) == 3


def test_the_power_loss_takes_what_was_not_synced(tmp_path: Path, preloaded: Path) -> None:
    """The campaign can fail: an unsynced write and an unsynced name are gone, synced ones stay."""
    script = """
import os, sys
folder = sys.argv[1] + "/data/"
def put(name, text, sync):
    fd = os.open(folder + name, os.O_CREAT | os.O_RDWR)
    os.write(fd, text)
    if sync: os.fsync(fd)
    return fd
kept = put("kept", b"first", True)
os.fsync(os.open(folder, os.O_RDONLY))
os.write(kept, b"second")
os.pwrite(kept, b"F", 0)
put("gone", b"text", True)
os.rename(folder + "old", folder + "new")
os.unlink(folder + "unlinked")
"""
    (tmp_path / "data").mkdir()
    for name in ("old", "unlinked"):
        (tmp_path / "data" / name).write_text(name)
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment(tmp_path, preloaded), check=True)
    assert (tmp_path / "data" / "kept").read_bytes() == b"Firstsecond"
    (tmp_path / "data" / "unlinked").write_text("made by a process that is not watched")
    lose_power(tmp_path / "journal", tmp_path / "grave", [tmp_path / "data"], Worst(1))
    left = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert left == {"kept": b"first", "old": b"old", "unlinked": b"unlinked"}


@pytest.mark.parametrize("damage", ["rows gone", "last pages", "last pages of an open one"])
def test_a_damaged_segment_does_not_keep_its_symbol_from_being_recorded(tmp_path: Path, damage: str) -> None:
    """A segment whose rows were gone or unreadable ended every start of its collector with an error."""
    folder = tmp_path / "btc"
    folder.mkdir()
    now = time.time_ns()
    spool = Spool(folder, "btc", "BTC_USDT", Period(3600 * 10**9))
    spool.append([Frame(now, None, 5, b"x" * 3000)] * 40)
    if "open" not in damage:
        spool.cut(now)
    spool.close()
    (path,) = folder.glob("*.sqlite")
    with closing(sqlite3.connect(path)) as db:
        if damage == "rows gone":
            db.execute("DELETE FROM rows")
            db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if damage != "rows gone":
        with path.open("r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * (path.stat().st_size - 3 * 4096))
    again = Spool(folder, "btc", "BTC_USDT", Period(3600 * 10**9))
    again.append([Frame(time.time_ns(), None, 5, b"{}")])
    again.close()
    assert len(again.recovered.set_apart) == 1
    assert not again.recovered.clean


def closed_segment(folder: Path) -> config.Config:
    """A recording of one closed segment, not exported yet."""
    spool = Spool(folder / "data" / "spool" / "btc", "btc", "BTC_USDT", Period(3600 * 10**9))
    spool.folder.mkdir(parents=True)
    spool.append([Frame(now := time.time_ns(), None, 5, b"{}")])
    spool.cut(now)
    spool.close()
    text = f'symbols = ["BTC_USDT"]\ndata_dir = "{folder}/data"\nexport_dir = "{folder}/exports"\n'
    return config.parse(text, None)


def test_verify_judges_a_file_whose_digest_is_no_longer_hexadecimal(tmp_path: Path) -> None:
    """One flipped bit in a digest's text ended verify with an error, and the files after it were not looked at."""
    assert export.main(closed_segment(tmp_path)).ok
    ((name, path),) = exported_files(tmp_path / "exports")
    data = bytearray(path.read_bytes())
    value = pq.read_metadata(path).metadata[b"mexc.digest_rx"]
    data[data.rfind(value)] = ord("x")
    path.write_bytes(data)
    assert prove(name, path).wrong


def test_verify_clickhouse_names_the_table_that_differs(tmp_path: Path) -> None:
    """With anything wrong in ClickHouse `verify clickhouse` said "store: refused" instead of what was wrong where."""
    settings = config.parse(f'data_dir = "{tmp_path}/data"', None)
    wrong = {"symbol": "btc", "table": "btc_2026112120", "ok": False, "text": "differs from its segment in m"}
    server = ControlServer(
        settings.control_dir / "store.sock", {"verify": lambda _: {"findings": [wrong], "held": [], "ok": False}}
    )
    try:
        (finding,) = clickhouse(settings).findings
    finally:
        server.close()
    assert (finding.subject, finding.ok, finding.text) == ("btc_2026112120", False, "differs from its segment in m")


def test_the_embedded_engine_takes_nothing_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chDB takes the end of an insert for done also when a full disk took none of it: a record of which segment a table
    holds was missing, and the table was never compared nor its file logged."""
    folder = EmbeddedFolder(tmp_path / "clickhouse", "ch_mexc")
    engine = folder.engine()
    engine.connect()
    engine.execute("CREATE TABLE records (n UInt64, text String) ENGINE = MergeTree ORDER BY n")
    columns = [("n", "UInt64"), ("text", "String")]
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1 << 20))
    with pytest.raises(RefusedError, match="1 MiB free") as refused:
        engine.insert("records", columns, [[1, "a"]])
    assert refused.value.code in CIRCUMSTANCES
    with pytest.raises(RefusedError, match="1 MiB free"):
        engine.insert_block("records", Columns([1], [1], [1], [1], [b"{}"]), "")
    monkeypatch.undo()
    awkward = "it's a \\ and a \n, \x00 and ü"
    engine.insert("records", columns, [[2, awkward], [2**64 - 1, ""]])
    assert engine.select("SELECT n, text FROM records ORDER BY n") == [(2, awkward), (2**64 - 1, "")]
    engine.close()
    folder.close()


@pytest.mark.parametrize("left", [bytes(600), b"", b"PAR1\x15\x00", b"PA"])
def test_an_unfinished_file_without_its_first_bytes_does_not_stand_in_the_way(tmp_path: Path, left: bytes) -> None:
    """A power loss can leave an unfinished file's length and zeros; the export after it took it for somebody else's and
    failed."""
    settings = closed_segment(tmp_path)
    (segment,) = (tmp_path / "data" / "spool" / "btc").glob("*.sqlite")
    settings.export_dir.mkdir()
    in_the_way = settings.export_dir / f".{info(segment).file}.tmp"
    in_the_way.write_bytes(left)
    assert export.main(settings).ok
    assert not in_the_way.exists()


def test_what_is_not_ours_is_not_deleted_when_it_stands_in_the_way(tmp_path: Path) -> None:
    """The export said "not ours to delete" of a foreign file under the name of an unfinished one, and deleted it."""
    settings = closed_segment(tmp_path)
    (segment,) = (tmp_path / "data" / "spool" / "btc").glob("*.sqlite")
    settings.export_dir.mkdir()
    in_the_way = settings.export_dir / f".{info(segment).file}.tmp"
    in_the_way.write_bytes(b"a letter to my aunt")
    (failed,) = export.main(settings).failures
    assert "not ours to delete" in failed.text
    assert in_the_way.read_bytes() == b"a letter to my aunt"


@pytest.mark.parametrize(("table", "file"), [("holdings", "002_loading.sql"), ("schema_versions", "001_logs.sql")])
def test_a_damaged_table_of_records_is_set_apart_and_filled_again(tmp_path: Path, table: str, file: str) -> None:
    """A bit flipped in one of the tables that the store keeps for itself stopped loading for good."""
    folder = EmbeddedFolder(tmp_path / "clickhouse", "ch_mexc")
    engine = folder.engine()
    engine.connect()
    schema.apply(engine)
    key = SegmentKey("spool", "2026112120", 1)
    Catalog("btc", engine).hold("btc_current", key)
    where = f"database = 'ch_mexc' AND table = '{table}' AND active"
    parts = [Path(row[0]) for row in engine.select(f"SELECT path FROM system.parts WHERE {where}")]
    engine.close()
    folder.close()
    for part in parts:
        data = part / "data.bin"
        data.write_bytes(bytes(255 - byte for byte in data.read_bytes()))

    folder = EmbeddedFolder(tmp_path / "clickhouse", "ch_mexc")
    engine = folder.engine()
    engine.connect()
    catalog = Catalog("btc", engine)

    def attach() -> None:
        schema.apply(engine)
        catalog.holdings()

    with pytest.raises(RefusedError):
        attach()
    assert file in schema.apply(engine), "as the next connection does"
    catalog.hold("btc_current", key)
    assert catalog.holdings() == {"btc_current": key}
    tables: list[str] = [row[0] for row in engine.select("SELECT name FROM system.tables WHERE database = 'ch_mexc'")]
    assert len([name for name in tables if name.startswith(f"{table}_damaged_")]) == 1, "kept for whoever wants to look"
    engine.close()
    folder.close()


def test_a_table_of_records_that_somebody_dropped_is_made_again(tmp_path: Path) -> None:
    """A store whose export_log had been dropped by hand never loaded another row: the schema counted as applied."""
    folder = EmbeddedFolder(tmp_path / "clickhouse", "ch_mexc")
    engine = folder.engine()
    engine.connect()
    schema.apply(engine)
    assert schema.apply(engine) == []
    engine.execute("DROP TABLE export_log")
    assert schema.apply(engine) == ["001_logs.sql", "003_row_types.sql", "004_minutes.sql"]
    assert engine.select("SELECT count() FROM export_log") == [(0,)]
    assert schema.apply(engine) == []
    engine.close()
    folder.close()


@pytest.mark.server
@pytest.mark.usefixtures("preloaded")
def test_a_table_that_a_failing_disk_kept_from_its_name_gets_it_and_the_database_stays(tmp_path: Path) -> None:
    """A server that failed to write a table's name left a file behind, and refused that name until it was restarted."""
    (tmp_path / "server").mkdir()
    control, server = Control(tmp_path / "control"), ClickHouseServer(tmp_path / "server")
    settings = config.parse(f'[clickhouse]\nmode = "server"\nport = {server.port}\n', None).clickhouse
    now = [0.0]
    engine = ServerEngine(settings, leftovers=Leftovers(lambda: now[0]))
    sql = row_table_sql("btc_next", Capabilities(row_types=TYPES_INT64))
    left = server.data / "metadata" / "ch_mexc" / "btc_next.sql.tmp"

    def refused() -> str:
        now[0] += 60
        with pytest.raises(RefusedError) as raised:
            engine.execute(sql)
        return str(raised.value)

    start_engine(server, control)
    try:
        engine.connect()
        engine.execute("CREATE TABLE kept ENGINE = StripeLog AS SELECT 1 AS n")
        control.fail(IO_ERROR, (Op.WRITE,), (CLICKHOUSE,))
        assert "errno: 5" in refused()
        assert left.exists(), "nothing was left behind: the test shows nothing"
        for _ in range(3):
            assert "has btc_next half made" in refused()
            assert engine.select("SELECT n FROM kept") == [(1,)]
        assert control.heal()
        assert "has btc_next half made" in refused()
        engine.connect()
        engine.execute(sql)
        assert {row[0] for row in engine.select("SHOW TABLES")} == {"btc_next", "kept"}
    finally:
        engine.close()
        server.kill()
        control.close()


@pytest.mark.timeout(120)
def test_an_orderly_end_waits_for_a_commit_of_three_seconds(tmp_path: Path, preloaded: Path) -> None:
    """A collector told to end while one commit took three seconds gave up after less than two, with what it had
    received not committed, although it had five."""
    outcome = Outcome()
    with (
        Simulator(SimulatorConfig(symbols=("BTC_USDT",), rate=100.0)) as sim,
        bench(tmp_path, sim, random.Random(1), period="1h") as place,
    ):
        collector = place.fork("collect", "btc")
        place.recorded(collector, 20)
        place.control.slow(3 * 10**9, (Op.SYNC,), (SPOOL,), skip=0, count=1)
        until(lambda: place.control.slowed, 10, "a commit that takes long")
        began = time.monotonic()
        assert end(collector) == 0, place.said()
        assert 2.0 < time.monotonic() - began < 5.0, "nothing was waited for, or too long"
        place.settle(outcome)
    assert not outcome.verdict.violations
    assert not outcome.verdict.tail
