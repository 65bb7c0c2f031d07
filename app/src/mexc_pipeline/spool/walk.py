"""The one way through what is recorded: the symbols' folders of a spool, the segments of a folder and the exported
files of another. What cannot be looked at is named with the reason: it is never taken for nothing, nothing waits for
it, and it stops none of its neighbours."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mexc_pipeline.paths import leads_nowhere, not_allowed
from mexc_pipeline.spool.names import FileName, SegmentName, is_symbol_id
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, UnavailableError, info

_NO_ROW_YET = 1 << 63
"""Stands for the ``first_seq`` of a segment without rows where segments are sorted."""
_APART = re.compile(r"(.*\.sqlite)\.(?:damaged|stale)-(\d{1,20})")
_LOST = re.compile(r"(?:.*\.sqlite|pending\.db)-wal\.(?:damaged|unfinished)-\d{1,20}")


class Unreadable(NamedTuple):
    """A segment that cannot be read, or a folder that cannot be listed, and why."""

    path: Path
    error: SegmentError


class InOrder(NamedTuple):
    """Segments by their rows, and those that cannot be read; the folder itself where that cannot be listed."""

    readable: list[SegmentInfo]
    unreadable: list[Unreadable]


def entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none. UnavailableError where it cannot be listed."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        if leads_nowhere(folder):
            raise UnavailableError(f"{folder} is a link to nothing: put back what it leads to, or remove it") from None
        return []
    except OSError as error:
        said = not_allowed(folder) or f"{folder} cannot be listed: {error.strerror or error}"
        raise UnavailableError(said) from error


def symbols(spool_dir: Path) -> list[Path]:
    """The folders of a spool directory by name, one for each symbol, also those that may be one and cannot be looked
    at. Empty where there is no such directory; UnavailableError where it cannot be listed."""
    return sorted(path for path in entries(spool_dir) if may_be_a_symbols(path))


def may_be_a_symbols(path: Path) -> bool:
    """Whether something in a spool directory may be a symbol's folder. What cannot be looked into is none under a name
    that no symbol has: ``lost+found``, which is root's, of a file system that is mounted there."""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return False
        if os.access(path, os.R_OK | os.X_OK):
            return True
    except OSError:
        pass  # whoever looks into it says what is wrong with it
    return is_symbol_id(path.name)


def by_symbol(spool_dir: Path) -> Iterator[tuple[Path, InOrder]]:
    """Each symbol's folder with its segments; the spool directory itself where it cannot be listed."""
    try:
        folders = symbols(spool_dir)
    except UnavailableError as error:
        yield spool_dir, InOrder([], [Unreadable(spool_dir, error)])
        return
    for folder in folders:
        yield folder, in_order(folder)


def segments(folder: Path) -> list[tuple[SegmentName, Path]]:
    """Segment files of one symbol's spool folder by name, which is not their order; empty where there is no folder.
    UnavailableError where it cannot be listed: what is unknown is not nothing."""
    found = [(name, path) for path in entries(folder) if (name := SegmentName.parse(path.name)) is not None]
    return sorted(found)


def apart(folder: Path) -> list[tuple[SegmentName, int, Path]]:
    """Segments that were set apart, as damaged or because newer rows were known: which, when (Unix ns), and where they
    are; by name. Raises as :func:`segments`."""
    named = [(_APART.fullmatch(path.name), path) for path in entries(folder)]
    return sorted(
        (name, int(match[2]), path)
        for match, path in named
        if match is not None and (name := SegmentName.parse(match[1])) is not None
    )


def lost_logs(folder: Path) -> list[str]:
    """Names of the write-ahead logs that were kept because commits stand behind a damaged place in them. Raises as
    :func:`segments`."""
    return sorted(path.name for path in entries(folder) if _LOST.fullmatch(path.name))


def is_recorded(folder: Path) -> bool:
    """Whether a folder has segments, or may have some that cannot be seen."""
    try:
        return bool(segments(folder) or apart(folder))
    except UnavailableError:
        return True


