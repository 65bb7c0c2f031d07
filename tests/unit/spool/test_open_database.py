"""A file in use that loses its name takes no commit that nobody would find."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mexc_pipeline.periods import SECOND_NS, Period
from mexc_pipeline.rows import Columns, Frame
from mexc_pipeline.spool import open_database, writer
from mexc_pipeline.spool import pending as pending_rows
from mexc_pipeline.spool.lifecycle import mark_exported, seal_left_open
from mexc_pipeline.spool.lock import LockedError, SpoolLock, holder
from mexc_pipeline.spool.open_database import Transaction
from mexc_pipeline.spool.pending import FILE, Pending
from mexc_pipeline.spool.segment import connect_writer, info
from mexc_pipeline.spool.writer import Spool
from support.spooled import check, read_segments

T0 = 2_000_001_600 * SECOND_NS
PERIOD = Period(10 * SECOND_NS)


def frames(first: int, count: int) -> list[Frame]:
    return [Frame(T0 + n, 5, 1, b'{"n":%d}' % n) for n in range(first, first + count)]


def beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]


def remove_all(path: Path) -> None:
    for part in beside(path):
        part.unlink()


def remove_file(path: Path) -> None:
    path.unlink()


def remove_log(path: Path) -> None:
    beside(path)[1].unlink()


def remove_index(path: Path) -> None:
    """Without it others keep an index of their own, and the last of them checkpoints and removes a log in use."""
    beside(path)[2].unlink()


def rename(path: Path) -> None:
    for part in beside(path):
        part.rename(part.with_name(f"{part.name}.away"))


def replace(path: Path) -> None:
    """By a copy of itself, as a restore does that was forgotten to stop the collector."""
    copies = [part.with_name(f"{part.name}.copy") for part in beside(path)]
    for part, copy in zip(beside(path), copies, strict=True):
        shutil.copy(part, copy)
    for part, copy in zip(beside(path), copies, strict=True):
        copy.rename(part)


def replace_by_nothing(path: Path) -> None:
    remove_all(path)
    path.touch()


def read_by_another(path: Path) -> None:
    """A process with every right that comes, reads and goes."""
    program = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT m FROM rows').fetchall()"
    subprocess.run([sys.executable, "-c", f"{program}; db.close()", str(path)], check=True)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A spool folder, which has its symbol's name."""
    (tmp_path / "btc").mkdir()
    return tmp_path / "btc"


LOSSES = [remove_all, remove_file, remove_log, remove_index, rename, replace, replace_by_nothing]


@pytest.mark.parametrize("lose", LOSSES)
def test_rows_before_and_after_are_in_the_segment(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    spool.append(frames(0, 100))
    segment = tmp_path / str(spool.segment)
    lose(segment)
    spool.append(frames(100, 1))
    read_by_another(segment)
    assert info(segment).last_seq == 101  # for all the world, at once
    spool.append(frames(101, 99))
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    (rows,) = read_segments(tmp_path)
    assert [row.m for row in rows.rows][:-1] == [frame.m for frame in frames(0, 200)]
    assert info(segment).state == "closed"
    check(tmp_path)


@pytest.mark.parametrize("lose", LOSSES)
def test_a_quiet_segment_is_sealed_under_its_name(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    spool.append(frames(0, 100))
    segment = tmp_path / str(spool.segment)
    lose(segment)
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    assert (info(segment).state, info(segment).rows) == ("closed", 101)
    check(tmp_path)


@pytest.mark.parametrize("step", ["link", "unlink", "fsync"])
def test_what_fails_on_the_way_is_done_at_the_next_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    spool.append(frames(0, 100))
    segment = tmp_path / str(spool.segment)
    remove_all(segment)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, step, refuse)
        with pytest.raises(OSError, match="No space"):
            spool.append(frames(100, 100))
    spool.append(frames(100, 100))
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    (rows,) = read_segments(tmp_path)
    assert [row.m for row in rows.rows][:-1] == [frame.m for frame in frames(0, 200)]


def without_file(path: Path) -> sqlite3.Connection:
    path.unlink()
    return connect_writer(path)


def without_log(path: Path) -> sqlite3.Connection:
    db = connect_writer(path)
    remove_log(path)
    return db


@pytest.mark.parametrize("lose_again", [without_file, without_log])
def test_a_removal_that_goes_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lose_again: Callable[[Path], sqlite3.Connection]
) -> None:
    """As ``rm -r`` does, which has read the names before: what was just written again goes too."""
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    spool.append(frames(0, 100))
    segment = tmp_path / str(spool.segment)
    remove_all(segment)
    with monkeypatch.context() as racing:
        racing.setattr(open_database, "connect_writer", lose_again)
        with contextlib.suppress(sqlite3.OperationalError):  # then nothing of the call was committed
            spool.append(frames(100, 50))
    spool.append(frames(spool.last_seq, 200 - spool.last_seq))
    read_by_another(segment)
    assert info(segment).last_seq == 200
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    (rows,) = read_segments(tmp_path)
    assert [row.m for row in rows.rows][:-1] == [frame.m for frame in frames(0, 200)]


