"""The ledger's rows, gathered from file metadata, the spool and, where it answers, the store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError
from mexc_pipeline.export.minutes import MINUTES
from mexc_pipeline.export.parquet import FileError, counts_in, metadata, read_content
from mexc_pipeline.ledger.account import Account
from mexc_pipeline.ledger.conservation import Conservation, Side
from mexc_pipeline.ledger.coverage import Piece
from mexc_pipeline.ledger.hours import Hour, hours
from mexc_pipeline.ledger.order import by_seq
from mexc_pipeline.ledger.shares import from_text
from mexc_pipeline.rows import Mt
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.pending import LEFT_NS, left_since_ns
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader, ended_ns
from mexc_pipeline.spool.walk import by_symbol, exported_files
from mexc_pipeline.store.client import compared as store_compared
from mexc_pipeline.store.client import logged, store_status
from mexc_pipeline.store.swaps import noted
from mexc_pipeline.verify.acknowledge import acknowledged

_Key = tuple[str, str, int]
"""Symbol id, period by its name, part: those of a file."""
_ALL = 1 << 30


def ledger(
    config: Config, compared: Mapping[str, Mapping[str, Any]] | None = None, unknown: list[str] | None = None
) -> list[Conservation]:
    """One row per file or closed segment, by symbol and in the order of their rows.

    ``compared`` is the store's ``{id: {segment file: {"rows", "ok", "columns"}}}``; None asks the running store, also
    for what its ``export_log`` says of files whose segments are gone. ``unknown`` gets a line for each thing that the
    store could not be asked: what is missing in a row's ``stored`` may then be there all the same.
    Files whose metadata cannot be read, or is that of another name, show as differing with no rows: ``verify exports``
    says why.
    """
    segments = [segment for segment in _spooled(config) if segment.state != "open"]
    unknown = [] if unknown is None else unknown
    asked = _asked(config, unknown) if compared is None else []
    stored = compared or {
        i: _compared(config, i, [segment.path.name for segment in segments if segment.id == i], unknown) for i in asked
    }
    entries: dict[_Key, dict[str, Any]] = {}
    for name, path in exported_files(config.export_dir):
        try:
            described = {**_from_metadata(name, metadata(path), path), "bytes": path.stat().st_size}
        except (FileError, OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            described = {"bytes": 0, "exported": Side(0, ok=False), "edge_ns": name.start_ns + config.period.length_ns}
        entries[name.id, name.period, name.part] = {
            "id": name.id,
            "period": name.period,
            "part": name.part,
            "file": path.name,
            "start_ns": name.start_ns,
            **described,
        }
    for segment in segments:
        key = (segment.id, segment.name.period, segment.name.part)
        entry = entries.setdefault(key, _from_segment(segment))
        entry["received"] = Side(segment.rows, segment.digest)
        if segment.state == "exported" and segment.rows and "exported" not in entry:
            entry["exported"] = Side(0, ok=False)  # nothing waits here: its file was written, and somebody took it away
        table = stored.get(segment.id, {}).get(segment.path.name)
        if table is not None:
            entry["stored"] = _stored(table)
    for symbol_id in sorted({key[0] for key in entries}.intersection(asked)):
        try:
            before = logged(config, symbol_id)
        except ControlError as error:
            unknown.append(f"{symbol_id}: what was stored is not known of periods without a table: {error}")
            continue
        for entry in (e for e in entries.values() if e["id"] == symbol_id and "exported" in e and "stored" not in e):
            if row := before.get((entry["file"], entry["exported"].digest)):
                same = entry["exported"].digest if row.compared["ok"] else ""  # only then was it the segment's too
                entry.setdefault("received", Side(row.received, same))
                entry["stored"] = _stored(row.compared)
    buffered = {symbol_id: noted(config.data_dir, symbol_id) for symbol_id in {key[0] for key in entries}}
    found = [Conservation(**e, buffered=buffered[key[0]].get(e["file"])) for key, e in entries.items()]
    return by_seq(found, of=lambda f: f.id, name=lambda f: (f.start_ns, f.part, f.period), seq=lambda f: f.first_seq)


def by_hour(config: Config, files: list[Conservation], now_ns: int | None = None) -> list[Hour]:
    """The ledger by symbol and period: :func:`ledger`'s rows with coverage, gaps and what open segments add."""
    running = [
        (s.id, Piece(s.first_seq, s.last_seq, _account_of_segment(s))) for s in _spooled(config) if s.state == "open"
    ]
    return hours(files, running, time.time_ns() if now_ns is None else now_ns, acknowledged(config).entries)


