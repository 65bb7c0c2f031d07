"""A bound on the memory that reading somebody's file may take.

A file of a few kilobytes can claim gigabytes in more ways than its footer can be checked for; the kernel's limit holds
for all of them.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Let the process have ``size`` bytes of memory more than it has now; beyond them allocations fail, which Python
    and PyArrow raise as MemoryError. It is the whole process's limit: for commands, not for others' programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data() + size
    bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([limit, *bounds]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data() -> int:
    """Bytes of private writable memory, as RLIMIT_DATA counts them (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * os.sysconf("SC_PAGE_SIZE")
