"""Stamping and queueing in one step: the order of times is the order of rows, whoever adds them and whatever the clock
does; and the queue is bounded."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest

from mexc_pipeline.collector.inbox import Inbox, Mark
from mexc_pipeline.periods import PINNED_NS
from mexc_pipeline.rows import Frame, Mt
from support.waiting import until

SECOND = 10**9
T0 = 2_000_000_000 * SECOND


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> int:
        return self.now


def texts(taken: tuple[list[Frame], Mark | None]) -> list[bytes]:
    return [frame.m for frame in taken[0]]


def put(inbox: Inbox, *rows: bytes) -> None:
    inbox.put([(1, m) for m in rows])


def test_whole_batches_come_out_in_order() -> None:
    inbox = Inbox()
    put(inbox, b"1", b"2", b"3")
    put(inbox, b"4")
    put(inbox, b"5")
    assert texts(inbox.take(0, 2)) == [b"1", b"2", b"3"]
    assert inbox.bytes == 5  # what was taken is not committed before more is taken
    assert texts(inbox.take(0, 99)) == [b"4", b"5"]
    assert inbox.bytes == 2
    assert inbox.take(0, 99) == ([], None)
    assert inbox.bytes == 0


def test_rx_is_the_clocks_and_never_goes_back_by_up_to_a_minute() -> None:
    clock = Clock()
    inbox = Inbox(clock=clock)
    inbox.follow(T0 + 5)
    for step in (0, 10, -PINNED_NS, PINNED_NS + 1):
        clock.now += step
        put(inbox, b"")
    frames, _ = inbox.take(0, 99)
    assert [f.rx - T0 for f in frames] == [5, 10, 10, 11]


@pytest.mark.parametrize("back", [PINNED_NS + 1, 8 * 3600 * SECOND, 400 * 86_400 * SECOND])
def test_where_the_clock_is_behind_by_more_rx_goes_back_with_it(back: int) -> None:
    clock = Clock()
    inbox = Inbox(clock=clock)
    put(inbox, b"ahead")
    clock.now -= back
    put(inbox, b"true")
    clock.now += 7
    put(inbox, b"on")
    frames, _ = inbox.take(0, 99)
    assert [f.rx - T0 for f in frames] == [0, -back, 7 - back]


def test_what_one_thread_stamped_is_not_overtaken_by_what_another_hands_over() -> None:
    clock = Clock()
    inbox = Inbox(clock=clock)
    inbox.note(1, b"of the reader, who has more to read")
    clock.now += 1
    put(inbox, b"of the repair")
    assert texts(inbox.take(0, 99)) == [b"of the reader, who has more to read", b"of the repair"]


def test_any_threads_rows_are_queued_in_the_order_of_their_times() -> None:
    inbox, count = Inbox(), 500
    start = threading.Barrier(4)

    def reader(name: bytes) -> None:
        start.wait()
        for n in range(count):
            with inbox.lock:
                inbox.add(Frame(inbox.stamp(), None, 1, name + b"%d" % n))
            if n % 7 == 0:
                inbox.hand_over()
        inbox.hand_over()

    def marker() -> None:
        start.wait()
        for _ in range(50):
            inbox.mark()

    threads = [threading.Thread(target=reader, args=(name,)) for name in (b"a", b"b")]
    threads += [threading.Thread(target=marker), threading.Thread(target=start.wait)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    rows: list[int] = []
    seen: list[bytes] = []
    while True:
        frames, mark = inbox.take(0, 99)
        rows += [f.rx for f in frames]
        seen += [f.m for f in frames]
        if mark is not None:
            rows.append(mark.rx)
        elif not frames:
            break
    assert rows == sorted(rows)
    assert len(rows) == 2 * count + 50
    for name in (b"a", b"b"):
        assert [m for m in seen if m.startswith(name)] == [name + b"%d" % n for n in range(count)]


def test_a_mark_stands_behind_all_that_was_stamped_before_it_and_nothing_later_is_older() -> None:
    clock = Clock()
    inbox = Inbox(clock=clock)
    inbox.note(1, b"before")
    cut: Future[object] = Future()
    clock.now += 5
    assert inbox.mark(cut)  # type: ignore[arg-type]
    clock.now -= 3
    put(inbox, b"after")
    frames, mark = inbox.take(0, 99)
    assert [f.m for f in frames] == [b"before"]
    assert mark == (T0 + 5, cut)
    frames, mark = inbox.take(0, 99)
    assert [(f.rx, f.m) for f in frames] == [(T0 + 5, b"after")]
    assert mark is None


def test_a_full_inbox_holds_the_reader_back_and_loses_nothing() -> None:
    inbox = Inbox(max_bytes=10)
    done = threading.Semaphore(0)

    def reader() -> None:
        for n in range(8):
            put(inbox, b"%d" % n * 6)
            done.release()

    thread = threading.Thread(target=reader)
    thread.start()
    assert done.acquire(timeout=5)
    assert not done.acquire(timeout=0.1), "the second is queued, and waits"
    inbox.put([(5, b"an event of another thread")], wait=False)
    taken: list[bytes] = []
    while len(taken) < 9:
        taken += texts(inbox.take(5, 1))
        assert inbox.bytes <= 48
    thread.join(5)
    assert [m for m in taken if len(m) == 6] == [b"%d" % n * 6 for n in range(8)]


def test_closing_frees_a_waiting_reader_and_keeps_what_is_queued() -> None:
    inbox = Inbox(max_bytes=1)
    thread = threading.Thread(target=put, args=(inbox, b"first"))
    thread.start()
    until(lambda: inbox.bytes, 5)
    assert not inbox.drained
    inbox.note(1, b"stamped, not handed over yet")
    inbox.close((Mt.EVENT, b"last"))
    thread.join(5)
    assert not thread.is_alive()
    put(inbox, b"third")
    inbox.note(Mt.EVENT, b"an event")
    inbox.hand_over()
    assert inbox.refused == 1, "frames are counted"
    assert not inbox.mark()
    assert not inbox.drained
    assert texts(inbox.take(5, 99)) == [b"first", b"stamped, not handed over yet", b"last"]
    assert inbox.drained


def test_a_waiting_writer_wakes_for_frames_and_when_asked() -> None:
    inbox = Inbox()
    got: list[list[bytes]] = []
    thread = threading.Thread(target=lambda: got.append(texts(inbox.take(30, 9))))
    began = time.monotonic()
    thread.start()
    put(inbox, b"x")
    thread.join(5)
    assert got[0] == [b"x"]
    thread = threading.Thread(target=lambda: got.append(texts(inbox.take(30, 9))))
    thread.start()

    def woken() -> bool:
        inbox.wake()
        return not thread.is_alive()

    until(woken, 5)
    assert got[1] == []
    assert time.monotonic() - began < 20


def test_a_large_frame_is_put_together_once_what_came_before_is_committed() -> None:
    inbox = Inbox(max_bytes=100)
    put(inbox, b"x" * 60)
    handed = threading.Event()

    def reader() -> None:
        inbox.hand_over(coming=60)
        handed.set()

    thread = threading.Thread(target=reader)
    thread.start()
    assert texts(inbox.take(5, 99)) == [b"x" * 60]
    assert not handed.wait(0.05)  # taken is not committed
    inbox.take(0, 99)
    assert handed.wait(5)
    thread.join(5)
    inbox.hand_over(coming=1 << 30)  # alone it may be as large as it likes
