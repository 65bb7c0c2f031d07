"""A stream that neither waits nor raises, whatever its reader does; what is dropped is counted and said."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline import logs, output
from mexc_pipeline.output import ESCAPE, Output
from support.waiting import until


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Read and write end; the test closes neither."""
    read_fd, write_fd = os.pipe()
    try:
        yield read_fd, write_fd
    finally:
        os.close(read_fd)
        os.close(write_fd)


def end(out: Output, timeout_s: float = 10.0) -> None:
    """End it, and its thread with it: nothing is written any more when the descriptor is closed."""
    out.end(timeout_s)
    until(lambda: not out.working, 10, "the end of its thread")


def read_lines(fd: int, count: int) -> list[str]:
    """So many whole lines."""
    data = b""
    while data.count(b"\n") < count:
        piece = os.read(fd, 65536)
        assert piece, data
        data += piece
    return data.decode().splitlines()


@given(st.lists(st.text(max_size=40), max_size=30))
def test_what_is_written_arrives_in_order(texts: list[str]) -> None:
    with pipe() as (read_fd, write_fd):
        out = Output(write_fd)
        for text in texts:
            out.write(text)
        end(out)
        wanted = "".join(texts).encode("utf-8", ESCAPE)
        assert (os.read(read_fd, 65536) if wanted else b"") == wanted
        assert out.lost == 0


def test_a_reader_that_does_not_read_delays_nobody_and_is_told_what_it_missed() -> None:
    with pipe() as (read_fd, write_fd):
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
        out = Output(write_fd, max_bytes=10_000)
        line = "x" * 99 + "\n"
        began = time.monotonic()
        for _ in range(1000):
            out.write(line)
            out.flush()
        assert time.monotonic() - began < 5, "a write waited for the reader"
        assert 800 <= out.lost < 1000
        kept = 1000 - out.lost
        found = read_lines(read_fd, kept + 1)
        assert found[:kept] == [line[:-1]] * kept
        assert found[kept] == f"mexc-pipeline: {out.lost} lines for this place could not be written ({output.TOO_SLOW})"
        out.write("again\n")
        assert read_lines(read_fd, 1) == ["again"]
        end(out)


def test_bytes_are_refused_at_once() -> None:
    """click finds out so what kind of stream it has; later they would spoil the lines of others."""
    with pipe() as (_, write_fd):
        out = Output(write_fd)
        with pytest.raises(TypeError):
            out.write(b"")  # type: ignore[arg-type]
        end(out)


def test_the_end_waits_a_bounded_time() -> None:
    with pipe() as (_, write_fd):
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
        out = Output(write_fd)
        out.write("y" * 20_000 + "\n")
        began = time.monotonic()
        end(out, 0.2)
        assert time.monotonic() - began < 5
        out.write("after the end\n")
        assert out.lost == 2


def _gone_pipe(_: Path) -> int:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    return write_fd


def _full(_: Path) -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _read_only(folder: Path) -> int:
    (folder / "file").touch()
    return os.open(folder / "file", os.O_RDONLY)


def _hung_up(_: Path) -> int:
    leader, follower = os.openpty()
    os.close(leader)
    return follower


@pytest.mark.parametrize("broken", [_gone_pipe, _full, _read_only, _hung_up])
def test_every_refusal_is_counted_and_ends_nothing(broken: object, tmp_path: Path) -> None:
    fd = broken(tmp_path)  # type: ignore[operator]
    try:
        out = Output(fd)
        for n in range(5):
            out.write(f"line {n}\nand another\n")
        until(lambda: out.lost == 10, 10, "ten lost lines")
        end(out)
    finally:
        os.close(fd)


def test_a_stream_that_works_again_says_how_many_lines_are_missing() -> None:
    with pipe() as (read_fd, write_fd):
        full = os.open("/dev/full", os.O_WRONLY)
        shown = os.dup(full)
        out = Output(shown, notice=lambda lines, why: f"{lines} missing: {why}")
        out.write("one\ntwo\n")
        until(lambda: out.lost == 2, 10, "two lost lines")
        os.dup2(write_fd, shown)
        out.write("three\n")
        assert read_lines(read_fd, 2) == ["three", "2 missing: No space left on device"]
        out.write("four\n")
        assert read_lines(read_fd, 1) == ["four"], "said once"
        end(out)
        os.close(full)
        os.close(shown)


def test_a_stream_that_somebody_made_non_blocking_loses_nothing() -> None:
    with pipe() as (read_fd, write_fd):
        os.set_blocking(write_fd, False)
        out = Output(write_fd)
        lines = [f"{n:06}" * 20 for n in range(1500)]
        writer = threading.Thread(target=lambda: [out.write(f"{line}\n") for line in lines])
        writer.start()
        assert read_lines(read_fd, 1500) == lines
        writer.join()
        assert out.lost == 0
        end(out)


@given(st.text(max_size=50))
def test_what_an_encoding_lacks_is_spelled_as_json_spells_it(text: str) -> None:
    whole = json.dumps(text, ensure_ascii=False)
    for encoding in ("ascii", "latin-1", "utf-8"):
        assert json.loads(whole.encode(encoding, ESCAPE).decode(encoding)) == text


def test_a_record_that_cannot_be_shown_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    logs.setup()
    logging.getLogger("mexc_pipeline.feed").info("said", extra={"fields": {"what": Bad()}})
    logging.getLogger("mexc_pipeline.feed").info("%d", "no number")
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert found[0] == {"msg": "said", "error": "RuntimeError: no words"}
    assert found[1]["msg"] == "%d"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_standard_stream_is_never_a_file_opened_later(closed: tuple[int, ...], tmp_path: Path) -> None:
    """``2>&-``: the next file or socket would get the number 2, and log lines would be written into it."""
    script = (
        "import os, sys\nfrom mexc_pipeline import output\nout = output.take_over()\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\nassert fd > 2, fd\n"
        "sys.stderr.write('a line of the log\\n')\nout.end()\nos.write(fd, b'%d' % out.lost)\n"
    )
    path = tmp_path / "opened later"
    closing = " ".join(f"{fd}>&-" for fd in closed)
    command = ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert path.read_text() == ("1" if 2 in closed else "0")
