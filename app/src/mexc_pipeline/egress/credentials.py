"""The file with the name and the password that a SOCKS5 proxy asks for."""

from __future__ import annotations

from typing import NamedTuple

from mexc_pipeline import paths
from mexc_pipeline.errors import ConfigError
from mexc_pipeline.text import keep_secret

_KEY = "egress.credentials_file"
_MOST = 255
"""Bytes of a name or a password: each has one byte for its length (RFC 1929)."""


class Login(NamedTuple):
    """Name and password for a proxy, 1 to 255 bytes each as UTF-8."""

    name: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"  # it must not get into a log


def read_login(path: str) -> Login:
    """Name and password from a file: its first two lines, read anew for each connection. ConfigError where it is not
    that, or where others may use it."""
    lines = paths.read(_KEY, path, private=True, most=4 * _MOST).splitlines()
    if len(lines) != 2 or not all(1 <= len(line) <= _MOST for line in lines):
        raise ConfigError(f"{_KEY}: {path}: two lines are needed, name and password, 1 to {_MOST} bytes each")
    try:
        login = Login(*(line.decode() for line in lines))
    except UnicodeDecodeError:
        raise ConfigError(f"{_KEY}: {path}: not UTF-8") from None
    keep_secret(*login)  # the proxy, or whoever stands behind it, may say it again
    return login
