"""Waits until a Tor instance has a circuit: ``bootstrap_phase.py NAME SECONDS``.

A started unit is not yet a usable client: systemd is told "ready" before Tor knows a single relay. Speaks the control
protocol (control-spec, GETINFO) on the instance's unix socket with its cookie. Exit 0 with a circuit, 1 without.
"""

# ruff: noqa: T201 - what it prints is its answer
from __future__ import annotations

import re
import socket
import sys
import time
from pathlib import Path


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
    return "circuit-established=1" in text and bool(found) and found[1] == "100", found[0] if found else text.strip()


def main() -> int:
    """Ask once a second until the deadline."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    deadline = time.monotonic() + seconds
    said = "no answer"
    while True:
        try:
            done, said = phase(Path("/run/tor-instances") / name)
        except OSError as error:
            done, said = False, str(error)
        if done:
            return 0
        if time.monotonic() >= deadline:
            print(
                f"tor@{name} has no circuit after {seconds:.0f} s: {said}; see journalctl -u tor@{name}",
                file=sys.stderr,
            )
            return 1
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
