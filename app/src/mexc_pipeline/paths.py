"""Files and folders that the configuration names: how they are written, whether they are there and of use."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import ssl
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.files import own

MOST = 1 << 20
"""Bytes of a file that is read whole: certificates, passwords."""
OWN_FOLDERS = ("spool", "control", "store", "export", "clickhouse")
"""What the recorder keeps in ``data_dir``."""


def expand(key: str, text: str) -> str:
    """The absolute path that ``text`` means, ``~`` and ``~user`` replaced; empty stays empty. ConfigError naming
    ``key`` where it can be none."""
    if not text:
        return ""
    odd = next((c for c in text if ord(c) < 32 or ord(c) == 127), None)
    if odd is not None:
        raise ConfigError(f"{key}: a path without control characters is needed, there is {odd!r} in it")
    try:
        path = Path(text).expanduser().absolute()
        os.fsencode(path).decode()
    except RuntimeError as error:
        raise ConfigError(f"{key}: {text!r}: no such home folder") from error
    except OSError as error:  # the folder we are in is gone
        raise ConfigError(f"{key}: {text!r} is relative to a folder that cannot be read: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{key}: {text!r} cannot be written in this locale's encoding ({sys.getfilesystemencoding()}); "
            "set PYTHONUTF8=1, or a locale such as C.UTF-8"
        ) from error
    except UnicodeError as error:
        raise ConfigError(f"{key}: the path is not UTF-8") from error
    if any(len(os.fsencode(part)) > 255 for part in path.parts) or len(os.fsencode(path)) > 3500:
        raise ConfigError(f"{key}: the path is too long for a file system")
    return str(path)


def check_apart(data_dir: Path, folder: Path, key: str = "export_dir") -> None:
    """Raise ConfigError where the files that ``key`` names a folder for and the recording would lie among each other,
    by whatever name or link."""
    data, files = Path(os.path.realpath(data_dir)), Path(os.path.realpath(folder))
    if same(data, files):
        raise ConfigError(f"{key}: {folder} is data_dir itself; choose another folder, such as one inside it")
    if data.is_relative_to(files):
        raise ConfigError(f"data_dir: {data_dir} lies in {key}, which is for exported files only; choose another")
    if files.is_relative_to(data):
        first = files.relative_to(data).parts[0]
        if first.partition(".")[0] in OWN_FOLDERS:
            raise ConfigError(f"{key}: {folder} lies in {first}, which the recorder keeps for itself")


def same(one: Path, other: Path) -> bool:
    """Whether two names are one file or folder, by whatever link or mount, or would be once it is there."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(one) == os.path.realpath(other)


def not_a_file(path: Path) -> str:
    """What stands in a file's place that is none, such as a folder: opening it could wait for ever, or do anything.
    Empty for a file, and where nothing is there."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""  # whoever opens it says why
    if stat.S_ISREG(mode):
        return ""
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
    return next((f"a {kind}" for is_one, kind in kinds if is_one(mode)), "a device")


def leads_nowhere(path: Path) -> bool:
    """Whether a link to nothing has that name; false where that cannot be told."""
    try:
        return os.path.lexists(path) and not path.exists()
    except OSError:
        return False


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make a folder of the recorder's own and what is missing above it: its group may look, others may not;
    ``private``: nobody else may look into the folder itself. Whoever may read a file may lock it too, and a lock keeps
    the writer from writing. Each entry is durable: a segment must not vanish with its folder when the power fails.
    OSError where it cannot be made."""
    for missing in reversed([one for one in (path, *path.parents) if not one.exists()]):
        missing.mkdir(mode=0o700 if private and missing == path else 0o750, exist_ok=True)
        sync_folder(missing.parent)


class NotAFileError(OSError):
    """Something other than a file stands in a file's place."""


