"""What SQLite left out of a write-ahead log when it opened it.

It takes a log up to the first frame whose checksum is wrong and says nothing of what stands behind: that is how an
interrupted commit looks, too. Whether commits stand there can be told by the log's own format, which SQLite documents
(fileformat2.html). How many frames were taken, SQLite itself is asked: to open the database or the log's index besides
it, and to close them again, would take this process's locks away (fcntl(2)), and whoever opens the database next would
cut the index from under it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path

from mexc_pipeline.files import copy, data_from
from mexc_pipeline.paths import sync_folder

log = logging.getLogger("mexc_pipeline.spool")

_HEADER, _FRAME = 32, 24
_FOREIGN = 16 << 20
"""Bytes in succession that are no frames of this use of the log, after which none is looked for any more: what a log
says of its size bounds nothing, and behind the newest frames stand those of earlier uses."""


def keep_left_out(db: sqlite3.Connection, path: Path) -> str | None:
    """Say that rows are lost, and keep a copy of the log that has them, where commits stand behind a damaged place of a
    database's log: the next commit would write over them. Returns the copy's name; None where there are none. The
    caller has opened the database to write to it and has not done so yet."""
    (page_size,) = db.execute("PRAGMA page_size").fetchone()
    db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # what opens the log
    log_path = path.with_name(f"{path.name}-wal")
    try:
        _, taken, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        commits, end = _left_out(log_path, max(0, taken), page_size)
    except (OSError, sqlite3.Error) as error:
        log.warning("log not looked at", extra={"fields": {"file": log_path.name, "why": str(error)}})
        return None
    if not commits:
        return None
    # A power cut leaves one at most, which was never finished: each is synced before the next begins.
    why = "unfinished" if commits == 1 else "damaged"
    target = path.with_name(f"{log_path.name}.{why}-{time.time_ns()}")
    fields = {"file": target.name, "commits": commits}
    try:
        copy(log_path, target, end)
        sync_folder(target.parent)
    except OSError as error:  # a full disk; recording goes on
        fields = {"file": log_path.name, "commits": commits, "not_kept": str(error)}
    said = "rows lost: their log is damaged before them"
    log.error(said if commits > 1 else "a commit was never finished, or is lost", extra={"fields": fields})
    return str(fields["file"])


def _left_out(log_path: Path, taken: int, page_size: int) -> tuple[int, int]:
    """Commits behind the first ``taken`` frames, and where the last of them ends. A frame of an earlier use of the log
    is none; nor is the last commit where the process died in it, unless the power failed."""
    try:
        fd = os.open(log_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        size, step = os.fstat(fd).st_size, _FRAME + page_size
        head = os.pread(fd, _HEADER, 0)
        # Where the head is damaged nothing is taken: the first frame says which use of the log they are of.
        salts = head[16:24] if _is_sound(head) else os.pread(fd, 8, _HEADER + 8)
        commits = end = foreign = 0
        at = _HEADER + taken * step
        while at + step <= size and foreign < _FOREIGN:
            frame = os.pread(fd, _FRAME, at)
            if frame[8:16] == salts and any(salts):
                foreign = 0
                if any(frame[4:8]):
                    commits, end = commits + 1, at + step
            elif (data := data_from(fd, at)) is None:
                break
            elif data >= at + _FRAME:  # in a hole there are no frames
                at += (data - _FRAME - at) // step * step
            else:
                foreign += step
            at += step
        return commits, end
    finally:
        os.close(fd)


def _is_sound(head: bytes) -> bool:
    """Whether a log's header has the checksum that it says."""
    words = [int.from_bytes(head[at : at + 4], "big" if head[3:4] == b"\x83" else "little") for at in range(0, 24, 4)]
    one = two = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return len(head) == _HEADER and head[24:32] == one.to_bytes(4, "big") + two.to_bytes(4, "big")
