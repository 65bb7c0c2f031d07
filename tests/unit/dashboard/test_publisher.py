"""One gathering serves everybody who watches, none is made for nobody, and what fails or ends is noticed."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from mexc_pipeline.dashboard import publisher as module
from mexc_pipeline.dashboard.publisher import GZIP, VIEWERS, Gathered, Publisher, TooManyViewersError, packed
from support.overviews import overview_of, symbol
from support.waiting import until


class Parts:
    """Counts how often they are asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.fail = False

    def __call__(self) -> Gathered:
        self.asked += 1
        if self.fail:
            raise OSError("no descriptors")
        return overview_of(symbol("btc", "BTC_USDT", frames=100 * self.asked)), {}


@contextmanager
def publishing(parts: Any) -> Iterator[Publisher]:
    publisher = Publisher(parts)
    try:
        yield publisher
    finally:
        publisher.close()


def test_nobody_is_asked_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_S", 0.1)
    parts = Parts()
    with publishing(parts) as publisher:
        assert publisher.after(0) is None, "asked for nobody"
        with publisher.watching() as viewer:
            found = viewer.next()
            assert found is not None
            assert found.number == parts.asked == 1
        assert publisher.after(0) is None, "it is kept for those who come later"


def test_parts_are_asked_once_in_a_while_also_where_viewers_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACE_S", 0.2)
    monkeypatch.setattr(module, "REST_S", 0.01)
    parts = Parts()
    began = time.monotonic()
    with publishing(parts) as publisher:
        for _ in range(5):
            with publisher.watching() as viewer:
                found = viewer.next()
                assert found is not None
                assert found.found["symbols"][0]["collector"]["rows"]["t"] == 100 * parts.asked, "asked anew"
    assert time.monotonic() - began >= 4 * 0.2


def test_everybody_is_given_the_same_news_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACE_S", 0.05)
    monkeypatch.setattr(module, "REST_S", 0.05)
    parts = Parts()
    seen: list[list[int]] = []

    def watch(publisher: Publisher) -> None:
        with publisher.watching() as viewer:
            start.wait(20)
            seen.append([found.number for _ in range(3) if (found := viewer.next())])

    with publishing(parts) as publisher:
        start = threading.Barrier(10)
        threads = [threading.Thread(target=watch, args=(publisher,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(seen) == 10
    for numbers in seen:
        assert numbers == sorted(set(numbers))
    assert parts.asked < 30, "asked for each of them"


def test_too_many_are_turned_away_and_a_place_is_free_again() -> None:
    with publishing(Parts()) as publisher:
        with ExitStack() as stack:
            for _ in range(VIEWERS):
                stack.enter_context(publisher.watching())
            with pytest.raises(TooManyViewersError, match="64 watch already"), publisher.watching():
                pass
        with publisher.watching() as viewer:
            assert viewer.next() is not None


def test_what_cannot_be_gathered_is_no_news_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PACE_S", 0.02)
    monkeypatch.setattr(module, "REST_S", 0.02)
    monkeypatch.setattr(module, "KEEP_S", 0.1)
    parts = Parts()
    with publishing(parts) as publisher, publisher.watching() as viewer:
        assert viewer.next() is not None
        parts.fail = True
        until(lambda: viewer.next() is None, 20, "no news")
        with publisher.watching() as other:
            assert other.next() is None, "what is old is no news to somebody who comes now"
        parts.fail = False
        until(viewer.next, 20, "news again")
    assert "cannot gather" in caplog.text


def test_whoever_watches_is_let_go_at_the_end() -> None:
    with publishing(Parts()) as publisher, publisher.watching() as viewer:
        assert viewer.next() is not None
        threading.Timer(0.05, publisher.close).start()
        until(lambda: publisher.is_closed, 20, "the end")
        assert viewer.next() is None


def test_pieces_of_a_compressed_stream_can_begin_with_any() -> None:
    pieces = [packed(text) for text in (b"first " * 50, b"second " * 50, b"third " * 50)]
    for some in (pieces, pieces[1:], [pieces[2], pieces[0]]):
        stream = zlib.decompressobj(31)
        assert stream.decompress(GZIP + b"".join(some)).count(b" ") == 50 * len(some)
