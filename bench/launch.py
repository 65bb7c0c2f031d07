"""``python -m bench.launch FILE COMMAND…``: run ``python COMMAND`` and leave in FILE what it took, as JSON.

A process of its own because the kernel counts what a program's parent held when it was started into the program's peak
of memory (``ru_maxrss``): the parent has to be small.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    target, *command = sys.argv[1:]
    began = time.monotonic()
    pid = os.posix_spawn(sys.executable, [sys.executable, *command], os.environ)
    _, status, usage = os.wait4(pid, 0)
    done = {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    with open(target, "w") as file:
        json.dump(done, file)


if __name__ == "__main__":
    main()
