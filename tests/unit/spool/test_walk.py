"""Whatever lies in a spool and in the export folder, each of it is either given or named, and nothing waits for it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mexc_pipeline.errors import UserError
from mexc_pipeline.export.job import run as export
from mexc_pipeline.export.newest import newest_seq
from mexc_pipeline.handover import Handover, take
from mexc_pipeline.periods import Period
from mexc_pipeline.run.account import Periods
from mexc_pipeline.spool.lifecycle import seal_left_open
from mexc_pipeline.spool.names import SegmentName
from mexc_pipeline.spool.segment import NewerFormatError, SegmentInfo, UnavailableError, create, info
from mexc_pipeline.spool.walk import Unreadable, by_symbol, each, exported_files, in_order, looked_at, segments
from support.examples import examples
from support.spools import SECOND, T0, configure, fill, open_spool, some_frames

PERIOD = Period(10 * SECOND)
FIRST_SEQS = [30, 10, 50, 0, 20, 40]
"""Of the whole segments, in the order of their names; 0: it has no row yet."""
OTHER = 60_001


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    def too_long(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@contextmanager
def somebody() -> Iterator[None]:
    """Not root, whom nothing is denied."""
    if os.geteuid():
        yield
        return
    os.setresuid(OTHER, OTHER, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextmanager
def a_place() -> Iterator[Path]:
    """A folder that anybody may look into, with a spool folder in it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder)


def name_of(place: int) -> SegmentName:
    start = T0 + place * PERIOD.length_ns
    return SegmentName(start, 1, PERIOD.name(start))


def make(folder: Path, place: int, first_seq: int, symbol_id: str = "btc") -> Path:
    name = name_of(place)
    path = folder / name.file
    meta = {"id": symbol_id, "symbol": "X", "spool_id": "f", "version": "0", "state": "open"}
    db = create(path, {**meta, "edge_ns": name.start_ns + PERIOD.length_ns})
    if first_seq:
        rows = [(first_seq + n, name.start_ns + n, 0, 1, b"{}") for n in range(3)]
        db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", rows)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    return path


@pytest.fixture(scope="module")
def wholes() -> Iterator[list[bytes]]:
    """Whole segments, one for each place."""
    with a_place() as folder:
        yield [make(folder, place, seq).read_bytes() for place, seq in enumerate(FIRST_SEQS)]


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM meta WHERE key = 'check'")
        db.commit()
        db.execute("PRAGMA user_version=99")


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value = '\"eth\"' WHERE key = 'id'")
        db.execute("DELETE FROM meta WHERE key = 'check'")
        db.commit()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        path.unlink()
        make(path)

    return put


KINDS: dict[str, Callable[[Path], object]] = {
    "whole": lambda path: None,
    "absent": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "none of SQLite's": lambda path: path.write_bytes(b"no database" * 999),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:4096]),
    "overwritten": lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 9000),
    "of a newer format": _newer,
    "of another symbol": _foreign,
    "denied": lambda path: path.chmod(0),
    "a folder": _instead(Path.mkdir),
    "a FIFO": _instead(os.mkfifo),
    "a socket": _instead(_socket),
    "a link to nothing": _instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "a link to a denied place": _instead(lambda path: path.symlink_to("../closed/x")),
    "a log that is a FIFO": lambda path: os.mkfifo(f"{path}-wal"),
}


def test_each_segment_is_given_or_named(wholes: list[bytes]) -> None:
    kinds_of = sorted(KINDS)

    @settings(max_examples=examples(60), deadline=None)
    @example(kinds_of[:6])
    @example(kinds_of[6:12])
    @example(kinds_of[-6:])
    @given(st.lists(st.sampled_from(kinds_of), min_size=len(FIRST_SEQS), max_size=len(FIRST_SEQS)))
    def examine(kinds: list[str]) -> None:
        with a_place() as place:
            folder = place / "btc"
            folder.mkdir()
            (place / "closed").mkdir(mode=0)
            paths = [folder / name_of(n).file for n in range(len(kinds))]
            for path, content, kind in zip(paths, wholes, kinds, strict=True):
                path.write_bytes(content)
                path.chmod(0o644)
                KINDS[kind](path)
            there = {path: kind for path, kind in zip(paths, kinds, strict=True) if kind != "absent"}
            with somebody():
                found = list(each(folder))
                ordered = in_order(folder)
            assert [one.path for one in found] == list(there), "once each, by name"
            for one in found:
                kind = there[one.path]
                assert isinstance(one, SegmentInfo) == (kind == "whole"), kind
                if isinstance(one, Unreadable):
                    assert one.path.name in str(one.error) or kind == "a link to a denied place"
                    assert isinstance(one.error, NewerFormatError) == (kind == "of a newer format"), one
                    away = kind in ("denied", "a link to a denied place")
                    assert isinstance(one.error, UnavailableError) == away, (kind, one)
            seqs = [FIRST_SEQS[paths.index(path)] for path, kind in there.items() if kind == "whole"]
            assert [segment.first_seq for segment in ordered.readable] == sorted(seqs, key=lambda seq: seq or 99)
            assert [one.path for one in ordered.unreadable] == [
                one.path for one in found if isinstance(one, Unreadable)
            ]

    assert len(kinds_of) <= 3 * 6
    examine()


FOLDERS = {
    # and their mode
    "whole": 0o755,
    "closed": 0o000,
    "listed and not looked into": 0o444,
    "looked into and not listed": 0o111,
    "a link to nothing": 0,
    "a link to itself": 0,
    "a file": 0,
    "a FIFO": 0,
    "absent": 0,
}


