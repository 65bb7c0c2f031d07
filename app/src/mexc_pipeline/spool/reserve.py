"""The reserve: a file in the spool folder that holds blocks of the disk until they are needed for the last words."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from mexc_pipeline.files import own
from mexc_pipeline.paths import sync_folder
from mexc_pipeline.spool.segment import clear

FILE = "reserve"


class Reserve:
    """The reserve of one spool folder, of ``size`` bytes. The caller holds the folder's lock."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._path = folder / FILE
        self.size = size

    def is_held(self) -> bool:
        """Whether all of it is allocated."""
        try:
            found = self._path.lstat()
        except OSError:
            return False
        is_ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        return is_ours and found.st_size == self.size and found.st_blocks * 512 >= self.size

    def make(self) -> None:
        """Allocate the reserve. OSError where that cannot be done; then nothing is kept."""
        making = self._path.with_name(f".{FILE}.new")
        for path in (self._path, making):  # its blocks first; whatever else has the name only loses it
            clear(path)
        try:
            fd = own(making, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
            try:
                os.posix_fallocate(fd, 0, self.size)
                os.fsync(fd)
            finally:
                os.close(fd)
            making.rename(self._path)
        except OSError:
            making.unlink(missing_ok=True)
            raise

    def move(self, folder: Path) -> None:
        """Have it in another folder of the same file system, whose lock the caller holds too, as far as it is there to
        be moved."""
        before, self._folder, self._path = self._path, folder, folder / FILE
        with contextlib.suppress(OSError):
            before.replace(self._path)
            sync_folder(folder)

    def release(self) -> None:
        """Give the blocks back to the file system; OSError where it does not let go of the file."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return
        sync_folder(self._folder)  # what a journal still holds cannot be used before