def each(folder: Path, look: Callable[[Path], SegmentInfo] = info) -> Iterator[SegmentInfo | Unreadable]:
    """The segments of one symbol's spool folder by name, as :func:`looked_at` gives them; the folder itself where it
    cannot be listed."""
    try:
        there = segments(folder)
    except UnavailableError as error:
        yield Unreadable(folder, error)
        return
    yield from looked_at((path for _, path in there), look)


def looked_at(paths: Iterable[Path], look: Callable[[Path], SegmentInfo] = info) -> Iterator[SegmentInfo | Unreadable]:
    """Segments in the order in which they are given, each opened when its turn comes and closed again: what it says of
    itself (``look``, which raises SegmentError), or why that is not known. One that is of another symbol than its
    folder is among the latter: its rows must not be taken for those of this one. One that was removed since it was
    listed is left out."""
    for path in paths:
        try:
            found = _of_its_folder(look(path))
        except SegmentError as error:
            if is_there(path, error):
                yield Unreadable(path, error)
        except OSError as error:
            yield Unreadable(path, UnavailableError(f"{path} cannot be looked at: {error.strerror or error}"))
        else:
            yield found


def in_order(folder: Path) -> InOrder:
    """The segments of one symbol's spool folder in the order in which they were recorded: by ``first_seq``, one that
    has no row yet last. Names do not tell it: a clock that was set back, or a period of another length, reaches a
    period again. Segments that are removed while they are looked at are in neither list."""
    found = InOrder([], [])
    for one in each(folder):
        if isinstance(one, Unreadable):
            found.unreadable.append(one)
        else:
            found.readable.append(one)
    found.readable.sort(key=recorded)
    return _each_once(found)


def _each_once(found: InOrder) -> InOrder:
    """Without segments that have the rows of one before them, which no two of a spool have: copies of one whose version
    did not say yet which part it is."""
    first: dict[tuple[str, int], SegmentInfo] = {}
    for segment in found.readable:
        if (
            segment.first_seq
            and (one := first.setdefault((segment.spool_id, segment.first_seq), segment)) is not segment
        ):
            said = f"{segment.path}: it has the rows of {one.path.name}: a copy of it; move it away"
            found.unreadable.append(Unreadable(segment.path, SegmentError(said)))
    copies = {path for path, _ in found.unreadable}
    return InOrder([segment for segment in found.readable if segment.path not in copies], found.unreadable)


def recorded(segment: SegmentInfo) -> tuple[int, SegmentName]:
    """Sorts segments of one symbol in the order in which they were recorded."""
    return segment.first_seq or _NO_ROW_YET, segment.name


def is_there(path: Path, error: SegmentError) -> bool:
    """Whether a segment that could not be read was not merely removed meanwhile: a link to nothing was not."""
    return isinstance(error, UnavailableError) or os.path.lexists(path)


def exported_files(
    export_dir: Path, symbol_id: str | None = None, *, missing_ok: bool = True
) -> list[tuple[FileName, Path]]:
    """The exported files of one symbol or of all, by name: id, period, part. Empty where there is no folder, which
    raises FileNotFoundError or NotADirectoryError unless ``missing_ok``; OSError where it cannot be listed.

    The order of their rows is another: see :func:`mexc_pipeline.export.order.in_order`."""
    try:
        files = [path.name for path in export_dir.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        if not missing_ok:
            raise
        return []
    found = [(name, export_dir / file) for file in files if (name := FileName.parse(file)) is not None]
    wanted = [(name, path) for name, path in found if symbol_id in (None, name.id)]
    return sorted(wanted, key=lambda item: (item[0].id, item[0].start_ns, item[0].part))


def _of_its_folder(segment: SegmentInfo) -> SegmentInfo:
    symbol_id = segment.path.parent.name
    if segment.id != symbol_id:
        raise SegmentError(
            f"{segment.path}: a segment of id {segment.id!r} in the folder of {symbol_id!r}; move it away"
        )
    return segment