@pytest.mark.parametrize("lose", LOSSES)
def test_pending_rows_keep_their_file(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(0, 10))
    lose(tmp_path / FILE)
    pending.append(frames(10, 10))
    db = sqlite3.connect(f"{(tmp_path / FILE).as_uri()}?mode=ro", uri=True)
    assert [m for (m,) in db.execute("SELECT m FROM rows ORDER BY n")] == [frame.m for frame in frames(0, 20)]
    db.close()
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    while pending.move(spool):
        pass
    pending.remove()
    spool.close()
    (rows,) = read_segments(tmp_path)
    assert [row.m for row in rows.rows] == [frame.m for frame in frames(0, 20)]


def test_a_lock_that_was_removed_is_taken_again(tmp_path: Path) -> None:
    folder = tmp_path / "btc"
    with SpoolLock(folder) as lock:
        assert lock.keep()
        (folder / "lock").unlink()
        with pytest.raises(LockedError, match="whose lock file was removed"):
            SpoolLock(folder).__enter__()
        assert lock.keep()
        assert holder(folder) is not None
        with pytest.raises(LockedError):
            SpoolLock(folder).__enter__()
    with SpoolLock(folder):
        pass


def test_a_folder_that_was_removed_is_made_and_held_again(tmp_path: Path) -> None:
    folder = tmp_path / "spool" / "btc"
    with SpoolLock(folder) as lock:
        shutil.rmtree(folder.parent)
        assert not lock.keep()
        assert not lock.keep(), "whoever asks, and however often"
        with pytest.raises(LockedError):
            SpoolLock(folder).__enter__()


def test_a_folder_that_another_writer_holds_now_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "btc"
    with SpoolLock(folder) as lock:
        folder.rename(tmp_path / "away")
        with SpoolLock(folder), pytest.raises(LockedError):
            lock.keep()


def of_header(at: int) -> Callable[[Path], None]:
    """One bit of a number in the database's header."""

    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    return change


