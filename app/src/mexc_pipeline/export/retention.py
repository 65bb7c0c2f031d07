"""Retention: which exported files may be deleted, by age and by free space, and deleting them.

A file goes only if its content was read just now and is what its metadata says, and, where there is an archive, the
archive has it. The newest file of a symbol stays (the next seq is known from it), and so does every file whose
segment is still in the spool.

Age needs two clocks that agree. It is counted to this host's time or to the newest time that the exchange itself has
put on a recorded frame (and an hour, in which that frame's file came to be), whichever is earlier: a clock that is
ahead deletes nothing early, and where nothing was recorded for a month, nothing goes until something is. It is counted
from the end of a file's period or from the exchange's newest time in the file or in one recorded before it, whichever
is latest: a file that was named by a clock that was behind is not taken for an old one. One without any such time is as
old as the next that has one, and stays where none has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mexc_pipeline import memory
from mexc_pipeline.config import Config, duration_ns
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export.clock import wrong_clock
from mexc_pipeline.export.order import Placed, in_order
from mexc_pipeline.export.parquet import FileError, metadata, open_file, read_content
from mexc_pipeline.paths import regular, same, sync_folder
from mexc_pipeline.periods import HOUR_NS
from mexc_pipeline.rows import FRAME_TYPES, MT_NAMES
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader, UnavailableError
from mexc_pipeline.spool.walk import by_symbol, exported_files, segments
from mexc_pipeline.text import counted

log = logging.getLogger("mexc_pipeline.export")

CHECK_S = 300.0
NEWEST_SEGMENTS = 2
PROVING = 1 << 30
"""Bytes of memory that reading one file may take."""
MS_NS = 1_000_000
_SIZE = re.compile(r"(\d{1,12})([KMGT]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Rules:
    """When files go and what must have them first.

    ``keep_ns``: age since the end of its period at which a file goes, None for never. ``min_free``: bytes free below
    which the oldest go, None for never. ``archive``: a folder that must hold a copy: another, equal file of the name.
    ``archive_check``: a command, ``{file}`` in it replaced by the path, that exits 0 where the archive has the file.
    """

    keep_ns: int | None = None
    min_free: int | None = None
    archive: Path | None = None
    archive_check: tuple[str, ...] = ()


@dataclass(slots=True)
class PruneReport:
    """What went (name and bytes), what had to stay and why, and what is wrong. ``in_spool``: what stays at any age, as
    its segment is still in the spool. ``free``: bytes free afterwards."""

    deleted: list[tuple[str, int]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    in_spool: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    free: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def exit_status(self) -> int:
        """The exit status: 0 where nothing failed, else 1."""
        return 0 if self.ok else 1

    def lines(self) -> list[str]:
        """What a terminal shows: what went, what stays, failures last."""
        freed = sum(size for _, size in self.deleted)
        return [
            *(f"{name} deleted, {size:,} bytes" for name, size in self.deleted),
            *(f"{name} stays: {why}" for name, why in self.kept),
            f"{counted(len(self.deleted), 'file')} deleted, {freed:,} bytes; {self.free:,} bytes are free",
            *self.failures,
            *self._held(),
        ]

    def _held(self) -> list[str]:
        if not self.in_spool:
            return []
        stay, their = ("stays", "its") if len(self.in_spool) == 1 else ("stay", "their")
        files = counted(len(self.in_spool), "file")
        return [f"{files} {stay} at any age: {their} segment is still in the spool (spool_keep)"]

    def to_json(self) -> dict[str, Any]:
        """The answer of ``--json``: ``ok``, ``deleted``, ``kept``, ``in_spool``, ``failures``, ``free``."""
        return {"ok": self.ok, **asdict(self)}


class _StaysError(Exception):
    """A file may not go; the message says why. ``wrong`` where somebody has to look at it."""

    def __init__(self, why: str, *, wrong: bool = False) -> None:
        super().__init__(why)
        self.wrong = wrong


def size_bytes(text: str) -> int:
    """Bytes of a size such as ``20G`` (units of 1024: K, M, G, T). ConfigError otherwise."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(f"--min-free: {text!r} is not a size: a whole number, with K, M, G or T, such as 20G")
    return int(match[1]) * _UNITS[match[2]]


