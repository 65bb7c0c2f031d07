"""What the next process goes on from: the version of the book, and the gaps that are still to be repaired."""

from __future__ import annotations

from pathlib import Path

import pytest

from mexc_pipeline.collector import resume
from mexc_pipeline.collector.resume import interrupted, last_version, newest_deals, read_resumption
from mexc_pipeline.exchange.holes import Holes, Unfinished
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.writer import Spool
from support.spools import event

SECOND = 10**9
AT = 1_800_000_000 * SECOND


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A spool folder, which has its symbol's name."""
    (tmp_path / "btc").mkdir()
    return tmp_path / "btc"


def record(folder: Path, *frames: tuple[int, Mt, bytes]) -> None:
    """Frames at seconds from a fixed moment; the length of a period is 2 s."""
    spool = Spool(folder, "btc", "BTC_USDT", Period(2 * SECOND))
    for second, mt, m in frames:
        spool.append([Frame(AT + second * SECOND, None, mt, m)])
    spool.close()


def depth(version: int, channel: str = "push.depth") -> bytes:
    return b'{"channel":"%s","data":{"begin":%d,"end":%d}}' % (channel.encode(), version - 1, version)


def test_the_newest_frame_counts_also_of_an_earlier_segment(tmp_path: Path) -> None:
    record(
        tmp_path,
        (0, Mt.DEPTH, depth(7)),
        (1, Mt.DEPTH, depth(9)),
        (2, Mt.TICKER, b'{"channel":"push.ticker"}'),
        (4, Mt.EVENT, b'{"event":"stopped"}'),
    )
    assert last_version(tmp_path) == 9


def test_nothing_is_known_without_incremental_depth(tmp_path: Path) -> None:
    assert last_version(tmp_path / "none") == 0
    record(tmp_path, *((n, Mt.DEPTH, depth(9 + n, "push.depth.full")) for n in range(6)))
    assert last_version(tmp_path) == 0


def test_incremental_depth_is_found_behind_full_depth_that_came_after_it(tmp_path: Path) -> None:
    """In the same segment, in an earlier one, and behind what is pending."""
    full = [(n, Mt.DEPTH, depth(9 + n, "push.depth.full")) for n in range(1, 6)]
    record(tmp_path, (0, Mt.DEPTH, depth(7)), *full)
    assert last_version(tmp_path) == 7
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append([Frame(AT + 7 * SECOND, None, Mt.DEPTH, depth(30, "push.depth.full"))])
    assert last_version(tmp_path) == 7
    pending.append([Frame(AT + 8 * SECOND, None, Mt.DEPTH, depth(31))])
    pending.append([Frame(AT + 9 * SECOND, None, Mt.DEPTH, depth(33, "push.depth.full"))])
    assert last_version(tmp_path) == 31
    pending.close()


def test_incremental_depth_of_long_ago_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "NEWEST_DEPTH", 4)
    record(tmp_path, (0, Mt.DEPTH, depth(7)), *((n, Mt.DEPTH, depth(9 + n, "push.depth.full")) for n in range(1, 6)))
    assert last_version(tmp_path) == 0


def test_a_segment_that_cannot_be_read_ends_the_search(tmp_path: Path) -> None:
    record(tmp_path, (0, Mt.DEPTH, depth(7)), (2, Mt.DEPTH, depth(9)))
    newest = sorted(tmp_path.glob("*.sqlite"))[-1]
    for path in tmp_path.glob(f"{newest.name}*"):
        path.write_bytes(b"no database" * 1000)
    assert last_version(tmp_path) == 0


def about(name: str, first: int, last: int, channel: str = "push.depth") -> bytes:
    return event(name, **{"channel": channel, "from": first, "to": last, "count": last - first + 1})


def test_gaps_that_nothing_ended_are_taken_up_with_what_was_fetched(tmp_path: Path) -> None:
    record(
        tmp_path,
        (0, Mt.EVENT, about("gap", 3, 5)),
        (0, Mt.EVENT, about("repaired", 3, 4)),
        (0, Mt.EVENT, about("unrepaired", 5, 5)),
        (0, Mt.EVENT, about("gap", 10, 14)),
        (1, Mt.REPAIRED, b'{"version":11,"asks":[]}'),
        (2, Mt.REPAIRED, b'{"version":12,"asks":[]}'),
        (2, Mt.EVENT, about("gap", 20, 20)),
        (2, Mt.EVENT, about("gap", 30, 31, "push.deal")),
        (2, Mt.DEPTH, depth(21)),
        (3, Mt.EVENT, b'{"event":"gap"}'),
    )
    assert interrupted(tmp_path) == [Unfinished(10, 14, (11, 12)), Unfinished(20, 20)]
    assert read_resumption(tmp_path).last_version == 21
    holes = Holes("push.depth")
    for left in interrupted(tmp_path):
        holes.go_on(left)
    assert holes.close("stopped") == [
        (Mt.EVENT, about("repaired", 11, 12)),
        *(
            (Mt.EVENT, about("unrepaired", *span)[:-1] + b',"reason":"stopped"}')
            for span in ((10, 10), (13, 14), (20, 20))
        ),
    ]


