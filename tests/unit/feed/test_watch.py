"""What the feed keeps an eye on: channels, the clock, the pause before the next try."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.silence import DEAL, OTHERS, SilenceBounds
from mexc_pipeline.feed.pace import CERTAIN, LEARNED, Pace
from mexc_pipeline.feed.watch import (
    AGAIN_MOST_S,
    AGAIN_S,
    CONFIRM_S,
    DEAD_MOST_S,
    LEAVE_S,
    LISTING_MOST_S,
    QUIET_MOST_S,
    Action,
    ChannelConfirmed,
    ChannelGivenUp,
    ChannelResumed,
    ChannelStalled,
    Memory,
    PingsUnanswered,
    Probe,
    Reconnect,
    Resubscribe,
    Watch,
)
from support.examples import examples

SILENCE_S = OTHERS.start

DAY_S = 86_400.0
CHANNELS = ("push.ticker", "push.deal", "push.depth.full")


def watch(silent_s: float = 1e9) -> Watch:
    return Watch(CHANNELS, silent_s, 100.0)


def test_an_ack_or_data_confirms_once() -> None:
    w = watch()
    assert w.ack("push.ticker", 101) == [ChannelConfirmed("push.ticker", "ack")]
    assert w.data("push.ticker", 102) == []
    assert w.data("push.deal", 102) == [ChannelConfirmed("push.deal", "data")]
    assert w.ack("push.deal", 103) == []
    assert w.data("push.unknown", 103) == []
    assert w.ack("push.unknown", 103) == []
    status = w.status(104)
    assert status["push.ticker"] == {"confirmed": "ack", "age_s": 2}
    assert status["push.deal"] == {"confirmed": "data", "age_s": 2}
    assert status["push.depth.full"] == {"confirmed": "none", "age_s": None}


def flowing(w: Watch, since: float, seconds: float, *silent: str, step: float = 0.5) -> list[tuple[float, Action]]:
    """What is done while every channel but the silent ones delivers; times count from ``since``."""
    found: list[tuple[float, Action]] = []
    for n in range(1, int(seconds / step) + 1):
        now = since + n * step
        w.alive(now)
        for name in CHANNELS:
            if name not in silent:
                w.data(name, now)
        found += [(n * step, action) for action in w.due(now)]
    return found


def of(kind: type[Any], found: list[tuple[float, Action]]) -> list[float]:
    return [at for at, action in found if isinstance(action, kind)]


DEPTH = "push.depth.full"
STEP = "push.depth.step"


def test_a_channel_of_which_nothing_is_known_is_given_up_without_leaving_the_connection() -> None:
    memory = Memory()
    w = Watch((*CHANNELS, STEP, "push.contract"), 25, 0, memory)
    w.ack("push.contract", 0.1)
    found = flowing(w, 0, 3 * LEAVE_S, step=5)
    assert of(Reconnect, found) == []
    (given_up,) = [action for _, action in found if isinstance(action, ChannelGivenUp)]
    assert given_up.channel == STEP
    assert {action.channel for _, action in found if isinstance(action, Resubscribe)} == {STEP}
    assert of(ChannelStalled, found) == [], "a contract may stay as it is for ever"
    (resumed,) = w.data(STEP, 3 * LEAVE_S + 1)
    assert resumed == ChannelResumed(STEP, "data", 3 * LEAVE_S + 1 - 2 * CONFIRM_S)


def test_what_comes_now_and_then_does_not_hide_that_the_market_is_silent() -> None:
    w = Watch(("push.ticker", "push.contract"), 1e9, 0)
    for channel in w.channels:
        w.ack(channel, 0)
        w.data(channel, 1)
    found: list[Action] = []
    for now in range(2, 600):
        w.alive(now)
        found += w.due(now)
        if any(isinstance(action, Reconnect) for action in found):
            break
    assert [type(action) for action in found] == [ChannelStalled, Resubscribe, Reconnect]
    assert isinstance(found[-1], Reconnect)
    assert not found[-1].orderly, "nothing flows that would be worth waiting for"


@pytest.mark.parametrize("gap_s", [25.0, 60.0])
def test_funding_alone_is_no_silence_at_its_own_pace(gap_s: float) -> None:
    w = Watch(("push.funding.rate",), 1e9, 0)
    w.ack("push.funding.rate", 0.1)
    for n in range(1, 200):
        w.alive(n * gap_s)
        assert w.due(n * gap_s) == []
        w.data("push.funding.rate", n * gap_s)


@pytest.mark.slow
def test_an_unanswered_channel_costs_one_connection_then_is_given_up_and_asked_for_for_ever() -> None:
    memory = Memory()
    first = flowing(Watch(CHANNELS, 25, 0, memory), 0, 2 * CONFIRM_S, DEPTH)
    assert first[0] == (CONFIRM_S, Resubscribe(DEPTH))
    (end,) = [a for _, a in first if isinstance(a, Reconnect)]
    assert end.orderly
    assert DEPTH in end.reason

    w = Watch(CHANNELS, 25, 1000, memory)
    found = flowing(w, 1000, 24 * 3600, DEPTH)
    assert not of(Reconnect, found)
    assert of(ChannelGivenUp, found) == [2 * CONFIRM_S]
    asked = of(Resubscribe, found)
    assert asked[:5] == [CONFIRM_S, 80, 200, 440, 920], "20 s, then 1, 2, 4, 8 min later"
    gaps = [b - a for a, b in pairwise(asked)]
    assert max(gaps) == AGAIN_MOST_S
    assert w.status(1000 + 24 * 3600)[DEPTH]["given_up_s"] == 24 * 3600 - 2 * CONFIRM_S
    assert w.ack(DEPTH, 90_000) == [ChannelResumed(DEPTH, "ack", 90_000 - 1020)]
    assert "given_up" not in w.status(90_001)[DEPTH]


@pytest.mark.parametrize(
    "said", ["sub.depth.full is not supported", "Limit is wrong", "Contract [BTC_USDT] not exists"]
)
def test_a_refused_channel_costs_no_connection(said: str) -> None:
    w = Watch(CHANNELS, 25, 0)
    for name in CHANNELS[:2]:
        w.ack(name, 0.1)
    w.refused(said)
    found = flowing(w, 0, CONFIRM_S, DEPTH)
    assert found == [(CONFIRM_S, Resubscribe(DEPTH))]
    w.refused(said)
    found = flowing(w, CONFIRM_S, 600, DEPTH)
    assert found[0] == (0.5, ChannelGivenUp(DEPTH, f"refused: {said}"))
    assert {type(a) for _, a in found[1:]} == {Resubscribe}
    assert w.data(DEPTH, 700) == [ChannelResumed(DEPTH, "data", 700 - CONFIRM_S - 0.5)]


@pytest.mark.parametrize("session_s", [1, 3, 9, 39])
def test_a_refused_channel_is_given_up_once_however_short_the_sessions(session_s: int) -> None:
    memory, found = Memory(), []
    for n in range(20):
        start = 100.0 * n
        w = Watch(CHANNELS, 25, start, memory)
        for name in CHANNELS[:2]:
            w.ack(name, start)
        w.refused("sub.depth.full has ended")
        found += flowing(w, start, session_s, DEPTH)
        if session_s > CONFIRM_S:
            w.refused("sub.depth.full has ended")
            found += flowing(w, start + session_s, 1, DEPTH)
    assert not of(Reconnect, found)
    assert len(of(ChannelGivenUp, found)) == 1
    assert isinstance(w.data(DEPTH, 10_000)[0], ChannelResumed)
    assert not memory.refusals


def test_an_error_that_names_a_channel_is_meant_for_it_and_one_of_a_confirmed_channel_for_nobody() -> None:
    w = Watch(("push.depth", "push.depth.full", "push.deal"), 25, 0)
    w.ack("push.deal", 0.1)
    w.refused("sub.depth.full: no more")
    w.refused("sub.deal: later")
    w.memory.left_at = 0
    w.data("push.deal", 19)
    given_up = {a.channel: a.reason for a in w.due(2 * CONFIRM_S) if isinstance(a, ChannelGivenUp)}
    assert given_up == {
        "push.depth": "neither confirmed nor delivered within 20 s",
        "push.depth.full": "refused: sub.depth.full: no more",
    }


def test_errors_without_a_name_go_by_the_order_of_the_requests() -> None:
    w = Watch(CHANNELS, 25, 0)
    w.refused("no")
    w.refused("no")
    w.ack(DEPTH, 0.2)
    found = flowing(w, 0, 2 * CONFIRM_S, *CHANNELS[:2])
    assert {a.channel for _, a in found if isinstance(a, ChannelGivenUp)} == set(CHANNELS[:2])
    assert not of(Reconnect, found)


def test_a_contract_that_is_not_listed_is_asked_for_at_least_each_five_minutes() -> None:
    w = Watch(CHANNELS, 25, 0)
    w.refused("Contract [BTC_USDT] not exists")
    assert w.unlisted
    found = flowing(w, 0, 7200, *CHANNELS)
    assert not of(Reconnect, found), "the socket is alive and has answered"
    asked = [at for at, a in found if a == Resubscribe(DEPTH)]
    assert max(b - a for a, b in pairwise(asked)) == LISTING_MOST_S
    w.ack(DEPTH, 7300)
    assert not w.unlisted


def _left(w: Watch, since: float, until: float) -> float | None:
    """When a connection is left on which only pongs come."""
    now = since
    while now < until:
        now += 1.0
        w.alive(now)
        if any(isinstance(action, Reconnect) for action in w.due(now)):
            return now
    return None


@pytest.mark.parametrize("said", ["Contract [BTC_USDT] not exists", "service in maintenance"])
@pytest.mark.parametrize("addresses", [2, 3, 5])
def test_each_address_has_its_turn_at_once_where_one_refuses_all_then_with_growing_patience(
    said: str, addresses: int
) -> None:
    memory, now, left = Memory(), 100.0, []
    while now < 100 + 12 * 3600:
        w = Watch(CHANNELS, 25, now, memory, addresses)
        for _ in CHANNELS:
            for _ in CHANNELS:
                w.refused(said)
        end = _left(w, now, 100 + 12 * 3600)
        if end is None:
            break
        left.append(end - now)
        now = end
    assert left[:addresses] == [1.0] * addresses, "the first round passes at once"
    waits = [wait for wait in left[addresses:] if wait > 1]
    assert waits == sorted(waits)
    assert 58 <= waits[0] <= 60
    assert QUIET_MOST_S - addresses <= waits[-1] <= QUIET_MOST_S
    assert len(left) < 20 * addresses


@pytest.mark.parametrize("channel", CHANNELS)
@given(words=st.text(min_size=1, max_size=20).filter(lambda text: "not exist" not in text))
def test_an_answer_in_unknown_words_is_neither_yes_nor_no_and_data_decide(channel: str, words: str) -> None:
    memory = Memory()
    w = Watch(CHANNELS, 25, 0, memory)
    for name in CHANNELS:
        if name != channel:
            w.ack(name, 0.1)
    w.answered(channel, words)
    limit = memory.limit(channel)
    found = flowing(w, 0, limit - 1, channel, step=1)
    assert not of(Reconnect, found)
    assert not of(ChannelGivenUp, found), "it has its usual pace to show data in"
    assert w.status(limit)[channel]["answered"] == words
    assert w.status(limit)[channel]["confirmed"] == "none"
    assert w.data(channel, limit - 0.5) == [ChannelConfirmed(channel, "data")]
    assert "answered" not in w.status(limit)[channel]

    w = Watch(CHANNELS, 25, 0, Memory(left_at=0.0))
    w.answered(channel, words)
    found = flowing(w, 0, limit, channel, step=1)
    assert not of(Reconnect, found)
    (lost,) = [action for _, action in found if isinstance(action, ChannelGivenUp)]
    assert f"answered by: {words}" in lost.reason


def test_a_connection_that_answers_only_in_unknown_words_is_left_with_growing_patience() -> None:
    memory, now, left = Memory(), 0.0, []
    while now < 6 * 3600:
        w = Watch(CHANNELS, 25, now, memory)
        for name in CHANNELS:
            w.answered(name, "maintenance")
        end = _left(w, now, 6 * 3600)
        if end is None:
            break
        left.append(end - now)
        now = end
    assert 3 < len(left) < 14, left
    assert left == sorted(left)


def test_a_service_that_refuses_everything_for_hours_is_asked_each_minute_and_left_with_growing_patience() -> None:
    memory, now, left, asked = Memory(), 100.0, [], []
    for _ in range(20):
        w = Watch(CHANNELS, 1e9, now, memory)
        for _ in range(20):
            w.refused("service in maintenance")
        while now < 100 + 4 * 3600:
            now += 1.0
            actions = w.due(now)
            asked += [now for action in actions if isinstance(action, Resubscribe)]
            if any(isinstance(action, Reconnect) for action in actions):
                left.append(now)
                break
    assert 3 < len(left) < 12
    assert left[0] - 100 <= 2 * CONFIRM_S
    assert all(after - before <= AGAIN_S + 1 for before, after in pairwise(sorted({100.0, *left, *asked, now})))


@pytest.mark.parametrize("addresses", [1, 3])
def test_a_socket_that_answers_nothing_is_left_with_patience_that_grows_a_little(addresses: int) -> None:
    memory, now = Memory(), 0.0
    for times in (1, 2, 4, 4, 4):
        for _ in range(addresses):
            w = Watch(CHANNELS, 25, now, memory, addresses)
            end = _left(w, now, now + 1000)
            assert end == now + times * 2 * CONFIRM_S
            now = end
    w = Watch(CHANNELS, 25, now, memory, addresses)
    w.ack(DEPTH, now)
    w = Watch(CHANNELS, 25, now, memory, addresses)
    assert _left(w, now, now + 1000) == now + 2 * CONFIRM_S


def _left_with_notices(w: Watch, now: float, until: float, *, for_another: bool = True) -> float | None:
    """When a connection is left over which only a frame that nobody asked for comes each 10 s: for another address, or
    in order, by which the same one is kept."""
    while now < until:
        now += 1.0
        w.alive(now)
        w.pong()
        if now % 10 == 0:
            w.unknown(now)
        for action in w.due(now):
            if isinstance(action, Reconnect) and not (action.orderly and for_another):
                return now
    return None


@pytest.mark.parametrize("acks", [True, False])
@pytest.mark.parametrize("addresses", [1, 2, 3])
def test_each_address_that_says_other_things_than_was_asked_for_has_its_turn(addresses: int, acks: bool) -> None:
    memory, now = Memory(), 0.0
    for _ in range(addresses - 1):
        w = Watch(CHANNELS, 25, now, memory, addresses)
        for name in CHANNELS if acks else ():
            w.ack(name, now)
        end = _left_with_notices(w, now, now + 300)
        assert end is not None, "another may serve"
        now = end
    last, left = now, []
    while now < last + DAY_S:
        w = Watch(CHANNELS, 25, now, memory, addresses)
        for name in CHANNELS if acks else ():
            w.ack(name, now)
        end = _left_with_notices(w, now, last + DAY_S, for_another=False)
        if end is None:
            break
        left.append(end)
        now = end
    assert len(left) <= 26 * addresses, "none of them serves: what comes may be the market under other names"


def test_an_address_that_served_and_says_other_things_now_is_left_for_another() -> None:
    memory = Memory()
    w = Watch(CHANNELS, 25, 0.0, memory, 2)
    for n in range(1000):
        for name in CHANNELS:
            w.data(name, float(n))
    assert _left_with_notices(w, 1000.0, 1400.0) is not None


@pytest.mark.parametrize("late_s", [9, 19, 30, 39, 75])
@pytest.mark.parametrize("late", [CHANNELS, CHANNELS[:2], (DEPTH,)])
@pytest.mark.parametrize("acks", [True, False])
def test_an_exchange_that_is_slow_to_answer_is_waited_for(late_s: float, late: tuple[str, ...], acks: bool) -> None:
    """Answers and data of these channels begin so long after each connection is made."""
    memory, start, now, left = Memory(), 0.0, 0.0, []
    w = Watch(CHANNELS, 25, start, memory)
    while now < 3600:
        now += 1.0
        w.alive(now)
        for name in CHANNELS:
            if name not in late or now - start >= late_s:
                if acks:
                    w.ack(name, now)
                w.data(name, now)
        if any(isinstance(action, Reconnect) for action in w.due(now)):
            left.append(now)
            start = now
            w = Watch(CHANNELS, 25, start, memory)
    assert len(left) <= (2 if late == CHANNELS else 1)
    assert all(w.status(now)[name]["age_s"] == 0 for name in CHANNELS)
    assert not memory.lost


def test_frames_of_an_unknown_kind_are_life() -> None:
    w = Watch(CHANNELS, 25, 0)
    w.memory.left_at = -1.0
    for n in range(1, 10_000):
        w.unknown(n)
        w.alive(n)
        assert not [a for a in w.due(n) if isinstance(a, Reconnect)]
    assert set(w.memory.lost) == set(CHANNELS)


def test_a_channel_that_goes_silent_for_good_ends_one_connection() -> None:
    memory = Memory()
    first = Watch(CHANNELS, 25, 0, memory)
    flowing(first, 0, 2000, step=1)
    found = flowing(first, 2000, 2 * OTHERS.floor, DEPTH, step=1)
    assert of(ChannelStalled, found) == [OTHERS.floor]
    assert of(Reconnect, found) == [2 * OTHERS.floor]
    w = Watch(CHANNELS, 25, 3000, memory)
    w.ack(DEPTH, 3000)
    found = flowing(w, 3000, 6 * 3600, DEPTH, step=1)
    assert not of(Reconnect, found), "it was tried before, without effect"
    assert len(of(ChannelGivenUp, found)) == 1
    assert w.ack(DEPTH, 30_000) == [], "an answer is not data"
    assert isinstance(w.data(DEPTH, 30_001)[0], ChannelResumed)
    assert not memory.tried


def test_a_channel_that_comes_and_goes_ends_one_connection_an_hour_at_most() -> None:
    memory = Memory()
    w, left = Watch(CHANNELS, 25, 0, memory), []
    for n in range(1, 6 * 3600):
        for name in CHANNELS[:2]:
            w.data(name, n)
        if n % 1000 < 300:
            w.data(DEPTH, n)
        w.alive(n)
        if any(isinstance(a, Reconnect) for a in w.due(n)):
            left.append(n)
            w = Watch(CHANNELS, 25, n, memory)
    assert 4 <= len(left) <= 6
    assert all(b - a >= LEAVE_S for a, b in pairwise(left))


def test_a_market_that_rests_is_looked_at_with_growing_patience() -> None:
    memory = Memory()
    w, left = Watch(CHANNELS, 25, 0, memory), []
    for name in CHANNELS:
        w.ack(name, 0)
    for n in range(1, 48 * 3600, 5):
        w.alive(n)
        if any(isinstance(a, Reconnect) for a in w.due(n)):
            left.append(n)
            w = Watch(CHANNELS, 25, n, memory)
            for name in CHANNELS:
                w.ack(name, n)
    assert left[0] == pytest.approx(2 * SILENCE_S, abs=5)
    gaps = [b - a for a, b in pairwise(left)]
    assert gaps == sorted(gaps)
    assert QUIET_MOST_S <= gaps[-1] <= QUIET_MOST_S + 5
    assert set(memory.lost) >= {"push.ticker", DEPTH}
    resumed = w.data("push.ticker", 48 * 3600)
    assert isinstance(resumed[0], ChannelResumed)
    assert memory.quiet_s == QUIET_MOST_S, "one frame is what a market that rests delivers"
    for n in range(0, 86_400 + 20, 20):
        w.data("push.ticker", 48 * 3600 + n)
    assert memory.quiet_s == 0, "a day of them is not"


def lived(
    frames: Iterable[tuple[float, str]], seconds: float, *, acks: bool = True, addresses: int = 1, step: float = 10.0
) -> tuple[list[float], list[Action]]:
    """When connections are left, and all that is done, where these frames come (at, channel) and every ping is
    answered; each connection is followed by the next at once."""
    memory, now, left, done = Memory(), 0.0, [], []

    def another() -> Watch:
        made = Watch(CHANNELS, 25, now, memory, addresses)
        for name in CHANNELS if acks else ():
            done.extend(made.ack(name, now))
        return made

    w = another()
    coming = iter([*frames, (seconds, "")])
    at, channel = next(coming)
    while now < seconds:
        now = min(now + step, at)
        w.alive(now)
        while at <= now < seconds:
            done += w.data(channel, now)
            at, channel = next(coming)
        found = w.due(now)
        done += found
        if any(isinstance(action, Reconnect) for action in found):
            left.append(now)
            w = another()
    return left, done


FEW = 7
"""Connections that are left for silence before the patience for it is an hour."""


@st.composite
def rhythms(draw: st.DrawFn, least_s: float) -> list[tuple[float, str]]:
    """A day of frames, whose gaps change from one stretch to the next: seconds to hours, even, random or in bursts."""
    rng, now, found = random.Random(draw(st.integers(0, 1 << 32))), 0.0, []
    stretches = st.tuples(
        st.floats(math.log10(least_s), 4.1), st.sampled_from([1.0, 1.5, 5.0]), st.integers(1, 10), st.floats(0.1, 12)
    )
    for usual, spread, burst, hours in draw(st.lists(stretches, min_size=1, max_size=6)):
        until = now + hours * 3600
        while now < min(until, DAY_S):
            now += 10**usual * spread ** rng.uniform(-1, 1)
            for _ in range(burst):
                names = rng.choice([CHANNELS, CHANNELS[:1], CHANNELS[1:2], (DEPTH,)])
                found += [(now, name) for name in names]
    return [frame for frame in found if frame[0] < DAY_S]


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(rhythms(2.0), st.sampled_from([1, 1, 3]))
def test_whatever_the_rhythm_connections_left_for_silence_are_few_and_then_one_an_hour(
    frames: list[tuple[float, str]], addresses: int
) -> None:
    left, _ = lived(frames, DAY_S, addresses=addresses)
    few = FEW + addresses  # one of them for the sake of a single channel
    for n, first in enumerate(left):
        for m, last in enumerate(left[n:], 1):
            assert m <= few + (last - first) / LEAVE_S


def _slow(gap_s: float, spread: float) -> list[tuple[float, str]]:
    """A day of frames of all channels with gaps of about that."""
    rng, now, found = random.Random(gap_s), 0.0, []
    while now < DAY_S:
        now += gap_s * spread ** rng.uniform(-1, 1)
        found += [(now, name) for name in CHANNELS]
    return found


@pytest.mark.parametrize("addresses", [1, 3])
@pytest.mark.parametrize("spread", [1.0, 1.4])
@pytest.mark.parametrize("gap_s", [45, 70, 130, 240, 365, 590, 900, 1900, 3700, 9000])
def test_a_market_that_delivers_rarely_keeps_its_connection(gap_s: int, spread: float, addresses: int) -> None:
    left, _ = lived(_slow(gap_s, spread), DAY_S, addresses=addresses)
    assert sum(at < LEAVE_S for at in left) <= FEW + addresses - 1
    assert all(b - a >= LEAVE_S - 1 for a, b in pairwise(left[FEW + addresses - 2 :])), "the patience has grown"
    if gap_s <= 365:
        assert all(at < 6 * LEAVE_S for at in left), "by then its pace is known"


@pytest.mark.parametrize("gap_s", [45, 130, 365, 900])
def test_so_it_does_where_subscriptions_are_not_answered(gap_s: int) -> None:
    left, _ = lived(_slow(gap_s, 1.4), DAY_S, acks=False)
    later = [at for at in left if at > 1.4 * gap_s]  # before the first frame it might be a socket that does nothing
    assert len(later) <= FEW + 24
    assert all(b - a >= LEAVE_S - 1 for a, b in pairwise(later[FEW:]))


def test_a_market_that_is_dead_is_noticed_and_said() -> None:
    left, done = lived([], DAY_S)
    assert left[0] == 2 * SILENCE_S
    assert FEW <= len(left) <= FEW + 24
    assert {a.channel for a in done if isinstance(a, ChannelStalled)} == set(CHANNELS)
    assert {a.channel for a in done if isinstance(a, ChannelGivenUp)} >= {"push.ticker", DEPTH}
    assert sum(isinstance(a, Resubscribe) for a in done) > 24 * 60, "asked for each minute"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["data", "data", "ack", "refused", "named", "wait", "unknown", "pong"]),
            st.sampled_from(CHANNELS),
            st.floats(0.01, 400),
        ),
        max_size=300,
    )
)
def test_whatever_the_channels_do_one_that_delivers_keeps_its_connection(steps: list[tuple[str, str, float]]) -> None:
    """Tickers flow all the time; whatever else comes, they lose their connection once an hour at most."""
    memory = Memory()
    now = 0.0
    w = Watch(CHANNELS, 1e9, now, memory)
    w.ack("push.ticker", now)
    left: list[float] = []
    for what, channel, wait in steps:
        until = now + wait
        while now < until:
            now = min(until, now + 5)
            w.data("push.ticker", now)
            if any(isinstance(a, Reconnect) for a in w.due(now)):
                left.append(now)
                w = Watch(CHANNELS, 1e9, now, memory)
                w.data("push.ticker", now)
        match what:
            case "data":
                w.data(channel, now)
            case "ack":
                w.ack(channel, now)
            case "refused":
                w.refused("no")
            case "named":
                w.refused(f"{channel} has ended")
            case "unknown":
                w.unknown(now)
            case "pong":
                w.alive(now)
    assert all(b - a >= LEAVE_S for a, b in pairwise(left))


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
        assert not any(isinstance(a, ChannelStalled) for a in w.due(at) if getattr(a, "channel", "") == channel)
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
    assert actions(w, "push.depth.full", at, 100) == [(30, "ChannelStalled"), (30, "Resubscribe"), (60, "Reconnect")]


def test_a_slow_channel_is_given_its_own_time() -> None:
    w, at = learned("push.ticker", [10.0, 25.0] * 30)
    found = actions(w, "push.ticker", at, 1000)
    stall, end = found[0][0], found[-1][0]
    assert stall == 300, "twenty times its usual gap would be 350 s; the most is 300"
    assert end == 600


def test_busy_deals_that_end_are_strong_evidence_quiet_ones_are_not() -> None:
    w, at = learned("push.deal", [0.2] * (CERTAIN + 1))
    found = actions(w, "push.deal", at, 1000)
    assert (found[0], found[-1]) == ((120, "ChannelStalled"), (360, "Reconnect"))
    w, at = learned("push.deal", [0.2] * (CERTAIN - 1))
    assert {what for _, what in actions(w, "push.deal", at, 1000)} == {"ChannelStalled", "Resubscribe"}


def test_a_pace_outlives_its_connection_and_the_pause_is_not_part_of_it() -> None:
    w, at = learned("push.depth.full", [0.3] * 100)
    again = Watch(CHANNELS, 1e9, at + 3000, w.memory)
    for name in CHANNELS:
        again.ack(name, at + 3001)
        again.data(name, at + 3050)
    assert again.memory.paces["push.depth.full"].longest < 1
    assert again.memory.paces["push.depth.full"].limit(OTHERS) == OTHERS.floor


def test_a_silence_that_was_called_a_stall_is_only_partly_believed() -> None:
    w, at = learned("push.depth.full", [0.3] * 100)
    assert Resubscribe("push.depth.full") in w.due(at + 30)
    w.data("push.depth.full", at + 55)
    assert w.memory.paces["push.depth.full"].limit(OTHERS) == 60, "twice as patient, not four times 55 s"


@given(st.lists(st.floats(0.001, 5000), min_size=1, max_size=200), st.sampled_from([DEAL, OTHERS]))
def test_a_limit_stays_within_its_bounds_and_above_what_was_normal(gaps: list[float], within: SilenceBounds) -> None:
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
    assert w.due(124) == []
    assert w.due(125) == [Probe()], "no ping was answered: it is asked as the protocol has it"
    assert w.due(134) == []
    (end,) = w.due(135)
    assert end == Reconnect("no frame for 25 s")


def heard(
    gap_s: float, hours: float, memory: Memory, *, probes: bool
) -> tuple[list[float], list[Action], Watch, float]:
    """When connections are left, where all channels deliver with that gap, subscriptions are acknowledged, and the
    exchange's own pings are not answered; whether those of the protocol are."""
    left, done, now, next_ping, at = [], [], 0.0, 0.0, gap_s
    w = Watch(CHANNELS, 25, now, memory)
    while now < hours * 3600:
        if now >= next_ping:
            w.pinged(now)
            next_ping = now + 15
        now += 1.0
        if now - w.started == 1.0:
            w.alive(now)
            for name in CHANNELS:
                w.ack(name, now)
        if now >= at:
            at += gap_s
            w.alive(now)
            for name in CHANNELS:
                w.data(name, now)
        found = w.due(now)
        done += found
        if Probe() in found and probes:
            w.alive(now)
            w.probe_answered()
        if any(isinstance(action, Reconnect) for action in found):
            left.append(now)
            w = Watch(CHANNELS, 25, now, memory)
            next_ping = now
    return left, done, w, now


