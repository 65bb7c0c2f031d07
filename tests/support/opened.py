"""Which files of a folder anybody opens, by what the kernel says (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

_OPEN, _CREATE, _MODIFY, _DELETE, _MOVED_FROM, _MOVED_TO, _ATTRIB = 0x20, 0x100, 0x2, 0x200, 0x40, 0x80, 0x4
_ALL = _OPEN | _CREATE | _MODIFY | _DELETE | _MOVED_FROM | _MOVED_TO | _ATTRIB
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Opened:
    """Watches a folder and what lies directly in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or _libc.inotify_add_watch(self._fd, os.fsencode(self._folder), _ALL) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def names(self) -> list[str]:
        """What was opened, made, changed or taken away since it was asked last; the folder itself is an empty name."""
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return []
        found = []
        while data:
            *_, size = _EVENT.unpack_from(data)
            found.append(data[_EVENT.size : _EVENT.size + size].rstrip(b"\0").decode())
            data = data[_EVENT.size + size :]
        return found
