"""The ledger's rows, gathered from file metadata, the spool and, where it answers, the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mexc_pipeline.config import Config
from mexc_pipeline.control import ControlError, ask
from mexc_pipeline.export.names import exported_files
from mexc_pipeline.export.parquet import FileError, metadata
from mexc_pipeline.ledger.conservation import Conservation, Side
from mexc_pipeline.rows import MT_NAMES
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, info, segments

_Key = tuple[str, int, int]


def ledger(config: Config, compared: Mapping[str, Mapping[str, Any]] | None = None) -> list[Conservation]:
    """One row per file or closed segment, by symbol, period and part.

    ``compared`` is the store's ``{id: {segment file: {"rows", "ok", "columns"}}}``; None asks the running store.
    Files whose metadata cannot be read show as differing with no rows: ``verify exports`` says why.
    """
    tables = _ask_store(config) if compared is None else compared
    entries: dict[_Key, dict[str, Any]] = {}
    for name, path in exported_files(config.export_dir):
        try:
            said = metadata(path)
            described = _from_metadata(said)
        except (FileError, KeyError, ValueError):
            described = {"exported": Side(0, ok=False)}
        entries[name.id, name.start_ns, name.part] = {
            "id": name.id,
            "period": name.period,
            "part": name.part,
            "file": path.name,
            "bytes": path.stat().st_size,
            **described,
        }
    for segment in _closed(config):
        key = (segment.id, segment.name.start_ns, segment.name.part)
        entry = entries.setdefault(key, _from_segment(segment))
        entry["received"] = Side(segment.rows, segment.digest)
        table = tables.get(segment.id, {}).get(segment.path.name)
        if table is not None:
            entry["stored"] = Side(int(table["rows"]), ok=bool(table["ok"]))
    return [Conservation(**entries[key]) for key in sorted(entries)]


def _from_metadata(said: Mapping[str, str]) -> dict[str, Any]:
    return {
        "exported": Side(int(said["rows"]), said["digest"]),
        "first_seq": int(said["first_seq"]),
        "last_seq": int(said["last_seq"]),
        "counts": {name: int(said[f"rows_{name}"]) for name in MT_NAMES.values()},
        "gaps": int(said["gaps"]),
        "raw_bytes": int(said["raw_bytes"]),
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
    }


def _closed(config: Config) -> list[SegmentInfo]:
    found: list[SegmentInfo] = []
    try:
        folders = sorted(config.spool_dir.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    for folder in folders:
        for _, path in segments(folder):
            try:
                segment = info(path)
            except SegmentError:  # verify exports reports it; a listing shows what can be read
                continue
            if segment.state != "open" and segment.rows:
                found.append(segment)
    return found


def _ask_store(config: Config) -> dict[str, dict[str, Any]]:
    try:
        answer = ask(config.control_dir / "store.sock", "status")
    except ControlError:  # no store, no stored column
        return {}
    return {symbol: state.get("compared", {}) for symbol, state in answer.get("symbols", {}).items()}
