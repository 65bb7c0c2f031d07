"""What SQLite left out of a write-ahead log when it opened it.

It takes a log up to the first frame whose checksum is wrong and says nothing of what stands behind: that is how an
interrupted commit looks, too. Whether commits stand there can be told by the log's own format, which SQLite documents
(fileformat2.html, walformat.html).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_HEADER, _FRAME = 32, 24
_MX_FRAME = slice(16, 20)
"""Where the log's index says how many frames were taken."""


def left_out(path: Path, page_size: int) -> int:
    """Commits in a database's log that were not taken, for whoever has the database open and has read from it, before
    anything is written to it. A frame of an earlier use of the log is none; nor is the last commit where the process
    died in it, unless the power failed. OSError where it cannot be looked at."""
    try:
        log = os.open(path.with_name(f"{path.name}-wal"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        with path.with_name(f"{path.name}-shm").open("rb") as index:
            taken = int.from_bytes(index.read(_MX_FRAME.stop)[_MX_FRAME], sys.byteorder)
        size, step = os.fstat(log).st_size, _FRAME + page_size
        head = os.pread(log, _HEADER, 0)
        # Where the head is damaged nothing is taken: the first frame says which use of the log they are of.
        salts = head[16:24] if _is_sound(head) else os.pread(log, 8, _HEADER + 8)
        frames = (os.pread(log, _FRAME, at) for at in range(_HEADER + taken * step, size - step + 1, step))
        return sum(frame[8:16] == salts and any(frame[4:8]) for frame in frames)
    finally:
        os.close(log)


def _is_sound(head: bytes) -> bool:
    """Whether a log's header has the checksum that it says."""
    words = [int.from_bytes(head[at : at + 4], "big" if head[3:4] == b"\x83" else "little") for at in range(0, 24, 4)]
    one = two = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return len(head) == _HEADER and head[24:32] == one.to_bytes(4, "big") + two.to_bytes(4, "big")
