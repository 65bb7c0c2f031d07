"""A command to its end, and what it took."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Done:
    """Standard output, seconds on the clock, CPU seconds of all its threads, and its peak of resident memory in MB."""

    output: str
    seconds: float
    cpu_s: float
    peak_mb: float


def run(command: Sequence[str]) -> Done:
    """Run ``python COMMAND``. RuntimeError with what it said where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        took = Path(folder) / "took.json"
        launch = [sys.executable, "-m", "bench.launch", str(took), *command]
        said = subprocess.run(launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
        done = json.loads(took.read_text())
    if done["status"]:
        raise RuntimeError(f"{' '.join(command)} ended with {done['status']}: {said[-1000:]}")
    return Done(said, done["seconds"], done["cpu_s"], done["peak_mb"])
