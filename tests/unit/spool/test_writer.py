"""The spool's writer: whatever clocks, crashes and full disks do, rows are gapless, ordered and in their period."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.periods import HOUR_NS, SECOND_NS, Period
from mexc_pipeline.rows import Columns, Frame
from mexc_pipeline.spool import segment
from mexc_pipeline.spool.lifecycle import mark_exported, seal_left_open
from mexc_pipeline.spool.pending import FILE, Pending
from mexc_pipeline.spool.segment import SegmentError, info
from mexc_pipeline.spool.writer import Spool, last_rx
from support.examples import examples
from support.spooled import check, read_rows, read_segments

T0 = 2_000_001_600 * SECOND_NS - 30 * SECOND_NS  # half a minute before the edge of an hour, years ahead of any clock
PERIOD = Period(10 * SECOND_NS)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of spools: fsync must cost nothing


def frame(rx: int, m: bytes = b"{}", mt: int = 1, ts: int | None = 5) -> Frame:
    return Frame(rx, ts, mt, m)


def append(spool: Spool, frames: list[Frame]) -> Columns:
    """Append all frames as the recorder does."""
    rows = []
    while frames:
        block = spool.append(frames)
        assert len(block)
        rows += list(block.rows())
        frames = frames[len(block) :]
    return Columns.of(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "btc"
    folder.mkdir()
    return folder


@pytest.fixture
def opened(folder: Path) -> Iterator[list[Spool]]:
    """Spools to be closed at the end."""
    spools: list[Spool] = []
    yield spools
    for spool in spools:
        spool.close()


def new(folder: Path, period: Period = PERIOD, **more: Any) -> Spool:
    return Spool(folder, "btc", "BTC_USDT", period, **more)


def test_rows_get_seq_and_rx_and_a_time_of_their_own(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    block = append(spool, [frame(T0, b"a"), frame(T0, b"b", ts=None), frame(T0 + 1_000_001, b"", ts=None)])
    assert block.seq == [1, 2, 3]
    assert block.rx == [T0, T0, T0 + 1_000_001]
    assert block.ts == [5, T0 // 10**6, T0 // 10**6 + 1]
    assert [tuple(r) for r in read_rows(folder)] == list(block.rows())
    assert (spool.last_seq, spool.last_rx) == (3, T0 + 1_000_001)
    assert spool.recovered.new
    assert spool.recovered.clean


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 63, 64, 65, 511, 512, 513, 1500])
def test_any_number_of_rows_a_commit(folder: Path, opened: list[Spool], count: int) -> None:
    spool = new(folder)
    opened.append(spool)
    frames = [frame(T0 + n, b"%d" % n, mt=1 + n % 5) for n in range(count)]
    assert len(spool.append(frames)) == count
    assert [(r.rx, r.m, r.mt) for r in check(folder)] == [(f.rx, f.m, f.mt) for f in frames]


def test_a_batch_over_an_edge_is_split_there(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    edge = PERIOD.end(PERIOD.start(T0))
    first = spool.append([frame(T0), frame(edge - 1), frame(edge), frame(edge + 1)])
    assert len(first) == 2
    append(spool, [frame(edge), frame(edge + 1)])
    rows = check(folder)
    assert [(r.seq, r.rx) for r in rows] == [(1, T0), (2, edge - 1), (3, edge - 1), (4, edge), (5, edge + 1)]
    sealed = read_segments(folder)[0]
    assert sealed.rows[-1].m == b'{"event":"sealed","rows":3}'
    assert sealed.meta["state"] == "closed"
    assert not sealed.meta["cut"]


@pytest.mark.parametrize("back", [1, 5 * SECOND_NS, 3 * HOUR_NS, 400 * 24 * HOUR_NS])
def test_where_rx_goes_back_the_segment_ends_at_its_last_row(folder: Path, opened: list[Spool], back: int) -> None:
    spool = new(folder)
    opened.append(spool)
    edge = PERIOD.end(PERIOD.start(T0))
    append(spool, [frame(edge + 6 * SECOND_NS), frame(edge + 6 * SECOND_NS - back, b"late"), frame(T0 + 2 * HOUR_NS)])
    rows = check(folder)
    ahead, late = edge + 6 * SECOND_NS, edge + 6 * SECOND_NS - back
    assert [r.rx for r in rows if r.mt != 5] == [ahead, late, T0 + 2 * HOUR_NS]
    first = read_segments(folder)[0]
    assert first.meta["cut"], "its period may go on"
    assert first.rows[-1].rx == ahead


def test_a_period_reached_again_is_a_further_part(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    name, edge = PERIOD.name(PERIOD.start(T0)), PERIOD.end(PERIOD.start(T0))
    append(spool, [frame(T0), frame(edge), frame(T0), frame(edge), frame(T0 + 1)])
    other = PERIOD.name(edge)
    files = [s.file for s in read_segments(folder)]
    assert files == [f"{n}.sqlite" for n in (name, other, f"{name}.part2", f"{other}.part2", f"{name}.part3")]
    check(folder)


def test_a_part_is_not_given_again_when_its_segment_is_gone(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0), frame(T0 + HOUR_NS)])
    mark_exported(folder / read_segments(folder)[0].file, {"at_ns": T0})
    assert len(spool.prune(T0 + HOUR_NS, 0)) == 1
    append(spool, [frame(T0)])
    assert spool.segment == f"{PERIOD.name(PERIOD.start(T0))}.part2.sqlite"


def test_a_spool_left_in_the_future_goes_on_at_the_true_time(folder: Path, opened: list[Spool]) -> None:
    """As 0.1.0 left it: rows of one instant far ahead in a segment that would not end for a year."""
    ahead = T0 + 400 * 24 * HOUR_NS
    spool = new(folder)
    append(spool, [frame(ahead, b"%d" % n) for n in range(3)])
    spool.close()
    assert last_rx(folder) == ahead
    again = new(folder)
    opened.append(again)
    append(again, [frame(T0, b"now")])
    left, now = read_segments(folder)
    assert (left.meta["state"], left.rows[-1].rx) == ("closed", ahead)
    assert json.loads(now.rows[0].m) == {"event": "clock", "step_ms": -400 * 86_400_000.0, "restarted": True}
    assert [(r.rx, r.m) for r in now.rows[1:]] == [(T0, b"now")]
    append(again, [frame(T0 + 10 * SECOND_NS, b"on")])
    again.close()
    assert last_rx(folder) == T0 + 10 * SECOND_NS, "the newest row's, not the highest"
    check(folder)


def test_nothing_joins_a_period_that_was_closed_by_the_clock(folder: Path) -> None:
    spool = new(folder)
    edge = PERIOD.end(PERIOD.start(T0))
    append(spool, [frame(T0)])
    assert spool.edge == edge
    assert spool.tick(edge - 1) is None
    sealed = spool.tick(edge)
    assert sealed is not None
    assert sealed.state == "closed"
    assert spool.segment is None
    assert spool.last_rx == edge
    spool.close()
    assert last_rx(folder) == edge  # also not after a restart


def test_the_clock_steps_forward_over_several_edges(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0), frame(T0 + 5 * HOUR_NS)])
    check(folder)
    assert len(read_segments(folder)) == 2, "no segment for a period without rows"


def test_a_cut_makes_parts_and_only_the_last_is_final(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    assert spool.cut(T0) is None
    append(spool, [frame(T0)])
    one = spool.cut(T0 + 10)
    append(spool, [frame(T0 + 10)])
    two = spool.cut(T0 + 20)
    append(spool, [frame(T0 + 30)])
    edge = PERIOD.end(PERIOD.start(T0))
    three = spool.tick(edge)
    assert one is not None
    assert two is not None
    assert three is not None
    name = PERIOD.name(PERIOD.start(T0))
    assert [s.file for s in (one, two, three)] == [f"btc{name}.part{n}.parquet" for n in (1, 2, 3)]
    assert [s.final for s in (one, two, three)] == [False, False, True]
    assert [s.path.name for s in (one, two, three)] == [f"{name}{p}.sqlite" for p in ("", ".part2", ".part3")]
    rows = check(folder)
    assert [r.rx for r in rows] == [T0, T0 + 9, T0 + 10, T0 + 19, T0 + 30, edge - 1]
    assert json.loads(rows[1].m) == {"event": "sealed", "cut": True, "rows": 2}
    append(spool, [frame(edge)])
    late = spool.cut(edge + 11 * SECOND_NS)
    assert late is not None
    assert late.final, "a cut after the edge is an ordinary end"


def test_parts_go_on_after_the_files_that_exist(folder: Path, opened: list[Spool]) -> None:
    name = PERIOD.name(PERIOD.start(T0))
    other = PERIOD.name(PERIOD.end(PERIOD.start(T0)))
    files = [
        f"btc{name}.part1.parquet",
        f"btc{name}.part3.parquet",
        f"btc{other}.parquet",
        f"btcusdc{name}.part9.parquet",
    ]
    spool = new(folder, known_seq=70, exports=files)
    opened.append(spool)
    append(spool, [frame(T0)])
    assert spool.segment == f"{name}.part4.sqlite"
    append(spool, [frame(T0 + 10 * SECOND_NS)])
    assert spool.segment == f"{other}.part2.sqlite"
    check(folder, first_seq=71)


def test_a_restart_goes_on_in_the_open_segment(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0, b"1"), frame(T0 + 1, b'{"event":"stopped"}', mt=5)])
    spool.close()
    again = new(folder)
    opened.append(again)
    found = again.recovered
    assert (found.last_seq, found.last_rx, found.clean, found.new) == (2, T0 + 1, True, False)
    assert found.spool_id == spool.spool_id
    append(again, [frame(T0 + 1, b"3")])
    assert again.cut(T0 + 5) is not None
    assert [r.seq for r in check(folder)] == [1, 2, 3, 4]


def test_an_unclean_stop_is_known(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0, b'{"event":"stopped"}', mt=5), frame(T0, b'{"event":"stopped"} is only text')])
    spool.close()
    again = new(folder)
    assert not again.recovered.clean
    append(again, [frame(T0, b'{"event":"stopped"}', mt=5)])
    again.close()
    seal_left_open(folder, T0 + HOUR_NS)
    third = new(folder)
    opened.append(third)
    assert third.recovered.clean, "sealed by another after an orderly stop"


def test_a_segment_left_open_takes_its_own_rows_also_after_its_edge(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0)])
    spool.close()
    again = new(folder, next_rx=T0 + 1)
    append(again, [frame(T0 + 1, b"received before the edge"), frame(T0 + HOUR_NS)])
    assert [len(s.rows) for s in read_segments(folder)] == [3, 1]
    again.close()
    again = new(folder, next_rx=T0 + 2 * HOUR_NS)
    opened.append(again)
    assert again.segment is None
    assert again.last_seq == 5
    assert [s.meta["state"] for s in read_segments(folder)] == ["closed", "closed"]
    check(folder)


def test_a_deleted_folder_goes_on_above_everything_known(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder, known_seq=1000)
    opened.append(spool)
    assert spool.recovered.new
    assert not spool.recovered.replaced
    assert not spool.recovered.clean, "nobody knows how the recording ended"
    append(spool, [frame(T0)])
    check(folder, first_seq=1001)


def test_a_restored_copy_is_a_new_spool_and_its_open_segment_is_set_apart(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0), frame(T0 + 10 * SECOND_NS), frame(T0 + 10 * SECOND_NS)])
    spool.close()
    again = new(folder, known_seq=50)
    opened.append(again)
    found = again.recovered
    assert (found.replaced, found.new, found.clean) == (True, True, False)
    assert found.spool_id != spool.spool_id
    assert len(found.set_apart) == 1
    assert (folder / found.set_apart[0]).exists()
    assert len(read_rows(folder)) == 2, "what was closed stays"
    append(again, [frame(T0 + 10 * SECOND_NS, b"on")])
    rows = read_rows(folder)
    assert (rows[-1].seq, rows[-1].m) == (51, b"on")


def test_knowing_less_or_the_same_elsewhere_changes_nothing(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0), frame(T0)])
    spool.close()
    again = new(folder, known_seq=2)
    opened.append(again)
    assert not again.recovered.replaced
    assert again.recovered.spool_id == spool.spool_id


def test_a_damaged_segment_is_set_apart_and_said(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0), frame(T0 + 10 * SECOND_NS)])
    spool.close()
    newest = sorted(folder.glob("*.sqlite"))[-1]
    for end in ("-wal", "-shm"):
        newest.with_name(newest.name + end).unlink(missing_ok=True)
    newest.write_bytes(b"broken" * 1000)
    again = new(folder, known_seq=3)
    opened.append(again)
    assert [name.startswith(f"{newest.name}.damaged-") for name in again.recovered.set_apart] == [True]
    assert not again.recovered.clean
    append(again, [frame(T0 + 10 * SECOND_NS)])
    assert [r.seq for r in read_rows(folder)] == [1, 2, 4]


def test_an_empty_segment_left_by_a_crash_is_taken_away(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0)])
    spool.cut(T0 + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Spool, "_commit", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            spool.append([frame(T0 + 2)])
    assert len(list(folder.glob("*.sqlite"))) == 2
    spool.close()
    again = new(folder)
    opened.append(again)
    assert len(list(folder.glob("*.sqlite"))) == 1
    append(again, [frame(T0 + 2)])
    check(folder)


def test_an_empty_segment_is_never_sealed(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0), frame(T0 + 10 * SECOND_NS)])
    spool.cut(T0 + 11 * SECOND_NS)
    for end in (spool.tick, spool.cut):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spool, "_commit", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                spool.append([frame(T0 + 11 * SECOND_NS)])
        assert end(T0 + HOUR_NS) is None
        assert spool.segment is None
    append(spool, [frame(T0 + 11 * SECOND_NS)])
    check(folder)


def test_periods_of_another_length_after_a_change_of_the_configuration(folder: Path, opened: list[Spool]) -> None:
    short = new(folder)
    append(short, [frame(T0), frame(T0 + 10 * SECOND_NS, b'{"event":"stopped"}', mt=5)])
    short.close()
    assert seal_left_open(folder, T0 + HOUR_NS)
    hours = new(folder, Period(HOUR_NS))
    append(hours, [frame(T0 + 21 * SECOND_NS, b"in the long period")])
    assert hours.last_seq == 5
    hours.close()
    again = new(folder, Period(HOUR_NS))
    opened.append(again)
    assert again.recovered.last_seq == 5
    assert not again.recovered.clean, "the newest row is not the stop in the older segment that sorts behind"
    append(again, [frame(T0 + 25 * SECOND_NS)])
    assert [r.seq for r in read_rows(folder)] == [1, 2, 3, 4, 5, 6]


def limit_pages(spool: Spool, pages: int) -> None:
    """Let the open segment's disk be full but for so many pages."""
    assert spool._database is not None
    used = spool._database.db.execute("PRAGMA page_count").fetchone()[0]
    spool._database.db.execute(f"PRAGMA max_page_count={used + pages}")


