"""The contract's specification in every segment: near its beginning, once for each change, and never by itself."""

from __future__ import annotations

import sqlite3
import tempfile
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.events import Stopped
from mexc_pipeline.periods import SECOND_NS, Period
from mexc_pipeline.rows import Columns, Frame, Mt
from mexc_pipeline.spool.lifecycle import Tally
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.segment import info
from mexc_pipeline.spool.writer import Spool
from support.examples import examples
from support.spooled import Segment, check, read_segments

T0 = 2_000_001_600 * SECOND_NS
PERIOD = Period(10 * SECOND_NS)
A, B = b'{"symbol":"BTC_USDT","contractSize":0.0001}', b'{"symbol":"BTC_USDT","contractSize":0.001}'


def opened(folder: Path) -> Spool:
    return Spool(folder, "btc", "BTC_USDT", PERIOD, next_rx=T0)


def put(spool: Spool, at_s: float, *texts: bytes, mt: int = Mt.TICKER) -> None:
    frames = [Frame(T0 + int(at_s * SECOND_NS) + n, None, mt, text) for n, text in enumerate(texts)]
    while frames:
        frames = frames[len(spool.append(frames)) :]


def texts(segment: Segment) -> list[bytes]:
    return [row.m for row in segment.rows if not row.m.startswith(b'{"event":"sealed"')]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "btc").mkdir()
    return tmp_path / "btc"


def test_each_segment_has_it_behind_its_first_row_and_again_where_it_changed(folder: Path) -> None:
    spool = opened(folder)
    put(spool, 0, b"1")
    spool.contract = A
    put(spool, 1, b"2", b"3")
    put(spool, 2, b"4")
    put(spool, 10, b"5", b"6")
    spool.contract = bytes(bytearray(A))
    put(spool, 11, b"7")
    spool.contract = B
    put(spool, 12, b"8")
    put(spool, 20, b"9")
    spool.contract = None
    put(spool, 30, b"10")
    spool.close()
    check(folder)
    found = read_segments(folder)
    assert [texts(segment) for segment in found] == [
        [b"1", b"2", b"3", A, b"4"],
        [b"5", A, b"6", b"7", b"8", B],
        [b"9", B],
        [b"10"],
    ]
    assert all(row.mt == (Mt.CONTRACT if row.m in (A, B) else Mt.TICKER) for s in found for row in s.rows[:-1])
    assert [info(folder / segment.file).contract_seq for segment in found[:3]] == [4, 12, 15]


def test_rows_that_are_told_of_are_those_that_were_written(folder: Path) -> None:
    spool = opened(folder)
    spool.contract = A
    put(spool, 0, b"1")
    put(spool, 10, b"2")
    (first, second) = spool.described()
    assert (first.seq, second.seq, first.m, first.mt) == ([2], [5], [A], [Mt.CONTRACT])
    assert spool.described() == []
    spool.close()


