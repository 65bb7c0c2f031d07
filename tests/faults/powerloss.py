"""Makes a power loss out of the library's journal: what was not synced is dropped, kept in part, or torn.

What a file system promises without a sync is nothing: of the writes to a file since its last fsync any subset may have
reached the disk, in any sectors; of the names made and removed in a folder since its fsync, any that came first (or,
name by name, any). Both are drawn from a seed.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from faults.shim import Op

_HEAD = struct.Struct("<IIQqqqqII")
SECTORS = (512, 4096)


@dataclass(frozen=True, slots=True)
class Record:
    """One change, in the order in which it happened. ``old``: the bytes it replaced; ``new``: those it wrote."""

    number: int
    op: Op
    inode: int
    offset: int
    old_size: int
    path: str
    old: bytes
    new: bytes
    is_rename: bool


@dataclass(slots=True)
class Loss:
    """What the power loss took: counts for the report."""

    writes_dropped: int = 0
    writes_torn: int = 0
    writes_kept: int = 0
    names_undone: int = 0


def records(path: Path) -> list[Record]:
    """The journal's whole records."""
    data = path.read_bytes() if path.exists() else b""
    found: list[Record] = []
    at = 0
    while at + _HEAD.size <= len(data):
        size, op, inode, offset, _, old_size, old_length, path_length, flag = _HEAD.unpack_from(data, at)
        if at + size > len(data):
            break
        start = at + _HEAD.size
        name = data[start : start + path_length].decode()
        old = data[start + path_length : start + path_length + old_length]
        new = data[start + path_length + old_length : at + size]
        found.append(Record(len(found), Op(op), inode, offset, old_size, name, old, new, bool(flag and op != Op.CRASH)))
        at += size
    return found


def lose_power(journal: Path, grave: Path, prefixes: Iterable[Path], rng: random.Random) -> Loss:
    """Roll the folders back to one of the states a power loss could have left; journal and grave are then empty.

    All processes that wrote there must be dead.
    """
    every = records(journal)
    crash = next((r.number for r in every if r.op == Op.CRASH), len(every))
    loss = Loss()
    roots = [root for root in prefixes if root.exists()]
    _restore_data(every, crash, _paths_by_inode([*roots, grave]), rng, loss)
    _restore_names(every, crash, grave, rng, loss)
    for root in roots:
        for shm in root.rglob("*-shm"):
            if rng.random() < 0.5:
                shm.unlink()
            else:
                shm.write_bytes(rng.randbytes(shm.stat().st_size))
    if journal.exists():
        os.truncate(journal, 0)  # not removed: the server of forks has it open
    for buried in grave.iterdir():
        buried.unlink()
    return loss


def _paths_by_inode(roots: Iterable[Path]) -> dict[int, Path]:
    return {p.stat().st_ino: p for root in roots for p in root.rglob("*") if p.is_file() and not p.is_symlink()}


def _restore_data(every: list[Record], crash: int, paths: dict[int, Path], rng: random.Random, loss: Loss) -> None:
    pending: dict[int, list[Record]] = defaultdict(list)
    for record in every:
        if record.op in (Op.WRITE, Op.TRUNCATE):
            pending[record.inode].append(record)
        elif record.op == Op.SYNC and record.number < crash:
            pending[record.inode].clear()
    for inode, changes in pending.items():
        path = paths.get(inode)
        if path is None or not changes:
            continue
        with path.open("r+b") as file:
            for change in reversed(changes):
                _undo(file.fileno(), change)
            _redo(file.fileno(), [c for c in changes if c.number < crash], rng, loss)


def _undo(fd: int, change: Record) -> None:
    if change.op == Op.TRUNCATE:
        os.ftruncate(fd, change.old_size)
        os.pwrite(fd, change.old, change.offset)
        return
    os.pwrite(fd, change.old, change.offset)
    if change.offset + len(change.new) > change.old_size:
        os.ftruncate(fd, change.old_size)


def _redo(fd: int, changes: list[Record], rng: random.Random, loss: Loss) -> None:
    """Some of the changes reached the disk, in an order of the disk's own."""
    chance = rng.choice((0.0, 0.0, 0.5, 0.9, 1.0))
    sector = rng.choice(SECTORS)
    for change in rng.sample(changes, len(changes)) if rng.random() < 0.5 else changes:
        if change.op == Op.TRUNCATE:
            if rng.random() < chance:
                os.ftruncate(fd, change.offset)
            continue
        if rng.random() >= chance:
            loss.writes_dropped += 1
            if rng.random() < 0.3:  # the length reached the disk, the data did not
                size = os.fstat(fd).st_size
                os.ftruncate(fd, max(size, change.offset + len(change.new)))
            continue
        if rng.random() < 0.3:
            loss.writes_torn += 1
            _write_some_sectors(fd, change, sector, rng)
        else:
            loss.writes_kept += 1
            os.pwrite(fd, change.new, change.offset)


def _write_some_sectors(fd: int, change: Record, sector: int, rng: random.Random) -> None:
    at = change.offset
    end = change.offset + len(change.new)
    while at < end:
        upto = min(end, (at // sector + 1) * sector)
        if rng.random() < 0.5:
            os.pwrite(fd, change.new[at - change.offset : upto - change.offset], at)
        at = upto


def _restore_names(every: list[Record], crash: int, grave: Path, rng: random.Random, loss: Loss) -> None:
    pending: dict[str, list[Record]] = defaultdict(list)
    for record in every:
        if record.op in (Op.CREATE, Op.LINK, Op.UNLINK, Op.MKDIR):
            pending[str(Path(record.path).parent)].append(record)
        elif record.op == Op.DIRSYNC and record.number < crash:
            pending[record.path].clear()
    undone: list[Record] = []
    for changes in pending.values():
        undone += [c for c in changes if c.number > crash]
        before = [c for c in changes if c.number < crash]
        if any(c.is_rename for c in before) or rng.random() < 0.5:
            undone += _tail(before, rng)
        else:
            by_name: dict[str, list[Record]] = defaultdict(list)
            for change in before:
                by_name[change.path].append(change)
            for history in by_name.values():
                undone += _tail(history, rng)
    loss.names_undone = len(undone)
    for change in sorted(undone, key=lambda c: -c.number):
        _undo_name(change, grave)


def _tail(changes: list[Record], rng: random.Random) -> list[Record]:
    """The changes that did not reach the disk; a rename's two halves stay together."""
    at = rng.choice((0, len(changes), rng.randint(0, len(changes))))
    if 0 < at < len(changes) and changes[at - 1].is_rename and changes[at - 1].op == Op.UNLINK:
        at -= 1
    return changes[at:]


def _undo_name(change: Record, grave: Path) -> None:
    path = Path(change.path)
    kept = grave / str(change.inode)
    if change.op == Op.MKDIR:
        shutil.rmtree(path, ignore_errors=True)
    elif change.op in (Op.CREATE, Op.LINK):
        if os.path.lexists(path) and path.lstat().st_ino == change.inode:
            if not kept.exists():
                os.link(path, kept)
            path.unlink()
    elif kept.exists() and path.parent.is_dir():
        # What stands there now was made by a process without the library: the witness, when it opened a segment whose
        # log had just been removed. Whatever the journal knows of that name has been undone before.
        path.unlink(missing_ok=True)
        os.link(kept, path)
