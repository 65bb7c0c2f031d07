"""A child ends with its supervisor, whether it listens to SIGTERM or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mexc_pipeline import lifeline

_CHILD = """
import signal, sys, time
from mexc_pipeline import lifeline
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
lifeline.watch(int(sys.argv[1]))
print("up", flush=True)
time.sleep(60)
"""


def _start(kind: str) -> tuple[subprocess.Popen[str], int]:
    read_fd, write_fd = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(read_fd), kind], pass_fds=(read_fd,), stdout=subprocess.PIPE, text=True
    )
    os.close(read_fd)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    child.stdout.close()
    return child, write_fd


def test_a_child_gets_sigterm_when_the_pipe_closes() -> None:
    child, write_fd = _start("obedient")
    os.close(write_fd)
    assert child.wait(5) == -signal.SIGTERM


def test_a_child_that_ignores_sigterm_is_gone_within_a_second() -> None:
    child, write_fd = _start("deaf")
    began = time.monotonic()
    os.close(write_fd)
    assert child.wait(5) == 1
    assert 0.7 < time.monotonic() - began < 3.0
    assert lifeline.GRACE_S < 1


def test_a_child_lives_while_the_pipe_is_open() -> None:
    child, write_fd = _start("obedient")
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    os.close(write_fd)
    child.wait(5)
