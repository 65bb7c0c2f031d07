"""The campaign's judge can fail: what is lost on purpose is found, whether or not the connection left any row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faults.oracle import TAIL_NS, Row, Shown, Verdict, check_frames
from faults.shim import Control
from mexc_pipeline.simulator import ConnectionInfo, SentFrame

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


def _timed(offsets: list[int], shown: Shown) -> Verdict:
    """Frames sent each tenth of a second, their rows stamped so much off the true time."""
    sent = [SentFrame(1, T0 + n * EACH_NS, 1, "BTC_USDT", _frame(n), True) for n in range(len(offsets))]
    rows = [Row(1, T0 + offsets[0], "ev", b'{"event":"connected","local":"127.0.0.1:5000"}')]
    rows += [Row(n + 2, T0 + n * EACH_NS + off, "t", _frame(n)) for n, off in enumerate(offsets)]
    verdict = Verdict()
    connection = ConnectionInfo(1, "127.0.0.1:5000", T0)
    check_frames(rows, [connection], sent, "BTC_USDT", verdict, late_ns=EACH_NS // 4, shown=shown)
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
