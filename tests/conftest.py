"""For all tests: folders in memory, what the marks ask for, a log left as it was, a closing word on the rest."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from mexc_pipeline import text
from support import examples, needs  # noqa: F401 - examples: the profile that it loads

MEMORY = "/dev/shm"
ROOM = 4 << 30
"""Bytes that must be free in memory; a container often has no more than 64 MiB there."""
KEPT_OUT = pytest.StashKey[Counter[str]]()
MARKS = {
    "slow": "slow (make test runs them)",
    "engine": "need the embedded engine (make test installs it and runs them)",
}


def _keep_folders_in_memory() -> None:
    """Everything here syncs what it writes, thousands of times a test of spools, and what a disk needs for that proves
    nothing: losses of power are made by the shim of tests/faults, which sees every call. ``TMPDIR`` asks for a disk."""
    with suppress(OSError):
        if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
            os.environ["TMPDIR"] = MEMORY
            tempfile.tempdir = None


_keep_folders_in_memory()


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A handler that a test left would write to that test's standard error, which is closed by then."""
    root = logging.getLogger("mexc_pipeline")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Marks that say what a test needs."""
    if item.get_closest_marker("engine"):
        needs.engine()
    if item.get_closest_marker("as_root"):
        needs.root()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count them by the mark that kept them out. Workers deselect, each the same; the first to end tells the count."""
    if not items:
        return
    counts = Counter(next((mark for mark in MARKS if item.get_closest_marker(mark)), "") for item in items)
    config = items[0].config
    config.stash[KEPT_OUT] = counts
    if hasattr(config, "workeroutput"):
        config.workeroutput["kept_out"] = dict(counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker counted."""
    node.config.stash[KEPT_OUT] = Counter(getattr(node, "workeroutput", {}).get("kept_out", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was not run, and why, after everything else."""
    why: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        why[reason.removeprefix("Skipped: ")] += 1
    for mark, count in config.stash.get(KEPT_OUT, Counter()).items():
        why[MARKS.get(mark, "not asked for")] += count
    for reason, count in sorted(why.items()):
        terminalreporter.write_line(f"not run: {count}: {reason}")


@pytest.fixture(autouse=True)
def _no_secret_of_another_test() -> Iterator[None]:
    """What one test has read as a password is a word like any other to the next."""
    text._secrets = ()
    yield
    text._secrets = ()