def test_each_folder_is_given_or_named(wholes: list[bytes]) -> None:
    kinds_of = sorted(FOLDERS)

    @settings(max_examples=examples(60), deadline=None)
    @example(kinds_of[:4])
    @example(kinds_of[4:8])
    @example(kinds_of[-4:])
    @given(st.lists(st.sampled_from(kinds_of), min_size=4, max_size=4))
    def examine(kinds: list[str]) -> None:
        with a_place() as spool:
            folders = [spool / f"btc{letter}" for letter in "abcd"]
            for folder, kind in zip(folders, kinds, strict=True):
                if kind.startswith("a link"):
                    folder.symlink_to("nowhere" if kind == "a link to nothing" else folder.name)
                elif kind == "a file":
                    folder.touch()
                elif kind == "a FIFO":
                    os.mkfifo(folder)
                elif kind != "absent":
                    folder.mkdir()
                    path = folder / name_of(0).file
                    path.write_bytes(wholes[0])
                    path.chmod(0o644)
                    folder.chmod(FOLDERS[kind])
            with somebody():
                found = dict(by_symbol(spool))
            given = {f: k for f, k in zip(folders, kinds, strict=True) if k not in ("a file", "a FIFO", "absent")}
            assert list(found) == list(given)
            for folder, kind in given.items():
                ((_, error),) = found[folder].unreadable  # also of the whole one: it is of another symbol
                assert isinstance(error, UnavailableError) == (kind != "whole"), (kind, error)
                assert str(folder) in str(error)
                assert kind != "whole" or "in the folder of" in str(error)

    examine()


def test_a_spool_that_cannot_be_listed_is_named() -> None:
    with a_place() as place:
        spool = place / "spool"
        assert list(by_symbol(spool)) == [], "nothing was ever recorded"
        spool.mkdir(mode=0)
        with somebody():
            ((path, found),) = by_symbol(spool)
        assert (path, found.readable, found.unreadable[0].path) == (spool, [], spool)
        assert "may not" in str(found.unreadable[0].error)


def test_what_was_removed_meanwhile_is_left_out_and_what_the_disk_refuses_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "btc"
    folder.mkdir()
    paths = [make(folder, place, place + 1) for place in range(3)]

    def look(path: Path) -> SegmentInfo:
        if path == paths[0]:
            path.unlink()
        if path == paths[1]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return info(path)

    refused, read = looked_at(paths, look)
    assert isinstance(refused, Unreadable)
    assert refused.path == paths[1]
    assert os.strerror(errno.EIO) in str(refused.error)
    assert isinstance(refused.error, UnavailableError)
    assert isinstance(read, SegmentInfo)
    assert read.path == paths[2]


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(
        st.builds(
            "{}{}{}{}".format,
            st.sampled_from(["btc", "btcx", "b", "BTC", ""]),
            st.sampled_from(["2026112120", "20261121200000", "2026139999", "1"]),
            st.sampled_from(["", ".part2", ".part10", ".part0", ".tmp"]),
            st.sampled_from([".parquet", ".sqlite", ""]),
        ),
        unique=True,
    )
)
def test_exported_files_are_those_of_that_name_in_order(names: list[str]) -> None:
    with a_place() as folder:
        for name in names:
            folder.joinpath(name).touch() if name else None
        ours = [n for n in names if n.startswith("btc2") and n.endswith(".parquet") and "9999" not in n]
        ours = [n for n in ours if ".part0" not in n and ".tmp" not in n]
        found = exported_files(folder, "btc")
        assert sorted(path.name for _, path in found) == sorted(ours)
        assert found == sorted(found, key=lambda item: (item[0].start_ns, item[0].part))
        assert {name.id for name, _ in exported_files(folder)} <= {"btc", "btcx", "b"}


def test_files_that_vanished_since_they_were_seen_are_not_none(tmp_path: Path) -> None:
    """A collector asks because there were some: a folder that is not mounted any more does not tell a seq of 0."""
    assert exported_files(tmp_path / "gone") == []
    with pytest.raises(FileNotFoundError):
        newest_seq(tmp_path / "gone", "btc")


# What those who walk do with what is named.


def test_a_segment_of_another_symbol_is_neither_closed_nor_counted(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config)
    folder = config.spool_dir / "btc"
    stray = make(folder, 3, 900, symbol_id="eth")
    assert seal_left_open(folder, T0 + 3600 * SECOND) == []
    assert info(stray).state == "open"
    periods = Periods.begin(config)
    assert {found.id for found in periods.ours()} == {"btc"}
    assert "'eth' in the folder of 'btc'" in periods.unreadable[stray]


def test_a_copy_of_the_open_period_names_what_may_be_it(tmp_path: Path) -> None:
    config = configure(tmp_path)
    fill(config)
    spool = open_spool(config)
    spool.append(some_frames(9, T0 + 10 * SECOND))
    spool.close()
    (_, path) = segments(config.spool_dir / "btc")[-1]
    path.write_bytes(b"no database" * 999)
    report = export(config, copy_to=tmp_path / "copies")
    assert [failed.segment for failed in report.failures] == [path.name]
    assert report.exit_status == 1


def test_a_move_does_not_guess_the_files_that_it_cannot_see(tmp_path: Path) -> None:
    config = configure(tmp_path)
    config.export_dir.symlink_to(config.export_dir.name)  # a link to itself: refused as a folder of another user is
    moved = Handover("BTC_USDT", 7, "f00d", ("btc2026112120.parquet",), True, "there")
    with pytest.raises(UserError, match="exports"):
        take(config, "btc", moved)
    assert segments(config.spool_dir / "btc") == []
    config.export_dir.unlink()
    assert "goes on here" in take(config, "btc", moved)
