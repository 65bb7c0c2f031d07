"""What the feed keeps an eye on: channels, the clock, the pause before the next try."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.feed.pace import CERTAIN, DEAL, LEARNED, OTHERS, Bounds, Pace
from mexc_pipeline.feed.watch import (
    CONFIRM_S,
    Backoff,
    ClockWatch,
    Confirmed,
    Reconnect,
    Resubscribe,
    Stalled,
    Watch,
)

SILENCE_S = OTHERS.start

CHANNELS = ("push.ticker", "push.deal", "push.depth.full")


def watch(silent_s: float = 1e9) -> Watch:
    return Watch(CHANNELS, silent_s, 100.0)


def test_an_ack_or_data_confirms_once() -> None:
    w = watch()
    assert w.ack("push.ticker", 101) == [Confirmed("push.ticker", "ack")]
    assert w.data("push.ticker", 102) == []
    assert w.data("push.deal", 102) == [Confirmed("push.deal", "data")]
    assert w.ack("push.deal", 103) == []
    assert w.data("push.unknown", 103) == []
    assert w.ack("push.unknown", 103) == []
    status = w.status(104)
    assert status["push.ticker"] == {"confirmed": "ack", "age_s": 2}
    assert status["push.deal"] == {"confirmed": "data", "age_s": 2}
    assert status["push.depth.full"] == {"confirmed": "none", "age_s": None}


def test_an_unanswered_subscription_is_asked_for_again_then_given_up() -> None:
    w = watch()
    for channel in CHANNELS[:2]:
        w.ack(channel, 100)
    assert w.due(100 + CONFIRM_S - 0.1) == []
    assert w.due(100 + CONFIRM_S) == [Resubscribe("push.depth.full")]
    assert w.due(100 + CONFIRM_S + 1) == []
    (end,) = w.due(100 + 2 * CONFIRM_S)
    assert isinstance(end, Reconnect)
    assert "push.depth.full" in end.reason


def test_a_silent_channel_is_stalled_once_then_ends_the_connection() -> None:
    w = watch()
    for channel in CHANNELS:
        w.ack(channel, 100)
    w.data("push.deal", 100 + SILENCE_S)
    w.data("push.depth.full", 100 + SILENCE_S)
    assert w.due(99 + SILENCE_S) == []
    assert w.due(100 + SILENCE_S) == [Stalled("push.ticker", SILENCE_S), Resubscribe("push.ticker")]
    assert w.due(101 + SILENCE_S) == []
    w.data("push.depth.full", 99 + 2 * SILENCE_S)
    (end,) = w.due(100 + 2 * SILENCE_S)
    assert isinstance(end, Reconnect)
    assert "push.ticker" in end.reason


def test_a_channel_that_comes_back_can_stall_again() -> None:
    w = watch()
    for channel in CHANNELS:
        w.ack(channel, 100)
    at = 100.0
    for _ in range(3):
        at += SILENCE_S
        w.data("push.depth.full", at)
        w.data("push.deal", at)
        assert Resubscribe("push.ticker") in w.due(at)
        w.data("push.ticker", at)


def test_deals_that_are_silent_by_nature_never_end_a_connection() -> None:
    w = watch()
    for channel in CHANNELS:
        w.ack(channel, 100)
    for at in range(100, 5000, 10):
        w.data("push.ticker", at)
        w.data("push.depth.full", at)
        actions = w.due(at)
        assert not any(isinstance(a, Reconnect) for a in actions)
        if at == 100 + DEAL.start:
            assert Resubscribe("push.deal") in actions


def learned(channel: str, gaps: list[float]) -> tuple[Watch, float]:
    """A watch whose channel delivered with those gaps, others all the time; the moment of its last frame."""
    w = watch()
    for name in CHANNELS:
        w.ack(name, 100)
    at = 100.0
    w.data(channel, at)
    for gap in gaps:
        at += gap
        assert not any(isinstance(a, Stalled) for a in w.due(at) if getattr(a, "channel", "") == channel)
        for name in CHANNELS:
            w.data(name, at)
    return w, at


def actions(w: Watch, channel: str, at: float, seconds: float) -> list[tuple[float, str]]:
    """What is done about a channel that stays silent while the others deliver: after how long, and what."""
    found: list[tuple[float, str]] = []
    for tenth in range(int(seconds * 10)):
        now = at + tenth / 10
        for name in CHANNELS:
            if name != channel:
                w.data(name, now)
        done = w.due(now)
        found += [(tenth / 10, type(a).__name__) for a in done]
        if any(isinstance(a, Reconnect) for a in done):
            break
    return found


def test_a_busy_channel_is_missed_at_the_floor() -> None:
    w, at = learned("push.depth.full", [0.3] * 100)
    assert actions(w, "push.depth.full", at, 100) == [(30, "Stalled"), (30, "Resubscribe"), (60, "Reconnect")]


def test_a_slow_channel_is_given_its_own_time() -> None:
    w, at = learned("push.ticker", [10.0, 25.0] * 30)
    (stall, _), _, (end, _) = actions(w, "push.ticker", at, 1000)
    assert stall == 300, "twenty times its usual gap would be 350 s; the most is 300"
    assert end == 600


def test_busy_deals_that_end_are_strong_evidence_quiet_ones_are_not() -> None:
    w, at = learned("push.deal", [0.2] * (CERTAIN + 1))
    assert actions(w, "push.deal", at, 1000) == [(120, "Stalled"), (120, "Resubscribe"), (360, "Reconnect")]
    w, at = learned("push.deal", [0.2] * (CERTAIN - 1))
    assert actions(w, "push.deal", at, 1000) == [(120, "Stalled"), (120, "Resubscribe")]


def test_a_pace_outlives_its_connection_and_the_pause_is_not_part_of_it() -> None:
    w, at = learned("push.depth.full", [0.3] * 100)
    again = Watch(CHANNELS, 1e9, at + 3000, w.paces)
    for name in CHANNELS:
        again.ack(name, at + 3001)
        again.data(name, at + 3050)
    assert again.paces["push.depth.full"].longest < 1
    assert again.paces["push.depth.full"].limit(OTHERS) == OTHERS.floor


def test_a_silence_that_was_called_a_stall_is_only_partly_believed() -> None:
    w, at = learned("push.depth.full", [0.3] * 100)
    assert Resubscribe("push.depth.full") in w.due(at + 30)
    w.data("push.depth.full", at + 55)
    assert w.paces["push.depth.full"].limit(OTHERS) == 60, "twice as patient, not four times 55 s"


@given(st.lists(st.floats(0.001, 5000), min_size=1, max_size=200), st.sampled_from([DEAL, OTHERS]))
def test_a_limit_stays_within_its_bounds_and_above_what_was_normal(gaps: list[float], within: Bounds) -> None:
    pace = Pace()
    for n, gap in enumerate(gaps, 1):
        pace.observe(gap)
        limit = pace.limit(within)
        assert within.floor <= limit <= within.most
        if n >= LEARNED:
            assert limit >= min(within.most, 4 * gap)
        else:
            assert limit == within.start


def test_a_market_that_wakes_up_is_watched_more_closely() -> None:
    pace = Pace()
    for _ in range(LEARNED):
        pace.observe(60)
    assert pace.limit(OTHERS) == OTHERS.most
    for _ in range(5 * 3600):
        pace.observe(1.0)
    assert pace.limit(OTHERS) == OTHERS.floor


def test_a_dead_socket_is_given_up() -> None:
    w = watch(silent_s=25)
    for channel in CHANNELS:
        w.ack(channel, 100)
    w.alive(110)
    assert w.due(134) == []
    (end,) = w.due(135)
    assert end == Reconnect("no frame for 25 s")


def test_steps_of_the_clock() -> None:
    c = ClockWatch(1_000_000_000, 0)
    assert c.step_ms(1_000_000_000 + 10**9, 10**9) is None
    assert c.step_ms(1_000_000_000 + 2 * 10**9 + 99 * 10**6, 2 * 10**9) is None
    assert c.step_ms(1_000_000_000 + 10**9, 3 * 10**9) == -2099
    assert c.step_ms(1_000_000_000 + 10**9 + 3600 * 10**9, 3 * 10**9) == 3_600_000
    assert c.step_ms(1_000_000_000 + 2 * 10**9 + 3600 * 10**9, 4 * 10**9) is None


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_pauses_grow_to_the_most_and_begin_again(seed: int, tries: int) -> None:
    backoff = Backoff(random.Random(seed))
    pauses = [backoff.next_s() for _ in range(tries)]
    for n, pause in enumerate(pauses):
        whole = min(30.0, 0.5 * 2.0**n)
        assert whole / 2 <= pause <= whole
    backoff.reset()
    assert backoff.next_s() <= 0.5
