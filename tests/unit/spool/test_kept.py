"""An open segment's rows are those that arrived, or it is set apart."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.periods import HOUR_NS, Period
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool import writer
from mexc_pipeline.spool.lifecycle import seal_left_open
from mexc_pipeline.spool.walk import in_order
from mexc_pipeline.spool.writer import Spool
from support.examples import examples
from support.spools import written

START = 1_700_000_000_000_000_000 // HOUR_NS * HOUR_NS
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of spools: fsync must cost nothing


def opened(folder: Path, next_rx: int = START) -> Spool:
    return Spool(folder, "btc", "BTC_USDT", Period(HOUR_NS), next_rx=next_rx)


def record(folder: Path, commits: list[int], keep_s: float, rx: int = START) -> Path:
    """Commit that many rows each time; the path of their segment."""
    with mock.patch.object(writer, "KEEP_S", keep_s):
        spool = opened(folder, rx)
        for count in commits:
            spool.append([Frame(rx + n, 1, Mt.TICKER, b'{"lastPrice":1.5}') for n in range(count)])
            rx += count
        spool.close()
    (path,) = folder.glob("*.sqlite")
    return path


def change(path: Path, statement: str) -> bool:
    """Whether that statement changes what the segment holds."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        before = list(db.execute("SELECT * FROM rows ORDER BY seq"))
        db.execute(statement)
        db.commit()
        return list(db.execute("SELECT * FROM rows ORDER BY seq")) != before


CHANGES = st.sampled_from(
    [
        "UPDATE rows SET m = CAST(replace(CAST(m AS TEXT), '1.5', '9.5') AS BLOB) WHERE seq = {n}",
        "UPDATE rows SET rx = rx + 1 WHERE seq = {n}",
        "UPDATE rows SET ts = ts + 1 WHERE seq = {n}",
        "UPDATE rows SET mt = 2 WHERE seq = {n}",
        "DELETE FROM rows WHERE seq >= {n}",
        "DELETE FROM rows WHERE seq = {n}",
        "UPDATE rows SET m = x'7b7d' WHERE seq = {n}",
        "SELECT {n}",
    ]
)


@given(commits=st.lists(st.integers(1, 4), min_size=1, max_size=6), at=st.floats(0, 1, exclude_max=True), what=CHANGES)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rows_that_are_not_those_that_arrived_are_set_apart(commits: list[int], at: float, what: str) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as base:
        folder = Path(base) / "btc"
        folder.mkdir()
        path = record(folder, commits, keep_s=0.0)
        changed = change(path, what.format(n=1 + int(at * sum(commits))))
        again = opened(folder, START + 100)
        again.append([Frame(START + 100, 1, Mt.TICKER, b"{}")])
        again.close()
        assert bool(list(folder.glob("*.damaged-*"))) is changed
        if not changed:
            assert again.last_seq == sum(commits) + 1


@given(commits=st.lists(st.integers(1, 600), min_size=1, max_size=5), keep_s=st.sampled_from([0.0, 0.25, 1e9]))
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_nobody_altered_is_what_arrived(commits: list[int], keep_s: float) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as base:
        folder = Path(base) / "btc"
        folder.mkdir()
        for times in range(2):
            record(folder, commits, keep_s, START + times * sum(commits))
        sealed = seal_left_open(folder, START + HOUR_NS)
        assert [segment.rows for segment in sealed] == [2 * sum(commits) + 1]
        assert not list(folder.glob("*.damaged-*"))


def test_altered_rows_become_no_file_where_nobody_records_any_more(tmp_path: Path) -> None:
    folder = tmp_path / "btc"
    folder.mkdir()
    path = record(folder, [3], keep_s=0.0)
    assert change(path, "UPDATE rows SET ts = 7 WHERE seq = 2")
    assert seal_left_open(folder, START + HOUR_NS) == []
    assert [segment.state for segment in in_order(folder).readable] == ["open"]


@pytest.mark.parametrize("kept", ["7", '{"seq":-1,"rows":0,"digest":""}', '{"seq":1}', "null"])
def test_a_note_that_says_nothing_is_damage_or_none(tmp_path: Path, kept: str) -> None:
    folder = tmp_path / "btc"
    folder.mkdir()
    path = record(folder, [3], keep_s=0.0)
    written(path, "UPDATE meta SET value = ? WHERE key = 'kept'", kept)
    again = opened(folder, START + 100)
    again.close()
    assert bool(again.recovered.set_apart) is (kept != "null")
