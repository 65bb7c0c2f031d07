"""Which segments an export was in the midst of when it was killed: the next one begins with the others.

Whatever it is that a segment needs too much of (memory, time), a job that began with it again at each try would give no
file to anybody else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mexc_pipeline.files import own_anew
from mexc_pipeline.paths import regular
from mexc_pipeline.spool.segment import SegmentInfo

log = logging.getLogger("mexc_pipeline.export")

FILE = "under_way"
_MOST = 1 << 20


class UnderWay:
    """The names of such segments, in a file of a folder whose lock is held."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._names = self._read()

    def last(self, segments: Iterable[SegmentInfo]) -> list[SegmentInfo]:
        """The segments in their order, those last with which an export ended before."""
        return sorted(segments, key=lambda segment: _name(segment) in self._names)

    @contextmanager
    def __call__(self, segment: SegmentInfo) -> Iterator[None]:
        """Have a segment named there for as long as it is under way, however that ends but for a kill."""
        name = _name(segment)
        self._write({*self._names, name})
        try:
            yield
        finally:
            self._names.discard(name)
            self._write(self._names)

    def _read(self) -> set[str]:
        try:
            with open(self._path, "rb", opener=regular) as file:
                return set(file.read(_MOST).decode(errors="replace").splitlines())
        except FileNotFoundError:
            return set()
        except OSError as error:
            log.warning("order of an earlier export not known", extra={"fields": {"why": str(error)}})
            return set()

    def _write(self, names: set[str]) -> None:
        try:
            fd = own_anew(self._path, os.O_WRONLY | os.O_TRUNC, 0o640)
            try:
                os.write(fd, "".join(f"{name}\n" for name in sorted(names)).encode())
            finally:
                os.close(fd)
        except OSError as error:  # it is only an order
            log.warning("segment under way not noted", extra={"fields": {"why": str(error)}})


def _name(segment: SegmentInfo) -> str:
    return f"{segment.id}/{segment.path.name}"
