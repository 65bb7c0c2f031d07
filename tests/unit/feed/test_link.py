"""The socket that reads ahead passes every byte on once and in order, and loses nothing to a timeout."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.feed.link import ReadAhead


@given(st.binary(min_size=1, max_size=500), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_every_byte_comes_once_and_in_order(data: bytes, sizes: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        waits: list[int] = []
        got = bytearray()
        link = ReadAhead(ours, lambda: waits.append(len(got)))
        turn = 0
        while piece := link.recv(sizes[turn % len(sizes)]):
            assert len(piece) <= sizes[turn % len(sizes)]
            got += piece
            turn += 1
        assert bytes(got) == data
        assert waits == [0, len(data)], "asked only when everything read had been handed out"
        assert link.received == len(data)


def test_a_timeout_loses_nothing_and_the_wait_may_end_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.01)
        calls = [0]

        def before_wait() -> None:
            calls[0] += 1
            if calls[0] == 4:
                raise ConnectionError("enough")

        link = ReadAhead(ours, before_wait)
        theirs.sendall(b"ab")
        assert link.recv(1) == b"a"
        assert link.recv(5) == b"b"
        with pytest.raises(TimeoutError):
            link.recv(1)
        theirs.sendall(b"c")
        assert link.recv(1) == b"c"
        with pytest.raises(ConnectionError, match="enough"):
            link.recv(1)
        assert not link._closed
        link.close()
        assert link._closed


def test_what_was_decoded_is_passed_on_while_the_rest_of_a_read_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("mexc_pipeline.feed.link.elapsed_s", lambda: clock[0])
    ours, theirs = socket.socketpair()
    passed_on: list[float] = []
    with ours, theirs:
        theirs.sendall(b"x" * 10)
        link = ReadAhead(ours, lambda: None, lambda: passed_on.append(clock[0]))
        for _ in range(10):
            link.recv(1)
            clock[0] += 0.02
    assert passed_on == pytest.approx([0.06, 0.12, 0.18])


@pytest.mark.parametrize(("away_s", "is_told"), [(0.3, False), (1.2, False), (1.7, True), (60.0, True)])
def test_where_nothing_was_read_for_long_it_is_told_before_what_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch, away_s: float, is_told: bool
) -> None:
    now = [100.0]
    monkeypatch.setattr("mexc_pipeline.feed.link.elapsed_s", lambda: now[0])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.5)
        told: list[float] = []
        got = bytearray()
        link = ReadAhead(ours, lambda: None)
        now[0] += 50.0
        link.watch(lambda for_s: told.append(for_s) if not got else pytest.fail("too late"))
        now[0] += away_s
        theirs.sendall(b"late")
        got += link.recv(10)
        assert [round(for_s, 1) for for_s in told] == ([away_s] if is_told else [])
        now[0] += 0.5
        with pytest.raises(TimeoutError):
            link.recv(10)
        now[0] += 0.5
        theirs.sendall(b"in time")
        assert link.recv(10) == b"in time"
