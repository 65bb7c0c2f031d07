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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn

try:
    import msgspec

    from mexc_pipeline import config
    from mexc_pipeline.errors import UserError
    from mexc_pipeline.events import Restored
    from mexc_pipeline.files import copy as copy_file
    from mexc_pipeline.files import has_hole
    from mexc_pipeline.ledger.acknowledged import Acknowledged
    from mexc_pipeline.paths import not_a_file, not_allowed, sync_folder
    from mexc_pipeline.rows import Frame, Mt
    from mexc_pipeline.spool import pending
    from mexc_pipeline.spool.lock import SpoolLock
    from mexc_pipeline.spool.names import FileName, SegmentName
    from mexc_pipeline.spool.segment import DAMAGE, NUMBERED, SegmentError, UnavailableError, connect, info
    from mexc_pipeline.spool.walk import exported_files, may_be_a_symbols, segments
    from mexc_pipeline.spool.writer import Spool
    from mexc_pipeline.text import LONG, clean
    from mexc_pipeline.verify.acknowledge import acknowledged, entry_of, write
except ImportError as error:
    sys.exit(f"the program that is installed here is another version than these playbooks: {error}; run site.yml first")

CONFIG = Path("/etc/mexc-pipeline/config.toml")
_FOLDER = re.compile(r"[a-z][a-z0-9_]{0,63}")
EXPORT_WAIT_S = 600.0
"""How long an export that somebody has started may take to end before anything is put back."""
RESTORING = ".restoring"
"""In a symbol's folder: where its spool is made."""
_Seq = Annotated[int, msgspec.Meta(ge=0, lt=NUMBERED >> 1)]
"""What a recording can go on from, with :data:`ROWS_PER_S` for each second since."""
_Second = Annotated[int, msgspec.Meta(ge=0)]
ROWS_PER_S = 100_000
"""More than a collector can record: what came after the backup had fewer seqs than this times the seconds since."""


