"""What all tests of the recorder have: folders in memory, no log handler and no secret of another test, no time limit
of an example. The tests on hosts do without; the recorder is not installed where they run."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mexc_pipeline import text
from support import examples  # noqa: F401 - for the profile that it loads

MEMORY = "/dev/shm"
ROOM = 4 << 30
"""Bytes that must be free in memory; a container often has no more than 64 MiB there."""


def _keep_folders_in_memory() -> None:
    """Everything here syncs what it writes, thousands of times a test of spools, and what a disk needs for that proves
    nothing: losses of power are made by the shim of tests/faults, which sees every call. ``TMPDIR`` asks for a disk."""
    with suppress(OSError):
        if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
            os.environ["TMPDIR"] = MEMORY
            tempfile.tempdir = None


_keep_folders_in_memory()


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A handler that a test left would write to that test's standard error, which is closed by then."""
    root = logging.getLogger("mexc_pipeline")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture(autouse=True)
def no_secret_of_another_test() -> Iterator[None]:
    """What one test has read as a password is a word like any other to the next."""
    text._secrets = ()
    yield
    text._secrets = ()