@pytest.mark.parametrize("count", [1, 8, 40, 600])
def test_a_full_disk_loses_nothing_and_repeats_nothing(folder: Path, opened: list[Spool], count: int) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0, b"before")])
    limit_pages(spool, 1)
    frames = [frame(T0 + n, b"%06d" % n + b"x" * 9000) for n in range(count)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.append(frames)
    assert (spool.last_seq, spool.last_rx) == (1, T0)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.append(frames)
    assert [r.m for r in check(folder)] == [b"before"]
    limit_pages(spool, 1 << 20)
    append(spool, frames)
    spool.cut(T0 + SECOND_NS)
    assert [r.m for r in check(folder)][:-1] == [b"before", *(f.m for f in frames)]


@pytest.mark.parametrize("step", ["INSERT INTO rows", "INSERT INTO meta", "COMMIT", "PRAGMA wal_checkpoint"])
def test_sealing_can_fail_anywhere_and_be_done_again(folder: Path, opened: list[Spool], step: str) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0, b"1"), frame(T0 + 1, b"2")])
    assert spool._database is not None
    real = spool._database.db
    spool._database.db = _Failing(real, step)  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="injected"):
            spool.tick(T0 + HOUR_NS)
    spool._database.db = real
    assert append(spool, [frame(T0 + HOUR_NS, b"next")]).seq == [4]
    rows = check(folder)
    assert [r.m.startswith(b'{"event":"sealed"') for r in rows] == [False, False, True, False]


