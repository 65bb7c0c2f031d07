"""Run on a collector host: starts an export and holds it (SIGSTOP) while a file is written and has no name yet, for
something to be done beside it: all it needs for that file it has read, and so it would go on.

Usage: held_export.py DATA_DIR EXPORT_DIR COMMAND...
Prints the id of its process, as its lock names it. Tries again where a file was whole before its process was held.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

TRIES_S = 60.0
_MAGIC = b"PAR1"
"""Begins and ends a Parquet file."""


def main() -> int:
    """1 where none could be held."""
    data, exports, command = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    nothing = subprocess.DEVNULL
    end = time.monotonic() + TRIES_S
    while time.monotonic() < end:
        started = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        while started.poll() is None:
            if _growing(exports):
                with suppress(ProcessLookupError, FileNotFoundError):  # ended meanwhile
                    pid = int(json.loads((data / "export" / "lock").read_bytes())["pid"])
                    if _held(pid, exports):
                        print(pid)  # noqa: T201 - its answer
                        return 0
    return 1


def _held(pid: int, exports: Path) -> bool:
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TZ":
        time.sleep(0.001)
    if _growing(exports):
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def _growing(exports: Path) -> bool:
    for path in exports.iterdir():
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            with suppress(FileNotFoundError):
                content = path.read_bytes()
                return len(content) > len(_MAGIC) and content.endswith(_MAGIC)
    return False


if __name__ == "__main__":
    sys.exit(main())
