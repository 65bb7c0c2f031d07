"""The campaign's judge can fail: what is lost on purpose is found, whether or not the connection left any row."""

from __future__ import annotations

import json

import pytest

from faults.oracle import TAIL_NS, Row, Verdict, check_frames
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
