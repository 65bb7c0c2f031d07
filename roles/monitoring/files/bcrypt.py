"""Prints the bcrypt hash of the password on standard input, the same each time on one host: the salt is made of its
machine id. Python's own ``crypt`` is gone since 3.13; the C library's has stayed."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

MACHINE_ID = Path("/etc/machine-id")
COST = 10
_DIGITS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def salt(machine: bytes) -> str:
    """The 16 bytes that bcrypt takes, in its own base 64; not made of the password, of which they would tell."""
    number = int.from_bytes(hashlib.sha256(b"mexc-monitoring " + machine).digest()[:16], "big") << 4
    return "".join(_DIGITS[number >> shift & 63] for shift in range(126, -1, -6))


def hashed(password: bytes, machine: bytes) -> str:
    """The hash. UserError where the C library makes none."""
    try:
        crypt = ctypes.CDLL("libcrypt.so.1").crypt
    except OSError as error:
        raise UserError(f"no bcrypt here: {error}; install libcrypt1") from error
    crypt.restype = ctypes.c_char_p
    made: bytes | None = crypt(password, f"$2b${COST:02}${salt(machine)}".encode())
    if made is None or not made.startswith(b"$2b$"):
        raise UserError("this host's C library has no bcrypt; install libcrypt1 4.4 or newer")
    return made.decode()


def main() -> int:
    """Read and print."""
    if not (password := sys.stdin.buffer.read()):
        raise UserError("there is no password on standard input")
    print(hashed(password, MACHINE_ID.read_bytes()))  # noqa: T201 - its answer
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
