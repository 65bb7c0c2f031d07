"""Ctrl-C while the program loads, works or ends: one line, exit status 130; help and version on any standard output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.{handler})
sys.meta_path.insert(0, Interrupts())
sys.argv = ["mexc-pipeline", *{args!r}]
from mexc_pipeline.cli import main
main()
"""


def run_interrupted(
    tmp_path: Path, module: str, handler: str = "default_int_handler"
) -> subprocess.CompletedProcess[str]:
    """``status``, with Ctrl-C as that module is about to be imported."""
    settings = tmp_path / "m.toml"
    settings.write_text(f'data_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\n')
    code = INTERRUPTED.format(module=module, handler=handler, args=["--config", str(settings), "status"])
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )


@pytest.mark.parametrize(
    "module",
    ["mexc_pipeline.cli.app", "click", "mexc_pipeline.config", "mexc_pipeline.cli.reports", "mexc_pipeline.health"],
)
def test_ctrl_c_while_it_loads_is_one_line(tmp_path: Path, module: str) -> None:
    done = run_interrupted(tmp_path, module)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mexc-pipeline: interrupted\n")


def test_ctrl_c_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As in the background of a script."""
    done = run_interrupted(tmp_path, "click", "SIG_IGN")
    assert done.returncode in (0, 1)
    assert "interrupted" not in done.stderr
    assert "nothing was recorded yet" in " ".join(done.stdout.split())


@pytest.mark.parametrize("args", ["--help", "--version", "status --help", "simulate --help"])
@pytest.mark.parametrize(("where", "why"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")])
def test_help_that_cannot_be_printed_says_so(args: str, where: str, why: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m mexc_pipeline {args} {where}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"mexc-pipeline: standard output: {why}\n")


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("mexc-pipeline, version ")
    assert len(done.stdout.splitlines()) == 1
