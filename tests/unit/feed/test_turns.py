"""When a feed connects next, and to which address: what counts, what is free, and how long the pauses are."""

from __future__ import annotations

import pytest

from mexc_pipeline.feed import attempts
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.handshake import HandshakeAnswer
from mexc_pipeline.feed.turns import KEPT_S, MOST_JITTER_S, UNREACHED_S, Turns

URLS = ("wss://one.example/edge", "wss://two.example/edge")


@pytest.fixture
def turns() -> Turns:
    return Turns(URLS, Attempts(), sharing=3)


def test_an_address_that_fails_is_followed_by_the_next_at_once_and_all_of_them_by_a_pause(turns: Turns) -> None:
    used, pauses = [], []
    for _ in range(3):
        assert turns.wait() is None
        used.append(turns.url)
        pauses.append(turns.lost())
    assert used == [*URLS, URLS[0]]
    assert (pauses[0], pauses[2]) == (0.0, 0.0)
    assert pauses[1] > 0


def test_a_session_that_delivered_is_followed_soon_by_the_same_address(turns: Turns) -> None:
    assert turns.wait() is None
    turns.lost()
    assert turns.wait() is None
    turns.delivered(100.0)
    assert 0 <= turns.lost() <= MOST_JITTER_S
    assert turns.url == URLS[1]


def test_a_session_that_brought_nothing_that_was_asked_for_is_followed_soon_by_the_next_address(turns: Turns) -> None:
    used = []
    for _ in range(3):
        assert turns.wait() is None
        used.append(turns.url)
        turns.delivered(100.0, asked=False)
        assert 0 <= turns.lost() <= MOST_JITTER_S, "it delivered all the same"
    assert used == [*URLS, URLS[0]]
    assert turns.wait() is None
    turns.delivered(100.0, asked=False)
    turns.delivered(101.0)
    turns.lost()
    assert turns.url == URLS[1], "it serves"


def test_a_session_counts_as_one_that_lasts_only_from_so_long_after_its_first_frame(turns: Turns) -> None:
    for lasted in (KEPT_S - 0.1, KEPT_S):
        assert turns.wait() is None
        turns.look(90.0)
        turns.delivered(100.0)
        turns.look(100.0 + lasted)
        assert turns.kept is (lasted == KEPT_S)
        turns.lost()


def test_attempts_that_reach_nobody_pause_for_seconds_at_most(turns: Turns) -> None:
    for _ in range(2 * attempts.MOST):
        assert turns.wait() is None, "they do not count"
        turns.unreached()
        assert turns.lost() <= UNREACHED_S


def test_attempts_that_came_to_nothing_leave_some_for_when_the_exchange_is_back(turns: Turns) -> None:
    for _ in range(attempts.BURST):
        assert turns.wait() is None
        turns.lost()
    due = turns.wait()
    assert due is not None
    assert 0 < due[0] <= attempts.SPREAD_S
    assert due[1] == f"{attempts.BURST} attempts within 60 s came to nothing"


def test_who_asks_for_patience_is_left_alone_and_the_other_is_tried(turns: Turns) -> None:
    for _ in URLS:
        assert turns.wait() is None
        turns.refused(HandshakeAnswer(429, "HTTP 429", retry_after_s=600.0))
        turns.lost()
    due = turns.wait()
    assert due is not None
    assert 500 < due[0] <= 600
    assert "429" in due[1]
