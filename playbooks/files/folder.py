"""Makes a folder that root may write into, or hand to another user, by name: ``PATH USER MODE``.

Root must not follow a link or write below a folder whose owner is somebody else: he could put anything in its place. So
each folder on the way is opened by itself, without following links, and must be root's and closed to other writers.
What is missing is made. Runs as root with the operating system's Python.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def make(path: Path, uid: int, gid: int, mode: int) -> None:
    """Make the folder with that owner and mode where it is missing; one that is there must be root's or that user's."""
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        raise UserError(f"{path}: name the whole path of a folder")
    with ExitStack() as held:
        fd = _held(held, os.open("/", _OPEN))
        for n, name in enumerate(path.parts[1:], 2):
            here = Path(*path.parts[:n])
            is_last = here == path
            fd = _held(held, _enter(fd, name, here, 0o700 if is_last else 0o755))
            found = os.fstat(fd)
            if is_last and found.st_uid in (0, uid):
                try:
                    os.fchown(fd, uid, gid)
                    os.fchmod(fd, mode)
                except OSError as error:  # names no file by itself
                    raise UserError(f"{here} cannot be given to {_name(uid)}: {error.strerror}") from error
                return
            is_open = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and not found.st_mode & stat.S_ISVTX
            if found.st_uid != 0 or is_open:
                owner = _name(found.st_uid)
                raise UserError(
                    f"{here} is {owner}'s"
                    + (" and others may write there" if is_open else "")
                    + "; root writes nothing "
                    "below a folder that somebody else can change: choose another one"
                )


def _held(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _enter(parent: int, name: str, here: Path, mode: int) -> int:
    """Open the folder of that name in ``parent``, made where it is missing."""
    try:
        with suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=parent)
        return os.open(name, _OPEN, dir_fd=parent)
    except OSError as error:
        is_other = error.errno in (errno.ELOOP, errno.ENOTDIR)
        why = "is a link or no folder" if is_other else "cannot be made or opened"
        raise UserError(f"{here} {why}: {error.strerror}") from error


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def main() -> int:
    """Make it."""
    path, user, mode = sys.argv[1:4]
    try:
        owner = pwd.getpwnam(user)
    except KeyError:
        raise UserError(f"{path} is to be {user}'s, and there is no such user here: run site.yml first") from None
    make(Path(path), owner.pw_uid, owner.pw_gid, int(mode, 8))
    return 0


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
