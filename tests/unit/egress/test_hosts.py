"""Several addresses of one service: one that works is kept, one that fails is left at once, none is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.egress.hosts import Hosts


def test_a_failing_address_is_left_at_once_and_a_working_one_kept() -> None:
    hosts = Hosts(["a", "b", "c"])
    assert hosts.url == "a"
    assert hosts.failed("a")
    assert hosts.url == "b"
    hosts.worked("b")
    assert hosts.failed("b")
    assert hosts.url == "c"
    assert hosts.failed("c"), "a may serve again since b worked"
    assert hosts.url == "a"
    assert not hosts.failed("a"), "all have failed: a pause is due"
    assert hosts.url == "a"


def test_one_that_may_not_be_asked_yet_is_passed_over() -> None:
    hosts = Hosts(["a", "b", "c"])
    hosts.failed("a")
    assert hosts.in_turn == ("b", "c", "a")
    hosts.use("c")
    assert (hosts.url, hosts.in_turn) == ("c", ("c", "a", "b"))
    assert hosts.failed("c")
    assert hosts.url == "b", "the one that has not failed yet"


def test_one_address_always_asks_for_a_pause() -> None:
    hosts = Hosts(["a"])
    assert [hosts.failed("a") for _ in range(3)] == [False] * 3
    assert hosts.url == "a"


def test_no_address_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Hosts([])


def test_what_failed_late_does_not_move_a_newer_choice() -> None:
    hosts = Hosts(["a", "b"])
    hosts.failed("a")
    assert hosts.url == "b"
    hosts.failed("a")  # another thread's request to it ended only now
    assert hosts.url == "b"


@given(st.integers(1, 5), st.data())
def test_a_round_tries_each_address_once_and_finds_any_that_works(count: int, data: st.DataObject) -> None:
    urls = [f"u{n}" for n in range(count)]
    hosts = Hosts(urls)
    for up in data.draw(st.lists(st.sets(st.sampled_from(urls)), max_size=12)):
        before, tried = hosts.url, []
        while True:
            url = hosts.url
            tried.append(url)
            if url in up:
                hosts.worked(url)
                break
            if not hosts.failed(url):
                break
        assert len(tried) == len(set(tried)) <= count
        assert tried[0] == before
        if up:
            assert hosts.url in up, "found within one round, without a pause"
        else:
            assert set(tried) == set(urls)
            assert hosts.url == urls[0]