def _asked(config: Config, unknown: list[str]) -> list[str]:
    """The symbols of the running store."""
    try:
        return list(store_status(config)["symbols"])
    except ControlError as error:
        unknown.append(f"what was stored is not known: {error}")
        return []


def _compared(config: Config, symbol_id: str, names: Sequence[str], unknown: list[str]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    try:
        found.update(store_compared(config, symbol_id, names))  # what was told before it failed is in there
    except ControlError as error:
        unknown.append(f"{symbol_id}: what was stored is not known of all periods: {error}")
    return found


def _stored(comparison: Mapping[str, Any]) -> Side:
    return Side(int(comparison["rows"]), ok=bool(comparison["ok"]))


def _from_metadata(name: FileName, said: Mapping[str, str], path: Path) -> dict[str, Any]:
    if (said["id"], said["period"], said["part"]) != (name.id, name.period, str(name.part)):
        raise ValueError("under a wrong name")
    return {
        "exported": Side(int(said["rows"]), said["digest"]),
        "first_seq": int(said["first_seq"]),
        "last_seq": int(said["last_seq"]),
        "counts": counts_in(said),
        "gaps": int(said["gaps"]),
        "minutes": from_text(said.get(MINUTES)),
        "raw_bytes": int(said["raw_bytes"]),
        "edge_ns": int(said["edge_ns"]),
        "account": Account.of(json.loads(said["account"]))
        if "account" in said
        else read_content(path).account,  # of a version that did not write it
    }


def _from_segment(segment: SegmentInfo) -> dict[str, Any]:
    return {
        "id": segment.id,
        "period": segment.name.period,
        "part": segment.name.part,
        "file": segment.file,
        "first_seq": segment.first_seq,
        "last_seq": segment.last_seq,
        "counts": segment.counts,
        "gaps": segment.gaps,
        "raw_bytes": segment.bytes,
        "start_ns": segment.name.start_ns,
        "edge_ns": segment.edge_ns,
        "account": Account.of(segment.account) if segment.account else _account_of_segment(segment),
    }


def _account_of_segment(segment: SegmentInfo) -> Account:
    """For segments that are open, or of versions that did not write it down; nothing of one that cannot be read, which
    is verify exports' to report."""
    try:
        return _read_account(segment)
    except SegmentError:
        return Account()


def _read_account(segment: SegmentInfo) -> Account:
    account = Account()
    with SegmentReader(segment.path) as reader:
        first = reader.read(segment.first_seq - 1, 1)
        last = reader.read(segment.last_seq - (1 if segment.state == "open" else 2), 1)
        for row in reader.tail(Mt.EVENT, _ALL).rows():
            account.event(row.rx, row.m)
    if len(first) and len(last):
        account.rows(first.rx[0], last.rx[0])
    return account


def waiting(config: Config, now_ns: int | None = None) -> list[str]:
    """A line for each symbol of which there are rows that no file can have yet although their period is over, or that
    have no seq: the process that received them is gone."""
    now = time.time_ns() if now_ns is None else now_ns
    found: list[str] = []
    for folder, there in by_symbol(config.spool_dir):
        ends = [(s.rows, ended_ns(s, now)) for s in there.readable if s.state == "open"]
        rows = sum(rows for rows, end in ends if end is not None and now - end >= LEFT_NS)
        if rows:
            found.append(f"{folder.name}: {rows:,} rows of a period that is over wait in the spool: run export")
        since = left_since_ns(folder)
        if since is not None and now - since >= LEFT_NS:
            found.append(f"{folder.name}: rows that a process left have no seq yet: run export, which numbers them")
    return found


def unread(config: Config) -> list[str]:
    """A line for each part of the spool that cannot be read: what was received there is in no row of the ledger."""
    return [str(error) for _, found in by_symbol(config.spool_dir) for _, error in found.unreadable]


def _spooled(config: Config) -> Iterator[SegmentInfo]:
    """The segments with rows that can be read."""
    for _, found in by_symbol(config.spool_dir):
        yield from (segment for segment in found.readable if segment.rows)