def regular(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """An ``opener`` for :func:`open` of a name that anything may stand under: a FIFO is not waited for, and what is no
    file is refused. NotAFileError, or the OSError of opening."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if instead := not_a_file(Path(path)):
            raise NotAFileError(error.errno, f"is {instead}", os.fspath(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAFileError(errno.EINVAL, f"is {not_a_file(Path(path))}", os.fspath(path))
    return fd


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def append_line(path: Path, line: bytes, mode: int = 0o666, most: int | None = None) -> None:
    """Add a line to a file that only ever grows; durable when this returns. Behind half a line, which a crash or a full
    disk has left, it begins a new one. OSError where it is not written; EFBIG where the file would be longer than
    ``most`` bytes."""
    fd = own(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
    try:
        size = os.fstat(fd).st_size
        rest = memoryview((b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b"") + line + b"\n")
        if most is not None and size + len(rest) > most:
            raise OSError(errno.EFBIG, f"it would be longer than the {most} bytes that are read of it", str(path))
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(path.parent)


def not_allowed(path: Path, *, write: bool = False) -> str:
    """What keeps this process from using a file or folder: whose it is, and what to do; empty where nothing does, or
    where nothing is there. Asks without opening: closing a file lets go of the locks that SQLite holds on it."""
    for above in reversed(path.parents):
        if above.is_dir() and not os.access(above, os.X_OK):
            return _whose(above, "look into")
    try:
        mode = path.stat().st_mode
        writable = not is_readonly(path)
    except OSError:
        return ""  # whoever opens it says why
    into = os.X_OK if stat.S_ISDIR(mode) else 0
    if not os.access(path, os.R_OK | into):
        return _whose(path, "read")
    if write and writable and not os.access(path, os.W_OK):
        return _whose(path, "write to")
    return ""


def identity(path: Path, *, of_link: bool = False) -> tuple[int, int] | None:
    """Device and inode of what has that name (``of_link``: also where it is a link), None where nothing has. OSError
    where it cannot be looked at, which says nothing of what it is."""
    try:
        found = path.lstat() if of_link else path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def is_readonly(path: Path) -> bool:
    """Whether the file system that holds a path takes no writes. OSError where nothing is there."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _whose(path: Path, do: str) -> str:
    found, me = path.stat(), os.geteuid()
    if any(one.stat().st_uid == me for one in (path, *path.parents)):
        todo = f"give it back (chown {_user(me)}, chmod u+rwX); it is used again by itself"
    else:  # nothing of ours that another left there: it is the recorder's, and we are somebody else
        todo = f"run this as {as_user(found.st_uid)}"
    return f"{path} belongs to {_user(found.st_uid)} (mode {stat.S_IMODE(found.st_mode):04o}) and {_user(me)} " + (
        f"may not {do} it: {todo}"
    )


def owner(path: Path) -> int:
    """Whose a file or folder is; where it cannot be looked at, whose what holds it is."""
    for one in (path, *path.parents):
        with contextlib.suppress(OSError):
            return one.stat().st_uid
    return 0


def as_user(uid: int) -> str:
    """A user, and how a command is run as him."""
    try:
        name = shown = pwd.getpwuid(uid).pw_name
    except KeyError:
        name, shown = f"'#{uid}'", f"user {uid}"
    return f"{shown} (sudo -u {name} …)"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def not_a_folder(path: Path) -> str:
    """What is wrong where something other than a folder stands in a folder's place; empty for a folder and nothing."""
    return f"{path} is not a folder: move it away" if os.path.lexists(path) and not path.is_dir() else ""


def read(key: str, path: str, *, private: bool = False, most: int = MOST) -> bytes:
    """The content of a file that ``key`` names; ``private``: only its owner and group may use it. ConfigError, without
    a word of the content, where it is missing, not readable, no file, or larger than ``most``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{key}: {path}: not a file")
        if private and mode & stat.S_IRWXO:
            raise ConfigError(f"{key}: {path}: others may use it; chmod 600 it")
        parts, size = [], 0
        while piece := os.read(fd, most + 1 - size):
            parts.append(piece)
            size += len(piece)
            if size > most:
                raise ConfigError(f"{key}: {path}: larger than {most} bytes")
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from error
    finally:
        os.close(fd)
    return b"".join(parts)


def check_certificates(key: str, path: str) -> None:
    """Raise ConfigError where the file does not hold a certificate authority's certificates (PEM)."""
    try:
        text = read(key, path).decode("ascii", errors="replace")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{key}: {path}: no certificate (PEM) in it") from error


def not_mounted(required: bool | tuple[str, ...], folders: tuple[Path, ...], device: Callable[[Path], int]) -> str:
    """What is not mounted of what must be, empty where all is. ``required``: mount points, or True for whatever holds
    the folders; ``device`` gives the file system of a path.

    A mount point is known by its file system: a folder of another than its parent's. In a unit's own namespace folders
    are bound onto themselves, so a list of mounts would not tell.
    """
    if required is True:
        root = device(Path("/"))
        missing = [folder for folder in folders if device(folder) == root]
    elif required:
        points = [Path(point) for point in required]
        missing = [point for point in points if device(point) == device(point.parent)]
    else:
        missing = []
    return ", ".join(map(str, missing))


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that is there. OSError where that cannot be told."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def device(path: Path) -> int:
    """The file system that holds a path or would hold it. OSError where that cannot be told."""
    while True:
        try:
            return path.stat().st_dev
        except FileNotFoundError:
            if path == path.parent:
                raise
            path = path.parent