def test_after_an_orderly_stop_nothing_is_left(tmp_path: Path) -> None:
    record(tmp_path, (0, Mt.EVENT, about("gap", 3, 5)), (1, Mt.EVENT, about("unrepaired", 3, 5)))
    assert interrupted(tmp_path) == []
    assert interrupted(tmp_path / "none") == []


def deal(number: int, ts: str = "1789498405534", more: str = "") -> bytes:
    text = f'{{"symbol":"BTC_USDT","data":[{{"i":"{number}"{more}}}],"channel":"push.deal","ts":{ts}}}'
    return text.encode()


def test_the_newest_deals_are_known_also_those_whose_ts_is_wrong(tmp_path: Path) -> None:
    record(
        tmp_path,
        (0, Mt.DEAL, deal(1)),
        (1, Mt.DEAD_LETTER, deal(2, ts="0")),
        (1, Mt.DEAD_LETTER, b'{"channel":"push.deal"}'),
        (2, Mt.DEAL, deal(3)),
    )
    assert newest_deals(tmp_path) == [(2, deal(1)), (4, deal(2, ts="0")), (2, deal(3))]
    assert newest_deals(tmp_path / "none") == []


def test_the_newest_deals_are_also_the_pending_ones_once_each(tmp_path: Path) -> None:
    """A kill while pending rows are moved leaves some of them in both places."""
    connected = b'{"event":"connected"}'
    pending = Pending(tmp_path, "BTC_USDT")
    rows = [(Mt.EVENT, connected), (Mt.DEAL, deal(1)), (Mt.TICKER, b"{}"), (Mt.DEAL, deal(2)), (Mt.DEAL, deal(3))]
    pending.append([Frame(AT, None, mt, m) for mt, m in rows[:4]])
    spool = Spool(tmp_path, "btc", "BTC_USDT", Period(2 * SECOND))
    assert pending.move(spool) == 4
    pending.append([Frame(AT, None, mt, m) for mt, m in rows[4:]])
    spool.close()
    pending.close()
    assert newest_deals(tmp_path) == [row for row in rows if row[0] != Mt.TICKER]


def test_what_was_recorded_last_is_known_however_many_segments_it_is_in(tmp_path: Path) -> None:
    """Cuts and short periods make segments of a few rows: two of them were all that was looked at."""
    record(tmp_path, (0, Mt.EVENT, about("gap", 3, 5)), *((2 * n, Mt.DEAL, deal(n)) for n in range(6)))
    assert newest_deals(tmp_path) == [(2, deal(n)) for n in range(6)]
    assert interrupted(tmp_path) == [Unfinished(3, 5)]


def test_a_start_does_not_look_through_more_rows_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "NEWEST_ROWS", 2)
    monkeypatch.setattr(resume, "NEWEST", 4)
    record(tmp_path, *((n, Mt.DEAL, deal(n)) for n in range(12)))
    assert newest_deals(tmp_path) == [(2, deal(n)) for n in range(9, 12)], "the row that seals a segment is one of them"


def test_deals_of_unusual_size_are_not_all_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "NEWEST_BYTES", 5000)
    record(tmp_path, *((0, Mt.DEAL, deal(n, more=',"x":"' + "x" * 1000 + '"')) for n in range(20)))
    assert len(newest_deals(tmp_path)) == 5
    (tmp_path / "short" / "btc").mkdir(parents=True)
    record(
        tmp_path / "short" / "btc", *((2 * n, Mt.DEAL, deal(n, more=',"x":"' + "x" * 1000 + '"')) for n in range(20))
    )
    assert len(newest_deals(tmp_path / "short" / "btc")) == 5, "in all of them"


def test_the_newest_version_may_be_in_a_frame_whose_ts_is_wrong(tmp_path: Path) -> None:
    wrong = b'{"symbol":"BTC_USDT","channel":"push.depth","data":{"begin":8,"end":9},"ts":0}'
    record(tmp_path, (0, Mt.DEPTH, depth(7)), (1, Mt.DEAD_LETTER, wrong), (1, Mt.DEAD_LETTER, b"{}"))
    assert last_version(tmp_path) == 9


def test_trades_that_were_fetched_are_known_and_are_no_versions(tmp_path: Path) -> None:
    """Beside changes of the book, and whatever else a hostile exchange gave as one."""
    trade = b'{"p":1,"v":1,"T":1,"t":1788335242156,"i":"4"}'
    filled = event("filled", channel="push.deal", count=1)
    record(
        tmp_path,
        (0, Mt.EVENT, about("gap", 3, 6)),
        (0, Mt.DEAL, deal(3)),
        (1, Mt.REPAIRED, b'{"version":4,"asks":[]}'),
        (1, Mt.REPAIRED, trade),
        (1, Mt.REPAIRED, trade[:-1] + b',"version":5}'),
        (1, Mt.REPAIRED, b"[]"),
        (2, Mt.EVENT, filled),
        (2, Mt.DEAL, deal(5)),
    )
    assert newest_deals(tmp_path) == [(2, deal(3)), (6, trade), (5, filled), (2, deal(5))]
    assert interrupted(tmp_path) == [Unfinished(3, 6, (4, 5))]
