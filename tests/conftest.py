"""For all tests: what the marks ask for, and a closing word on what was not run."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import Any

import pytest

from support import needs

if find_spec("mexc_pipeline") is not None:  # the tests on hosts do without
    from support.recorder import log_as_before, no_secret_of_another_test  # noqa: F401

KEPT_OUT = pytest.StashKey[Counter[str]]()
MARKS = {
    "slow": "slow (make test runs them)",
    "engine": "need the embedded engine (make test installs it and runs them)",
}


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
