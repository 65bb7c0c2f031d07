"""Copies a host's spool and exported files to a backup folder, or back: ``save|load FOLDER NAME``.

Runs with the program's own Python as its user. In FOLDER, ``exports`` holds every file once, ``NAME`` the spool as it
was and ``manifest.json``, written last: a backup without it is not whole. The manifest also has the holes that were
acknowledged: without them every check of what was restored would fail for what somebody has answered for.
"""

# ruff: noqa: T201 - what it prints is its answer
from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mexc_pipeline import config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export.names import FileName, exported_files
from mexc_pipeline.ledger.acknowledged import Acknowledged
from mexc_pipeline.rows import Frame, Mt, event
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.segment import info, segments, sync_folder
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify.acknowledge import acknowledged, entry_of, write

CONFIG = Path("/etc/mexc-pipeline/config.toml")
_FOLDER = re.compile(r"[a-z][a-z0-9_]{0,63}")
ROWS_PER_S = 100_000
"""More than a collector can record: what came after the backup had fewer seqs than this times the seconds since."""


def save(settings: config.Config, folder: Path, name: str) -> None:
    """Copy everything; nothing has to stop."""
    target = folder / name
    target.mkdir(mode=0o750)
    manifest: dict[str, object] = {"at": int(time.time())}
    symbols: dict[str, int] = {}
    for source in sorted(path for path in settings.spool_dir.iterdir() if path.is_dir()):
        copies = target / "spool" / source.name
        copies.mkdir(parents=True)
        for _, path in segments(source):
            try:
                _copy_segment(path, copies / path.name)
            except sqlite3.OperationalError:
                if path.exists():
                    raise
                continue  # pruned meanwhile: its file is among the exports
            symbols[source.name] = max(symbols.get(source.name, 0), info(copies / path.name).last_seq)
        sync_folder(copies)
        print(f"{source.name}: {len(segments(copies))} segments, up to seq {symbols.get(source.name, 0)}")
    manifest["last_seq"] = symbols
    manifest["acknowledged"] = [asdict(entry) for entry in acknowledged(settings).entries]
    new, files = _copy_files(settings.export_dir, folder / "exports")
    manifest["exports"] = files
    print(f"{len(files)} exported files, {new} of them new; backup {target}")
    _write(target / "manifest.json", json.dumps(manifest, indent=1).encode())


