"""What the feed's published state says of the market, at a moment after it was published."""

from __future__ import annotations

import dataclasses

import pytest

from mexc_pipeline.feed.state import FeedState, Look

LIMITS = {"push.ticker": 30.0, "push.deal": 600.0}


def state(look: Look, **more: object) -> FeedState:
    return dataclasses.replace(FeedState({"mode": "direct"}, look, began=100.0), **more)  # type: ignore[arg-type]


def test_before_the_first_frame_silence_counts_from_the_start() -> None:
    said = state(Look(100.0, {}, LIMITS)).describe(140.0)
    assert said["channels"] == {
        "push.ticker": {"confirmed": "none", "age_s": None, "silent_s": 40.0, "limit_s": 30.0},
        "push.deal": {"confirmed": "none", "age_s": None},
    }
    assert said["market"] == {"age_s": None, "waited_s": 40.0, "limit_s": 30.0}
    assert (said["connected_since_ns"], said["waits"], said["paused"], said["refusal"]) == (None, None, None, None)


def test_ages_are_those_of_the_moment_in_which_it_is_asked() -> None:
    look = Look(
        150.0,
        {
            "push.ticker": {"confirmed": "ack", "age_s": 0.0},
            "push.deal": {"confirmed": "none", "age_s": None, "given_up_s": 7.0, "given_up": "refused: no"},
        },
        LIMITS,
        lost=frozenset({"push.ticker"}),
    )
    said = state(
        look,
        last_frames={"push.ticker": 150.0},
        unasked={"push.kline": (3, 149.0)},
        waits=(152.5, "patience"),
        paused=(120.0, 4.04),
    ).describe(152.0)
    assert said["channels"]["push.ticker"] == {"confirmed": "ack", "age_s": 2.0}
    assert said["channels"]["push.deal"]["given_up_s"] == 9.0
    assert said["unasked"] == {"push.kline": {"count": 3, "age_s": 3.0}}
    assert said["waits"] == {"for_s": 0.5, "why": "patience"}
    assert said["paused"] == {"for_s": 4.0, "age_s": 32.0}
    assert said["market"] == {"age_s": 2.0, "waited_s": 2.0, "limit_s": 600.0}, "of those that are expected"


def test_where_all_are_given_up_each_ones_limit_counts() -> None:
    look = Look(100.0, {}, LIMITS, lost=frozenset(LIMITS))
    assert state(look).describe(101.0)["market"]["limit_s"] == 30.0


def test_a_contract_that_changed_says_nothing_of_the_market() -> None:
    limits = {"push.funding.rate": 300.0, "push.contract": 3e8}
    said = state(Look(100.0, {}, limits), last_frames={"push.funding.rate": 110.0, "push.contract": 190.0})
    assert said.describe(200.0)["market"] == {"age_s": 90.0, "waited_s": 90.0, "limit_s": 300.0}
    assert said.describe(200.0)["channels"]["push.contract"]["age_s"] == 10.0
    only = state(Look(100.0, {}, limits), last_frames={"push.contract": 190.0})
    assert only.describe(200.0)["market"]["age_s"] is None


def test_it_cannot_be_altered() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        state(Look(100.0, {}, LIMITS)).proven = True  # type: ignore[misc]
