"""What a test needs of the machine: without it the test is skipped, and fails where ``CI`` is set."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import NoReturn

import pytest

from support.machine import program


def missing(what: str) -> NoReturn:
    """End the test that cannot be run here."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and with CI set every test has to run", pytrace=False)
    pytest.skip(what)


def programs(*names: str) -> None:
    """All of these, of which ``support.machine.NEEDS`` says how they are installed."""
    absent = [name for name in names if program(name) is None]
    if absent:
        missing(f"{', '.join(absent)}: not on this machine (make deps)")


def root() -> None:
    """Rights that only root has."""
    if os.geteuid() != 0:
        missing("only root can become other users, give files away, mount")


def engine() -> None:
    """The embedded ClickHouse engine."""
    if find_spec("chdb") is None:
        missing("the embedded engine is not installed (make test installs it)")


def browser() -> None:
    """A browser, and what drives it."""
    programs("chromium")
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        missing("what drives a browser is not installed (make test installs it)")
