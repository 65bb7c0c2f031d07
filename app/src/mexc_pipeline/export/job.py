"""The export job: which segments there are to export, in what order, and what stands in the way."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from pathlib import Path

from mexc_pipeline import signals
from mexc_pipeline.config import Config, check_mounted
from mexc_pipeline.control import NotRunningError, ask
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export.clock import wrong_clock
from mexc_pipeline.export.files import (
    FolderError,
    Hook,
    StoppedError,
    copy_open,
    export_segment,
    no_hook,
    prepare_folder,
    sweep,
    wrong_place,
)
from mexc_pipeline.export.parquet import FileError, metadata
from mexc_pipeline.export.report import Exported, ExportReport, Failed
from mexc_pipeline.export.under_way import UnderWay
from mexc_pipeline.paths import check_apart, same
from mexc_pipeline.spool import pending
from mexc_pipeline.spool.last_seq import LastSeq, ask_last_seq, own_ids
from mexc_pipeline.spool.lifecycle import prune, read_left_open, seal_left_open
from mexc_pipeline.spool.lock import LockedError, SpoolLock
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, UnavailableError
from mexc_pipeline.spool.walk import in_order, is_recorded, symbols

log = logging.getLogger("mexc_pipeline.export")

LOCK_WAIT_S = 30.0
ASK_AGAIN_S = 0.5
CUT_TIMEOUT_S = 30.0


def main(
    config: Config,
    ids: Sequence[str] | None = None,
    once: bool = False,
    copy_to: Path | None = None,
    missing: bool = False,
) -> ExportReport:
    """Export every closed segment of the symbols (ids or exchange names; none: all, also those no longer configured).

    ``once`` cuts the running period first. ``missing`` also writes again what was exported, has no file any more and is
    still in the spool. ``copy_to`` writes the open period's rows there instead and changes
    nothing. SIGTERM and SIGINT end it early: nothing half done stays in the way. Raises ConfigError for an unknown
    symbol and UserError where nothing can be exported at all; what concerns one segment is in the report.
    """
    stop = threading.Event()
    with stop_on_signals(stop):
        return run(config, ids, once, copy_to, missing, stop=stop)


def run(
    config: Config,
    ids: Sequence[str] | None = None,
    once: bool = False,
    copy_to: Path | None = None,
    missing: bool = False,
    *,
    stop: threading.Event | None = None,
    hook: Hook = no_hook,
    now_ns: Callable[[], int] = time.time_ns,
) -> ExportReport:
    """:func:`main` without signal handling; ``hook`` is called with the name of each step of a file."""
    report = ExportReport()
    chosen = _chosen(config, ids)

    def check() -> None:
        if stop is not None and stop.is_set():
            raise StoppedError

    if copy_to is None:
        check_mounted(config)
    if why := wrong_place(config):
        raise UserError(f"{config.export_dir}: {why}")
    try:
        if copy_to is not None:
            _copy(config, chosen, copy_to, report, check)
            return report
        prepare_folder(config.export_dir)
        with _export_lock(config, check):
            for path in sweep(config.export_dir, set(chosen)):
                log.info("unfinished file removed", extra={"fields": {"file": path.name}})
            for symbol_id in chosen:
                check()
                _close_ended(config, symbol_id, once, now_ns(), report, check)
            _export_all(config, chosen, missing, report, check, hook)
            gone = set(chosen) - {symbol.id for symbol in config.symbols}
            seen_ns = now_ns()  # before its collectors are asked for the clock: it may be set afterwards
            if gone and (wrong := wrong_clock(config)) is not None:
                log.warning("segments not pruned", extra={"fields": {"why": wrong}})
                gone = set()
            for symbol_id in gone:
                _prune(config, symbol_id, seen_ns)
    except StoppedError:
        report.stopped = True
        log.info("export stopped")
    return report


def _chosen(config: Config, ids: Sequence[str] | None) -> list[str]:
    """Symbol ids to work on; a spool folder counts also where its symbol is no longer configured."""
    try:
        folders = [p.name for p in symbols(config.spool_dir) if is_recorded(p) or pending.is_left(p)]
    except UnavailableError as error:
        raise UserError(str(error)) from error
    if not ids:
        return list(dict.fromkeys([*(s.id for s in config.symbols), *folders]))
    return list(dict.fromkeys(key if key in folders else config.symbol(key).id for key in ids))


def _fail(report: ExportReport, symbol_id: str, segment: str | None, error: Exception) -> None:
    """Report what went wrong with one segment; the others get their files whatever it was. What nobody has foreseen is
    logged whole."""
    foreseen = isinstance(error, UserError | SegmentError | OSError | sqlite3.Error)
    text = str(error) if foreseen else f"unexpected {type(error).__name__}: {error}"
    report.failures.append(Failed(symbol_id, segment, text))
    fields = {"id": symbol_id, "segment": segment, "error": text}
    log.error("export failed", extra={"fields": fields}, exc_info=None if foreseen else error)


def _close_ended(
    config: Config, symbol_id: str, once: bool, now_ns: int, report: ExportReport, check: Callable[[], None]
) -> None:
    """Number and close what a collector that is not running left; with ``once`` have the running period cut."""
    folder = config.spool_dir / symbol_id
    try:
        if once and _cut_by_collector(config, symbol_id):
            return
        there = in_order(folder).readable  # those that cannot be read are said once, where segments are exported
        ended = any(found.state == "open" and (once or now_ns >= found.edge_ns) for found in there)
        if not ended and not pending.is_left(folder):
            return
        # This takes its time: a collector that starts meanwhile must not find the lock taken.
        asked = _last_seq(config, symbol_id, check) if pending.is_left(folder) else None
        read = read_left_open(folder, now_ns, once)
        with SpoolLock(folder):
            if asked is not None and pending.is_left(folder):
                pending.number_left(folder, symbol_id, config.period, asked)
            seal_left_open(
                folder,
                now_ns,
                cut=once,
                read=read,
                damaged=lambda path, why: _fail(report, symbol_id, path.name, _apart_next(why)),
            )
    except StoppedError:
        raise
    except LockedError as error:
        if once:  # otherwise its collector is running and closes the segment itself
            _fail(report, symbol_id, None, error)
    except Exception as error:  # noqa: BLE001 - see _fail
        _fail(report, symbol_id, None, error)


def _apart_next(why: SegmentError) -> SegmentError:
    return SegmentError(f"{why}: its collector sets it apart at its next start, nothing else is to be done")


def _prune(config: Config, symbol_id: str, now_ns: int) -> None:
    """Of a symbol that is recorded here no longer: no collector prunes its exported segments."""
    folder = config.spool_dir / symbol_id
    try:
        with SpoolLock(folder):
            for path in prune(folder, now_ns, config.spool_keep_ns):
                log.info("segment pruned", extra={"fields": {"id": symbol_id, "segment": path.name}})
    except LockedError:
        return  # it is recorded all the same, by a collector that was started by hand
    except (OSError, UserError, SegmentError) as error:
        log.error("segments cannot be pruned", extra={"fields": {"id": symbol_id, "error": str(error)}})


def _last_seq(config: Config, symbol_id: str, check: Callable[[], None]) -> LastSeq:
    began = time.monotonic()
    while True:
        ids = own_ids(config.spool_dir / symbol_id)
        found = ask_last_seq(config, symbol_id, ids)
        if found.writer is not None:
            said = f"{symbol_id} has rows without a seq and is recorded by {found.writer}; stop that one first"
            raise UserError(said)
        if found.is_enough(bool(ids), time.monotonic() - began):
            break
        check()
        time.sleep(ASK_AGAIN_S)
    for problem in found.unknown:
        log.warning("not asked for the last seq", extra={"fields": {"id": symbol_id, "why": problem}})
    return found


def _cut_by_collector(config: Config, symbol_id: str) -> bool:
    """Ask the collector to cut; False where none is running. ControlError where it refuses or is silent."""
    path = config.control_dir / f"{symbol_id}.sock"
    try:
        ask(path, "cut", timeout_s=CUT_TIMEOUT_S)
    except NotRunningError:
        return False
    return True


def _export_all(
    config: Config, ids: Sequence[str], missing: bool, report: ExportReport, check: Callable[[], None], hook: Hook
) -> None:
    """Every closed segment, and with ``missing`` every one whose file is gone: a symbol's in the order of their rows,
    the symbols beside each other by time; those last in the midst of which an export was killed."""
    waiting: list[list[SegmentInfo]] = []
    recorded = False
    for symbol_id in ids:
        check()
        found = in_order(config.spool_dir / symbol_id)
        for path, error in found.unreadable:
            _fail(report, symbol_id, path.name, error)
        recorded = recorded or bool(found.readable)
        wanted: list[SegmentInfo] = []
        for segment in found.readable:
            made = segment.state == "exported" and segment.rows > 0
            path = config.export_dir / segment.file
            if segment.state == "closed" or (made and missing and not os.path.lexists(path)):
                wanted.append(segment)
            elif made and not os.path.lexists(path):
                report.absent.append(segment.file)
            elif made and not _is_as_made(path, segment):
                report.altered.append(segment.file)
        waiting.append(wanted)
    if not recorded:
        report.idle = f"nothing to export: nothing of these symbols is in the spool ({config.spool_dir})"
    under_way = UnderWay(config.data_dir / "export")
    for segment in under_way.last(merge(*waiting, key=lambda segment: segment.name)):
        check()
        try:
            with under_way(segment):
                done = export_segment(segment, config.export_dir, check, hook)
        except StoppedError:
            raise
        except FolderError as error:
            _fail(report, segment.id, segment.path.name, error)
            return
        except Exception as error:  # noqa: BLE001 - see _fail
            _fail(report, segment.id, segment.path.name, error)
            continue
        _done(report, done)


def _is_as_made(file: Path, segment: SegmentInfo) -> bool:
    """Whether a file looks like the segment's, without reading it whole: by its size, or else by what it says of
    itself, as one that another version made again."""
    try:
        if file.stat().st_size == segment.exported.get("bytes"):
            return True
        return metadata(file).get("digest") == segment.exported.get("digest")
    except (FileError, OSError):
        return False


def _copy(config: Config, ids: Sequence[str], folder: Path, report: ExportReport, check: Callable[[], None]) -> None:
    check_apart(config.data_dir, folder, "--copy-to")
    if same(folder, config.export_dir):
        raise ConfigError(f"--copy-to {folder} is the export folder; choose another, copies are not exports")
    prepare_folder(folder)
    report.idle = "nothing to copy: no period is open"
    for symbol_id in ids:
        found = in_order(config.spool_dir / symbol_id)
        for path, error in found.unreadable:  # it may be the one
            _fail(report, symbol_id, path.name, error)
        for segment in [segment for segment in found.readable if segment.state == "open"][-1:]:
            check()
            try:
                done = copy_open(segment, folder, check)
            except StoppedError:
                raise
            except Exception as error:  # noqa: BLE001 - see _fail
                _fail(report, symbol_id, segment.path.name, error)
            else:
                _done(report, done)


def _done(report: ExportReport, done: Exported) -> None:
    report.files.append(done)
    fields = {"id": done.id, "file": done.file, "state": done.state, "rows": done.rows, "digest": done.digest[:12]}
    log.info("segment exported", extra={"fields": {**fields, "seconds": round(done.seconds, 3)}})


@contextmanager
def _export_lock(config: Config, check: Callable[[], None]) -> Iterator[None]:
    """One export at a time: waits for another to end, at most LOCK_WAIT_S, then LockedError naming it."""
    lock = SpoolLock(config.data_dir / "export", what="export of")
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        check()
        try:
            lock.__enter__()
            break
        except LockedError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)
        except OSError as error:
            raise UserError(f"cannot use data folder {config.data_dir}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.__exit__()


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` on SIGTERM, SIGINT and SIGHUP, in the main thread only; the handlers before come back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with signals.handled(signals.ending(stop.set)):
        yield