@pytest.mark.parametrize("gap_s", [0.5, 12, 26, 30, 55])
@pytest.mark.parametrize("probes", [True, False])
def test_a_market_that_delivers_keeps_its_connection_where_pings_are_not_answered(gap_s: float, probes: bool) -> None:
    left, done, w, now = heard(gap_s, 6, Memory(), probes=probes)
    assert len(left) <= (0 if probes else 2)
    assert done.count(PingsUnanswered()) == 1, "said once"
    assert (Probe() in done) == (gap_s > 15)
    until = now + 2 * DEAD_MOST_S
    while not any(isinstance(action, Reconnect) for action in w.due(now)):
        now += 1.0
        assert now < until, "a dead socket is noticed all the same"
    assert now <= until - DEAD_MOST_S


@pytest.mark.parametrize("gap_s", [100, 130, 240, 365, 590])
@pytest.mark.parametrize("probes", [True, False])
def test_so_does_one_that_delivers_rarely(gap_s: float, probes: bool) -> None:
    left, done, *_ = heard(gap_s, 24, Memory(), probes=probes)
    assert len(left) <= FEW + (0 if probes else 6)
    assert all(at < 6 * LEAVE_S for at in left), "by then its pace is known"
    assert done.count(PingsUnanswered()) == 1


def test_a_socket_whose_pings_were_answered_is_dead_without_them_and_not_asked_by_the_protocol() -> None:
    w = watch(silent_s=25)
    for channel in CHANNELS:
        w.ack(channel, 100)
    w.memory.unheard = 5
    w.pinged(100)
    w.alive(100.1)
    w.pong()
    assert w.due(125) == []
    assert w.due(125.1) == [Reconnect("no frame for 25 s")]
    assert w.memory.unheard == 0


def test_a_socket_that_is_dead_from_the_first_moment_is_given_up_however_the_pings_are_answered() -> None:
    w = Watch(CHANNELS, 25, 100, Memory(unanswered=True, unanswered_said=True, unheard=9))
    assert Reconnect("no frame for 25 s") not in w.due(124)
    assert w.due(125) == [Reconnect("no frame for 25 s")]
