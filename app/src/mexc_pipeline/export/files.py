"""Makes of one segment one proven file: written aside, read back, compared, linked into place.

Every step can be interrupted and the whole run again; nothing that exists is ever replaced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mexc_pipeline.config import Config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export.minutes import MINUTES, FileMinutes
from mexc_pipeline.export.parquet import (
    Content,
    FileError,
    FileWriter,
    metadata,
    metadata_of,
    read_content,
    row_metadata,
    size_text,
)
from mexc_pipeline.export.report import Exported
from mexc_pipeline.export.source import ahead, blocks
from mexc_pipeline.ledger.digest import differing
from mexc_pipeline.ledger.shares import from_text, to_text
from mexc_pipeline.paths import sync_folder
from mexc_pipeline.rows import MT_NAMES, Mt
from mexc_pipeline.spool.lifecycle import mark_exported
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.segment import SegmentInfo, SegmentReader

_MAGIC = b"PAR1"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_FOLDER_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

Hook = Callable[[str], None]


class FolderError(UserError):
    """The export folder itself cannot take files; no other segment would fare better."""


class StoppedError(Exception):
    """The run was asked to end; what was half done is gone and will be done again."""


def no_hook(step: str) -> None:
    """Default for the steps' hook; a test's may end the process there."""


def prepare_folder(folder: Path) -> None:
    """Make the export folder where only it is missing. FolderError where files cannot be put there."""
    try:
        folder.mkdir()
    except FileExistsError:
        pass
    except OSError as error:
        raise FolderError(f"cannot create export folder {folder}: {error.strerror}") from error
    else:
        sync_folder(folder.parent)
    if not folder.is_dir():
        raise FolderError(f"export folder {folder} is not a folder; move it away or set export_dir")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FolderError(f"export folder {folder} is not writable (permissions, or a read-only file system)")


def wrong_place(config: Config) -> str:
    """Why there is nothing to judge or export here, empty where something may be: what is done to another folder than
    the recorder's, such as from another working directory, must not pass for done."""
    if not config.export_dir.exists():
        if not config.spool_dir.exists():
            return (
                f"there is no such folder, and nothing was recorded in {config.data_dir}; "
                "check data_dir and export_dir, which are relative to where the command is run"
            )
    elif not config.export_dir.is_dir():
        return "not a folder; move it away or set export_dir"
    return ""


def temporary(folder: Path, file: str) -> Path:
    """The path at which a file grows before it is proven."""
    return folder / f".{file}.tmp"


def sweep(folder: Path, ids: set[str]) -> list[Path]:
    """Remove what an interrupted export of these symbols left. Foreign files with such a name stay, and so does what
    another export is writing: the export lock is a data folder's, and several may share this one."""
    removed: list[Path] = []
    for path in folder.iterdir():
        if not (path.name.startswith(".") and path.name.endswith(".tmp")):
            continue
        name = FileName.parse(path.name[1:-4])
        if name is not None and name.id in ids and _remove_unfinished(path):
            removed.append(path)
    return removed


def _remove_unfinished(path: Path) -> bool:
    """Whether it was one, and nobody's."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # another export was done with it
    try:
        head = os.pread(fd, len(_MAGIC), 0)
        # After a power loss the length may be there and the bytes not: those are then zeros.
        if (head and any(head) and not _MAGIC.startswith(head)) or not _lock(fd) or not _is_at(path, fd):
            return False
        path.unlink()  # held: whoever writes it has ended, and no other sweep removes it meanwhile
        return True
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Hold an open file until it is closed; False where another process does. Where the file system knows no locks
    nobody holds anything; what is linked is then still only what was proven."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_at(path: Path, fd: int) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except FileNotFoundError:
        return False


@contextmanager
def _making(path: Path) -> Iterator[int]:
    """A new file, open and held until the end; its name is gone then. FileExistsError where there is one already.
    Nobody else may open it while it grows: who may read may lock, and what a killed export leaves was never swept."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(fd):
            raise UserError(_taken(path))  # by a sweep, in the moment between
        try:
            yield fd
        finally:
            with contextlib.suppress(OSError):  # what stays is swept by the next run; the first error matters
                if _is_at(path, fd):
                    path.unlink()
    finally:
        os.close(fd)


def _umask() -> int:
    """Read, not asked for by setting it: other threads make files meanwhile."""
    status = Path("/proc/self/status").read_text()
    return next((int(line.split()[1], 8) for line in status.splitlines() if line.startswith("Umask:")), 0o022)


def _taken(path: Path) -> str:
    return (
        f"{path} is in the hands of another export, whose data_dir is another one: "
        "give each data_dir an export_dir of its own; this segment stays for the next run"
    )