class _Failing:
    """A connection on which one kind of statement fails."""

    def __init__(self, db: sqlite3.Connection, step: str) -> None:
        self._db = db
        self._step = step
        self._wrote = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql.startswith(self._step) and (self._wrote or sql != "COMMIT"):
            raise sqlite3.OperationalError("injected: disk I/O error")
        self._wrote = self._wrote and sql != "ROLLBACK"
        return self._db.execute(sql, *values)

    def executemany(self, sql: str, values: Any) -> Any:
        if sql.startswith(self._step):
            raise sqlite3.OperationalError("injected: disk I/O error")
        self._wrote = True
        return self._db.executemany(sql, values)


@pytest.mark.parametrize("step", ["put_meta", "link", "sync_folder", "connect_writer"])
def test_making_a_segment_can_fail_anywhere_and_be_done_again(
    folder: Path, opened: list[Spool], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0)])
    target: Any = os if step == "link" else segment

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(target, step, refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="injected"):
                append(spool, [frame(T0 + 10 * SECOND_NS)])
    append(spool, [frame(T0 + 10 * SECOND_NS)])
    assert [r.seq for r in check(folder)] == [1, 2, 3]
    assert [p.name for p in folder.glob(".*")] == []


@given(st.lists(st.sampled_from([0, 1, 1 << 20, (1 << 20) + 1, 3 << 20]), min_size=1, max_size=9), st.integers(0, 80))
@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_large_frames_are_kept_byte_for_byte_among_small_ones(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], more: int
) -> None:
    folder = tmp_path_factory.mktemp("large") / "btc"
    folder.mkdir()
    spool = Spool(folder, "btc", "BTC_USDT", Period(HOUR_NS))
    frames = [frame(T0 + n, bytes([97 + n % 26]) * size, mt=4) for n, size in enumerate([*sizes, *[5] * more])]
    append(spool, frames)
    spool.close()
    assert [row.m for row in read_rows(folder) if row.mt == 4] == [f.m for f in frames]


