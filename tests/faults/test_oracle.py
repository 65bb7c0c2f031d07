"""The campaign's judge can fail: what is lost on purpose is found, whether or not the connection left any row."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from faults.oracle import TAIL_NS, Row, Shown, Verdict, check_frames, check_trades
from faults.shim import Control
from mexc_pipeline.simulator import ConnectionInfo, MadeTrade, SentFrame

T0 = 1_764_000_000_000_000_000
EACH_NS = 100_000_000
SENT = 50


def _frame(n: int) -> bytes:
    frame = {"symbol": "BTC_USDT", "data": {"n": n}, "channel": "push.ticker", "ts": T0 // 10**6 + n}
    return json.dumps(frame, separators=(",", ":")).encode()


def _judged(committed: int | None, end_ns: int) -> Verdict:
    """One connection that broke at ``end_ns`` after its first frame; None: nothing of it was committed."""
    connection = ConnectionInfo(1, "127.0.0.1:5000", T0, closed_ns=T0 + end_ns, end="client (1006)")
    sent = [SentFrame(1, T0 + n * EACH_NS, 1, "BTC_USDT", _frame(n), True) for n in range(SENT)]
    rows = [Row(1, T0, "ev", b'{"event":"connected","local":"127.0.0.1:5000"}')]
    rows += [Row(n + 2, T0 + n * EACH_NS, "t", _frame(n)) for n in range(committed or 0)]
    verdict = Verdict()
    check_frames(rows if committed is not None else [], [connection], sent, "BTC_USDT", verdict)
    return verdict


@pytest.mark.parametrize("committed", [None, 0, 1, SENT // 4])
def test_what_was_sent_longer_before_the_end_than_the_tail_is_lost(committed: int | None) -> None:
    verdict = _judged(committed, SENT * EACH_NS)
    assert verdict.lost == SENT - (committed or 0)
    assert verdict.violations


@pytest.mark.parametrize("committed", [None, 0])
def test_what_was_sent_within_the_tail_is_not(committed: int | None) -> None:
    verdict = _judged(committed, TAIL_NS)
    assert (verdict.lost, verdict.violations, verdict.tail) == (0, [], SENT)


HOUR_NS = 3600 * 10**9


def _timed(offsets: list[int], shown: Shown, stopped: Collection[tuple[int, int]] = ()) -> Verdict:
    """Frames sent each tenth of a second, their rows stamped so much off the true time."""
    sent = [SentFrame(1, T0 + n * EACH_NS, 1, "BTC_USDT", _frame(n), True) for n in range(len(offsets))]
    rows = [Row(1, T0 + offsets[0], "ev", b'{"event":"connected","local":"127.0.0.1:5000"}')]
    rows += [Row(n + 2, T0 + n * EACH_NS + off, "t", _frame(n)) for n, off in enumerate(offsets)]
    verdict = Verdict()
    connection = ConnectionInfo(1, "127.0.0.1:5000", T0)
    check_frames(rows, [connection], sent, "BTC_USDT", verdict, late_ns=EACH_NS // 4, shown=shown, stopped=stopped)
    return verdict


def test_a_row_has_the_time_that_the_recorders_clock_showed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control(tmp_path / "control")
    monkeypatch.setattr("faults.shim.time.time_ns", lambda: T0 + 2 * EACH_NS - EACH_NS // 2)
    control.clock(HOUR_NS)
    assert not _timed([0, 0, HOUR_NS, HOUR_NS], control.shown).violations
    assert _timed([0, 0, 0, HOUR_NS], control.shown).unexplained == 1
    assert _timed([0, HOUR_NS, HOUR_NS, HOUR_NS], control.shown).unexplained == 1
    assert _timed([0, 0, HOUR_NS, HOUR_NS + EACH_NS], control.shown).unexplained == 1


def test_behind_a_clock_set_back_a_little_rows_keep_the_last_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control(tmp_path / "control")
    monkeypatch.setattr("faults.shim.time.time_ns", lambda: T0 + 2 * EACH_NS - EACH_NS // 2)
    control.clock(-30 * 10**9)
    kept = [0, 0, -EACH_NS, -2 * EACH_NS]
    assert not _timed(kept, control.shown).violations
    assert _timed([*kept[:3], -2 * EACH_NS + 1], control.shown).violations
    control.clock(-HOUR_NS)
    assert _timed([*kept, -4 * EACH_NS], control.shown).violations


def test_a_clock_that_runs_away_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control(tmp_path / "control")
    monkeypatch.setattr("faults.shim.time.time_ns", lambda: T0)
    control.clock(0, 500_000_000)
    assert not _timed([n * EACH_NS // 2 for n in range(9)], control.shown).violations
    assert _timed([0] * 9, control.shown).violations


def test_what_was_sent_while_the_process_was_stopped_was_read_when_it_went_on() -> None:
    stopped = [(T0 + EACH_NS // 2, T0 + 10 * EACH_NS)]

    def judged(offsets: list[int], stops: list[tuple[int, int]]) -> list[str]:
        return _timed(offsets, lambda start, end: [(start, end)], stops).violations

    late = [0, 9 * EACH_NS, 8 * EACH_NS]
    assert not judged(late, stopped)
    assert judged(late, []), "without a stop it is late"
    assert judged([*late, 8 * EACH_NS], stopped), "later than when it went on"
    assert judged([0, 9 * EACH_NS], [(T0 + 3 * EACH_NS, T0 + 10 * EACH_NS)]), "sent well before it was stopped"


def _deal(*names: str) -> bytes:
    return json.dumps(
        {"symbol": "BTC_USDT", "data": [{"i": name} for name in names], "channel": "push.deal", "ts": T0 // 10**6}
    ).encode()


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ([(2, ["b"]), (1, ["c"])], 0),
        ([(2, ["b", "c"])], 1),
        ([(4, ["b"])], 1),
        ([], 1),
        ([(3, ["a"])], 1),
    ],
    ids=["right", "too few", "too many", "not at all", "another one"],
)
def test_deals_sent_again_are_held_against_what_was_sent(said: list[tuple[int, list[str]]], wrong: int) -> None:
    frames = [_deal("a", "b"), _deal("b", "c"), _deal("c", "c"), _deal("a")]
    sent = [SentFrame(1, T0 + n, 1, "BTC_USDT", m, True) for n, m in enumerate(frames)]
    rows = [Row(1, T0, "ev", b'{"event":"connected","local":"127.0.0.1:5000"}')]
    rows += [Row(n + 2, T0, "d", m) for n, m in enumerate(frames[:3])]  # the last was not committed any more
    rows += [
        Row(n + 5, T0, "ev", json.dumps({"event": "repeated", "count": count, "ids": ids}).encode())
        for n, (count, ids) in enumerate(said)
    ]
    verdict = Verdict()
    connection = ConnectionInfo(1, "127.0.0.1:5000", T0, closed_ns=T0 + 9, end="client (1006)")
    check_frames(rows, [connection], sent, "BTC_USDT", verdict, repeats=True)
    assert len(verdict.violations) == wrong, verdict.violations


@pytest.mark.parametrize("served", [True, False])
def test_a_specification_is_one_that_was_served_and_frames_are_compared_all_the_same(served: bool) -> None:
    m = b'{"symbol":"BTC_USDT","contractSize":0.0001}'
    sent = [SentFrame(1, T0 + n, 1, "BTC_USDT", _frame(n), True) for n in range(3)]
    rows = [Row(1, T0, "ev", b'{"event":"connected","local":"127.0.0.1:5000"}'), Row(2, T0, "c", m)]
    rows += [Row(n + 3, T0, "t", _frame(n)) for n in range(3)]
    connection = ConnectionInfo(1, "127.0.0.1:5000", T0)

    def judged(rows: list[Row]) -> list[str]:
        verdict = Verdict()
        check_frames(rows, [connection], sent, "BTC_USDT", verdict, served=[m] if served else [m + b" "])
        return verdict.violations

    assert bool(judged(rows)) != served
    assert judged([*rows[:3], rows[4]]), "a frame is missing"
    assert judged([*rows, Row(6, T0, "t", m)]), "of another type it is a frame that nobody sent"


def _trade(number: int) -> bytes:
    return b'{"p":1,"v":1,"T":1,"t":%d,"i":"%d"}' % (T0 // 10**6 + number, number)


@pytest.mark.parametrize(
    ("fetched", "said", "wrong"),
    [
        ([2, 3], [], 0),
        ([2, 3, 3], [], 1),
        ([2, 3, 4], [], 1),
        ([2, 3, 9], [], 1),
        ([2], [], 1),
        ([2], [(3, 4)], 0),
        ([2], [(4, 9)], 1),
    ],
    ids=["right", "twice", "one that came", "never made", "one too few", "and it is said", "and another is said"],
)
def test_fetched_trades_are_held_against_those_that_were_made(
    fetched: list[int], said: list[tuple[int, int]], wrong: int
) -> None:
    made = [MadeTrade(n, T0 // 10**6 + n, _trade(n)) for n in range(6)]
    rows = [Row(1, T0, "d", b'{"data":[%b,%b]}' % (_trade(4), _trade(1))), Row(2, T0, "d", b'{"data":%b}' % _trade(5))]
    rows += [Row(3 + n, T0, "r", _trade(number)) for n, number in enumerate(fetched)]
    events = [("filled", 1, 5), *(("unfilled", *span) for span in said)]
    for name, first, last in events:
        times = {"from": T0 // 10**6 + first, "to": T0 // 10**6 + last}
        rows.append(Row(len(rows) + 1, T0, "ev", json.dumps({"event": name, **times}).encode()))
    verdict = Verdict()
    check_trades(rows, made, verdict, whole=True)
    assert len(verdict.violations) == wrong, verdict.violations
    assert verdict.filled == len(fetched)


@pytest.mark.parametrize(("between", "wrong"), [("connected", 0), ("stalled", 1)])
def test_a_fetched_trade_may_come_again_on_a_later_connection(between: str, wrong: int) -> None:
    """Where the exchange sends its newest once more; what comes on the same connection was only late."""
    made = [MadeTrade(n, T0 // 10**6 + n, _trade(n)) for n in range(3)]
    frames = [
        ("d", b'{"data":[%b,%b]}' % (_trade(0), _trade(2))),
        ("r", _trade(1)),
        ("ev", b'{"event":"%b"}' % between.encode()),
        ("d", b'{"data":[%b,%b]}' % (_trade(1), _trade(2))),
    ]
    verdict = Verdict()
    check_trades([Row(1 + n, T0, *frame) for n, frame in enumerate(frames)], made, verdict)
    assert len(verdict.violations) == wrong, verdict.violations
