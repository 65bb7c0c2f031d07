"""What is asked for what is missing, and what the answers decide: step by step, without a network or a thread."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.exchange.checks import FollowUp
from mexc_pipeline.exchange.depth import MissingVersions
from mexc_pipeline.exchange.holes import MOST_OPEN, MOST_TRIES, Row
from mexc_pipeline.exchange.recovery import BOOK_MOST_S, BURST, EACH_S, Allowance, Recovery, Request, Step
from mexc_pipeline.exchange.rest import DepthCommit, RestRefusedError, commits_path, depth_path, read_snapshot
from mexc_pipeline.rows import Mt


@pytest.fixture
def recovery() -> Recovery:
    return Recovery("X_USDT")


def missing(first: int, last: int) -> FollowUp:
    return FollowUp(gap=MissingVersions(first, last))


def book(recovery: Recovery, data: bytes, newest: int = 0) -> Step:
    return recovery.answered(read_snapshot(200, b'{"success":true,"code":0,"data":%s}' % data), newest)


def said(rows: list[Row]) -> list[dict[str, Any]]:
    return [json.loads(m) for mt, m in rows if mt == Mt.EVENT]


def request(recovery: Recovery, path: str) -> Request:
    (found,) = [asked for asked in recovery.requests() if asked.path == path]
    return found


def test_what_is_missing_is_asked_for_until_it_came(recovery: Recovery) -> None:
    assert recovery.requests() == []
    recovery.found(FollowUp(gap=MissingVersions(4, 5), book=3))
    assert [asked.path for asked in recovery.requests()] == [commits_path("X_USDT"), depth_path("X_USDT")]
    assert recovery.answered([DepthCommit(3, b"three"), DepthCommit(4, b"four")], 6) == Step(
        [(Mt.REPAIRED, b"four")], done=False
    )
    step = recovery.answered([DepthCommit(4, b"four"), DepthCommit(5, b"five")], 6)
    assert (step.done, step.rows[0]) == (True, (Mt.REPAIRED, b"five"))
    assert [(e["event"], e["from"], e["to"]) for e in said(step.rows)] == [("repaired", 4, 5)]
    assert [asked.path for asked in recovery.requests()] == [depth_path("X_USDT")]
    assert book(recovery, b'{"version":7}').done
    assert recovery.requests() == []


def test_a_book_older_than_what_is_wanted_is_asked_for_again_and_taken_in_the_end(recovery: Recovery) -> None:
    recovery.found(FollowUp(book=10))
    for _ in range(MOST_TRIES - 1):
        assert book(recovery, b'{"version":8}') == Step([], done=False)
    step = book(recovery, b'{"version":8}')
    assert (step.done, said(step.rows)[0]["version"]) == (True, 8)
    assert (step.warning, step.fields) == ("book lags behind the socket", {"version": 8, "wanted": 10})


def test_what_cannot_be_repaired_is_said_and_a_new_book_goes_on_after_it(recovery: Recovery) -> None:
    recovery.found(missing(4, 5))
    commits = request(recovery, commits_path("X_USDT"))
    for _ in range(MOST_TRIES - 1):
        assert recovery.failed(commits, "HTTP 500").rows == []
    (event,) = said(recovery.failed(commits, "HTTP 500").rows)
    assert (event["event"], event["count"], event["reason"]) == ("unrepaired", 2, "HTTP 500")
    snapshot = request(recovery, depth_path("X_USDT"))
    for _ in range(MOST_TRIES - 1):
        assert recovery.failed(snapshot, "HTTP 500") == Step([])
    assert recovery.failed(snapshot, "HTTP 500") == Step([], True, "no book to build on", {"why": "HTTP 500"})


def test_a_book_is_asked_for_until_it_comes_at_intervals_that_grow(recovery: Recovery) -> None:
    recovery.found(FollowUp(book=10))
    (snapshot,) = recovery.requests()
    pauses = []
    for _ in range(MOST_TRIES + 6):
        recovery.failed(snapshot, "HTTP 503")
        assert recovery.requests() == [snapshot]
        pauses.append(recovery.book_pause_s)
    assert pauses == [0.0] * (MOST_TRIES - 1) + [30.0, 60.0, 120.0, 240.0, BOOK_MOST_S, BOOK_MOST_S, BOOK_MOST_S]
    step = book(recovery, b'{"version":11}')
    assert (said(step.rows)[0]["version"], step.warning) == (11, None)
    assert (recovery.requests(), recovery.book_pause_s) == ([], 0.0)


def test_a_book_that_lags_is_kept_once_and_a_newer_one_asked_for(recovery: Recovery) -> None:
    recovery.found(FollowUp(book=10))
    kept = [bool(book(recovery, b'{"version":8}').rows) for _ in range(MOST_TRIES + 5)]
    assert kept == [False] * (MOST_TRIES - 1) + [True] + [False] * 5
    assert recovery.book_pause_s > 0
    assert said(book(recovery, b'{"version":10}').rows)[0]["version"] == 10
    assert recovery.requests() == []


def test_what_goes_on_elsewhere_asks_for_a_book_at_once(recovery: Recovery) -> None:
    recovery.found(FollowUp(book=10))
    for _ in range(MOST_TRIES + 3):
        recovery.failed(recovery.requests()[0], "HTTP 503")
    recovery.found(FollowUp(book=90))
    assert recovery.book_pause_s == 0.0
    assert recovery.failed(recovery.requests()[0], "x").warning is None


def test_a_book_of_the_old_count_is_not_taken_while_the_socket_counts_below_it(recovery: Recovery) -> None:
    recovery.found(FollowUp(book=5000))
    recovery.found(FollowUp(book=9, reset_after=5000))
    assert book(recovery, b'{"version":5003}', newest=12) == Step([], done=False)
    step = book(recovery, b'{"version":11,"asks":null}', newest=12)
    assert [(e["event"], e["version"]) for e in said(step.rows)] == [("snapshot", 11)]


def test_where_the_exchange_only_lagged_its_book_is_taken_once_the_socket_is_there(recovery: Recovery) -> None:
    recovery.found(FollowUp(book=4990, reset_after=5000))
    assert not book(recovery, b'{"version":5003}', newest=4995).done
    assert book(recovery, b'{"version":5003}', newest=5001).rows


def test_an_exchange_whose_rest_never_follows_is_said(recovery: Recovery) -> None:
    recovery.found(FollowUp(book=9, reset_after=5000))
    for _ in range(MOST_TRIES - 1):
        assert not book(recovery, b'{"version":6000}', newest=12).done
    with pytest.raises(RestRefusedError, match="version 6000, where the socket counts at 12"):
        book(recovery, b'{"version":6000}', newest=12)


def test_a_new_count_ends_what_was_missing_of_the_old_one(recovery: Recovery) -> None:
    recovery.found(missing(4000, 4009))
    recovery.found(FollowUp(book=9, reset_after=5000))
    assert (recovery.seen, recovery.still_open) == (1, 0)
    (event,) = said(recovery.ended())
    assert (event["event"], event["count"], event["reason"]) == ("unrepaired", 10, "the exchange counts anew")
    assert recovery.ended() == []


def test_a_book_that_is_not_utf8_is_wrapped_inside_its_event(recovery: Recovery) -> None:
    recovery.found(FollowUp(book=1))
    (event,) = said(book(recovery, b'{"asks":[],"note":"\xff","version":7}').rows)
    assert (event["version"], list(event["book"])) == (7, ["base64", "opcode"])


def test_gaps_without_end_are_given_up_and_said(recovery: Recovery) -> None:
    for at in range(1, 2 * (MOST_OPEN + 5), 2):
        recovery.found(missing(at, at))
    assert recovery.still_open == MOST_OPEN
    events = said(recovery.give_up("stopped"))
    assert [e["from"] for e in events] == list(range(1, 2 * (MOST_OPEN + 5), 2))
    assert [e["reason"] for e in events[4:6]] == ["more than 1,000 gaps at a time", "stopped"]
    assert recovery.requests() == []


@given(st.lists(st.floats(0.0, 5.0), max_size=300))
def test_trouble_without_end_asks_at_a_bounded_rate(thinking_s: list[float]) -> None:
    """Whoever waits as told makes no more requests in any minute than the burst and one in each second."""
    allowance, now, made = Allowance(), 1000.0, []
    for pause in thinking_s:
        made.append(now)
        now += max(allowance.take(now), pause * 0.1)
    assert all(sum(at <= other < at + 60 for other in made) <= BURST + 60 / EACH_S for at in made)


def test_a_burst_is_not_held_up() -> None:
    allowance = Allowance()
    assert [allowance.take(1000.0) for _ in range(BURST - 1)] == [0.0] * (BURST - 1)
    assert allowance.take(1000.0) == EACH_S
    assert allowance.take(1000.0 + BURST * EACH_S) == 0.0
