"""The file with the name and the password that a SOCKS5 proxy asks for."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

_MOST = 255
"""Bytes of a name or a password: each has one byte for its length (RFC 1929)."""


class CredentialsError(Exception):
    """The file is not what it should be; the message says why and holds no secret."""


class Login(NamedTuple):
    """Name and password for a proxy, 1 to 255 bytes each as UTF-8."""

    name: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"  # it must not get into a log


def read_login(path: str) -> Login:
    """Name and password from a file: its first two lines, read anew for each connection. CredentialsError where it is
    not that, or where others may read it."""
    try:
        fd = os.open(Path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CredentialsError(f"egress.credentials_file {path}: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise CredentialsError(f"egress.credentials_file {path}: not a file")
        if mode & stat.S_IRWXO:
            raise CredentialsError(f"egress.credentials_file {path}: others may use it; chmod 600 it")
        lines = os.read(fd, 4 * _MOST).splitlines()
    finally:
        os.close(fd)
    if len(lines) != 2 or not all(1 <= len(line) <= _MOST for line in lines):
        raise CredentialsError(
            f"egress.credentials_file {path}: two lines are needed, the name and the password, 1 to {_MOST} bytes each"
        )
    try:
        return Login(*(line.decode() for line in lines))
    except UnicodeDecodeError:
        raise CredentialsError(f"egress.credentials_file {path}: not UTF-8") from None