def test_a_segment_gets_its_name_only_when_it_needs_no_rollback(
    folder: Path, opened: list[Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned to a write-ahead log under its own name, one that a disk's refusal left half turned could not be read by
    anybody, and its symbol was not recorded for the rest of the period."""
    linked: list[bytes] = []
    link = os.link

    def look(making: Path, path: Path) -> None:
        linked.append(Path(making).read_bytes()[18:20])
        link(making, path)

    monkeypatch.setattr(os, "link", look)
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0, b"a")])
    assert linked == [b"\x02\x02"]  # https://www.sqlite.org/fileformat.html#file_format_version_numbers
    assert not list(folder.glob("*-journal"))


def test_a_segment_that_cannot_be_read_keeps_no_row_from_the_next_part(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0, b"a")])
    spool.cut(T0 + 1)
    (cut,) = folder.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(cut, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute("PRAGMA cache_size=1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE more AS SELECT randomblob(50000) AS x")
        journal = cut.with_name(cut.name + "-journal").read_bytes()
        half = cut.read_bytes()
        db.execute("ROLLBACK")
    cut.write_bytes(half)
    cut.with_name(cut.name + "-journal").write_bytes(journal)  # hot: to be rolled back, which a reader may not do
    with pytest.raises(SegmentError):
        info(cut)
    block = append(spool, [frame(T0 + 2, b"b")])
    assert block.seq == [3]  # the second is the end of the first part
    assert spool.segment == cut.name.replace(".sqlite", ".part2.sqlite")


@pytest.mark.parametrize("is_pending", [False, True])
def test_a_database_in_use_is_locked_for_who_opens_it_beside_us(folder: Path, tmp_path: Path, is_pending: bool) -> None:
    """A process that opens and closes a database's files itself loses its locks on them: the next one to open it would
    cut the log's index from under the mapping (SIGBUS), or remove the log."""
    left = tmp_path / "killed" / "btc"
    writer: Spool | Pending = Pending(folder, "BTC_USDT") if is_pending else Spool(folder, "btc", "BTC_USDT", PERIOD)
    writer.append([frame(T0)])
    shutil.copytree(folder, left)
    writer.close()
    again: Spool | Pending = Pending(left, "BTC_USDT") if is_pending else Spool(left, "btc", "BTC_USDT", PERIOD)
    again.append([frame(T0 + 1)])
    (path,) = [left / FILE] if is_pending else left.glob("*.sqlite")
    lock = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)"
    index = path.with_name(f"{path.name}-shm")
    beside = subprocess.run([sys.executable, "-c", lock, str(index)], capture_output=True, check=False)
    assert beside.returncode == 1, "SQLite's deadman switch (os_unix.c, UNIX_SHM_DMS) is held by nobody"
    assert b"BlockingIOError" in beside.stderr
    again.close()
