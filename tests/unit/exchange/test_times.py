"""The exchange's times in its frames: what persists and cannot be is said, in each segment, until it has ended; a wrong
clock of this host, one odd frame and what a connection begins with are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.events import Mistimed
from mexc_pipeline.exchange.channels import CONTRACT, DEAL, FUNDING, TICKER, channel_of
from mexc_pipeline.exchange.times import ANEW_S, NOT_JUDGED, OFF_MS, SETTLED_S, Between, Times, sentence

T0 = 1_790_000_000_000
HOUR_MS = 3_600_000
OTHER = channel_of("depth.step")


class Exchange:
    """Sends a frame of a channel at a time, by its own clock, which is known within a second."""

    def __init__(self, *channels: str) -> None:
        self.times = Times(channels or (TICKER,))
        self.now = 0.0
        self.times.connected()
        self.times.saw(dict.fromkeys(channels or (TICKER,), T0), 0.0, None)

    def sends(self, ts: int | None, *, every: float = 1.0, channel: str = TICKER, known: bool = True) -> list[Mistimed]:
        """``ts`` is relative to now, None where it is absent, NOT_JUDGED as it is."""
        self.now += every
        here = T0 + self.now * 1000
        clock = Between(here - 1000, here + 1000) if known else None
        return self.times.saw({channel: int(here) + ts if ts else ts}, self.now, clock)

    def goes_on(self, ts: int | None, frames: int, **how: float) -> list[Mistimed]:
        return [said for _ in range(frames) for said in self.sends(ts, **how)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ts", "why", "late_ms"), [(-3 * HOUR_MS, "behind", 3 * HOUR_MS - 1000), (8 * HOUR_MS, "ahead", 1000 - 8 * HOUR_MS)]
)
def test_times_that_are_wrong_are_said_once_and_so_is_their_end(ts: int, why: str, late_ms: int) -> None:
    exchange = Exchange()
    (said,) = exchange.goes_on(ts, 100)
    assert (said.channel, said.why, said.late_ms, said.for_s, said.ended) == (TICKER, why, late_ms, 5.0, None)
    assert exchange.times.status(exchange.now)[TICKER]["for_s"] == 99.0
    assert exchange.goes_on(-500, int(SETTLED_S) - 1) == []
    assert exchange.times.status(exchange.now), "until it is certain"
    (ended,) = exchange.goes_on(-500, 5)
    assert (ended.why, ended.for_s, ended.ended) == (why, 99.0, True)
    assert exchange.times.status(exchange.now) == {}


def test_they_are_said_again_in_each_segment() -> None:
    exchange = Exchange()
    exchange.goes_on(HOUR_MS, 10)
    exchange.times.segment_opened()
    (again,) = exchange.goes_on(HOUR_MS, 100)
    assert again.for_s == 10.0


@pytest.mark.parametrize("known", [True, False])
def test_a_time_that_stands_still_is_said_whatever_is_known_of_the_clock(known: bool) -> None:
    exchange = Exchange()
    found = []
    for n in range(40):
        found += exchange.sends(5 - 1000 * n - 1, known=known)  # moves on with nothing
    (said,) = found
    assert (said.why, said.for_s) == ("still", 10.0)
    assert exchange.goes_on(-500, int(SETTLED_S) + 5)[0].ended


def test_frames_without_a_time_are_said() -> None:
    exchange = Exchange()
    (said,) = exchange.goes_on(None, 30)
    assert (said.why, said.ts, said.late_ms) == ("absent", None, None)
    assert b'"ts"' not in said.m


def test_where_the_clock_is_not_known_nothing_is_behind_or_ahead() -> None:
    exchange = Exchange()
    assert exchange.goes_on(-HOUR_MS, 100, known=False) == []
    exchange.goes_on(-HOUR_MS, 10)
    exchange.goes_on(-500, 200, known=False)
    assert exchange.times.status(exchange.now), "it cannot be told that it ended"


def test_a_few_odd_frames_among_others_are_none() -> None:
    exchange = Exchange()
    for _ in range(200):
        assert exchange.sends(-HOUR_MS) == []
        assert exchange.goes_on(-200, 150, every=0.2) == []
    assert exchange.goes_on(HOUR_MS, 40, every=0.1) == [], "a burst"


def test_one_wrong_server_among_several_is_said() -> None:
    exchange = Exchange()
    said = [event for _ in range(40) for event in [*exchange.goes_on(-200, 9), *exchange.sends(-HOUR_MS)]]
    assert [event.why for event in said] == ["behind"]


def test_what_was_seldom_long_ago_does_not_hide_what_is_always() -> None:
    exchange = Exchange()
    while exchange.now < 100 * ANEW_S:
        exchange.goes_on(-200, 299, every=0.1)
        exchange.sends(-HOUR_MS)
    assert exchange.times.status(exchange.now) == {}
    exchange.goes_on(-HOUR_MS, int(ANEW_S))
    assert exchange.times.status(exchange.now) != {}


def test_what_each_connection_begins_with_may_be_old() -> None:
    exchange = Exchange(FUNDING)
    for _ in range(50):
        exchange.times.connected()
        assert exchange.sends(-HOUR_MS, channel=FUNDING) == []
    assert exchange.goes_on(-HOUR_MS, 3, every=40.0, channel=FUNDING) != [], "a seldom one is not waited for long"  # type: ignore[arg-type]


@pytest.mark.parametrize("channel", [CONTRACT, OTHER, "push.nobodys"])
def test_channels_of_which_it_is_not_known_what_their_time_is(channel: str) -> None:
    exchange = Exchange(CONTRACT, OTHER)
    assert exchange.goes_on(-HOUR_MS, 50, channel=channel) == []  # type: ignore[arg-type]


def test_dead_letters_are_judged_elsewhere() -> None:
    exchange = Exchange()
    assert exchange.goes_on(NOT_JUDGED, 50) == []


@given(
    st.lists(st.tuples(st.floats(0.01, 90.0), st.integers(0, 50_000), st.booleans(), st.booleans()), max_size=80),
    st.floats(-1e12, 1e12),
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e6),
)
def test_no_clock_of_ours_makes_right_times_wrong(
    frames: list[tuple[float, int, bool, bool]], error_ms: float, before: float, after: float
) -> None:
    """Whatever this host's clock shows: what is known of the exchange's has the true time in it."""
    times, now = Times([TICKER, DEAL]), 0.0
    for n, (rest_s, delay_ms, known, reconnect) in enumerate(frames):
        now += rest_s
        true_ms = T0 + error_ms + now * 1000
        if reconnect:
            times.connected()
        clock = Between(true_ms - before, true_ms + after) if known else None
        ts = int(true_ms) - delay_ms + n  # no two of one moment
        assert times.saw({TICKER: ts, DEAL: ts}, now, clock) == []


@given(
    st.lists(st.tuples(st.floats(0.0, 40.0), st.booleans()), min_size=1, max_size=120),
    st.floats(OFF_MS + 1, 1e9) | st.floats(-1e9, -OFF_MS - 1),
)
def test_what_begins_ends_and_the_other_way_round(frames: list[tuple[float, bool]], off_ms: float) -> None:
    times, now, said = Times([TICKER]), 0.0, []
    for n, (rest_s, right) in enumerate(frames):
        now += rest_s
        here = T0 + now * 1000
        ts = int(here - (0 if right else off_ms)) + n % 7
        said += times.saw({TICKER: ts}, now, Between(here - 5, here + 5))
        assert bool(times.status(now)) == bool(said and not said[-1].ended)
    assert [bool(event.ended) for event in said] == [bool(n % 2) for n in range(len(said))]


@pytest.mark.parametrize(
    ("why", "late_ms", "text"),
    [
        ("behind", 95_000_000_000, "push.ticker: ts is 1099.5 days behind the exchange's clock"),
        ("ahead", -28_800_000, "push.ticker: ts is 8.0 h ahead of the exchange's clock"),
        ("still", 500, "push.ticker: ts stands still"),
        ("still", None, "push.ticker: ts stands still"),
        ("still", 90_000, "push.ticker: ts stands still, 90 s behind the exchange's clock"),
        ("absent", None, "push.ticker: its frames have no ts any more, and rx stands in for it"),
        ("of a later version", None, "push.ticker: ts is of a later version"),
    ],
)
def test_how_it_is_said(why: str, late_ms: float | None, text: str) -> None:
    assert sentence(TICKER, why, late_ms) == text
