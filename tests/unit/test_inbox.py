"""The bounded queue between reader and writer."""

from __future__ import annotations

import threading
import time

from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.rows import Frame
from support.waiting import until


def frames(*texts: bytes) -> list[Frame]:
    return [Frame(0, None, 1, text) for text in texts]


def test_whole_batches_come_out_in_order() -> None:
    inbox = Inbox()
    inbox.put(frames(b"1", b"2", b"3"))
    inbox.put(frames(b"4"))
    inbox.put(frames(b"5"))
    assert [f.m for f in inbox.take(0, 2)] == [b"1", b"2", b"3"]
    assert inbox.bytes == 2
    assert [f.m for f in inbox.take(0, 99)] == [b"4", b"5"]
    assert inbox.take(0, 99) == []
    assert inbox.bytes == 0


def test_a_full_inbox_holds_the_reader_back_and_loses_nothing() -> None:
    inbox = Inbox(max_bytes=10)
    put = threading.Semaphore(0)

    def reader() -> None:
        for n in range(8):
            inbox.put(frames(b"%d" % n * 6))
            put.release()

    thread = threading.Thread(target=reader)
    thread.start()
    assert put.acquire(timeout=5)
    assert put.acquire(timeout=5)
    assert not put.acquire(timeout=0.1), "the third batch waits"
    taken: list[bytes] = []
    while len(taken) < 8:
        taken += [f.m for f in inbox.take(5, 1)]
        assert inbox.bytes <= 18
    thread.join(5)
    assert taken == [b"%d" % n * 6 for n in range(8)]


def test_closing_frees_a_waiting_reader_and_keeps_what_is_queued() -> None:
    inbox = Inbox(max_bytes=1)
    inbox.put(frames(b"first"))
    thread = threading.Thread(target=inbox.put, args=(frames(b"second"),))
    thread.start()
    assert not inbox.drained
    inbox.close()
    thread.join(5)
    assert not thread.is_alive()
    inbox.put(frames(b"third"))
    assert not inbox.drained
    assert [f.m for f in inbox.take(5, 99)] == [b"first"]
    assert inbox.drained


def test_a_waiting_writer_wakes_for_frames_and_when_asked() -> None:
    inbox = Inbox()
    got: list[list[Frame]] = []
    thread = threading.Thread(target=lambda: got.append(inbox.take(30, 9)))
    began = time.monotonic()
    thread.start()
    inbox.put(frames(b"x"))
    thread.join(5)
    assert [f.m for f in got[0]] == [b"x"]
    thread = threading.Thread(target=lambda: got.append(inbox.take(30, 9)))
    thread.start()

    def woken() -> bool:
        inbox.wake()
        return not thread.is_alive()

    until(woken, 5)
    assert got[1] == []
    assert time.monotonic() - began < 20