def _in_the_way(path: Path) -> UserError:
    """What to say of a file that is there already."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not _lock(fd):
                return UserError(_taken(path))
        finally:
            os.close(fd)
    return UserError(f"{path} is in the way and not ours to delete; move it away and export again")


def export_segment(
    info: SegmentInfo,
    folder: Path,
    check: Callable[[], None],
    hook: Hook = no_hook,
    now_ns: Callable[[], int] = time.time_ns,
) -> Exported:
    """Turn a closed segment into its file and mark it exported; the caller holds the export lock. One that is marked
    already, and whose file somebody took away, gets an equal one; its mark stays as it is.

    Raises UserError with one line where the file cannot be made, proven or put in place, FolderError where the folder
    takes no file, SegmentError where the segment cannot be read, and what ``check`` raises.
    """
    began = time.monotonic()
    if not info.rows:
        mark_exported(info.path, {"file": None, "rows": 0, "at_ns": now_ns(), "version": info.version})
        return Exported(info.id, info.path.name, None, "empty")
    target = folder / info.file
    if os.path.lexists(target):
        content = compare_existing(target, info, check)
        written = False
    else:
        content, written = _write_and_link(info, folder, target, check, hook)
    sync_folder(folder)
    hook("folder synced")
    seconds = time.monotonic() - began
    if info.state != "exported":
        mark_exported(
            info.path,
            {
                "file": info.file,
                "rows": content.rows,
                "digest": content.digest,
                "digests": content.digests,
                "bytes": content.bytes,
                "raw_bytes": content.raw_bytes,
                "at_ns": now_ns(),
                "part": info.name.part,
                "final": info.final,
                "first_seq": content.first_seq,
                "last_seq": content.last_seq,
                "counts": content.counts,
                **_minutes(target),
                "seconds": round(seconds, 3),
                "version": info.version,
            },
        )
        hook("marked")
    return Exported(
        info.id,
        info.path.name,
        info.file,
        "written" if written else "present",
        content.rows,
        content.bytes,
        content.raw_bytes,
        content.digest,
        seconds,
    )


def copy_open(info: SegmentInfo, folder: Path, check: Callable[[], None]) -> Exported:
    """Write an open segment's committed rows to another folder, proven likewise; the spool stays as it is.

    An earlier copy of the same period is replaced, anything else of that name refused.
    """
    began = time.monotonic()
    if not info.rows:
        return Exported(info.id, info.path.name, None, "empty")
    target = folder / info.file
    if os.path.lexists(target) and metadata(target).get("copy") != "true":
        raise UserError(f"{target} exists and is not an earlier copy; choose another folder for --copy-to")
    making = temporary(folder, info.file)
    if os.path.lexists(making):
        _remove_unfinished(making)
    try:
        with _making(making) as fd:
            content = _write_proven(info, making, fd, check, no_hook, copy=True)
            making.replace(target)
    except FileExistsError as error:
        raise _in_the_way(making) from error
    sync_folder(folder)
    return Exported(
        info.id,
        info.path.name,
        info.file,
        "copied",
        content.rows,
        content.bytes,
        content.raw_bytes,
        content.digest,
        time.monotonic() - began,
    )


def compare_existing(target: Path, info: SegmentInfo, check: Callable[[], None]) -> Content:
    """The content of a file that already has a segment's name. UserError, naming what differs, unless it is equal."""
    kept = "both are kept: move the file away and export again"
    try:
        content = read_content(target, check)
        said = metadata(target)
    except FileError as error:
        raise UserError(
            f"{target} exists but is not the export of segment {info.path.name} ({error}); {kept}"
        ) from error
    columns = differing(content.digests, info.digests)
    if columns:
        raise UserError(
            f"{target} exists and differs from segment {info.path.name} in column {', '.join(columns)}; {kept}"
        )
    if content.contradicted:
        raise UserError(f"{target} exists with the rows of segment {info.path.name}, and {_first(content)}; {kept}")
    if said.get("digest") != info.digest or said.get("id") != info.id:
        raise UserError(f"{target} exists with the rows but not the metadata of segment {info.path.name}; {kept}")
    return content


def _write_and_link(
    info: SegmentInfo, folder: Path, target: Path, check: Callable[[], None], hook: Hook
) -> tuple[Content, bool]:
    making = temporary(folder, info.file)
    try:
        with _making(making) as fd:
            content = _write_proven(info, making, fd, check, hook)
            try:
                # The file that was proven, whatever has its name by now. Without src_dir_fd Python calls link(2), which
                # does not follow.
                os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=fd, follow_symlinks=True)
            except FileExistsError:
                return compare_existing(target, info, check), False
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                    said = f"{folder}: its file system has no hard links; set export_dir elsewhere"
                    raise FolderError(said) from error
                raise
            hook("linked")
    except OSError as error:
        raise _explained(error, making) from error
    hook("unlinked")
    return content, True