def checkpoint_log(path: Path) -> None:
    """As its own thread checkpoints the log: what is damaged afterwards is in no log."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("INSERT INTO meta VALUES ('', '')")  # its writer's page of the header is not the newest any more
        db.execute("DELETE FROM meta WHERE key = ''")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def no_rows(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(size - 4096))


def a_row_of_somebody(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO rows VALUES (101, 1, 1, 1, x'00')")
        db.commit()


def no_table(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE rows")


def a_value_of_meta(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value = '\"eth\"' WHERE key = 'id'")
        db.commit()


def no_text(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE key = 'symbol'")
        db.commit()


HEADER = [of_header(at) for at in (36, 39, 52, 55)]


@pytest.mark.parametrize("damage", HEADER, ids=["36", "39", "52", "55"])
@pytest.mark.parametrize("found", ["by its writer", "at the next start", "by an export"])
def test_a_segment_that_can_only_be_read_is_written_again(
    tmp_path: Path, damage: Callable[[Path], None], found: str
) -> None:
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    spool.append(frames(0, 1000))
    segment = tmp_path / str(spool.segment)
    if found == "by its writer":
        checkpoint_log(segment)
        damage(segment)
    else:
        spool.close()
        damage(segment)
    if found == "at the next start":
        spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0 + 1000)
        assert spool.clean is False  # it was not stopped
        assert spool.recovered.set_apart == ()
    if found != "by an export":
        spool.append(frames(1000, 1000))
        spool.tick(T0 + 10 * SECOND_NS)
        spool.close()
    else:
        seal_left_open(tmp_path, T0 + 10 * SECOND_NS)
    (rows,) = read_segments(tmp_path)
    wanted = frames(0, 1000 if found == "by an export" else 2000)
    assert [row.m for row in rows.rows][:-1] == [frame.m for frame in wanted]
    assert info(segment).state == "closed"
    assert len(list(tmp_path.glob(f"{segment.name}.replaced-*[0-9]"))) == 1
    mark_exported(segment, {"at_ns": T0})
    check(tmp_path)


@pytest.mark.parametrize("damage", HEADER, ids=["36", "39", "52", "55"])
def test_a_closed_segment_that_can_only_be_read_is_marked_all_the_same(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    spool.append(frames(0, 1000))
    segment = tmp_path / str(spool.segment)
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    before = info(segment)
    damage(segment)
    mark_exported(segment, {"at_ns": T0, "said": "x" * 20_000})
    assert (info(segment).state, info(segment).digest) == ("exported", before.digest)
    check(tmp_path)


@pytest.mark.parametrize("damage", [no_rows, a_row_of_somebody, no_table, a_value_of_meta, no_text])
@pytest.mark.parametrize("then", ["more rows", "its edge"])
def test_a_segment_damaged_under_its_writer_is_set_apart_and_recording_goes_on(
    tmp_path: Path,
    damage: Callable[[Path], None],
    then: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "KEEP_S", 0.0)
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    spool.append(frames(0, 100))
    segment = tmp_path / str(spool.segment)
    checkpoint_log(segment)
    damage(segment)
    if then == "its edge":
        assert spool.tick(T0 + 10 * SECOND_NS) is None
        spool.append([Frame(T0 + 10 * SECOND_NS, 5, 1, b"{}")])
    else:
        for n in range(100, 200, 20):
            spool.append(frames(n, 20))
    (apart,) = tmp_path.glob(f"{segment.name}.damaged-*[0-9]")
    assert [r.__dict__["fields"]["segment"] for r in caplog.records if "set apart" in r.message] == [apart.name]
    spool.tick(T0 + 20 * SECOND_NS)
    spool.close()
    (left,) = read_segments(tmp_path)
    if then == "its edge":
        assert [row.seq for row in left.rows] == [101, 102]
    else:
        assert [row.m for row in left.rows][:-1] == [frame.m for frame in frames(100, 100)]
        assert [row.seq for row in left.rows] == list(range(101, 202))
        assert left.file.endswith(".part2.sqlite")
    check(tmp_path, 101)


def test_a_disk_that_refuses_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    spool.append(frames(0, 100))
    refused = sqlite3.OperationalError("disk I/O error")
    refused.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE

    def refuse(*_: object) -> None:
        raise refused

    with monkeypatch.context() as broken:
        broken.setattr(spool, "_commit", refuse)
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            spool.append(frames(100, 100))
    spool.append(frames(100, 100))
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    assert [path.name for path in tmp_path.iterdir() if "-" in path.name] == []
    check(tmp_path)


@pytest.mark.parametrize("damage", HEADER, ids=["36", "39", "52", "55"])
@pytest.mark.parametrize("found", ["by its writer", "at the next start", "while they are moved"])
def test_pending_rows_that_can_only_be_read_are_written_again(
    tmp_path: Path, damage: Callable[[Path], None], found: str
) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(0, 500))
    if found == "at the next start":
        pending.close()
        damage(tmp_path / FILE)
        pending = Pending(tmp_path, "BTC_USDT")
        assert pending.set_apart is None
    if found == "by its writer":
        checkpoint_log(tmp_path / FILE)
        damage(tmp_path / FILE)
    pending.append(frames(500, 500))
    if found == "while they are moved":
        checkpoint_log(tmp_path / FILE)
        damage(tmp_path / FILE)
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    while pending.move(spool):
        pass
    pending.remove()
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    assert [row.m for row in check(tmp_path)][:-1] == [frame.m for frame in frames(0, 1000)]
    assert not [path.name for path in tmp_path.iterdir() if "damaged" in path.name]


@pytest.mark.parametrize("damage", [no_rows, no_table, no_text])
@pytest.mark.parametrize("then", ["more rows", "they are moved"])
def test_pending_rows_damaged_under_their_writer_are_set_apart_and_more_are_kept(
    tmp_path: Path, damage: Callable[[Path], None], then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_rows, "KEEP_S", 0.0)
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(0, 100))
    checkpoint_log(tmp_path / FILE)
    damage(tmp_path / FILE)
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    if then == "more rows":
        pending.append(frames(200, 100))
    while pending.move(spool):
        pass
    pending.append(frames(300, 100))
    while pending.move(spool):
        pass
    pending.remove()
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    assert [row.m for row in check(tmp_path)][-101:-1] == [frame.m for frame in frames(300, 100)]
    if then == "more rows":
        assert [row.m for row in check(tmp_path)][-201:-101] == [frame.m for frame in frames(200, 100)]
    assert len(list(tmp_path.glob(f"{FILE}.damaged-*[0-9]"))) == 1


@pytest.mark.parametrize("rows", [0, 100])
def test_a_segment_that_is_damaged_again_and_again_keeps_nobody_waiting_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Once an empty one was tried for ever."""
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    if rows:
        spool.append(frames(0, rows))
    commit = spool._commit
    failed = sqlite3.DatabaseError("database disk image is malformed")
    failed.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def damaged(block: Columns, moved: tuple[str, int] | None) -> None:
        raise failed

    monkeypatch.setattr(spool, "_commit", damaged)
    for _ in range(3):
        with pytest.raises(sqlite3.DatabaseError, match="malformed"):
            spool.append(frames(rows, 1))
    assert len(list(tmp_path.glob("*.sqlite.*-*[0-9]"))) <= 2
    monkeypatch.setattr(spool, "_commit", commit)
    assert spool.append(frames(rows, 100)).seq == list(range(rows + 1, rows + 101))
    spool.tick(T0 + 10 * SECOND_NS)
    spool.close()
    check(tmp_path, rows + 1)