def save(settings: config.Config, folder: Path, name: str) -> list[str]:
    """Copy everything; nothing has to stop. Returns what could not be copied, a line each: one damaged segment or file
    keeps no other from being saved."""
    target = folder / name
    target.mkdir(mode=0o750)
    at = int(time.time())
    symbols: dict[str, int] = {}
    troubles: list[str] = []
    for source in sorted(p for p in settings.spool_dir.iterdir() if p.is_dir() and may_be_a_symbols(p)):
        copies = target / "spool" / source.name
        copies.mkdir(parents=True)
        last_seq, missing = _save_spool(source, copies)
        troubles += missing.values()
        # What is not in the backup may have had any seq since then: see _load_symbol.
        at = min([at, *(name.start_ns // 10**9 for name in missing if name is not None)])
        if last_seq:
            symbols[source.name] = last_seq
        print(f"{source.name}: {len(segments(copies))} segments, up to seq {last_seq}")
    accepted = [asdict(entry) for entry in acknowledged(settings).entries]
    new, files, wrong = _copy_files(settings.export_dir, folder / "exports")
    troubles += wrong
    manifest = {"at": at, "last_seq": symbols, "acknowledged": accepted, "exports": files}
    print(f"{len(files)} exported files, {new} of them new; backup {target}")
    _write(target / "manifest.json", json.dumps(manifest, indent=1).encode())
    return troubles


def _save_spool(source: Path, copies: Path) -> tuple[int, dict[SegmentName | None, str]]:
    """Copy one symbol's segments: the highest seq among them, and what is wrong with those that could not be copied
    (None: with the folder)."""
    last_seq, missing = 0, {}
    try:
        there = segments(source)
    except UnavailableError as error:
        return 0, {None: str(error)}
    for name, path in there:
        copy = copies / path.name
        try:
            _copy_segment(path, copy)
            last_seq = max(last_seq, info(copy).last_seq)
        except (UserError, SegmentError, OSError) as error:
            for made in (copy, _making(copy)):
                made.unlink(missing_ok=True)
            if os.path.lexists(path):  # otherwise it was pruned meanwhile: its file is among the exports
                missing[name] = _not_saved(path, error)
    sync_folder(copies)
    return last_seq, missing


def _not_saved(path: Path, error: Exception) -> str:
    said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    said = not_allowed(path) or said
    return f"{'' if str(path) in said else f'{path}: '}{said}; it was not saved"


def load(settings: config.Config, folder: Path, name: str) -> None:
    """Put everything back on a host that has recorded nothing."""
    # An export beside this would make files anew of segments whose own are yet to be put back.
    with SpoolLock(settings.data_dir / "export", what="export of", wait_s=EXPORT_WAIT_S):
        _load(settings, folder, name)


def _load(settings: config.Config, folder: Path, name: str) -> None:
    source = folder / name
    manifest = _manifest(source)
    _judge_names(source, manifest)
    accepted = _accepted(source, manifest)
    for symbol_id in manifest["last_seq"]:
        if segments(settings.spool_dir / symbol_id) or pending.is_left(settings.spool_dir / symbol_id):
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
    _load_spools(settings, source / "spool", manifest["last_seq"], int(manifest["at"]))


def _manifest(source: Path) -> dict[str, Any]:
    try:
        with _whole(source / "manifest.json") as manifest:
            said: dict[str, Any] = json.loads(manifest.read())
        msgspec.convert(said["last_seq"], dict[str, _Seq])
        msgspec.convert(said["exports"], dict[str, str])
        msgspec.convert(said["at"], _Second)
    except FileNotFoundError:
        raise UserError(f"{source} is not a whole backup: it has no manifest.json") from None
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{source / 'manifest.json'} is none of ours: it cannot be read; nothing was changed") from None
    return said


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


def _load_spools(settings: config.Config, source: Path, last_seqs: dict[str, int], at: int) -> None:
    """All symbols or none: made in a folder below each one's own, and moved up once all are whole. Whatever ends it
    before, the next try finds nothing in its way."""
    folders = {symbol_id: settings.spool_dir / symbol_id for symbol_id in last_seqs}
    with ExitStack() as held:
        for target in folders.values():
            held.enter_context(SpoolLock(target))
            shutil.rmtree(target / RESTORING, ignore_errors=True)  # of a process that was killed
            held.callback(shutil.rmtree, target / RESTORING, ignore_errors=True)
        said = [
            _make_spool(settings, target / RESTORING / symbol_id, source / symbol_id, last_seqs[symbol_id], at)
            for symbol_id, target in folders.items()
        ]
        for symbol_id, target in folders.items():
            for path in sorted((target / RESTORING / symbol_id).iterdir()):
                path.rename(target / path.name)
            sync_folder(target)
    for line in said:
        print(line)


def _make_spool(settings: config.Config, target: Path, source: Path, last_seq: int, at: int) -> str:
    """What a symbol's folder is to hold, in one that is called the same; what there is to say of it."""
    symbol_id = target.name
    target.mkdir(parents=True)
    for _, path in segments(source):
        _copy_segment(path, target / path.name)
    symbol = next((s for s in settings.symbols if s.id == symbol_id), None)
    if symbol is None:
        return f"{symbol_id}: up to seq {last_seq}; no longer recorded on this host, it goes out with the next export"
    # Rows after the backup had seqs too, and may be known elsewhere: the recording goes on beyond any of them. For
    # the same reason a segment that was being written is set apart: its last row would need a seq that was given.
    floor = last_seq + max(1, int(time.time()) - at) * ROWS_PER_S
    exports = [path.name for _, path in exported_files(settings.export_dir, symbol_id)]
    spool = Spool(target, symbol_id, symbol.name, settings.period, known_seq=floor, exports=exports)
    spool.append([Frame(time.time_ns(), None, Mt.EVENT, Restored(backup_last_seq=last_seq).m)])
    spool.close()
    apart = f"; kept apart, in no file: {', '.join(spool.recovered.set_apart)}" if spool.recovered.set_apart else ""
    return f"{symbol_id}: up to seq {last_seq}, goes on from {floor + 1}{apart}"


def _making(target: Path) -> Path:
    return target.with_name(f".{target.name}.new")


def _copy_segment(source: Path, target: Path) -> None:
    """By SQLite's backup: whole also while it is being written."""
    _require_file(source)
    making = _making(target)
    making.unlink(missing_ok=True)
    try:
        with (
            closing(connect(source, readonly=True, timeout_s=30)) as here,
            closing(sqlite3.connect(making)) as there,
        ):
            here.backup(there)  # in one step: in pieces it begins again whenever the collector commits
            there.execute("PRAGMA journal_mode=DELETE")
            wrong = there.execute("PRAGMA quick_check").fetchone()[0]
    except DAMAGE as error:
        raise UserError(f"{source} cannot be copied to {target}: {error}") from error
    if wrong != "ok":
        raise UserError(f"{source} is damaged: {wrong}")
    making.chmod(0o640)
    making.rename(target)


def _require_file(path: Path) -> None:
    if instead := not_a_file(path):
        raise UserError(f"{path} is {instead}, no file of ours")


def _copy_files(source: Path, target: Path) -> tuple[int, dict[str, str], list[str]]:
    """Copy what is not there yet; how many that were, the SHA-256 of all, and what is not among them."""
    target.mkdir(mode=0o750, exist_ok=True)
    new, digests, troubles = 0, {}, []
    for _, path in exported_files(source):
        try:
            is_new, digest = _save_file(path, target / path.name)
        except (UserError, OSError) as error:
            if os.path.lexists(path):  # otherwise it was deleted by its age meanwhile
                troubles.append(_not_saved(path, error))
        else:
            new += is_new
            digests[path.name] = digest
    return new, digests, troubles


def _save_file(path: Path, copy: Path) -> tuple[bool, str]:
    """Whether it was not there yet, and its SHA-256. UserError or OSError."""
    digest = _sha256(path)
    is_new = not os.path.lexists(copy)
    if is_new:
        _copy_file(path, copy)
    if _sha256(copy) != digest:
        raise UserError(f"{copy} differs from {path}: one of the two is damaged; both are kept")
    return is_new, digest


def _copy_file(source: Path, target: Path) -> None:
    making = _making(target)
    making.unlink(missing_ok=True)
    copy_file(source, making)
    making.rename(target)
    sync_folder(target.parent)


def _write(path: Path, data: bytes) -> None:
    making = _making(path)
    making.unlink(missing_ok=True)
    with making.open("xb") as file:
        file.write(data)
        os.fsync(file.fileno())
    making.rename(path)
    sync_folder(path.parent)


def _sha256(path: Path) -> str:
    with _whole(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file to be read to its end. UserError where that is further than anything is in it: no file of ours has a hole,
    and of one that claims terabytes all of them would be read."""
    _require_file(path)
    with path.open("rb") as file:
        if has_hole(file.fileno()):
            raise UserError(f"{path} is longer than what is in it: it is damaged")
        yield file


def main() -> int:
    """Run one of the two."""
    verb, folder, name = sys.argv[1:4]
    try:
        troubles = {"save": save, "load": load}[verb](config.load(CONFIG), Path(folder), name) or []
    except (SegmentError, sqlite3.Error) as error:
        raise UserError(f"{verb} of {name} broke off: {error}") from error
    for trouble in troubles:
        print(clean(trouble, LONG), file=sys.stderr)
    return 1 if troubles else 0


def end(main: Callable[[], int]) -> NoReturn:
    """End the process with ``main``'s status; what failed outside of this program is one line, and the status 1."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        is_of_file = isinstance(error, OSError) and error.filename is not None
        said = f"{error.filename}: {error.strerror}" if is_of_file else str(error)
        line = " ".join(said.split())
        sys.exit("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


if __name__ == "__main__":
    end(main)
