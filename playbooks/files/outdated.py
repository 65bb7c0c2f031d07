"""Names the services of this host that run with something else than what lies on the disk: one JSON object on standard
output, unit → why. Run as root by the playbooks; Python's standard library only.

A play may end between writing a file and restarting what reads it. The next one finds the file as it should be and
nothing changed, so what runs is compared itself: by the digests that the recorder's processes report, by the
environment and the secret they were given, and for ClickHouse and Tor by what was written after they were started.
"""

# ruff: noqa: T201 - what it prints is its answer
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

RECORDER = ("mexc-collector@*.service", "mexc-store.service")
OTHERS = {
    "clickhouse-server.service": (
        "/etc/clickhouse-server/config.d",
        "/etc/clickhouse-server/users.d",
        "/etc/systemd/system/clickhouse-server.service.d",
    ),
    "tor@*.service": ("/etc/tor/instances/{instance}", "/etc/systemd/system/tor@.service.d"),
}
PASSWORD = "/etc/mexc-pipeline/clickhouse-password"  # noqa: S105 - where it lies
GIVEN = "/run/credentials/mexc-store.service/clickhouse-password"
TICK_S = 0.02
"""What the kernel's start times are exact to, and a little."""
PROGRAM = "/usr/local/bin/mexc-pipeline"
WAIT_S = 120.0


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def main() -> int:
    running = _running(*RECORDER, *OTHERS)
    # Where none of it runs there may be no configuration yet, and nothing that could answer.
    reports = _reports() if any(unit.startswith("mexc-") for unit in running) else {}
    found = {}
    for unit, state in running.items():
        why = _why(unit, state, reports)
        if why:
            found[unit] = why
    print(json.dumps(found, sort_keys=True))
    return 0


def _why(unit: str, state: dict[str, str], reports: dict[str, str]) -> str | None:
    if state["NeedDaemonReload"] == "yes":
        return "its unit file was changed and systemd has not read it"
    pid = int(state["MainPID"])
    started = _started(pid)
    if started is None:
        return None  # it has ended since, and what starts now starts with what is on the disk
    if unit.startswith("mexc-"):
        if _environment(pid) != _configured(state["Environment"]):
            return "it was started from an older unit file"
        if unit == "mexc-store.service" and _read(PASSWORD) != _read(GIVEN):
            return "it was given an older password"
        return reports.get(unit)
    folders = next((paths for name, paths in OTHERS.items() if name.partition("*")[0] in unit), ())
    instance = unit.partition("@")[2].removesuffix(".service")
    newer = [path for folder in folders for path in _newer(folder.format(instance=instance), started)]
    return f"{newer[0]} was written after it had started" if newer else None


def _reports() -> dict[str, str]:
    """What the recorder's own command says of its processes, by unit."""
    said = answer(PROGRAM, "status", "--json", fails=True)  # with 1 where a part of it does not run
    try:
        status: dict[str, Any] = json.loads(said)
        units = {f"mexc-collector@{s['id']}.service": s.get("collector") or {} for s in status.get("symbols", ())}
        units["mexc-store.service"] = status.get("store") or {}
        return {unit: str(part["outdated"]) for unit, part in units.items() if part.get("outdated")}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise UserError(
            f"{PROGRAM} status --json says what is no status: {said[:200].strip() or 'nothing'}; run it by hand"
        ) from None


def _running(*patterns: str) -> dict[str, dict[str, str]]:
    """The properties of the units that have a process."""
    command = ("systemctl", "show", "--property", "Id,MainPID,NeedDaemonReload,Environment", "--", *patterns)
    found = {}
    for block in filter(None, answer(*command).strip().split("\n\n")):
        state = {"Environment": "", **dict(line.partition("=")[::2] for line in block.splitlines())}
        if not state.keys() >= {"Id", "MainPID", "NeedDaemonReload"} or not state["MainPID"].isdecimal():
            raise UserError(f"{' '.join(command)} says what is no unit: {block[:200]}; run it by hand")
        if int(state["MainPID"]):
            found[state["Id"]] = state
    return found


def _environment(pid: int) -> str:
    """The unit's mark as the process has it."""
    for entry in (_read(f"/proc/{pid}/environ") or b"").split(b"\0"):
        if entry.startswith(b"MEXC_PIPELINE_UNIT="):
            return entry.partition(b"=")[2].decode(errors="replace")
    return ""


def _configured(environment: str) -> str:
    """The unit's mark as systemd has read it from the disk."""
    for entry in environment.split():
        if entry.startswith("MEXC_PIPELINE_UNIT="):
            return entry.partition("=")[2]
    return ""


def _started(pid: int) -> float | None:
    """When a process was started, Unix seconds by the present clock; None where it has ended."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    ticks = int(stat.rpartition(b")")[2].split()[19])
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def _newer(folder: str, than: float) -> list[str]:
    return sorted(str(p) for p in Path(folder).glob("**/*") if p.is_file() and p.stat().st_mtime > than + TICK_S)


def _read(path: str) -> bytes | None:
    """None where nothing has that name, or the process has ended."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None


def answer(*command: str, fails: bool = False) -> str:
    """What a command prints. UserError where it cannot be run or does not end, or (but with ``fails``) fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{' '.join(command)} did not end within {WAIT_S:g} s; run it by hand to see why") from None
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run: {error.strerror}; PATH is {os.environ.get('PATH')}") from error
    if done.returncode != 0 and not fails:
        said = done.stderr.strip() or "it said nothing"
        raise UserError(f"{' '.join(command)} ended with {done.returncode}: {said}; run it by hand to see why")
    return done.stdout


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
