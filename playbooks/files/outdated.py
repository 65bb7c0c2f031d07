"""Names what of this host does not do what lies on the disk: one JSON object on standard output, unit → ``why`` and
``verb``, that of ``systemctl`` which mends it once systemd has read its files again (empty: that is enough). Run as
root by the playbooks; Python's standard library only.

A play may end between writing a file and restarting what reads it. The next one finds the file as it should be and
nothing changed, so what runs is compared itself: what systemd has loaded with the files it was loaded from, the
recorder's processes by the digests that they report and by the environment and the secret they were given, and jobs,
ClickHouse, Tor and the journal by what was written after they were started.
"""

# ruff: noqa: T201 - what it prints is its answer
from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

CONFIG = "/etc/mexc-pipeline/config.toml"
CURRENT = "/opt/mexc-pipeline/current"
UNITS = "/etc/systemd/system"
REPORTING = ("mexc-collector@*.service", "mexc-store.service")
"""Their processes tell what they were started with."""
JOBS = ("mexc-export.service", "mexc-verify.service", "mexc-prune.service", "mexc-restarts.service")
"""Their processes end by themselves, some after an hour: what is written meanwhile is not for the next turn alone."""
TIMERS = ("mexc-export.timer", "mexc-verify.timer", "mexc-prune.timer", "mexc-restarts.timer")
METRICS = "mexc-metrics.service"
TARGETS = ("mexc.target", "mexc-collectors.target")
"""Nothing of them runs, and what belongs to them is judged by itself."""
READ_AT_START = {
    "clickhouse-server.service": (
        "/etc/clickhouse-server/config.d",
        "/etc/clickhouse-server/users.d",
        "/etc/clickhouse-server/tls",
        "/etc/systemd/system/clickhouse-server.service.d",
    ),
    "tor@*.service": ("/etc/tor/instances/{instance}", "/etc/systemd/system/tor@.service.d"),
    "systemd-journald.service": ("/etc/systemd/journald.conf.d/mexc-pipeline.conf",),
    **{unit: (CONFIG, CURRENT, f"{CURRENT}/.installed", f"{UNITS}/{unit}") for unit in (*JOBS, METRICS)},
}
"""Files and folders of files that a unit's process has read at its start."""
GIVEN = "/run/credentials"
"""Of each unit that has any, what systemd read for it when it started it."""
TICK_S = 0.02
"""What the kernel's start times are exact to, and a little."""
PROGRAM = "/usr/local/bin/mexc-pipeline"
WAIT_S = 120.0


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


def main() -> int:
    loaded = _loaded(*REPORTING, *TIMERS, *TARGETS, *READ_AT_START)
    # Where none of it runs there may be no configuration yet, and nothing that could answer.
    asked = any(_is_reporting(unit) and state["MainPID"] != "0" for unit, state in loaded.items())
    reports = _reports() if asked else {}
    found = {}
    for unit, state in loaded.items():
        judged = _judged(unit, state, reports)
        if judged:
            found[unit] = dict(zip(("why", "verb"), judged, strict=True))
    print(json.dumps(found, sort_keys=True))
    return 0


def _judged(unit: str, state: dict[str, str], reports: dict[str, tuple[str, str]]) -> tuple[str, str] | None:
    pid = int(state["MainPID"])
    # None: there is no process, or it has ended since, and what starts now starts with what is on the disk.
    started = _started(pid) if pid else None
    # A job is not waited for, it may take an hour. A target would take along what somebody has stopped.
    restart = "--no-block restart" if unit in JOBS else "restart"
    runs = state["ActiveState"] == "active" if unit.endswith(".timer") else started is not None
    if state["NeedDaemonReload"] == "yes":
        return "its unit file was changed and systemd has not read it", restart if runs else ""
    if started is None:
        return None
    older = [name for name, source in _credentials(unit) if _read(source) != _read(f"{GIVEN}/{unit}/{name}")]
    if _is_reporting(unit):
        if _environment(pid) != _configured(state["Environment"]):
            return "it was started from an older unit file", restart
        if older:
            return f"it was given an older {older[0]}", restart
        return reports.get(unit)
    if older:
        return f"it was given an older {older[0]}", restart
    instance = unit.partition("@")[2].removesuffix(".service")
    places = [p for name, those in READ_AT_START.items() if name.partition("*")[0] in unit for p in those]
    newer = [path for place in places for path in _newer(place.format(instance=instance), started)]
    return (f"{newer[0]} was written after it had started", restart) if newer else None


def _is_reporting(unit: str) -> bool:
    return unit.startswith(tuple(name.partition("*")[0] for name in REPORTING))


def _reports() -> dict[str, tuple[str, str]]:
    """What the recorder's own command says of its processes, by unit: why one is outdated, and what mends it."""
    said = answer(PROGRAM, "status", "--json", fails=True)  # with 1 where a part of it does not run
    try:
        status: dict[str, Any] = json.loads(said)
        units = {f"mexc-collector@{s['id']}.service": s.get("collector") or {} for s in status.get("symbols", ())}
        units["mexc-store.service"] = status.get("store") or {}
        # An older version's command, after a rollback, does not say what mends it.
        return {
            unit: (str(part["outdated"]), "reload" if part.get("mended_by") == "reload" else "restart")
            for unit, part in units.items()
            if part.get("outdated")
        }
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise UserError(
            f"{PROGRAM} status --json says what is no status: {said[:200].strip() or 'nothing'}; run it by hand"
        ) from None


def _loaded(*patterns: str) -> dict[str, dict[str, str]]:
    """The properties of the units that systemd has loaded, with or without a process: all that it may do by itself."""
    properties = "Id,LoadState,ActiveState,MainPID,NeedDaemonReload,Environment"
    command = ("systemctl", "show", "--property", properties, "--", *patterns)
    found = {}
    for block in filter(None, answer(*command).strip().split("\n\n")):
        said = dict(line.partition("=")[::2] for line in block.splitlines())
        state = {"Environment": "", "MainPID": "0", **said}
        is_whole = said.keys() >= {"Id", "LoadState", "ActiveState", "NeedDaemonReload"}
        if not is_whole or not state["MainPID"].isdecimal():
            raise UserError(f"{' '.join(command)} says what is no unit: {block[:200]}; run it by hand")
        if state["LoadState"] != "not-found":
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


def _credentials(unit: str) -> Iterator[tuple[str, str]]:
    """Name and source of what systemd reads for a unit that the role has written."""
    text = (_read(f"{UNITS}/{unit}") or b"").decode(errors="surrogateescape")
    for found in re.finditer(r"^LoadCredential=([^:\n]+):(.+)$", text, re.MULTILINE):
        yield found[1], found[2]


def _started(pid: int) -> float | None:
    """When a process was started, Unix seconds by the present clock; None where it has ended."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    ticks = int(stat.rpartition(b")")[2].split()[19])
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def _newer(place: str, than: float) -> Iterator[str]:
    """The files there that were written, or put there, after an instant in Unix seconds. What was copied may have kept
    an older time of its content, but not of its place; of a link its own counts too."""
    path = Path(place)
    for one in sorted(path.glob("**/*")) if path.is_dir() and not path.is_symlink() else [path]:
        try:
            said = one.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(said.st_mode) and max(said.st_mtime, said.st_ctime) > than + TICK_S:
            yield str(one)


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
