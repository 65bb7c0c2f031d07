"""A frame of a size that nobody stores is refused by its length: nobody reads it, and the neighbours go on."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mexc_pipeline.collector.resume import read_resumption
from mexc_pipeline.config import Config
from mexc_pipeline.exchange.protocol import MAX_STORED
from mexc_pipeline.export import files, job
from mexc_pipeline.export import main as export
from mexc_pipeline.export.under_way import UnderWay
from mexc_pipeline.rows import wrap
from mexc_pipeline.spool import blobs
from mexc_pipeline.spool.pending import FILE, Pending, newest
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader, connect, create_database, read_meta
from mexc_pipeline.spool.walk import segments
from support.spools import T0, configure, fill, open_spool, some_frames

HUGE = blobs.MOST + blobs.LARGE + 1


def swell(path: Path, seq: int, size: int = HUGE, key: str = "seq") -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous=OFF")
        db.execute(f"UPDATE rows SET m = zeroblob(?) WHERE {key} = ?", (size, seq))
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which sizes were read of what SQLite holds."""
    read: list[int] = []
    fetch = blobs.fetch

    def seen(db: sqlite3.Connection, key: int) -> bytes:
        m = fetch(db, key)
        read.append(len(m))
        return m

    for module in ("spool.segment", "spool.pending", "export.source"):
        monkeypatch.setattr(f"mexc_pipeline.{module}.fetch", seen)
    return read


def first(config: Config, symbol_id: str = "btc") -> Path:
    return segments(config.spool_dir / symbol_id)[0][1]


def test_the_largest_that_is_stored_is_smaller() -> None:
    assert len(wrap(2, b"\xff" * MAX_STORED)) <= blobs.MOST


def test_an_export_refuses_it_and_makes_the_others(tmp_path: Path, unread: list[int]) -> None:
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(config, "btc", periods=2)
    fill(config, "eth")
    swell(first(config), 5)
    report = export(config)
    assert [(fail.id, "which nobody stored" in fail.text) for fail in report.failures] == [("btc", True)]
    assert sorted(file.id for file in report.files) == ["btc", "eth"]
    assert first(config).exists()
    assert max(unread, default=0) <= blobs.MOST


READERS: dict[str, Callable[[SegmentReader], object]] = {
    "read": lambda reader: reader.read(0),
    "blocks": lambda reader: list(reader.blocks()),
    "tail": lambda reader: reader.tail(1, 10),
    "newest_frame_ns": lambda reader: reader.newest_frame_ns(),
}


def test_no_reader_of_a_segment_takes_it(tmp_path: Path, unread: list[int]) -> None:
    config = configure(tmp_path)
    fill(config, rows=8)
    swell(first(config), 5)
    for read in READERS.values():
        with SegmentReader(first(config)) as opened, pytest.raises(SegmentError):
            read(opened)
    assert max(unread, default=0) <= blobs.MOST


def test_a_start_sets_it_apart(tmp_path: Path, unread: list[int]) -> None:
    config = configure(tmp_path)
    spool = open_spool(config)
    spool.append(some_frames(5, T0))
    spool.close()
    swell(first(config), 1)
    read_resumption(config.spool_dir / "btc")
    again = open_spool(config)
    assert [name.split(".sqlite")[1][:9] for name in again.recovered.set_apart] == [".damaged-"]
    again.append(some_frames(1, T0 + 10**9))
    again.close()
    assert max(unread, default=0) <= blobs.MOST


def test_pending_rows_go_on_without_it(tmp_path: Path, unread: list[int]) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(some_frames(5, T0))
    pending.close()
    swell(tmp_path / FILE, 3, key="n")
    again = Pending(tmp_path, "BTC_USDT")
    again.append(some_frames(1, T0 + 10**9))
    assert again.first_rx() == T0
    config = configure(tmp_path)
    spool = open_spool(config)
    moved = 0
    while count := again.move(spool):
        moved += count
    assert moved >= 1 or again.set_apart is not None
    spool.close()
    again.close()
    with contextlib.suppress(sqlite3.Error):  # whoever looks for the newest does not take it either
        newest(tmp_path, 3, 10)
    assert max(unread, default=0) <= blobs.MOST


def test_nor_does_who_reads_what_a_database_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "20260915185200.sqlite"
    schema = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;"
    create_database(path, 1, schema, {"id": "btc"}).close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("INSERT INTO meta VALUES ('more', CAST(zeroblob(?) AS TEXT))", (HUGE,))
        raw.commit()
    with contextlib.closing(connect(path, readonly=True)) as db, pytest.raises(sqlite3.Error, match="too big"):
        read_meta(db, path, "segment format", 1)


def test_what_an_export_was_killed_in_comes_last_at_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody behind it would ever get a file."""
    config = configure(tmp_path, "BTC_USDT", "ETH_USDT")
    fill(config, "btc", periods=2)
    fill(config, "eth", periods=2)
    killers = {"btc/" + segments(config.spool_dir / "btc")[0][1].name, "eth/" + first(config, "eth").name}
    export_segment, write = files.export_segment, UnderWay._write

    class Killed(BaseException):
        pass

    def dies(info: SegmentInfo, *rest: object, **more: object) -> object:
        if f"{info.id}/{info.path.name}" in killers:
            monkeypatch.setattr(UnderWay, "_write", lambda *_: None)  # as a kill does not
            raise Killed
        return export_segment(info, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "export_segment", dies)
    for _ in range(3):
        with monkeypatch.context() as once:
            once.setattr(UnderWay, "_write", write)
            with pytest.raises(Killed):
                export(config)
    assert len(list(config.export_dir.glob("*.parquet"))) == 2, "those of nobody who kills it"
    monkeypatch.undo()
    assert export(config).ok
    assert len(list(config.export_dir.glob("*.parquet"))) == 4
    assert (config.data_dir / "export" / "under_way").read_bytes() == b""
