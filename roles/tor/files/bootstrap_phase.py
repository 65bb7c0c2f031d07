"""Waits until a Tor instance has a circuit: ``bootstrap_phase.py NAME SECONDS``.

A started unit is not yet a usable client: systemd is told "ready" before Tor knows a single relay. Speaks the control
protocol (control-spec, GETINFO) on the instance's unix socket with its cookie. Exit 0 with a circuit, 1 without.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

INSTANCES = Path("/run/tor-instances")


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def phase(folder: Path) -> tuple[bool, str]:
    """Whether a circuit is established, and what Tor says of its progress."""
    cookie = (folder / "control.authcookie").read_bytes().hex()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(5)
        control.connect(str(folder / "control"))
        control.sendall(
            f"AUTHENTICATE {cookie}\r\nGETINFO status/bootstrap-phase status/circuit-established\r\nQUIT\r\n".encode()
        )
        answer = b""
        while chunk := control.recv(4096):
            answer += chunk
    text = answer.decode("ascii", "replace")
    found = re.search(r"PROGRESS=(\d+).*", text)
    return "circuit-established=1" in text and bool(found) and found[1] == "100", (
        found[0] if found else text
    ).strip() or "no answer"


def main() -> int:
    """Ask once a second until the deadline."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    deadline = time.monotonic() + seconds
    said = "no answer"
    while True:
        try:
            done, said = phase(INSTANCES / name)
        except OSError as error:
            done, said = False, str(error)
        if done:
            return 0
        if time.monotonic() >= deadline:
            raise UserError(f"tor@{name} has no circuit after {seconds:.0f} s: {said}; see journalctl -u tor@{name}")
        time.sleep(1)


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