def load(settings: config.Config, folder: Path, name: str) -> None:
    """Put everything back on a host that has recorded nothing."""
    source = folder / name
    try:
        manifest = json.loads((source / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise UserError(f"{source} is not a whole backup: it has no manifest.json") from None
    _judge_names(source, manifest)
    accepted = _accepted(source, manifest)
    for symbol_id in manifest["last_seq"]:
        if segments(settings.spool_dir / symbol_id):
            raise UserError(
                f"{settings.spool_dir / symbol_id} has recordings: run playbooks/reset.yml -e reset_start=false first; "
                "nothing was changed"
            )
    settings.export_dir.mkdir(exist_ok=True)
    for file, digest in manifest["exports"].items():
        if _sha256(folder / "exports" / file) != digest:
            raise UserError(f"{folder / 'exports' / file} is not what was backed up; nothing was changed")
    back = 0
    for file in manifest["exports"]:
        if not (settings.export_dir / file).exists():
            _copy_file(folder / "exports" / file, settings.export_dir / file)
            back += 1
    print(f"{back} exported files put back, {len(manifest['exports']) - back} were there")
    for entry in accepted:
        if entry not in acknowledged(settings).entries:
            write(settings, entry)
    for symbol_id, last_seq in manifest["last_seq"].items():
        _load_symbol(settings, symbol_id, source / "spool" / symbol_id, last_seq, int(manifest["at"]))


def _judge_names(source: Path, manifest: dict[str, Any]) -> None:
    """What is named by a manifest is written under that name: only names that a backup gives are taken."""
    wrong = [name for name in manifest["exports"] if FileName.parse(name) is None]
    wrong += [name for name in manifest["last_seq"] if not _FOLDER.fullmatch(name)]
    if wrong:
        raise UserError(f"{source / 'manifest.json'} is none of ours: it names {wrong[0]!r}; nothing was changed")


def _accepted(source: Path, manifest: dict[str, Any]) -> list[Acknowledged]:
    """None in backups of before they had them."""
    try:
        return [entry_of(said) for said in manifest.get("acknowledged", [])]
    except (TypeError, KeyError, ValueError):
        raise UserError(
            f"{source / 'manifest.json'} is none of ours: what it calls acknowledged is no hole; nothing was changed"
        ) from None


def _load_symbol(settings: config.Config, symbol_id: str, source: Path, last_seq: int, at: int) -> None:
    target = settings.spool_dir / symbol_id
    with SpoolLock(target):
        for _, path in segments(source):
            _copy_segment(path, target / path.name)
        symbol = next((s for s in settings.symbols if s.id == symbol_id), None)
        if symbol is None:
            print(
                f"{symbol_id}: up to seq {last_seq}; no longer recorded on this host, it goes out with the next export"
            )
            return
        # Rows after the backup had seqs too, and may be known elsewhere: the recording goes on beyond any of them. For
        # the same reason a segment that was being written is set apart: its last row would need a seq that was given.
        floor = last_seq + max(1, int(time.time()) - at) * ROWS_PER_S
        exports = [path.name for _, path in exported_files(settings.export_dir, symbol_id)]
        spool = Spool(target, symbol_id, symbol.name, settings.period, known_seq=floor, exports=exports)
        spool.append([Frame(time.time_ns(), None, Mt.EVENT, event("restored", backup_last_seq=last_seq))])
        spool.close()
    apart = f"; kept apart, in no file: {', '.join(spool.recovered.set_apart)}" if spool.recovered.set_apart else ""
    print(f"{symbol_id}: up to seq {last_seq}, goes on from {floor + 1}{apart}")


def _copy_segment(source: Path, target: Path) -> None:
    """By SQLite's backup: whole also while it is being written."""
    making = target.with_name(f".{target.name}.new")
    making.unlink(missing_ok=True)
    here = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)
    there = sqlite3.connect(making)
    try:
        here.backup(there)  # in one step: in pieces it begins again whenever the collector commits
        there.execute("PRAGMA journal_mode=DELETE")
        wrong = there.execute("PRAGMA quick_check").fetchone()[0]
        if wrong != "ok":
            raise UserError(f"{source} is damaged: {wrong}")
    finally:
        there.close()
        here.close()
    making.chmod(0o640)
    making.rename(target)


def _copy_files(source: Path, target: Path) -> tuple[int, dict[str, str]]:
    """Copy what is not there yet; how many that were, and the SHA-256 of all."""
    target.mkdir(mode=0o750, exist_ok=True)
    new, digests = 0, {}
    for _, path in exported_files(source):
        copy = target / path.name
        digest = _sha256(path)
        if not copy.exists():
            _copy_file(path, copy)
            new += 1
        if _sha256(copy) != digest:
            raise UserError(f"{copy} differs from {path}: one of the two is damaged; both are kept")
        digests[path.name] = digest
    return new, digests


def _copy_file(source: Path, target: Path) -> None:
    making = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, making)
    with making.open("rb") as file:
        os.fsync(file.fileno())
    making.chmod(0o640)
    making.rename(target)
    sync_folder(target.parent)


def _write(path: Path, data: bytes) -> None:
    making = path.with_name(f".{path.name}.new")
    with making.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    making.rename(path)
    sync_folder(path.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Run one of the two; errors are one line."""
    verb, folder, name = sys.argv[1:4]
    try:
        {"save": save, "load": load}[verb](config.load(CONFIG), Path(folder), name)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