def test_at_once_means_into_the_open_segment_and_no_other(folder: Path) -> None:
    spool = opened(folder)
    spool.contract = A
    spool.describe(T0)
    assert not list(folder.glob("*.sqlite")), "by itself it makes none"
    put(spool, 1, b"1")
    spool.contract = B
    spool.describe(T0)
    assert spool.last_seq == 2, "the time has gone by"
    spool.describe(T0 + 10 * SECOND_NS)
    assert spool.last_seq == 2, "of the next period"
    spool.describe(T0 + 5 * SECOND_NS)
    spool.describe(T0 + 6 * SECOND_NS)
    spool.close()
    (segment,) = read_segments(folder)
    assert [(row.m, (row.rx - T0) // SECOND_NS) for row in segment.rows] == [(b"1", 1), (A, 1), (B, 5)]


def test_an_orderly_end_stays_the_last_row(folder: Path) -> None:
    spool = opened(folder)
    spool.contract = A
    put(spool, 1, Stopped().m, mt=Mt.EVENT)
    spool.describe(T0 + 2 * SECOND_NS)
    spool.close()
    spool = opened(folder)
    assert spool.clean
    spool.contract = A
    put(spool, 3, b'{"event":"started"}', mt=Mt.EVENT)
    spool.close()
    (segment,) = read_segments(folder)
    assert texts(segment) == [Stopped().m, b'{"event":"started"}', A]


def test_a_start_knows_what_the_open_segment_has(folder: Path) -> None:
    spool = opened(folder)
    spool.contract = A
    put(spool, 1, b"1")
    spool.close()
    spool = opened(folder)
    spool.contract = A
    put(spool, 2, b"2")
    spool.contract = B
    put(spool, 3, b"3")
    spool.close()
    (segment,) = read_segments(folder)
    assert texts(segment) == [b"1", A, b"2", b"3", B]


def test_pending_rows_of_several_periods_are_given_it_in_each(folder: Path) -> None:
    pending = Pending(folder, "BTC_USDT")
    pending.append([Frame(T0 + n * 4 * SECOND_NS, None, Mt.TICKER, b"%d" % n) for n in range(6)])
    spool = opened(folder)
    spool.contract = A
    while pending.move(spool):
        pass
    pending.remove()
    spool.close()
    check(folder)
    assert [texts(s) for s in read_segments(folder)] == [[b"0", A, b"1", b"2"], [b"3", A, b"4"], [b"5", A]]


def test_a_disk_that_refuses_it_loses_no_row_and_gets_it_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(folder)
    real, full = spool._commit, [True]

    def commit(block: Columns, moved: tuple[str, int] | None) -> None:
        if full[0] and block.mt == [Mt.CONTRACT]:
            raise sqlite3.OperationalError("database or disk is full")
        real(block, moved)

    monkeypatch.setattr(spool, "_commit", commit)
    spool.contract = A
    put(spool, 1, b"1")
    put(spool, 2, b"2")
    full[0] = False
    put(spool, 3, b"3")
    spool.close()
    check(folder)
    (segment,) = read_segments(folder)
    assert texts(segment) == [b"1", b"2", b"3", A]


STEPS = st.lists(
    st.one_of(
        st.sampled_from([A, B, None]),
        st.sampled_from(["describe", "cut", "tick", "restart"]),
        st.floats(0, 12),
    ),
    max_size=30,
)


@settings(max_examples=examples(60), deadline=None)
@given(STEPS)
def test_whatever_happens_there_is_one_for_each_change_and_never_one_alone(
    steps: list[bytes | str | float | None],
) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "btc"
        folder.mkdir()
        spool, now, n, contract = opened(folder), 0.0, 0, None
        for step in steps:
            at = T0 + int(now * SECOND_NS)
            match step:
                case "describe":
                    spool.describe(at)
                case "cut":
                    spool.cut(at)
                case "tick":
                    spool.tick(at)
                case "restart":
                    spool.close()
                    spool = opened(folder)
                case float():
                    now += step
                    n += 1
                    put(spool, now, b"%d" % n)
                case None | bytes():
                    contract = step
            spool.contract = contract
        spool.close()
        rows = check(folder)
        assert [row.m for row in rows if row.mt == Mt.TICKER] == [b"%d" % k for k in range(1, n + 1)]
        for segment in read_segments(folder):
            told = [row.m for row in segment.rows if row.mt == Mt.CONTRACT]
            assert all(a != b for a, b in pairwise(told)), "once for each change"
            assert segment.rows[0].mt == Mt.TICKER
            assert segment.meta["state"] == "open" or segment.meta.get("contract_seq", 0) == max(
                (row.seq for row in segment.rows if row.mt == Mt.CONTRACT), default=0
            )


@given(st.lists(st.sampled_from([Mt.TICKER, Mt.CONTRACT, Mt.EVENT])), st.integers(1, 5))
def test_a_tally_knows_the_newest(mts: list[Mt], size: int) -> None:
    rows = [(n + 1, n, n, mt, b"%d" % n) for n, mt in enumerate(mts)]
    tally = Tally()
    for _, group in groupby(enumerate(rows), key=lambda item: item[0] // size):
        tally.add(Columns.of(row for _, row in group))
    newest = max((row[0] for row in rows if row[3] == Mt.CONTRACT), default=0)
    assert (tally.contract_seq, tally.contract) == (newest, b"%d" % (newest - 1) if newest else b"")
    assert tally.copy().contract_seq == newest
