"""A command to its end, and what it took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """Standard output, seconds on the clock, CPU seconds of all its threads, and its peak of resident memory in MB."""

    output: str
    seconds: float
    cpu_s: float
    peak_mb: float


def run(command: Sequence[str]) -> Done:
    """Run ``python COMMAND``. RuntimeError with what it said where it fails."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said[-1000:]}")
    return Done(said, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
