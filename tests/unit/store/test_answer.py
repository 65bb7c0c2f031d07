"""The text of a user's answer, and the process that reads it off a server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from mexc_pipeline.config import parse
from mexc_pipeline.store import server
from mexc_pipeline.store.engine import ANSWER_BYTES, EngineError, RefusedError, answer, bounded


def _rows(count: int, asked: list[int]) -> Iterator[bytes]:
    for number in range(count):
        asked.append(number)
        yield b"[%d]" % number


@pytest.mark.parametrize(("count", "given"), [(0, 0), (1, 1), (3, 3), (4, 3), (1000, 3)])
def test_no_more_rows_are_made_than_it_takes_to_say_that_there_are_more(count: int, given: int) -> None:
    asked: list[int] = []
    found = json.loads(bounded(answer(b'["a"]', b'["UInt8"]', _rows(count, asked), 3)))
    rows = [[number] for number in range(given)]
    assert found == {"columns": ["a"], "types": ["UInt8"], "rows": rows, "truncated": count > 3}
    assert len(asked) == min(count, 4)


def test_a_text_ends_at_its_bound() -> None:
    piece = b"x" * (1 << 20)
    assert len(bounded([piece] * (ANSWER_BYTES >> 20))) == ANSWER_BYTES

    def endless() -> Iterator[bytes]:
        while True:
            yield piece

    with pytest.raises(RefusedError, match="too large"):
        bounded(endless())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended"),
        ("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)", "it ended with -9"),
        ("import sys; sys.stdin.readline(); raise ValueError('odd')", "ValueError: odd"),
    ],
)
def test_the_end_of_the_reading_process_is_an_answer_of_one_line(code: str, says: str) -> None:
    with pytest.raises(EngineError, match=says) as caught:
        server.read_apart({"statement": "SELECT 1"}, (sys.executable, "-c", code))
    assert "\n" not in str(caught.value)


def test_a_reading_process_that_says_nothing_is_ended() -> None:
    silent = (sys.executable, "-c", "import time; time.sleep(1000)")
    with pytest.raises(EngineError, match=r"no answer within 0\.1 s"):
        server.read_apart({"statement": "SELECT 1"}, silent, 0.1)


def test_the_reading_process_ends_with_who_asked() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        settings = parse(f'[clickhouse]\nmode = "server"\nport = {port}\n', None).clickhouse
        asked = {
            "clickhouse": msgspec.to_builtins(settings),
            "reply_s": 300.0,
            "statement": "SELECT 1",
            "max_rows": 1,
        }
        with subprocess.Popen(server.ANSWERING, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
            assert child.stdin is not None
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                child.stdin.close()
                assert child.wait(30) != 0
