"""Hands a symbol's recording from one host to another: ``python -m mexc_pipeline.handover give|take CONFIG ID``.

``give`` ends the recording where its collector has just been stopped and prints what the next host must know; ``take``
reads that from standard input and begins the recording there, so that the collector finds the next seq in its own
folder and asks nobody. Between the two nothing is recorded, so neither reads a file of rows or asks ClickHouse, but
where the folder cannot tell: without a row of its own it may be new, or what a lost disk left.
"""

from __future__ import annotations

import socket
import sqlite3
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from mexc_pipeline import config
from mexc_pipeline.errors import UserError
from mexc_pipeline.ledger.acknowledged import Acknowledged
from mexc_pipeline.paths import not_allowed
from mexc_pipeline.periods import following
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool import pending
from mexc_pipeline.spool.label import check_label
from mexc_pipeline.spool.last_seq import LastSeq, ask_last_seq, own_ids
from mexc_pipeline.spool.lifecycle import seal_left_open
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.segment import SegmentError
from mexc_pipeline.spool.walk import exported_files, in_order
from mexc_pipeline.spool.writer import Spool, last_moment, moved
from mexc_pipeline.text import LONG, clean, json_line

LET_GO_S = 5.0
"""An export may hold the folder for a moment."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Where a recording ended: ``last_seq`` is the last one given, 0 where nothing was ever recorded. ``files`` are
    those of its newest period, also those that are still to be written; ``clean``: it ended with an orderly stop.
    ``spool_id`` is empty where the spool is gone and only files or tables tell the last seq."""

    symbol: str
    last_seq: int
    spool_id: str
    files: tuple[str, ...]
    clean: bool
    host: str


def give(settings: config.Config, key: str) -> Handover:
    """End a symbol's recording on this host, durably: from now on the next seq is another host's to give.

    UserError where its collector runs, or where it cannot be known which seq was given last.
    """
    symbol = settings.symbol(key)
    folder = settings.spool_dir / symbol.id
    # Asked before the lock is taken, as it takes its time; only a collector that was stopped at its very start leaves
    # rows without a seq.
    asked = ask_last_seq(settings, symbol.id, own_ids(folder)) if pending.is_left(folder) else None
    with SpoolLock(folder, wait_s=LET_GO_S):
        check_label(settings, symbol)
        if asked is not None:
            _judge(asked, f"{symbol.id} has rows without a seq")
            pending.number_left(folder, symbol.id, settings.period, asked)
        seal_left_open(folder, time.time_ns(), cut=True)  # its last row has a seq of its own
        found = in_order(folder)
        if found.unreadable:
            path, why = found.unreadable[0]
            raise UserError(f"{path.name} cannot be read, so the last seq is not known: {why}")
        if not any(segment.last_seq for segment in found.readable):
            asked = ask_last_seq(settings, symbol.id, own_ids(folder))
            _judge(asked, f"{symbol.id} has no row here")
            last = asked.seq
            return Handover(symbol.name, last, "", asked.exports, last == 0, socket.gethostname())
        newest = max(found.readable, key=lambda segment: segment.last_seq)
        period = newest.name.period
        files = {segment.file for segment in found.readable if segment.name.period == period}
        files |= {path.name for name, path in _files(settings, symbol.id) if name.period == period}
        *_, clean = last_moment(newest)
        host = socket.gethostname()
        return Handover(symbol.name, newest.last_seq, newest.spool_id, tuple(sorted(files)), clean, host)


def _judge(asked: LastSeq, why: str) -> None:
    """Raise UserError where what was asked does not tell the last seq."""
    if asked.writer is not None:
        raise UserError(f"{why} and is recorded by {asked.writer}; stop that one first")
    if asked.unknown:
        raise UserError(f"{why}, and the last seq is not known: {asked.unknown[0]}")


def take(settings: config.Config, key: str, given: Handover) -> str:
    """Begin a recording on this host behind another's last row; says what was done. Made twice it does nothing more.

    The first row, an event ``moved``, has the next seq; where the newest row here is of a clock that was ahead, a
    ``clock`` event comes first. Rows of an earlier time on this host stay: what was recorded
    elsewhere between is acknowledged as a hole of this host's files.
    """
    symbol = settings.symbol(key)
    if symbol.name != given.symbol:
        raise UserError(f"{symbol.id} is {symbol.name} here and {given.symbol} on {given.host}; give it another id")
    if not given.last_seq:
        return f"{symbol.id}: nothing was recorded on {given.host}"
    folder = settings.spool_dir / symbol.id
    if (here := _last(folder)) > given.last_seq:
        return f"{symbol.id}: goes on from seq {here + 1}, handed over before"
    with SpoolLock(folder, wait_s=LET_GO_S):
        check_label(settings, symbol)
        if 0 < here < given.last_seq:
            _acknowledge(settings, symbol.id, here + 1, given)
        files = [*given.files, *(path.name for _, path in _files(settings, symbol.id))]
        spool = Spool(folder, symbol.id, symbol.name, settings.period, known_seq=given.last_seq, exports=files)
        try:
            m = moved(given.clean, given.host, given.spool_id, given.last_seq)
            spool.append([Frame(following(spool.last_rx, time.time_ns()), None, Mt.EVENT, m)])
        finally:
            spool.close()
    return f"{symbol.id}: up to seq {given.last_seq} on {given.host}, goes on here"


def _files(settings: config.Config, symbol_id: str) -> list[tuple[FileName, Path]]:
    """UserError where they cannot be listed: a part of a period must not be given the name of one that is there."""
    try:
        return exported_files(settings.export_dir, symbol_id)
    except OSError as error:
        raise UserError(not_allowed(settings.export_dir) or f"{settings.export_dir}: {error.strerror}") from error


def _last(folder: Path) -> int:
    found = in_order(folder)
    if found.unreadable:
        path, why = found.unreadable[0]
        raise UserError(f"{path.name} cannot be read: {why}")
    return max((segment.last_seq for segment in found.readable), default=0)


def _acknowledge(settings: config.Config, symbol_id: str, first_seq: int, given: Handover) -> None:
    from mexc_pipeline.verify.acknowledge import write  # what it needs besides takes longer to load than all the rest

    reason = f"recorded on {given.host}"
    write(settings, Acknowledged(symbol_id, first_seq, given.last_seq, int(time.time()), "a move", reason))


def main(arguments: list[str]) -> int:
    """Run one of the two; errors are one line."""
    verb, file, key = arguments
    try:
        settings = config.load(Path(file))
        if verb == "give":
            print(json_line(asdict(give(settings, key))))  # noqa: T201 - its answer
        else:
            given = msgspec.json.decode(sys.stdin.buffer.read(), type=Handover)
            print(clean(take(settings, key, given), LONG))  # noqa: T201 - its answer
    except (UserError, SegmentError, sqlite3.Error, OSError, msgspec.MsgspecError, RecursionError) as error:
        print(clean(error, LONG), file=sys.stderr)  # noqa: T201 - one line for whoever called
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