def _write_proven(
    info: SegmentInfo, making: Path, fd: int, check: Callable[[], None], hook: Hook, *, copy: bool = False
) -> Content:
    """Write, sync, read back, compare; the content as read back. UserError where what was read by its name is not the
    open file."""
    recorded = {} if copy else _recorded(info)
    writer, checked = _write(info, fd, check, hook, recorded, copy=copy)
    spool = writer.digest.columns()
    if not copy and metadata_of(writer) != recorded:
        altered = ", ".join(differing(spool, info.digests)) or "count"
        raise UserError(
            f"segment {info.path.name} no longer holds what the collector recorded (column {altered} differs); "
            "it is not exported and stays in the spool"
        )
    content = read_content(making, check)
    wrong = differing(content.digests, spool)
    if wrong:
        detail = "; ".join(content.damaged.values())
        raise UserError(
            f"{info.file} read back differs from segment {info.path.name} in column {', '.join(wrong)}"
            f"{' (' + detail + ')' if detail else ''}; the file was discarded, the segment stays"
        )
    if content.contradicted:
        raise UserError(f"{info.file} read back: {_first(content)}; the file was discarded, the segment stays")
    if metadata(making) != {**_metadata(info, copy=copy), **metadata_of(writer), **checked}:
        raise UserError(f"{info.file}: its metadata read back differs from what was written; the file was discarded")
    hook("read back")
    if not _is_at(making, fd):
        raise UserError(_taken(making))
    return content


def _write(
    info: SegmentInfo, fd: int, check: Callable[[], None], hook: Hook, recorded: dict[str, str], *, copy: bool
) -> tuple[FileWriter, dict[str, str]]:
    """Write the file; also what its metadata says of its minutes."""
    minutes = FileMinutes(info.symbol, info.name.start_ns, info.name.part)
    with open(fd, "wb", closefd=False) as file:
        hook("created")
        writer = FileWriter(file, {**_metadata(info, copy=copy), **recorded})
        with contextlib.ExitStack() as undo:
            undo.callback(writer.abandon)
            for block in ahead(blocks(info)):
                check()
                writer.add(block)
                minutes.add(block)
                del block
                hook("block")
            counts = minutes.counts(info.edge_ns, final=info.final and not copy)
            checked = {MINUTES: to_text(counts)} if counts is not None else {}
            # An open segment has recorded nothing of its rows yet.
            writer.finish({**(metadata_of(writer) if copy else {}), **checked})
            file.flush()
            hook("written")
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(fd, 0o644 & ~_umask())
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read back comes from the disk
            hook("synced")
            undo.pop_all()
    return writer, checked


def _first(content: Content) -> str:
    """The first thing that a file says of its rows and is not so."""
    more = len(content.contradicted) - 1
    return content.contradicted[0] + (f" (and {more} more)" if more else "")


def _recorded(info: SegmentInfo) -> dict[str, str]:
    """What the collector recorded of a closed segment's rows, as file metadata."""
    size = _contract_size(info)
    return row_metadata(info.first_seq, info.last_seq, info.rows, info.bytes, info.counts, info.digests, size)


def _contract_size(info: SegmentInfo) -> str | None:
    """The contract's size by the newest ``c`` row of a closed segment; looked for where the segment does not say which
    that is."""
    if not info.counts.get(MT_NAMES[Mt.CONTRACT]):
        return None
    with SegmentReader(info.path) as reader:
        rows = reader.read(info.contract_seq - 1, 1) if info.contract_seq else reader.tail(Mt.CONTRACT, 1)
    return size_text(rows.m[0]) if rows.mt == [Mt.CONTRACT] else None


def _metadata(info: SegmentInfo, *, copy: bool = False) -> dict[str, str]:
    return {
        "symbol": info.symbol,
        "id": info.id,
        "period": info.name.period,
        "edge_ns": str(info.edge_ns),
        "part": str(info.name.part),
        "final": "true" if info.final and not copy else "false",
        "gaps": str(info.gaps),
        **({"account": json.dumps(info.account, separators=(",", ":"))} if info.account else {}),
        "spool_id": info.spool_id,
        "version": info.version,
        **({"copy": "true"} if copy else {}),
    }


def _minutes(target: Path) -> dict[str, dict[str, int]]:
    """What a proven file says of its minutes, for the segment's mark."""
    counts = from_text(metadata(target).get(MINUTES))
    return {MINUTES: counts._asdict()} if counts is not None else {}


def _explained(error: OSError, making: Path) -> UserError:
    folder = making.parent
    if error.errno in _FOLDER_ERRORS:
        why = {errno.ENOSPC: "is full", errno.EDQUOT: "is over its quota", errno.EROFS: "is read-only"}[
            error.errno or 0
        ]
        return FolderError(f"export folder {folder} {why}; segments stay in the spool and are exported by the next run")
    if isinstance(error, FileExistsError):
        return _in_the_way(making)
    return UserError(f"cannot write in export folder {folder}: {error.strerror or error}")
