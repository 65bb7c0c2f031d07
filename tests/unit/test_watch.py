"""What the feed keeps an eye on: channels, the clock, the pause before the next try."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.feed.watch import (
    CONFIRM_S,
    DEFAULT_SILENCE_S,
    SILENCE_S,
    Backoff,
    ClockWatch,
    Confirmed,
    Reconnect,
    Resubscribe,
    Stalled,
    Watch,
)

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
    w.data("push.deal", 100 + DEFAULT_SILENCE_S)
    w.data("push.depth.full", 100 + DEFAULT_SILENCE_S)
    assert w.due(99 + DEFAULT_SILENCE_S) == []
    assert w.due(100 + DEFAULT_SILENCE_S) == [Stalled("push.ticker", DEFAULT_SILENCE_S), Resubscribe("push.ticker")]
    assert w.due(101 + DEFAULT_SILENCE_S) == []
    w.data("push.depth.full", 99 + 2 * DEFAULT_SILENCE_S)
    (end,) = w.due(100 + 2 * DEFAULT_SILENCE_S)
    assert isinstance(end, Reconnect)
    assert "push.ticker" in end.reason


def test_a_channel_that_comes_back_can_stall_again() -> None:
    w = watch()
    for channel in CHANNELS:
        w.ack(channel, 100)
    at = 100.0
    for _ in range(3):
        at += DEFAULT_SILENCE_S
        w.data("push.depth.full", at)
        w.data("push.deal", at)
        assert Resubscribe("push.ticker") in w.due(at)
        w.data("push.ticker", at)


def test_silent_deals_never_end_a_connection() -> None:
    w = watch()
    for channel in CHANNELS:
        w.ack(channel, 100)
    for at in range(100, 5000, 10):
        w.data("push.ticker", at)
        w.data("push.depth.full", at)
        actions = w.due(at)
        assert not any(isinstance(a, Reconnect) for a in actions)
        if at == 100 + SILENCE_S["push.deal"]:
            assert Resubscribe("push.deal") in actions


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