def rules(keep: str | None, min_free: str | None, archive: Path | None, archive_check: str | None) -> Rules:
    """Rules from a command line's texts; ``archive_check`` is a JSON list of words. ConfigError names what is wrong."""
    try:
        keep_ns = duration_ns(keep) if keep else None
    except ValueError as error:
        raise ConfigError(f"--keep: {error}") from error
    words: Any = ()
    if archive_check:
        try:
            words = json.loads(archive_check)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"--archive-check: not JSON: {error}") from error
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise ConfigError("--archive-check: a JSON list of words is needed, the command first")
        if not any("{file}" in word for word in words):
            raise ConfigError("--archive-check: {file} stands nowhere in it; every file would get the same answer")
    return Rules(keep_ns, size_bytes(min_free) if min_free else None, archive, tuple(words))


def prune(
    config: Config,
    rules: Rules,
    *,
    now_ns: Callable[[], int] = time.time_ns,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> PruneReport:
    """Delete what the rules allow, oldest first. Exit status 1 where a file is not what it should be, or where the
    disk stays fuller than ``min_free`` allows. Raises LockedError while an export runs."""
    report = PruneReport()
    folder = config.export_dir
    if not folder.is_dir():
        raise UserError(f"export folder {folder} is not there; check export_dir")
    if rules.archive is not None and not rules.archive.is_dir():
        raise ConfigError(f"--archive {rules.archive} is no folder (not mounted?); nothing was deleted")
    if rules.archive is not None and same(rules.archive, folder):
        raise ConfigError(f"--archive {rules.archive} is the export folder itself, no copy of it; nothing was deleted")
    with SpoolLock(config.data_dir / "export", what="export of"):
        symbols = _symbols(config)
        report.in_spool = [name for symbol in symbols for name in symbol.in_spool]
        looked: set[Path] = set()
        seen_ns = now_ns()  # before the collectors are asked for the clock: it may be set afterwards
        wrong = wrong_clock(config) if rules.keep_ns is not None else None
        if wrong is not None:
            report.failures.append(wrong)
        elif rules.keep_ns is not None:
            until_ns = min(seen_ns, confirmed_ns(config, symbols) + HOUR_NS)
            for files in symbols:
                for path in _aged(files, until_ns, rules.keep_ns):
                    looked.add(path)
                    _try(path, rules, report)
        if rules.min_free is not None and free_bytes(folder) < rules.min_free:
            for file in merge(*(s.may_go for s in symbols), key=lambda file: file.name.start_ns):
                if file.path not in looked:
                    _try(file.path, rules, report)
                if free_bytes(folder) >= rules.min_free:
                    break
            else:
                report.failures.append(
                    f"{folder} has {free_bytes(folder):,} bytes free, less than {rules.min_free:,}, and no file may go"
                )
        report.free = free_bytes(folder)
    return report


class _Files(NamedTuple):
    """A symbol's files in the order of their rows, those of them that may go at all, and the names of those whose
    segment is still in the spool."""

    id: str
    placed: list[Placed]
    may_go: list[Placed]
    in_spool: list[str]


def _symbols(config: Config) -> list[_Files]:
    found: list[_Files] = []
    for symbol_id, group in groupby(in_order(exported_files(config.export_dir)), key=lambda file: file.name.id):
        placed = list(group)
        newest = max(placed, key=lambda file: file.last_seq)
        try:
            in_spool = {name.start_ns for name, _ in segments(config.spool_dir / symbol_id)}
        except UnavailableError as error:  # it is not known which have a segment
            log.warning("no file deleted", extra={"fields": {"id": symbol_id, "why": str(error)}})
            may_go, held = [], []
        else:
            held = [file.path.name for file in placed if file.name.start_ns in in_spool]
            may_go = [file for file in placed if file is not newest and file.name.start_ns not in in_spool]
        found.append(_Files(symbol_id, placed, may_go, held))
    return found


def confirmed_ns(config: Config, symbols: Sequence[_Files]) -> int:
    """The newest time (Unix ns) that the exchange has put on a frame of any symbol, in its newest files and in the
    spool; 0 where there is none. It has certainly come."""
    times = [0]
    for symbol in symbols:
        for file in reversed(symbol.placed):
            if newest := _frame_ns(file.path):
                times.append(newest)
                break
    for _, found in by_symbol(config.spool_dir):
        for path, error in found.unreadable:
            _not_read(path, error)
        times += [_newest_frame_ns(segment) for segment in found.readable[-NEWEST_SEGMENTS:]]
    return max(times)


def _newest_frame_ns(segment: SegmentInfo) -> int:
    try:
        with SegmentReader(segment.path) as reader:
            return reader.newest_frame_ns()
    except (SegmentError, sqlite3.Error) as error:
        _not_read(segment.path, error)
        return 0


def _not_read(path: Path, error: Exception) -> None:
    log.warning("segment cannot be read", extra={"fields": {"segment": str(path), "error": str(error)}})


def _frame_ns(path: Path) -> int:
    """The exchange's newest time (Unix ns) in a file; 0 where there is none, or where it cannot be read, which is said
    where the file would have to go."""
    wanted = pa.array([MT_NAMES[mt] for mt in FRAME_TYPES])
    try:
        with memory.at_most(PROVING), open_file(path) as parquet:
            for group in reversed(range(parquet.num_row_groups)):
                table = parquet.read_row_group(group, ["ts", "mt"])
                market = pc.is_in(table.column("mt").cast(pa.string()), wanted)
                times = table.column("ts").cast(pa.int64()).filter(market)
                if len(times):
                    return int(pc.max(times).as_py()) * MS_NS
    except (FileError, OSError, pa.ArrowException, MemoryError) as error:
        log.warning("file cannot be read", extra={"fields": {"file": path.name, "error": str(error)}})
    return 0


def _aged(files: _Files, until_ns: int, keep_ns: int) -> Iterator[Path]:
    """The files that are old enough, oldest first; true time does not go back from one to the next."""
    may_go = {file.path for file in files.may_go}
    frame_ns = cache(_frame_ns)
    time_ns = 0
    for place, file in enumerate(files.placed):
        edge_ns = _edge_ns(file.name, file.path)
        if edge_ns <= until_ns:
            time_ns = max(time_ns, edge_ns)
        if until_ns - time_ns < keep_ns:
            return
        if file.path in may_go:
            told_ns = next(filter(None, (frame_ns(later.path) for later in files.placed[place:])), 0)
            if not told_ns or until_ns - max(time_ns, told_ns) < keep_ns:
                return
            time_ns = max(time_ns, frame_ns(file.path))
            yield file.path


def _edge_ns(name: FileName, path: Path) -> int:
    """End of the file's period; its start where the file does not say, which makes it look older: it is judged next."""
    try:
        return int(metadata(path)["edge_ns"])
    except (FileError, KeyError, ValueError):
        return name.start_ns


def _try(path: Path, rules: Rules, report: PruneReport) -> None:
    try:
        _judge(path, rules)
        size = path.stat().st_size
        path.unlink()
        sync_folder(path.parent)
    except _StaysError as error:
        report.kept.append((path.name, str(error)))
        if error.wrong:
            report.failures.append(f"{path}: {error}")
    except OSError as error:
        report.failures.append(f"{path}: cannot be deleted: {error.strerror or error}")
    else:
        report.deleted.append((path.name, size))
        log.info("file deleted", extra={"fields": {"file": path.name, "bytes": size}})


def _judge(path: Path, rules: Rules) -> None:
    """Raise _StaysError unless the file is whole and, where there is an archive, archived."""
    try:
        with memory.at_most(PROVING):
            said, content = metadata(path), read_content(path)
    except MemoryError:
        why = f"reading it takes more than {PROVING >> 20} MiB of memory: no file of ours does"
        raise _StaysError(why, wrong=True) from None
    except FileError as error:
        raise _StaysError(str(error), wrong=True) from error
    if not content.digest or content.digest != said.get("digest"):
        damaged = "; ".join(f"{column}: {why}" for column, why in content.damaged.items())
        raise _StaysError(f"its content is not what its metadata says {damaged}".rstrip(), wrong=True)
    if content.contradicted:
        raise _StaysError(content.contradicted[0], wrong=True)
    if rules.archive is not None:
        _compare(path, rules.archive / path.name)
    if rules.archive_check:
        _ask(path, rules.archive_check)


def _compare(path: Path, copy: Path) -> None:
    try:
        if copy.samefile(path):
            raise _StaysError(f"{copy} is the file itself (a link), not a copy of it", wrong=True)
        if copy.stat().st_size != path.stat().st_size or _sha256(copy) != _sha256(path):
            raise _StaysError(f"{copy} is not equal to it", wrong=True)
    except FileNotFoundError:
        raise _StaysError("not yet in the archive") from None
    except OSError as error:
        raise _StaysError(f"{copy} cannot be read: {error.strerror}", wrong=True) from error


def _sha256(path: Path) -> bytes:
    with open(path, "rb", opener=regular) as file:
        return hashlib.file_digest(file, "sha256").digest()


def _ask(path: Path, command: Sequence[str]) -> None:
    words = [word.replace("{file}", str(path)) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, timeout=CHECK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _StaysError(f"the archive could not be asked: {error}", wrong=True) from error
    if done.returncode != 0:
        raise _StaysError(f"not yet in the archive ({words[0]} exited {done.returncode})")
