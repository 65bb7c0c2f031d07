"""A file system of a few megabytes, mounted by the test."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import needs

MIB = 1 << 20


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[None]:
    """A tmpfs of that size on the folder. Skips the test for anybody but root, but fails it where ``CI`` is set."""
    needs.root()
    needs.programs("mount", "umount")
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def take(folder: Path, leave: int) -> Path:
    """Fill the file system but for that many bytes; the file that does it. What others take meanwhile is not taken
    from them, and what they give back is left."""
    path = folder / "ballast"
    found = os.statvfs(folder)
    size = found.f_bavail * found.f_frsize - leave
    with path.open("wb", buffering=0) as file:
        with _until_full():  # refused, it takes nothing: others took theirs since the look
            os.posix_fallocate(file.fileno(), 0, max(1, size - 2 * MIB))
        file.seek(0, os.SEEK_END)
        with _until_full():
            while file.tell() < size:
                file.write(bytes(min(size - file.tell(), 65536)))
    return path