@pytest.mark.parametrize("single", [False, True])
def test_a_transaction_is_whole_or_was_not(tmp_path: Path, single: bool) -> None:
    """Also where its commit is what fails, and whatever ends it."""
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as db:
        db.executescript(
            "PRAGMA foreign_keys=ON; CREATE TABLE p (x PRIMARY KEY);"
            "CREATE TABLE t (x REFERENCES p DEFERRABLE INITIALLY DEFERRED)"
        )
        with pytest.raises(sqlite3.IntegrityError), Transaction(db, single=single):
            db.execute("INSERT INTO t VALUES (1)")
        assert not db.in_transaction
        with contextlib.suppress(KeyboardInterrupt), Transaction(db):
            db.execute("INSERT INTO t VALUES (NULL)")
            raise KeyboardInterrupt
        assert not db.in_transaction
        with Transaction(db, single=single):
            db.execute("INSERT INTO t VALUES (NULL)")
        assert not db.in_transaction
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as again:
        assert again.execute("SELECT * FROM t").fetchall() == [(None,)]


def test_a_transaction_has_the_lock_from_its_begin(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as one,
        contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
    ):
        one.execute("CREATE TABLE t (x)")
        with Transaction(one):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO t VALUES (2)")
            one.execute("INSERT INTO t VALUES (1)")
        assert other.execute("SELECT x FROM t").fetchall() == [(1,)]
