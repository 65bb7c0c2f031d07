"""A spool folder has one writer: the second is told which process holds it, whatever the lock file says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mexc_pipeline.errors import UserError
from mexc_pipeline.spool.lock import LockedError, SpoolLock, holder, named

HOLD = """
import sys
from pathlib import Path
from mexc_pipeline.spool.lock import SpoolLock
with SpoolLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_writer_is_told_who_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "spool" / "btc"
    assert holder(folder) is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError) as caught, SpoolLock(folder):
            pass
        message = str(caught.value)
        assert f"process {other.pid} on {socket.gethostname()}" in message
        assert isinstance(caught.value, UserError)
        other.kill()  # the kernel frees it, however the holder ends
        other.wait(5)
        with SpoolLock(folder):
            found = holder(folder)
            assert found is not None
            assert (found["pid"], found["host"]) == (os.getpid(), socket.gethostname())
    with SpoolLock(folder):
        pass


def test_the_holder_is_called_what_it_is(tmp_path: Path) -> None:
    with SpoolLock(tmp_path, whose="a query"):
        assert named(tmp_path) == f"a query, process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(LockedError, match="in use by a query, process"):
            SpoolLock(tmp_path).__enter__()


def test_a_lock_file_that_says_nothing_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"{half")
    assert holder(tmp_path) is None
    with SpoolLock(tmp_path), pytest.raises(LockedError), SpoolLock(tmp_path):
        pass
