"""What this package raises, and how it runs commands."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class HostsError(Exception):
    """Something the test hosts need is not there or did not work; the message is for whoever runs the tests."""


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed. Raises HostsError with its last lines otherwise."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=env, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise HostsError(f"{' '.join(words)} ended with status {done.returncode}:\n{tail}")
    return done.stdout
